package load

import (
	"math"
	"slices"
	"testing"
	"time"
)

// schedule draws all arrivals.
func schedule(from, to float64, length time.Duration, spacing Spacing, seed uint64) (out []time.Duration) {
	a := NewArrivals(from, to, length, spacing, seed)
	for at, ok := a.Next(); ok; at, ok = a.Next() {
		out = append(out, at)
	}
	return out
}

func TestArrivalsRate(t *testing.T) {
	const length = 100 * time.Second
	tests := map[string]struct{ from, to, first, second float64 }{ // calls in the halves
		"flat":  {200, 200, 10_000, 10_000},
		"up":    {0, 400, 5_000, 15_000},
		"down":  {400, 0, 15_000, 5_000},
		"slope": {100, 300, 7_500, 12_500},
		"none":  {0, 0, 0, 0},
	}
	for name, test := range tests {
		for _, spacing := range []Spacing{Poisson, Even} {
			t.Run(name+" "+string(spacing), func(t *testing.T) {
				all := schedule(test.from, test.to, length, spacing, 7)
				if !slices.IsSorted(all) {
					t.Fatal("not in order")
				}
				first := 0
				for _, at := range all {
					if at < length/2 {
						first++
					}
				}
				for i, got := range []int{first, len(all) - first} {
					want := []float64{test.first, test.second}[i]
					room := 1.0 // rounding at the ends
					if spacing == Poisson {
						room = 5 * math.Sqrt(want) // five standard deviations
					}
					if math.Abs(float64(got)-want) > room {
						t.Errorf("half %d has %d calls, want %g", i+1, got, want)
					}
				}
			})
		}
	}
}

// Gaps of a Poisson process have their mean as standard deviation; even ones do
// not vary.
func TestArrivalsSpacing(t *testing.T) {
	for spacing, want := range map[Spacing]float64{Poisson: 1, Even: 0} {
		all := schedule(1000, 1000, 20*time.Second, spacing, 1)
		var sum, squares float64
		for i := 1; i < len(all); i++ {
			gap := (all[i] - all[i-1]).Seconds() * 1000
			sum, squares = sum+gap, squares+gap*gap
		}
		n := float64(len(all) - 1)
		mean := sum / n
		if deviation := math.Sqrt(max(squares/n-mean*mean, 0)); math.Abs(deviation-want) > 0.05 {
			t.Errorf("%s: the gaps vary by %.3f of their mean, want %g", spacing, deviation, want)
		}
	}
}

func TestArrivalsSeed(t *testing.T) {
	one := schedule(500, 900, time.Second, Poisson, 1)
	if !slices.Equal(one, schedule(500, 900, time.Second, Poisson, 1)) {
		t.Error("the same seed gave another schedule")
	}
	if slices.Equal(one, schedule(500, 900, time.Second, Poisson, 2)) {
		t.Error("another seed gave the same schedule")
	}
}
