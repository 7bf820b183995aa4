package index

import (
	"hash/maphash"

	"github.com/menshen-io/menshen/index/scope"
)

// rowRef says where a template stands: the slot of its shard, 20 bits, and the
// row, 12 bits.
type rowRef uint32

func refTo(slot, row int) rowRef { return rowRef(slot<<rowBits | row) }
func (r rowRef) slot() int       { return int(r >> rowBits) }
func (r rowRef) row() int        { return int(r & (shardRows - 1)) }

// table finds the rows of a subject by a hash of its id: a multimap, one entry
// a template. It holds neither ids nor anything else of the rows: who looks
// something up compares the ids of the rows that it names. An entry takes 8
// bytes, 9 to 18 with the room between them; a map from ids to structs with
// slices of rows took 191 bytes a template.
//
// It is cut into parts by the first bits of the hash (extendible hashing), each
// of at most partSlots slots with linear probing. So growing moves some hundred
// entries at a time, at ten million templates too, and those who wait for the
// gallery's lock do not notice. A part that has lost most of its entries shrinks.
type table struct {
	seed  maphash.Seed
	depth int     // bits of the hash that choose the part
	parts []*part // 1<<depth; a part with fewer bits stands there several times
}

type part struct {
	depth int
	used  int
	slots []uint64 // a power of two; hash<<32 | rowRef+1, or 0
}

const (
	partSlots = 1024
	leastPart = 8
	// maxDepth leaves the bits that a part uses to tell its entries apart, and
	// bounds the list of parts at 32 MB; a hundred million templates need 18.
	maxDepth = 22
)

func newTable() table { return table{seed: maphash.MakeSeed()} }

func (t *table) hash(id scope.SubjectID) uint32 {
	return uint32(maphash.String(t.seed, string(id)) >> 32)
}

func (t *table) part(hash uint32) *part {
	if len(t.parts) == 0 {
		return nil
	}
	return t.parts[hash>>(32-t.depth)&(1<<t.depth-1)]
}

// matches walks the entries of one hash.
type matches struct {
	slots []uint64
	hash  uint32
	at    uint32
}

func (t *table) find(hash uint32) matches {
	if p := t.part(hash); p != nil {
		return matches{p.slots, hash, hash}
	}
	return matches{}
}

func (m *matches) next() (rowRef, bool) {
	if len(m.slots) == 0 {
		return 0, false
	}
	for {
		e := m.slots[m.at&uint32(len(m.slots)-1)]
		if e == 0 {
			return 0, false
		}
		m.at++
		if uint32(e>>32) == m.hash {
			return rowRef(uint32(e) - 1), true
		}
	}
}

func (t *table) add(hash uint32, ref rowRef) {
	if len(t.parts) == 0 {
		t.parts = []*part{{slots: make([]uint64, leastPart)}}
	}
	p := t.part(hash)
	for p.used >= len(p.slots)/8*7 {
		t.grow(hash, p)
		p = t.part(hash)
	}
	p.put(uint64(hash)<<32 | uint64(ref+1))
}

// grow makes room in the part that a hash falls into: twice the slots, or, when
// it is of full size, two parts. A part that one more bit does not divide (a
// subject with a thousand templates) gets more slots after all.
func (t *table) grow(hash uint32, p *part) {
	if len(p.slots) >= partSlots && p.depth < maxDepth {
		bit := uint64(1) << (63 - p.depth)
		halves := [2]*part{{depth: p.depth + 1, slots: make([]uint64, partSlots)}, {depth: p.depth + 1, slots: make([]uint64, partSlots)}}
		ones := 0
		for _, e := range p.slots {
			if e&bit != 0 {
				ones++
			}
		}
		if ones > 0 && ones < p.used && max(ones, p.used-ones) < partSlots/8*7 {
			for _, e := range p.slots {
				if e != 0 {
					halves[min(e&bit, 1)].put(e)
				}
			}
			t.replace(hash, p, halves)
			return
		}
	}
	p.resize(2 * len(p.slots))
}

func (p *part) resize(slots int) {
	old := p.slots
	p.slots, p.used = make([]uint64, slots), 0
	for _, e := range old {
		if e != 0 {
			p.put(e)
		}
	}
}

// replace puts the halves where the part stands.
func (t *table) replace(hash uint32, p *part, halves [2]*part) {
	if p.depth == t.depth {
		double := make([]*part, 2*len(t.parts))
		for i, q := range t.parts {
			double[2*i], double[2*i+1] = q, q
		}
		t.parts = double
		t.depth++
	}
	same := 1 << (t.depth - p.depth) // neighbours that are p
	first := int(hash>>(32-t.depth)) &^ (same - 1)
	for i := range same {
		t.parts[first+i] = halves[2*i/same]
	}
}

func (p *part) put(e uint64) {
	mask := uint64(len(p.slots) - 1)
	at := e >> 32 & mask
	for p.slots[at] != 0 {
		at = (at + 1) & mask
	}
	p.slots[at] = e
	p.used++
}

// remove takes an entry out and reports whether it was there. Entries behind it
// that stand away from their place move up, so that no gap divides them from it.
func (t *table) remove(hash uint32, ref rowRef) bool {
	p := t.part(hash)
	if p == nil {
		return false
	}
	want, mask := uint64(hash)<<32|uint64(ref+1), uint64(len(p.slots)-1)
	at := uint64(hash) & mask
	for p.slots[at] != want {
		if p.slots[at] == 0 {
			return false
		}
		at = (at + 1) & mask
	}
	for next := (at + 1) & mask; p.slots[next] != 0; next = (next + 1) & mask {
		// It may move when its place is not between the gap and where it stands.
		if place := p.slots[next] >> 32 & mask; (next-place)&mask >= (next-at)&mask {
			p.slots[at] = p.slots[next]
			at = next
		}
	}
	p.slots[at] = 0
	p.used--
	if n := len(p.slots); p.used < n/8 && n/4 >= leastPart {
		p.resize(n / 4) // most have gone: give the memory back
	}
	return true
}

// empty gives the memory back; the last entry is gone.
func (t *table) empty() { t.parts, t.depth = nil, 0 }

// entries counts; bytes is the size.
func (t *table) entries() (n int) {
	t.each(func(p *part) { n += p.used })
	return n
}

func (t *table) bytes() (n int) {
	t.each(func(p *part) { n += 8*len(p.slots) + 40 })
	return n + 8*len(t.parts)
}

// each calls fn for every part once.
func (t *table) each(fn func(*part)) {
	for i := 0; i < len(t.parts); i += 1 << (t.depth - t.parts[i].depth) {
		fn(t.parts[i])
	}
}
