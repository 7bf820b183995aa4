package accuracy

import "math"

// z95 is the standard normal quantile of a two-sided 95% interval.
const z95 = 1.959963984540054

// Wilson returns the 95% score interval of a rate of which hits of n independent
// trials were seen (E. B. Wilson, JASA 22, 1927). It stays within 0 and 1 and is
// sensible at 0 and at n hits. For n = 0 nothing is known: 0 to 1.
func Wilson(hits, n int) [2]float64 {
	if n <= 0 {
		return [2]float64{0, 1}
	}
	trials := float64(n)
	rate := float64(hits) / trials
	scale := 1 / (1 + z95*z95/trials)
	centre := (rate + z95*z95/(2*trials)) * scale
	half := z95 * scale * math.Sqrt(rate*(1-rate)/trials+z95*z95/(4*trials*trials))
	interval := [2]float64{max(0, centre-half), min(1, centre+half)}
	if hits == 0 {
		interval[0] = 0
	}
	if hits == n {
		interval[1] = 1
	}
	return interval
}
