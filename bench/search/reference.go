package search

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
)

// Answer is what a search must return.
type Answer struct {
	Candidates []index.Candidate
	Best       code.Score
}

// Reference is a scan as plainly as it can be said: every template is made and
// encoded anew, every dot product is a loop in Go, everything at the threshold
// or above is sorted, and the list is cut last. It shares with a gallery the
// rotation, the quantisation and code.Compare: what a score is.
type Reference struct {
	templates *enrolment
	probes    []*probe
	threshold code.Threshold
	size      int // templates

	Answers     []Answer // one a probe
	FalseMatch  int64    // comparisons of different people at the threshold or above
	Comparisons int64    // of different people
}

// newReference scans the given templates of an enrolment (nil: all) for the
// probes.
func newReference(ctx context.Context, templates *enrolment, numbers []int, probes []*probe, threshold code.Threshold, step func()) (*Reference, error) {
	n := templates.count
	if numbers != nil {
		n = len(numbers)
	}
	r := &Reference{templates: templates, probes: probes, threshold: threshold, size: n}
	parts := make([]*partial, workers())
	for w := range parts {
		parts[w] = newPartial(templates, len(probes))
	}
	var falseMatch, comparisons atomic.Int64
	err := parallel(ctx, n, encodeBlock, func(worker, start, end int) error {
		part := parts[worker]
		for i := start; i < end; i++ {
			number := templates.first + i
			if numbers != nil {
				number = numbers[i]
			}
			if err := part.encoder.encode(&part.code, number); err != nil {
				return err
			}
			part.compare(r, number)
		}
		falseMatch.Add(part.falseMatch)
		comparisons.Add(part.comparisons)
		part.falseMatch, part.comparisons = 0, 0
		step()
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.FalseMatch, r.Comparisons = falseMatch.Load(), comparisons.Load()
	for p := range probes {
		a := Answer{Best: index.NoScore}
		for _, part := range parts {
			a.Candidates = append(a.Candidates, part.lists[p]...)
			a.Best = max(a.Best, part.best[p])
		}
		a.Candidates = cut(a.Candidates)
		r.Answers = append(r.Answers, a)
	}
	return r, nil
}

// partial is what one worker has found.
type partial struct {
	encoder                 *encoder
	code                    code.Code
	lists                   [][]index.Candidate
	best                    []code.Score
	falseMatch, comparisons int64
}

func newPartial(templates *enrolment, probes int) *partial {
	p := &partial{
		encoder: templates.encoder(),
		lists:   make([][]index.Candidate, probes),
		best:    make([]code.Score, probes),
	}
	p.code = p.encoder.blank()
	for i := range p.best {
		p.best[i] = index.NoScore
	}
	return p
}

// cutAt bounds the list of a probe whose threshold nearly everything reaches.
const cutAt = 1024

// compare holds template number, whose code is in p.code, against all probes.
func (p *partial) compare(r *Reference, number int) {
	for i, probe := range r.probes {
		score := code.Compare(plainDot(probe.code.Q, p.code.Q), probe.code.Norm2, p.code.Norm2)
		p.best[i] = max(p.best[i], score)
		admitted := r.threshold.Admits(score)
		if probe.mate < 0 || original(probe.mate) != original(number) {
			p.comparisons++
			if admitted {
				p.falseMatch++
			}
		}
		if !admitted {
			continue
		}
		subject, template := r.templates.name(number)
		p.lists[i] = append(p.lists[i], index.Candidate{Subject: subject, Template: template, Score: score})
		if len(p.lists[i]) == cutAt {
			p.lists[i] = cut(p.lists[i])
		}
	}
}

// cut sorts candidates, leaves each subject its first, and cuts after Top.
func cut(list []index.Candidate) []index.Candidate {
	slices.SortFunc(list, func(a, b index.Candidate) int {
		switch {
		case a.Score > b.Score:
			return -1
		case a.Score < b.Score:
			return 1
		case a.Subject < b.Subject:
			return -1
		case a.Subject > b.Subject:
			return 1
		}
		return int(a.Template) - int(b.Template)
	})
	kept := list[:0]
	for _, c := range list {
		again := slices.ContainsFunc(kept, func(k index.Candidate) bool { return k.Subject == c.Subject })
		if !again && len(kept) < Top {
			kept = append(kept, c)
		}
	}
	return kept
}

// plainDot is the dot product of two int8 vectors of one length. It does not use
// index/kernel, which is what it checks.
func plainDot(a, b []int8) int32 {
	// Four sums, so that the additions do not wait for one another; eight values a
	// turn took 275 ns at 512-d where two took 430.
	var s0, s1, s2, s3 int32
	for len(a) >= 8 && len(b) >= 8 {
		x, y := (*[8]int8)(a), (*[8]int8)(b)
		s0 += int32(x[0])*int32(y[0]) + int32(x[4])*int32(y[4])
		s1 += int32(x[1])*int32(y[1]) + int32(x[5])*int32(y[5])
		s2 += int32(x[2])*int32(y[2]) + int32(x[6])*int32(y[6])
		s3 += int32(x[3])*int32(y[3]) + int32(x[7])*int32(y[7])
		a, b = a[8:], b[8:]
	}
	for i, x := range a {
		s0 += int32(x) * int32(b[i])
	}
	return s0 + s1 + s2 + s3
}

// Agrees reports whether a gallery's result to probe i is that of the reference:
// the candidates, their order and their scores to the last bit, and the best
// score. A gallery of more than index.SmallGallery templates that was not asked
// for it (wantBest) may leave a best score below the threshold out.
func (r *Reference) Agrees(i int, got index.Result, wantBest bool) bool {
	want := r.Answers[i]
	if !slices.Equal(got.Candidates, want.Candidates) {
		return false
	}
	mayLack := !wantBest && r.size > index.SmallGallery && !r.threshold.Admits(want.Best)
	return got.Best == want.Best || mayLack && got.Best == index.NoScore
}

// FMR is the false match rate of the comparisons at the threshold.
func (r *Reference) FMR() float64 {
	if r.Comparisons == 0 {
		return 0
	}
	return float64(r.FalseMatch) / float64(r.Comparisons)
}

// checker counts the results to checked probes that are wrong. A nil checker
// accepts everything.
type checker struct {
	reference *Reference
	checked   atomic.Int64
	wrong     atomic.Int64
}

func (c *checker) check(probe int, got index.Result, wantBest bool) {
	if c == nil || probe >= len(c.reference.Answers) {
		return
	}
	c.checked.Add(1)
	if !c.reference.Agrees(probe, got, wantBest) {
		c.wrong.Add(1)
	}
}
