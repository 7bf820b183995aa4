package search

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"time"

	"github.com/menshen-io/menshen/index"
)

// Work is what one search did, the mean of several; see index.Work.
type Work struct {
	Glanced  float64 `json:"rows_glanced"`
	Passed   float64 `json:"rows_passed"`
	Compared float64 `json:"rows_compared"`
	Shards   float64 `json:"shards"`
	Tasks    float64 `json:"tasks"`
}

func perSearch(w index.Work, searches int) Work {
	mean := func(n int) float64 { return round3(float64(n) / float64(searches)) }
	return Work{mean(w.Glanced), mean(w.Passed), mean(w.Compared), mean(w.Shards), mean(w.Tasks)}
}

// work searches once more for every probe, alone and together, and counts.
func (m *scanRun) work(ctx context.Context, r *ScanResult) error {
	e := m.engine
	var single, batch index.Work
	alone := e.queries[:min(len(e.queries), workProbes)]
	buf := make([]index.Candidate, Top)
	for _, q := range alone {
		result, err := e.gallery.IdentifyInto(ctx, e.grant(), q, buf)
		if err != nil {
			return err
		}
		single.Add(result.Work)
	}
	results, err := e.gallery.IdentifyAll(ctx, e.grant(), e.queries)
	if err != nil {
		return err
	}
	for _, result := range results {
		batch.Add(result.Work)
	}
	r.SingleWork, r.BatchWork = perSearch(single, len(alone)), perSearch(batch, len(results))
	return nil
}

// workProbes are enough for a mean.
const workProbes = 256

// profile runs Menshen's three measurements once more, each as long as d, and
// returns where the processors were meanwhile, in pprof's form. They are in no
// figure, since a profile slows them down.
func (m *scanRun) profile(ctx context.Context, d time.Duration) ([]byte, error) {
	var out bytes.Buffer
	if err := pprof.StartCPUProfile(&out); err != nil {
		return nil, fmt.Errorf("cannot take a profile: %w", err)
	}
	_, err := m.engine.one(ctx, 0, d, m.check)
	if err == nil {
		_, err = m.engine.together(ctx, d, m.check)
	}
	if err == nil {
		_, _, err = m.engine.callers(ctx, m.Callers, d, m.check)
	}
	pprof.StopCPUProfile()
	return out.Bytes(), err
}
