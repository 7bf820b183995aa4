package search

import (
	"context"
	"fmt"
	"time"

	"github.com/menshen-io/menshen/index"
)

// ScopesResult is what Scopes found. What was not measured is nil.
type ScopesResult struct {
	Setting
	Scopes int `json:"scopes"`

	SearchUS   float64 `json:"scope_search_us"` // median over the rounds of the median
	P99US      float64 `json:"scope_search_p99_us"`
	Searches   int     `json:"scope_searches"`
	Allocs     float64 `json:"allocs_per_search"`
	PerSecond  float64 `json:"scope_concurrent_qps"` // all cores, one caller each
	MatedFound float64 `json:"mated_found"`

	OverheadBytes   *float64 `json:"scope_overhead_bytes"`
	BytesPerScope   *float64 `json:"scope_bytes"` // everything, templates included
	OverCodesBytes  *float64 `json:"scope_bytes_over_codes"`
	OneGalleryBytes *float64 `json:"one_gallery_bytes_per_template"`

	RoundFigures []ScopesRound `json:"round_figures"`
}

// ScopesRound is what one round measured.
type ScopesRound struct {
	SearchUS  float64 `json:"scope_search_us"`
	PerSecond float64 `json:"scope_concurrent_qps"`
}

// MaxScopes is the most scopes that are measured at once.
const MaxScopes = 1_000_000

// Scopes measures searches of many small galleries of o.Gallery templates each.
// Every search goes to another gallery than the one before, through the index,
// so that it finds the gallery's templates in memory and not in the caches, as
// traffic from many gates does. The probes are encoded before.
//
// The memory of a scope is its gallery, its entry in the index and its rotation.
// The overhead is what is left of it when o.Gallery times the bytes that a
// template takes in one large gallery of the same size in all is subtracted,
// which is measured in the same run: what it costs to have scopes at all.
func Scopes(ctx context.Context, o Options, scopes int) (*ScopesResult, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if scopes < 1 || scopes > MaxScopes || scopes > maxGallery/o.Gallery {
		return nil, fmt.Errorf("%w: %d scopes of %d templates; 1 to %d scopes are possible, %d templates in all", ErrOptions, scopes, o.Gallery, MaxScopes, maxGallery)
	}
	total := scopes * o.Gallery
	if err := requireMemory(int64(total)*int64(o.Dim+128)+int64(scopes)*8192, "all galleries together"); err != nil {
		return nil, err
	}
	source := NewSource(o.Data, o.Dim, o.Seed)
	r := &ScopesResult{Setting: o.setting(source), Scopes: scopes}

	alone, known, err := oneGallery(ctx, &o, source, total)
	if err != nil {
		return nil, err
	}
	s := &scopesRun{Options: &o, index: index.New()}
	growth, err := s.build(ctx, source, scopes)
	if err != nil {
		return nil, err
	}
	if known {
		template := float64(alone) / float64(total)
		each := float64(growth) / float64(scopes)
		r.OneGalleryBytes, r.BytesPerScope = rounded(template), rounded(each)
		r.OverheadBytes = rounded(each - float64(o.Gallery)*template)
		r.OverCodesBytes = rounded(each - float64(o.Gallery)*float64(o.Dim+4))
	}
	if err := s.measure(ctx, r); err != nil {
		return nil, err
	}
	return r, s.compare(ctx, r)
}

// oneGallery returns the memory of one gallery with all the templates.
func oneGallery(ctx context.Context, o *Options, source *Source, total int) (growth int64, known bool, err error) {
	before, known := resident()
	e, err := newEnrolment(source, 0, 0, total)
	if err != nil {
		return 0, known, err
	}
	g := index.NewGallery(e.ref, o.Dim)
	if err := e.fill(ctx, g, o.phase("one gallery", e.batches())); err != nil {
		return 0, known, err
	}
	after, _ := resident()
	g.Drop()
	return after - before, known, nil
}

// scopesRun is the scopes with one probe each.
type scopesRun struct {
	*Options
	index    *index.Index
	enrolled []*enrolment
	probes   []*probe
	queries  []index.Query
	single   latencies
}

// build makes the galleries and returns the memory that they take.
func (s *scopesRun) build(ctx context.Context, source *Source, scopes int) (int64, error) {
	s.enrolled = make([]*enrolment, scopes)
	before, _ := resident()
	step := s.phase("scopes", scopes)
	err := parallel(ctx, scopes, 1, func(_, start, _ int) error {
		defer step()
		e, err := newEnrolment(source, start, start*s.Gallery, s.Gallery)
		if err != nil {
			return err
		}
		s.enrolled[start] = e
		g, err := s.index.Create(e.ref, s.Dim)
		if err != nil {
			return err
		}
		return e.fillOne(g)
	})
	after, _ := resident()
	return after - before, err
}

