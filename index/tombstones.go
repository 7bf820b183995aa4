package index

import "math/bits"

// tombstones is a bitmap of dead rows. Rows beyond its end are alive.
type tombstones []uint64

func (t tombstones) has(row int) bool {
	return row/64 < len(t) && t[row/64]>>(row%64)&1 != 0
}

// next returns the first row in from..end-1 whose deadness is as asked, or end.
func (t tombstones) next(from, end int, dead bool) int {
	for from < end {
		if from/64 >= len(t) { // all alive from here
			if dead {
				return end
			}
			return from
		}
		word := t[from/64]
		if !dead {
			word = ^word
		}
		if word >>= from % 64; word != 0 {
			return min(from+bits.TrailingZeros64(word), end)
		}
		from = (from/64 + 1) * 64
	}
	return end
}

// copied returns a copy that is long enough for rows rows.
func (t tombstones) copied(rows int) tombstones {
	out := make(tombstones, max((rows+63)/64, len(t)))
	copy(out, t)
	return out
}

func (t tombstones) count() int {
	n := 0
	for _, w := range t {
		n += bits.OnesCount64(w)
	}
	return n
}
