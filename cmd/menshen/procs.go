package main

import (
	"context"
	"runtime"
	"time"
)

// How the number of Ps and of runs follows the work. It is looked at every procsEvery;
// more than procsRuns runs meanwhile are work for the models, and after procsRest looks
// with fewer there is none.
const (
	procsEvery = time.Second
	procsRuns  = 10
	procsRest  = 3
)

// tender keeps the number of Ps, and of runs of models that go on at once, right for a
// server.
type tender struct {
	cores int
	runs  int // of models at once
	extra int // of them beyond the cores
	// ran is how many runs have begun so far, and asked how many calls were admitted
	// and refused.
	ran   func() uint64
	asked func() (admitted, refused int64)
	// hold takes the place of a run away until release.
	hold func(context.Context) (release func(), err error)

	held []func() // releases
}

// tend tends until ctx ends.
//
// A run of a model in C holds a P until it is taken back some time later: while models
// run there is one P more than runs, so that messages are read and calls refused
// meanwhile. Where nothing runs but Go, as with embeddings for probes, so many Ps take
// turns on the cores: then there is one more than cores. Verify from embeddings, 4
// cores: 81,000 calls a second with 5 Ps, 60,000 to 70,000 with 7; crops ten times too
// many: refusals in 15 to 17 ms with 5 Ps, 8.6 with 7. Changing it stops the process
// for some 0.1 ms.
//
// The runs beyond the cores fill what a core would idle between two runs. While more
// calls are refused than admitted, refusing does that, and half of those runs are held:
// they would only stand in the way. JPEG crops ten times too many, 4 cores, takes of 3
// to 5 seconds in turns: with 6 runs 1,029, 1,018, 1,021, 1,106, 1,093 and 1,043 answers
// a second, 29 to 36 ms at the 99th percentile, refusals in 10.2 to 16.9; with 5 1,048,
// 960, 1,099 and 1,018, 27 to 39, and 5.5, 8.3, 8.8 and once 12.9; with 4 900 to 1,071,
// 25 to 33, and 5.0 to 8.2.
func (t *tender) tend(ctx context.Context) {
	few, many := t.cores+1, max(t.cores, t.runs)+1
	now, quiet, last := few, 0, t.ran()
	admitted, refused := t.asked()
	runtime.GOMAXPROCS(now)
	tick := time.NewTicker(procsEvery)
	defer tick.Stop()
	defer t.release()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		count := t.ran()
		if count-last > procsRuns {
			quiet = 0
		} else {
			quiet++
		}
		last = count
		want := many
		if quiet >= procsRest || quiet > 0 && now == few {
			want = few
		}
		if want != now {
			runtime.GOMAXPROCS(want)
			now = want
		}
		a, r := t.asked()
		if quiet == 0 && r-refused > a-admitted {
			t.take(ctx, t.extra/2)
		} else {
			t.release()
		}
		admitted, refused = a, r
	}
}

// take holds the places of n runs.
func (t *tender) take(ctx context.Context, n int) {
	for len(t.held) < n {
		release, err := t.hold(ctx)
		if err != nil {
			return
		}
		t.held = append(t.held, release)
	}
}

// release gives them back.
func (t *tender) release() {
	for _, release := range t.held {
		release()
	}
	t.held = nil
}
