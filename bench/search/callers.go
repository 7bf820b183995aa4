package search

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-io/menshen/index"
)

// engine is one gallery with what is asked of it.
type engine struct {
	*enrolment
	gallery *index.Gallery
	probes  []*probe
	queries []index.Query
}

func (e *engine) ask(threshold float64) {
	e.queries = make([]index.Query, len(e.probes))
	for i, p := range e.probes {
		e.queries[i] = p.query(codeThreshold(threshold))
	}
}

// one lets one caller search in a loop, from probe from on, for as long as d and
// at least once, and returns how long each search took.
func (e *engine) one(ctx context.Context, from int, d time.Duration, check *checker) (latencies, error) {
	var took latencies
	grant, buf := e.grant(), make([]index.Candidate, Top)
	began := time.Now()
	for i := from; ; i++ {
		p := i % len(e.queries)
		start := time.Now()
		result, err := e.gallery.IdentifyInto(ctx, grant, e.queries[p], buf)
		end := time.Now()
		if err != nil {
			return nil, err
		}
		took = append(took, end.Sub(start))
		check.check(p, result, false)
		if end.Sub(began) >= d {
			return took, nil
		}
	}
}

// together searches for all probes at once in a loop, for as long as d and at
// least once, and returns probes per second.
func (e *engine) together(ctx context.Context, d time.Duration, check *checker) (float64, error) {
	var spent time.Duration
	searches := 0
	for spent < d {
		start := time.Now()
		results, err := e.gallery.IdentifyAll(ctx, e.grant(), e.queries)
		spent += time.Since(start)
		if err != nil {
			return 0, err
		}
		searches++
		for p, result := range results {
			check.check(p, result, false)
		}
	}
	return float64(searches*len(e.queries)) / spent.Seconds(), nil
}

// callers lets n callers search in loops and returns the searches per second in
// the window of d from their start, and how long those took that began in it.
//
// A search that lies partly in the window counts for the share of its time that
// does. So that those in flight at the end of the window are not sped up by
// callers that have stopped, every caller goes on until all have left the window.
func (e *engine) callers(ctx context.Context, n int, d time.Duration, check *checker) (perSecond float64, took latencies, err error) {
	var (
		group   sync.WaitGroup
		left    atomic.Int64
		failed  atomic.Bool
		each    = make([]latencies, n)
		credits = make([]float64, n)
		errs    = make([]error, n)
		begin   = make(chan struct{})
		began   time.Time
	)
	for w := range n {
		group.Go(func() {
			<-begin
			grant, buf := e.grant(), make([]index.Candidate, Top)
			out := false
			for i := w; left.Load() < int64(n) && !failed.Load(); i++ {
				p := i % len(e.queries)
				start := time.Since(began)
				result, err := e.gallery.IdentifyInto(ctx, grant, e.queries[p], buf)
				end := time.Since(began)
				if err != nil {
					errs[w] = err
					failed.Store(true)
					return
				}
				check.check(p, result, false)
				if start < d {
					each[w] = append(each[w], end-start)
					credits[w] += min(1, float64(d-start)/float64(max(end-start, 1)))
				}
				if end >= d && !out {
					out = true
					left.Add(1)
				}
			}
		})
	}
	began = time.Now()
	close(begin)
	group.Wait()
	total := 0.0
	for w := range n {
		if errs[w] != nil {
			return 0, nil, errs[w]
		}
		total += credits[w]
		took = append(took, each[w]...)
	}
	return total / d.Seconds(), took, nil
}

// verify searches once for every checked probe, with the best score, and holds
// the results against the reference.
func (e *engine) verify(ctx context.Context, check *checker) error {
	for p := range check.reference.Answers {
		query := e.queries[p]
		for _, query.WantBest = range []bool{true, false} {
			result, err := e.gallery.Identify(ctx, e.grant(), query)
			if err != nil {
				return err
			}
			check.check(p, result, query.WantBest)
		}
	}
	return nil
}
