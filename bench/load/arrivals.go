package load

import (
	"math"
	"math/rand/v2"
	"time"
)

// Spacing is how calls follow each other.
type Spacing string

// The spacings.
const (
	Poisson Spacing = "poisson" // independent of each other, as people come
	Even    Spacing = "even"    // all equally far apart
)

// Arrivals draws when calls are due, at a rate that goes linearly from From to
// To calls a second within Length. It is for one goroutine.
//
// The k-th call is due when the integral of the rate reaches e_1 + ... + e_k,
// with e_i exponentially distributed of mean 1 (Poisson) or 1 (Even). That is
// exact for every ramp.
type Arrivals struct {
	from, slope float64 // per second, per second squared
	length      float64 // seconds
	even        bool
	random      *rand.Rand
	reached     float64 // of the integral
}

// NewArrivals begins a schedule; the same seed gives the same one.
func NewArrivals(from, to float64, length time.Duration, spacing Spacing, seed uint64) *Arrivals {
	s := length.Seconds()
	return &Arrivals{from: from, slope: (to - from) / s, length: s, even: spacing == Even, random: rand.New(rand.NewPCG(seed, 0x6d656e7368656e))}
}

// Next is when the next call is due, after the beginning; ok is false when there
// is none any more.
func (a *Arrivals) Next() (at time.Duration, ok bool) {
	if a.even {
		a.reached++
	} else {
		a.reached += a.random.ExpFloat64()
	}
	// The time t with from t + slope/2 t^2 = reached, in the form that does not
	// lose digits when the slope is small.
	under := a.from*a.from + 2*a.slope*a.reached
	if under < 0 {
		return 0, false
	}
	t := 2 * a.reached / (a.from + math.Sqrt(under))
	if math.IsNaN(t) || t >= a.length {
		return 0, false
	}
	return time.Duration(t * float64(time.Second)), true
}
