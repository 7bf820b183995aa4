package search

import (
	"math"
	"slices"
	"time"
)

// latencies collects how long searches took.
type latencies []time.Duration

// quantile returns the smallest value that at least q of the values do not
// exceed, in milliseconds; 0 of none.
func (l latencies) quantile(q float64) float64 {
	if len(l) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(l))
	return milliseconds(sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)])
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

// median of values; the mean of the middle two of an even number, 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// medianOf is the median of one figure over the rounds.
func medianOf[T any](rounds []T, figure func(T) float64) float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = figure(r)
	}
	return median(values)
}
