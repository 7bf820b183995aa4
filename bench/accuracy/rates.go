package accuracy

import (
	"math"
	"slices"
	"sort"
)

// Comparison is the score of one comparison. A and B name what is drawn again
// in a bootstrap: the two people of the comparison where people are known
// (equal for a mated comparison), otherwise the number of the compared pair, twice.
type Comparison struct {
	Score float32
	A, B  int32
}

// Scores holds the mated and the non-mated comparisons, each sorted by
// ascending score (see Sort). Reading is safe from many goroutines.
type Scores struct {
	Mated, NonMated []Comparison
}

// Sort brings the comparisons into the order that every method relies on. Scores
// are numbers, and the order of tied ones is no matter to any method, so the
// plainest comparison does: 32 million took 7 s on a busy core.
func (s *Scores) Sort() {
	byScore := func(a, b Comparison) int {
		switch {
		case a.Score < b.Score:
			return -1
		case a.Score > b.Score:
			return 1
		}
		return 0
	}
	slices.SortFunc(s.Mated, byScore)
	slices.SortFunc(s.NonMated, byScore)
}

// Target is a false match rate of one in OneIn, kept as a whole number so that
// the number of false matches it allows is exact.
type Target struct {
	Label string
	OneIn int
}

// Targets are the false match rates that a report states, from easy to hard.
func Targets() []Target {
	return []Target{{"1e-2", 100}, {"1e-3", 1_000}, {"1e-4", 10_000}}
}

// Needs is the number of non-mated comparisons from which the target can be
// stated: by the rule of 3 (ISO/IEC 19795-1), N comparisons without an error
// show with 95% confidence only that the rate is below 3/N.
func (t Target) Needs() int { return 3 * t.OneIn }

// Point is one operating point: a threshold and the error rates at it.
type Point struct {
	Threshold float64
	FMR       float64 // share of the non-mated comparisons at or above the threshold
	FNMR      float64 // share of the mated comparisons below it
	Misses    int     // the mated comparisons below it
}

// notAbove counts the comparisons that score t or less.
func notAbove(c []Comparison, t float32) int {
	return sort.Search(len(c), func(i int) bool { return c[i].Score > t })
}

// AtFMR returns the operating point with the smallest threshold, of all scores
// that were observed, at which the false match rate is at most the target. When
// even the largest score is matched too often, the threshold is the next number
// above it and nothing matches. Both kinds of comparison must be there.
func (s *Scores) AtFMR(target Target) Point {
	n, allowed := len(s.NonMated), len(s.NonMated)/target.OneIn
	if allowed >= n {
		lowest := min(s.Mated[0].Score, s.NonMated[0].Score)
		return Point{Threshold: float64(lowest), FMR: 1}
	}
	// The largest non-mated score that must not match, and all that tie with it.
	barred := s.NonMated[n-1-allowed].Score
	rejected, misses := notAbove(s.NonMated, barred), notAbove(s.Mated, barred)
	threshold := float32(math.Inf(1))
	if rejected < n {
		threshold = s.NonMated[rejected].Score
	}
	if misses < len(s.Mated) {
		threshold = min(threshold, s.Mated[misses].Score)
	}
	if math.IsInf(float64(threshold), 1) {
		threshold = math.Nextafter32(barred, threshold)
	}
	return Point{
		Threshold: float64(threshold),
		FMR:       float64(n-rejected) / float64(n),
		FNMR:      float64(misses) / float64(len(s.Mated)),
		Misses:    misses,
	}
}

// walk calls visit for every observed score in ascending order, and last for
// the number above the largest, with the mated comparisons below it (misses) and
// the non-mated ones at or above it (false matches), until visit returns false.
func (s *Scores) walk(visit func(threshold float32, misses, falseMatches int) bool) {
	m, n := 0, 0
	last := float32(math.Inf(-1))
	for m < len(s.Mated) || n < len(s.NonMated) {
		t := float32(math.Inf(1))
		if m < len(s.Mated) {
			t = s.Mated[m].Score
		}
		if n < len(s.NonMated) {
			t = min(t, s.NonMated[n].Score)
		}
		if !visit(t, m, len(s.NonMated)-n) {
			return
		}
		for m < len(s.Mated) && s.Mated[m].Score == t {
			m++
		}
		for n < len(s.NonMated) && s.NonMated[n].Score == t {
			n++
		}
		last = t
	}
	visit(math.Nextafter32(last, float32(math.Inf(1))), len(s.Mated), 0)
}

