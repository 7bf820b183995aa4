package main

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The number of Ps goes up with the runs of models and comes down after them.
func TestTendProcs(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var ran atomic.Uint64
		done := make(chan struct{})
		go func() { tendProcs(ctx, 4, 6, ran.Load); close(done) }()
		second := func(runs uint64, want int) {
			t.Helper()
			ran.Add(runs)
			time.Sleep(procsEvery)
			synctest.Wait()
			if got := runtime.GOMAXPROCS(0); got != want {
				t.Errorf("%d Ps after %d runs, want %d", got, runs, want)
			}
		}
		second(0, 5)
		second(procsRuns, 5) // now and then is no load
		second(500, 7)
		second(500, 7)
		second(0, 7)
		second(3, 7)
		second(0, 5)
		second(0, 5)
		second(100, 7)
		cancel()
		<-done
	})
}