// fillOne puts the enrolment into a gallery as scopes fill in use: one template
// after the other.
func (e *enrolment) fillOne(g *index.Gallery) error {
	encoder := e.encoder()
	c := encoder.blank()
	for i := range e.count {
		if err := encoder.encode(&c, e.first+i); err != nil {
			return err
		}
		subject, template := e.name(e.first + i)
		insert := index.Insert{Subject: subject, Template: template, Code: c}
		if err := g.Apply(index.Change{Epoch: 1, Inserts: []index.Insert{insert}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *scopesRun) measure(ctx context.Context, r *ScopesResult) error {
	s.probes, s.queries = make([]*probe, len(s.enrolled)), make([]index.Query, len(s.enrolled))
	err := parallel(ctx, len(s.enrolled), 16, func(_, start, end int) error {
		for i := start; i < end; i++ {
			probes, err := s.enrolled[i].probes(2)
			if err != nil {
				return err
			}
			s.probes[i] = probes[i%2] // the first is mated, the second is not
			s.queries[i] = s.probes[i].query(codeThreshold(s.Threshold))
		}
		return nil
	})
	if err != nil {
		return err
	}
	step := s.phase("measuring", s.Rounds+1)
	for i := -1; i < s.Rounds; i++ {
		if i == 0 {
			s.single = nil
		}
		took, err := s.searches(ctx, i)
		if err != nil {
			return err
		}
		perSecond, err := s.all(ctx)
		if err != nil {
			return err
		}
		step()
		if i >= 0 {
			s.single = append(s.single, took...)
			r.RoundFigures = append(r.RoundFigures, ScopesRound{round3(took.quantile(0.5) * 1e3), round3(perSecond)})
		}
	}
	r.SearchUS = round3(medianOf(r.RoundFigures, func(x ScopesRound) float64 { return x.SearchUS }))
	r.PerSecond = round3(medianOf(r.RoundFigures, func(x ScopesRound) float64 { return x.PerSecond }))
	r.P99US, r.Searches = round3(s.single.quantile(0.99)*1e3), len(s.single)
	buf := make([]index.Candidate, Top)
	r.Allocs, err = allocated(allocationSearches, func(i int) error {
		_, err := s.search(ctx, i%len(s.queries), buf)
		return err
	})
	return err
}

// search searches scope i for its probe; buf is for the candidates.
func (s *scopesRun) search(ctx context.Context, i int, buf []index.Candidate) (index.Result, error) {
	return s.index.IdentifyInto(ctx, s.enrolled[i].grant(), s.queries[i], buf)
}

// stride is the step from one scope to the next. It is prime and larger than
// MaxScopes: all scopes are visited, and neighbours in memory are not neighbours
// in time.
const stride = 1_000_003

// searches lets one caller search one scope after the other.
func (s *scopesRun) searches(ctx context.Context, round int) (latencies, error) {
	var took latencies
	n, buf := len(s.queries), make([]index.Candidate, Top)
	began := time.Now()
	for i := (round + 1) * 7919; ; i++ {
		at := i * stride % n
		start := time.Now()
		_, err := s.search(ctx, at, buf)
		end := time.Now()
		if err != nil {
			return nil, err
		}
		took = append(took, end.Sub(start))
		if end.Sub(began) >= s.Time {
			return took, nil
		}
	}
}

// all searches every scope once, on all cores, and returns searches per second.
func (s *scopesRun) all(ctx context.Context) (float64, error) {
	n := len(s.queries)
	began := time.Now()
	err := parallel(ctx, n, 64, func(_, start, end int) error {
		buf := make([]index.Candidate, Top)
		for i := start; i < end; i++ {
			if _, err := s.search(ctx, i*stride%n, buf); err != nil {
				return err
			}
		}
		return nil
	})
	return float64(n) / time.Since(began).Seconds(), err
}

// compare holds the answers of o.Check scopes, or of all if those are fewer,
// against the reference scan.
func (s *scopesRun) compare(ctx context.Context, r *ScopesResult) error {
	n := min(len(s.enrolled), s.Check)
	mated, hits := 0, 0
	step := s.phase("reference scan", n)
	for j := range n {
		i := j * len(s.enrolled) / n
		if j%2 != i%2 && i+1 < len(s.enrolled) {
			i++ // mated ones and others by turns
		}
		reference, err := newReference(ctx, s.enrolled[i], nil, s.probes[i:i+1], codeThreshold(s.Threshold), func() {})
		if err != nil {
			return err
		}
		got, err := s.search(ctx, i, nil)
		if err != nil {
			return err
		}
		check := checker{reference: reference}
		check.check(0, got, false)
		r.Mismatches += check.wrong.Load()
		if s.probes[i].mate >= 0 {
			mated++
			if s.probes[i].found(s.enrolled[i], got.Candidates) {
				hits++
			}
		}
		step()
	}
	r.CheckedProbes, r.CheckedCount = n, int64(n)
	r.MatedFound = float64(hits) / float64(max(mated, 1))
	return nil
}