// EqualErrorRate returns the rate at which FMR and FNMR cross, and the threshold
// there. Both are steps, so that they seldom meet in a point: between the last
// threshold with FMR above FNMR and the first with FMR at or below it, both are
// taken as straight lines. Both kinds of comparison must be there.
func (s *Scores) EqualErrorRate() (rate, threshold float64) {
	mated, nonMated := int64(len(s.Mated)), int64(len(s.NonMated))
	var before Point
	var beforeGap int64
	s.walk(func(t float32, misses, falseMatches int) bool {
		here := Point{
			Threshold: float64(t),
			FMR:       float64(falseMatches) / float64(nonMated),
			FNMR:      float64(misses) / float64(mated),
		}
		gap := int64(falseMatches)*mated - int64(misses)*nonMated
		if gap > 0 {
			before, beforeGap = here, gap
			return true
		}
		part := 1.0
		if gap < 0 {
			part = float64(beforeGap) / float64(beforeGap-gap)
		}
		rate = before.FMR + part*(here.FMR-before.FMR)
		threshold = before.Threshold + part*(here.Threshold-before.Threshold)
		if part == 1 { // exact, whatever the rounding of the line
			rate, threshold = here.FMR, here.Threshold
		}
		return false
	})
	return rate, threshold
}

// Best returns the threshold that decides most comparisons rightly, and how
// many. Every threshold between two neighbouring scores decides alike; the
// middle is given, and among equally good gaps the widest. The choice is made on
// the data that it is judged by, so the accuracy is an optimistic one.
func (s *Scores) Best() (threshold float64, right int) {
	var previous, widest float64
	first := true
	s.walk(func(t float32, misses, falseMatches int) bool {
		correct := len(s.Mated) - misses + len(s.NonMated) - falseMatches
		at, gap := float64(t), 0.0
		if !first && misses+len(s.NonMated)-falseMatches < len(s.Mated)+len(s.NonMated) {
			at, gap = (previous+float64(t))/2, float64(t)-previous
		}
		if first || correct > right || correct == right && gap > widest {
			threshold, right, widest = at, correct, gap
		}
		previous, first = float64(t), false
		return true
	})
	return threshold, right
}

// Curve returns the operating points from accepting everything to accepting
// nothing, thinned to at most limit (which is at least 4) by leaving out points
// that lie close together on logarithmic axes. First and last always stand.
func (s *Scores) Curve(limit int) []Point {
	var all []Point
	s.walk(func(t float32, misses, falseMatches int) bool {
		p := Point{
			Threshold: float64(t),
			FMR:       float64(falseMatches) / float64(len(s.NonMated)),
			FNMR:      float64(misses) / float64(len(s.Mated)),
			Misses:    misses,
		}
		// A corner of the stairs is where the other rate is about to change; in a
		// run with the same FMR or the same FNMR only the two ends are needed.
		if k := len(all); k >= 2 && (all[k-1].FMR == p.FMR && all[k-2].FMR == p.FMR || all[k-1].FNMR == p.FNMR && all[k-2].FNMR == p.FNMR) {
			all[k-1] = p
		} else {
			all = append(all, p)
		}
		return true
	})
	for step := 1e-4; len(all) > limit; step *= 2 {
		kept := all[:1]
		for _, p := range all[1 : len(all)-1] {
			q := kept[len(kept)-1]
			if logDistance(p.FMR, q.FMR)+logDistance(p.FNMR, q.FNMR) >= step {
				kept = append(kept, p)
			}
		}
		all = append(kept, all[len(all)-1])
	}
	return all
}

// logDistance is the distance of two rates in decades; a rate of zero is a
// million comparisons' worth away from anything else.
func logDistance(a, b float64) float64 {
	return math.Abs(math.Log10(max(a, 1e-9)) - math.Log10(max(b, 1e-9)))
}

// Percentile returns the score below or at which p percent (0 < p <= 100) of the
// sorted comparisons lie: the nearest-rank definition, always an observed score.
func Percentile(sorted []Comparison, p float64) float64 {
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return float64(sorted[min(max(rank, 1), len(sorted))-1].Score)
}
