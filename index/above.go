package index

import (
	"math"
	"unsafe"
)

// above returns the first index at or behind from whose value is at least cut,
// or len(dots). |dots| must be below 2^28, which sums of int8 products of
// code.MaxDim values are.
//
// Nearly all values are below, so 16 at a time are asked whether one is not:
// two to a word, -cut added to both, and the signs gathered. The lower sum may
// carry into the upper, which then is 1 too large: that asks for a second look
// and never hides a value. BenchmarkAbove, on a machine that others used: 0.30 ns
// a value, a loop of comparisons 1.0; a dot product of 128 values in a set of
// probes takes 0.3.
func above(dots []int32, from int, cut int32) int {
	if cut == math.MinInt32 {
		return from
	}
	const signs = 1<<63 | 1<<31
	cut = cutWithin(cut)
	minus := uint64(uint32(-cut))
	minus |= minus << 32
	for from+16 <= len(dots) {
		w := (*[8]uint64)(unsafe.Pointer(&dots[from]))
		a := (w[0] + minus) & (w[1] + minus) & (w[2] + minus) & (w[3] + minus)
		b := (w[4] + minus) & (w[5] + minus) & (w[6] + minus) & (w[7] + minus)
		if a&b&signs != signs {
			for i, d := range dots[from : from+16] {
				if d >= cut {
					return from + i
				}
			}
		}
		from += 16
	}
	for ; from < len(dots); from++ {
		if dots[from] >= cut {
			return from
		}
	}
	return from
}

// cutWithin keeps a cut where above can compare with it; nothing lies beyond.
func cutWithin(cut int32) int32 { return min(max(cut, -1<<28), 1<<28) }
