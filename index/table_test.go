package index

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestTable compares with a map, with hashes that spread, that crowd in one
// part, and that are all the same.
func TestTable(t *testing.T) {
	for name, mask := range map[string]uint32{"spread": 0xffffffff, "few": 0xf000000f, "upper bits": 0xfffc0000, "lower bits": 0x3ff, "one": 0} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(71, uint64(mask)))
			tab := newTable()
			want := make(map[uint32][]rowRef)
			var all []uint64
			n := 6000
			if mask == 0 {
				n = 2500
			}
			check := func() {
				entries := 0
				for hash, refs := range want {
					var got []rowRef
					found := tab.find(hash)
					for ref, ok := found.next(); ok; ref, ok = found.next() {
						got = append(got, ref)
					}
					slices.Sort(got)
					slices.Sort(refs)
					if !slices.Equal(got, refs) {
						t.Fatalf("hash %x: %v, want %v", hash, got, refs)
					}
					entries += len(refs)
				}
				if got := tab.entries(); got != entries {
					t.Fatalf("%d entries, want %d", got, entries)
				}
			}
			for i := range n {
				hash := r.Uint32() & mask
				tab.add(hash, rowRef(i))
				want[hash] = append(want[hash], rowRef(i))
				all = append(all, uint64(hash)<<32|uint64(i))
				if i%3 == 0 && len(all) > 0 {
					j := r.IntN(len(all))
					hash, ref := uint32(all[j]>>32), rowRef(all[j])
					all = slices.Delete(all, j, j+1)
					if !tab.remove(hash, ref) || tab.remove(hash, ref) {
						t.Fatal("an entry is not removed once")
					}
					k := slices.Index(want[hash], ref)
					want[hash] = slices.Delete(want[hash], k, k+1)
				}
				if i%1000 == 0 {
					check()
				}
			}
			check()
			if name == "spread" {
				if per := float64(tab.bytes()) / float64(tab.entries()); per > 20 {
					t.Errorf("%.1f bytes an entry", per)
				}
			}
			full := tab.bytes()
			few := len(all) / 20
			for _, e := range all[few:] {
				tab.remove(uint32(e>>32), rowRef(e))
			}
			clear(want)
			for _, e := range all[:few] {
				want[uint32(e>>32)] = append(want[uint32(e>>32)], rowRef(e))
			}
			check()
			for _, e := range all[:few] {
				tab.remove(uint32(e>>32), rowRef(e))
			}
			if tab.bytes() > full/4 {
				t.Errorf("%d bytes with all entries, %d without any", full, tab.bytes())
			}
			if tab.entries() != 0 {
				t.Error("entries are left")
			}
			if found := tab.find(1); found.slots == nil {
				t.Error("the table let go of its parts by itself")
			}
			tab.empty()
			if found := tab.find(1); tab.bytes() != 0 || tab.remove(1, 1) || found.slots != nil {
				t.Error("an emptied table is not empty")
			}
		})
	}
}
