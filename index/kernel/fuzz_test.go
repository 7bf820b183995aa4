package kernel

import (
	"slices"
	"testing"
)

// FuzzDot holds all variants against plain arithmetic, on rows and probes cut
// from the fuzzer's bytes.
func FuzzDot(f *testing.F) {
	f.Add(uint16(3), uint8(2), []byte{1, 2, 3, 128, 127, 255, 0, 7, 9})
	f.Add(uint16(64), uint8(1), make([]byte, 64*18))
	f.Add(uint16(65), uint8(5), make([]byte, 65*13))
	f.Fuzz(func(t *testing.T, length uint16, probes uint8, data []byte) {
		dim, p := 1+int(length)%1200, 1+int(probes)%MaxReach
		if len(data) < p*dim {
			return
		}
		ps := int8s(data[:p*dim])
		rows := int8s(data[p*dim:])
		n := min(len(rows)/dim, 64)
		rows = rows[:n*dim]
		var prepared [2]PreparedProbe
		for i, b := range []Bits{OneBit, TwoBits} {
			if err := prepared[i].Prepare(ps[:dim], b); err != nil {
				t.Fatal(err)
			}
		}
		var set ProbeSet
		set.Prepare(ps, dim)
		for v := reference; v < variants; v++ {
			if len(lacking(v)) > 0 {
				continue
			}
			s := newSums(n, 0)
			dotRows(v, s.dst(), ps[:dim], rows)
			s.check(t, v.String()+" rows", func(i int) int64 { return plainDot(ps[:dim], rows[i*dim:][:dim]) })
			if n > 0 {
				bars, norms := slices.Repeat([]float32{float32(probes) * 100}, p), slices.Repeat([]int32{int32(length) + 1}, n)
				walk(t, v.String()+" set", v, &set, ps, rows, norms, bars, 0)
				s = newSums(p*n, 0)
				dotTile(v, s.dst(), ps, rows, dim)
				s.check(t, v.String()+" tile", func(i int) int64 { return plainDot(ps[i/n*dim:][:dim], rows[i%n*dim:][:dim]) })
			}
			for i := range prepared {
				q := &prepared[i]
				m := min(len(data)/q.stride, 64)
				s = newSums(m, 0)
				packedRows(v, s.dst(), q, data[:m*q.stride])
				s.check(t, v.String()+" packed", func(i int) int64 {
					return plainPacked(ps[:dim], data[i*q.stride:][:q.stride], q.bits)
				})
			}
		}
	})
}
