package index

import (
	"math"
	"slices"
)

// topK keeps the best k candidates of distinct subjects, sorted.
type topK struct {
	k    int
	list []Candidate
}

func (t *topK) init(k int) { t.k, t.list = k, t.list[:0] }

// clear lets go of the candidates and keeps the memory.
func (t *topK) clear() {
	clear(t.list)
	t.list = t.list[:0]
}

// before is the order of candidates: higher scores first, then the lower
// subject id, then the lower template.
func (c Candidate) before(d Candidate) bool {
	if c.Score != d.Score {
		return c.Score > d.Score
	}
	if c.Subject != d.Subject {
		return c.Subject < d.Subject
	}
	return c.Template < d.Template
}

// offer takes c into the list if it is among the best, and reports whether it
// did. A subject that is there already keeps the better of its two templates.
// Entries only ever improve, so a candidate that was turned away or pushed out
// could not have come back: the list is that of comparing all, in whatever
// order they come.
func (t *topK) offer(c Candidate) bool {
	full := len(t.list) == t.k
	if full && !c.before(t.list[t.k-1]) {
		return false
	}
	at := slices.IndexFunc(t.list, func(d Candidate) bool { return d.Subject == c.Subject })
	switch {
	case at >= 0 && !c.before(t.list[at]):
		return false
	case at < 0 && full:
		at = t.k - 1
	case at < 0:
		t.list = append(t.list, Candidate{})
		at = len(t.list) - 1
	}
	// The place at is free now; move it up to where c belongs.
	for ; at > 0 && c.before(t.list[at-1]); at-- {
		t.list[at] = t.list[at-1]
	}
	t.list[at] = c
	return true
}

// bar gives the bar of a full list for a probe with this Norm2, and -Inf while
// anything may enter.
func (t *topK) bar(norm2 int32) float64 {
	if len(t.list) < t.k {
		return math.Inf(-1)
	}
	return barOf(float64(t.list[t.k-1].Score), norm2)
}

// barOf is what reaches compares with. With s the score and P the probe's
// Norm2, a row scores s when dot/sqrt(P*Norm2) = s, that is when dot*|dot| =
// s*|s|*P*Norm2. The slack of 1e-9 is far above the rounding of both sides
// (1e-15) and lets equal scores through, which the ids decide.
func barOf(s float64, norm2 int32) float64 {
	bar := s * math.Abs(s) * float64(norm2)
	return bar - math.Abs(bar)*1e-9
}

// reaches rules out most rows without a square root: a row whose dot*|dot| is
// less than bar times its Norm2 scores less than what the bar was made of.
func reaches(bar float64, dot, norm2 int32) bool {
	d := float64(dot)
	return d*math.Abs(d) >= bar*float64(norm2)
}

// leastDot is a dot product that all rows of at least this Norm2 have who reach
// the bar: the cheapest test, for bars above 0. Below, all pass.
func leastDot(bar float64, norm2 int32) int32 {
	if !(bar > 0) {
		return math.MinInt32
	}
	return int32(math.Min(math.Floor(math.Sqrt(bar*float64(norm2))), 1<<27))
}
