package index

import (
	"math"
	"slices"
)

// topK keeps the best k candidates of distinct subjects, sorted.
type topK struct {
	k    int
	list []Candidate
	bar  float64 // see passes; -Inf while the list is not full
}

func (t *topK) init(k int) {
	t.k = k
	t.list = make([]Candidate, 0, min(k, 16))
	t.bar = math.Inf(-1)
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
// could not have come back: the list is that of comparing all.
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

// passes rules out most rows without a square root: a row whose dot*|dot| is
// less than bar times its Norm2 scores less than the last of a full list.
func (t *topK) passes(dot, norm2 int32) bool {
	d := float64(dot)
	return d*math.Abs(d) >= t.bar*float64(norm2)
}

// raise sets the bar for a probe with this Norm2. With s the last score and P
// the probe's Norm2, a row scores s when dot/sqrt(P*Norm2) = s, that is when
// dot*|dot| = s*|s|*P*Norm2. The slack of 1e-9 is far above the rounding of
// both sides (1e-15) and lets equal scores through, which the ids decide.
func (t *topK) raise(norm2 int32) {
	if len(t.list) < t.k {
		return
	}
	s := float64(t.list[t.k-1].Score)
	bar := s * math.Abs(s) * float64(norm2)
	t.bar = bar - math.Abs(bar)*1e-9
}
