package main

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The number of Ps goes up with the runs of models and comes down after them; half of
// the runs beyond the cores are held while most calls are refused.
func TestTender(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var ran atomic.Uint64
		var admitted, refused, held atomic.Int64
		tender := &tender{
			cores: 4, runs: 6, extra: 2, ran: ran.Load,
			asked: func() (int64, int64) { return admitted.Load(), refused.Load() },
			hold: func(context.Context) (func(), error) {
				held.Add(1)
				return func() { held.Add(-1) }, nil
			},
		}
		done := make(chan struct{})
		go func() { tender.tend(ctx); close(done) }()
		second := func(runs uint64, refusals int64, want int, wantHeld int64) {
			t.Helper()
			ran.Add(runs)
			admitted.Add(int64(runs))
			refused.Add(refusals)
			time.Sleep(procsEvery)
			synctest.Wait()
			if got := runtime.GOMAXPROCS(0); got != want || held.Load() != wantHeld {
				t.Errorf("%d Ps and %d runs held after %d runs and %d refusals, want %d and %d", got, held.Load(), runs, refusals, want, wantHeld)
			}
		}
		second(0, 0, 5, 0)
		second(procsRuns, 0, 5, 0) // now and then is no load
		second(500, 0, 7, 0)
		second(500, 500, 7, 0)
		second(500, 501, 7, 1)
		second(500, 5000, 7, 1)
		second(500, 499, 7, 0)
		second(500, 5000, 7, 1)
		second(0, 5000, 7, 0) // the models do nothing
		second(3, 0, 7, 0)
		second(0, 0, 5, 0)
		second(0, 0, 5, 0)
		second(100, 900, 7, 1)
		cancel()
		<-done
		if held.Load() != 0 {
			t.Errorf("%d runs held in the end", held.Load())
		}
	})
}

// The wait for a run's place ends with the server.
func TestTenderEnds(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var n atomic.Int64
		tender := &tender{
			cores: 4, runs: 6, extra: 2, ran: func() uint64 { return uint64(n.Add(100)) },
			asked: func() (int64, int64) { return 0, n.Load() },
			hold:  func(ctx context.Context) (func(), error) { <-ctx.Done(); return nil, ctx.Err() },
		}
		done := make(chan struct{})
		go func() { tender.tend(ctx); close(done) }()
		time.Sleep(2 * procsEvery)
		cancel()
		<-done
	})
}
