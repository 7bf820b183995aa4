package kernel

import (
	"math/rand/v2"
	"testing"
)

// TestReach compares every variant with a loop, at all lengths and offsets,
// with sums that straddle zero and lie at the ends of what is allowed.
func TestReach(t *testing.T) {
	for v := reference; v < variants; v++ {
		if lack := lacking(v); len(lack) > 0 {
			t.Logf("%s not run: it lacks %v", v, lack)
			continue
		}
		t.Run(v.String(), func(t *testing.T) {
			use(t, v)
			r := rand.New(rand.NewPCG(17, uint64(v)))
			for range 30_000 {
				n := r.IntN(300)
				dots, minus := make([]int32, n+2), make([]int32, n+2)
				rare := 1 + r.IntN(400)
				for i := range dots {
					minus[i] = r.Int32N(1<<28) - r.Int32N(1<<28)
					sum := -1 - r.Int32N(3)
					switch {
					case i == 0 || i > n: // beyond what is asked: must not be looked at
						sum = 5
					case r.IntN(rare) == 0:
						sum = r.Int32N(3)
					case r.IntN(50) == 0:
						sum = -1 << 29
					}
					dots[i] = sum - minus[i]
				}
				dots, minus = dots[1:n+1], minus[1:n+1]
				from := r.IntN(n + 1)
				want := from
				for want < n && dots[want]+minus[want] < 0 {
					want++
				}
				if got := Reach(dots, minus, from); got != want {
					t.Fatalf("Reach of %d from %d = %d, want %d", n, from, got, want)
				}
			}
		})
	}
}

func BenchmarkReach(b *testing.B) {
	dots, minus := make([]int32, 256), make([]int32, 256)
	for i := range minus {
		minus[i] = -100
	}
	before := Implementation()
	b.Cleanup(func() { _ = Select(before) })
	for _, name := range Available() {
		b.Run("impl="+name, func(b *testing.B) {
			if err := Select(name); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(4 * len(dots)))
			for b.Loop() {
				Reach(dots, minus, 0)
			}
		})
	}
}
