package main

import (
	"context"
	"runtime"
	"time"
)

// How the number of Ps follows the models. It is looked at every procsEvery; more
// than procsRuns runs meanwhile are work for the models, and after procsRest looks
// with fewer there is none.
const (
	procsEvery = time.Second
	procsRuns  = 10
	procsRest  = 3
)

// tendProcs keeps GOMAXPROCS right for a server, until ctx ends. A run of a model in C
// holds a P until it is taken back some time later: while models run there is one P
// more than runs, so that messages are read and calls refused meanwhile. Where nothing
// runs but Go, as with embeddings for probes, so many Ps take turns on the cores: then
// there is one more than cores. Verify from embeddings, 4 cores: 81,000 calls a second
// with 5 Ps, 60,000 to 70,000 with 7; crops ten times too many: refusals in 15 to 17 ms
// with 5 Ps, 8.6 with 7. Changing it stops the process for some 0.1 ms.
func tendProcs(ctx context.Context, cores, runs int, ran func() uint64) {
	few, many := cores+1, max(cores, runs)+1
	now, quiet, last := few, 0, ran()
	runtime.GOMAXPROCS(now)
	tick := time.NewTicker(procsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		count := ran()
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
	}
}
