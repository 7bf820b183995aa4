package kernel

import (
	"math"
	"unsafe"
)

const (
	// MaxReach is the most probes of a set that Reach takes.
	MaxReach = 64
	// ReachRows is the most rows that Reach hands out at once.
	ReachRows = 12
	// ReachSlack is the relative error that Reach may compare with: the estimate
	// of a reciprocal square root by AVX-512 is off by 2^-14 at most.
	ReachSlack = 1.0 / (1 << 13)
)

// Reach compares the probes of the set, at most MaxReach, with rows until one
// reaches its bar, and hands out the few rows of which it is one: rows
// from..from+n-1, at most ReachRows, with the product of row from+r and probe p
// in dst[r*P+p], P being set.Len(). n is 0 when none of the rows does; who goes
// on does so behind these.
//
// A product d with a row of that norm squared reaches the bar of its probe when
// d/sqrt(norms) >= bars. All with d/sqrt(norms)*(1-ReachSlack) >= bars are
// handed out, and among the rows beside them many that do not reach: nearly no
// product reaches its bar, and the others are never written to memory. Bars of
// -Inf are reached by all.
//
// rows are len(norms) rows of set.Dim() values, norms at least 1, else a row
// may or may not be handed out. dst must have ReachRows*P places, bars P.
// Products must be below 2^28 by magnitude, as those of up to 16,384 values are.
// Callers check all that; shorter slices panic like any slice. It keeps no slice.
func (s *ProbeSet) Reach(dst []int32, rows []int8, norms []int32, bars []float32) (from, n int) {
	if s.n == 0 {
		return len(norms), 0
	}
	return reach(current(), dst[:ReachRows*s.n], s, rows[:len(norms)*s.dim], norms, bars[:s.n])
}

// reachByTiles is Reach where DotTile is all there is: its probes are the rows
// here.
func reachByTiles(v variant, dst []int32, set *ProbeSet, rows []int8, norms []int32, bars []float32) (from, n int) {
	if set.dim == 0 {
		clear(dst)
		return 0, min(ReachRows, len(norms))
	}
	var all [MaxReach]int32
	minus := all[:set.n]
	for from < len(norms) {
		n := min(ReachRows, len(norms)-from)
		sums := dst[:n*set.n]
		dotTile(v, sums, rows[from*set.dim:(from+n)*set.dim], set.probes, set.dim)
		least := int32(math.MaxInt32)
		for _, m := range norms[from : from+n] {
			least = min(least, m)
		}
		root := math.Sqrt(float64(max(least, 0)))
		for p, bar := range bars {
			// A bar below 0 is reached where the norm is largest, so it counts as
			// reached by all.
			cut := -float64(1 << 28)
			if bar > 0 {
				cut = math.Min(math.Floor(float64(bar)*root), 1<<28)
			}
			minus[p] = -int32(cut)
		}
		for ; len(sums) > 0; sums = sums[set.n:] {
			if anyReaches(sums[:set.n], minus) {
				return from, n
			}
		}
		from += n
	}
	return from, 0
}

// anyReaches reports whether dots[i]+minus[i] is not negative for some i. It
// asks sixteen at a time: two to a word, and the signs gathered. The lower sum
// may carry into the upper, which then is 1 too large: that gives a row out that
// need not be, and never hides one.
func anyReaches(dots, minus []int32) bool {
	const signs = 1<<63 | 1<<31
	for ; len(dots) >= 16; dots, minus = dots[16:], minus[16:] {
		w, m := (*[8]uint64)(unsafe.Pointer(&dots[0])), (*[8]uint64)(unsafe.Pointer(&minus[0]))
		a := (w[0] + m[0]) & (w[1] + m[1]) & (w[2] + m[2]) & (w[3] + m[3])
		b := (w[4] + m[4]) & (w[5] + m[5]) & (w[6] + m[6]) & (w[7] + m[7])
		if a&b&signs != signs {
			return true
		}
	}
	for i, d := range dots {
		if d+minus[i] >= 0 {
			return true
		}
	}
	return false
}
