package index

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestAbove compares with loops, at all lengths and offsets, with values that
// straddle the cut and lie at the ends of what is allowed.
func TestAbove(t *testing.T) {
	r := rand.New(rand.NewPCG(61, 1))
	for range 20_000 {
		dots := make([]int32, r.IntN(100))
		cut := r.Int32N(2000) - 1000
		switch r.IntN(10) {
		case 0:
			cut = math.MinInt32
		case 1:
			cut = math.MaxInt32
		case 2:
			cut = 1 << 26
		case 3:
			cut = -1 << 26
		}
		low := r.IntN(20) > 0
		for i := range dots {
			switch {
			case low && r.IntN(30) > 0:
				dots[i] = max(min(cut, 1<<26), -1<<26) - 1 - r.Int32N(3)
			case r.IntN(10) == 0:
				dots[i] = (1 << 26) * (2*r.Int32N(2) - 1)
			default:
				dots[i] = max(min(cut, 1<<26), -1<<26) + r.Int32N(5) - 2
			}
		}
		from := r.IntN(len(dots) + 1)
		want := from
		for want < len(dots) && dots[want] < cut {
			want++
		}
		if got := above(dots, from, cut); got != want {
			t.Fatalf("above(%v, %d, %d) = %d, want %d", dots, from, cut, got, want)
		}
	}
}

func BenchmarkAbove(b *testing.B) {
	dots := make([]int32, blockRows)
	b.Run("loop", func(b *testing.B) {
		b.SetBytes(4 * blockRows)
		passed := 0
		for b.Loop() {
			for _, d := range dots {
				if d >= int32(100+passed) {
					passed++
				}
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		b.SetBytes(4 * blockRows)
		for b.Loop() {
			above(dots, 0, 100)
		}
	})
}
