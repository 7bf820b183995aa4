package models

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-io/menshen/models/internal/onnxtest"
)

// testRunner opens a runner; IntraOp 1 unless opt says otherwise, so that
// nothing is measured.
func testRunner(t testing.TB, data []byte, batch string, opt RunnerOptions) *Runner {
	t.Helper()
	rt := testRuntime(t)
	if opt.IntraOp == 0 {
		opt.IntraOp = 1
	}
	if opt.Batch == 0 {
		opt.Batch = 1
	}
	r, err := rt.NewRunner(t.Context(), &Resolved{Manifest: embedderManifest(batch), Data: data}, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		if r.pool.live != 0 {
			t.Errorf("%d tensor sets alive after Close", r.pool.live)
		}
		if r.budget.free != r.budget.size {
			t.Errorf("%d of %d tokens free after Close", r.budget.free, r.budget.size)
		}
	})
	return r
}

// noGoroutineLeft fails the test if more goroutines are there at its end than
// now. Call it before anything is opened.
func noGoroutineLeft(t testing.TB) {
	t.Helper()
	testRuntime(t)
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				buf := make([]byte, 1<<16)
				t.Fatalf("goroutines are left:\n%s", buf[:runtime.Stack(buf, true)])
			}
		}
	})
}

// meanOf feeds planes of the values v, v+1, v+2 and checks the answer.
func meanOf(ctx context.Context, r *Runner, v float32) error {
	var got [3]float32
	err := r.Run(ctx, oneCrop, oneVector, func(in []float32) error {
		for i := range in {
			in[i] = v + float32(i/(112*112))
		}
		return nil
	}, func(outs [][]float32) error {
		copy(got[:], outs[0])
		return nil
	})
	if err != nil {
		return err
	}
	for c := range got {
		if math.Abs(float64(got[c]-v-float32(c))) > 0.01 {
			return errors.New("the answer is another caller's")
		}
	}
	return nil
}

func nothing([]float32) error       { return nil }
func nothingRead([][]float32) error { return nil }

func TestRunnerGivesEachCallerItsOwnAnswer(t *testing.T) {
	for name, opt := range map[string]RunnerOptions{
		"one thread":  {Budget: testBudget(t, 3)},
		"two threads": {Budget: testBudget(t, 2), IntraOp: 2},
		"wider":       {Budget: testBudget(t, 1), IntraOp: 4},
		"batches":     {Budget: testBudget(t, 2), Batch: 4},
	} {
		t.Run(name, func(t *testing.T) {
			noGoroutineLeft(t)
			batch := BatchStatic
			data := onnxtest.MeanEmbedder(1)
			if opt.Batch > 1 {
				batch, data = BatchDynamic, onnxtest.MeanEmbedder(-1)
			}
			r := testRunner(t, data, batch, opt)
			var wg sync.WaitGroup
			for g := range 12 {
				wg.Go(func() {
					for i := range 40 {
						if err := meanOf(t.Context(), r, float32(g*100+i)); err != nil {
							t.Errorf("caller %d: %v", g, err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestRunnerForms: a run that finds the machine idle takes the wide form, those
// that come beside it the narrow one.
func TestRunnerForms(t *testing.T) {
	b := testBudget(t, 4)
	r := testRunner(t, onnxtest.MeanEmbedder(1), BatchStatic, RunnerOptions{Budget: b, IntraOp: 3})
	if c := r.Choice(); c.Callers != 4 || c.IntraOp != 1 || c.IdleIntraOp != 3 || c.Batch != 1 || c.Source != "set" {
		t.Errorf("%+v", c)
	}
	if r.load.sess == r.idle.sess {
		t.Fatal("one form for all")
	}
	first, err := r.acquire(t.Context())
	if err != nil || first != &r.idle || first.tokens != 3 {
		t.Fatalf("first: %+v %v", first, err)
	}
	second, err := r.acquire(t.Context())
	if err != nil || second != &r.load || second.tokens != 1 {
		t.Fatalf("second: %+v %v", second, err)
	}
	b.release(first.tokens)
	b.release(second.tokens)
	if r.Input().Name != "input" || len(r.Outputs()) != 1 {
		t.Errorf("%+v %+v", r.Input(), r.Outputs())
	}
}

// TestRunnerEndsWithItsContext: a run that would never end ends with its context,
// and its core is free again; so is the place of one that only waited.
func TestRunnerEndsWithItsContext(t *testing.T) {
	for name, opt := range map[string]RunnerOptions{
		"one thread":  {Budget: testBudget(t, 1)},
		"two threads": {Budget: testBudget(t, 2), IntraOp: 2},
	} {
		t.Run(name, func(t *testing.T) {
			noGoroutineLeft(t)
			r := testRunner(t, onnxtest.EndlessEmbedder(), BatchStatic, opt)
			busy, stop := context.WithCancel(t.Context())
			started, done := make(chan struct{}), make(chan error, 1)
			go func() {
				done <- r.Run(busy, oneCrop, oneVector, func(in []float32) error { in[0] = 1; close(started); return nil }, nothingRead)
			}()
			<-started
			waiting, giveUp := context.WithCancel(t.Context())
			gave := make(chan error, 1)
			go func() { gave <- meanOf(waiting, r, 1) }()
			r.budget.waitFor(t, "a second waits", func() bool { return r.budget.queued() == 1 })
			giveUp()
			if err := <-gave; !errors.Is(err, context.Canceled) {
				t.Errorf("waiting: %v", err)
			}
			stop()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("running: %v", err)
			}
			// The options of the run that was ended do not end the next.
			if err := meanOf(t.Context(), r, -5); err != nil {
				t.Errorf("the next run: %v", err)
			}
		})
	}
}

// TestRunnersShareFairly: a detector's and an embedder's runs, here two models
// on one core, take turns however many callers either has: who comes is served
// behind those who were there before, each of them once.
func TestRunnersShareFairly(t *testing.T) {
	b := testBudget(t, 1)
	crowd := testRunner(t, onnxtest.MeanEmbedder(1), BatchStatic, RunnerOptions{Budget: b})
	single := testRunner(t, onnxtest.MeanEmbedder(1), BatchStatic, RunnerOptions{Budget: b})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var runs atomic.Int64
	count := func([]float32) error { runs.Add(1); return nil }
	var wg sync.WaitGroup
	const callers = 8
	for range callers {
		wg.Go(func() {
			for crowd.Run(ctx, oneCrop, oneVector, count, nothingRead) == nil {
			}
		})
	}
	for range 20 {
		// The test has the core until all of them stand in the queue.
		if err := b.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.waitFor(t, "the crowd waits", func() bool { return b.queued() == callers })
		before, passed := runs.Load(), int64(-1)
		served := make(chan error, 1)
		go func() {
			served <- single.Run(t.Context(), oneCrop, oneVector, func([]float32) error { passed = runs.Load() - before; return nil }, nothingRead)
		}()
		b.waitFor(t, "one more waits", func() bool { return b.queued() == callers+1 })
		b.Release()
		if err := <-served; err != nil {
			t.Fatal(err)
		}
		if passed != callers {
			t.Errorf("%d runs of the crowd of %d before that of the single caller", passed, callers)
		}
	}
	stop()
	wg.Wait()
}

func TestRunnerCloseWaitsForRunsUnderWay(t *testing.T) {
	for _, batch := range []int{1, 4} {
		noGoroutineLeft(t)
		kind, data := BatchStatic, onnxtest.SlowEmbedder(300)
		if batch > 1 {
			kind, data = BatchDynamic, onnxtest.MeanEmbedder(-1)
		}
		r := testRunner(t, data, kind, RunnerOptions{Budget: testBudget(t, 1), Batch: batch})
		started := make(chan struct{})
		var once sync.Once
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				err := r.Run(context.Background(), oneCrop, oneVector,
					func(in []float32) error { clear(in); once.Do(func() { close(started) }); return nil }, nothingRead)
				if err != nil && !errors.Is(err, ErrClosed) {
					t.Errorf("batch %d: under way: %v", batch, err)
				}
			})
		}
		<-started
		r.Close()
		if r.pool.live != 0 {
			t.Errorf("batch %d: %d tensor sets alive when Close returned", batch, r.pool.live)
		}
		wg.Wait()
		if err := meanOf(t.Context(), r, 1); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		r.Close()
	}
}

func TestRunnerOddShapesAndCallbackErrors(t *testing.T) {
	for _, batch := range []int{1, 4} {
		kind, data := BatchStatic, onnxtest.MeanEmbedder(1)
		if batch > 1 {
			kind, data = BatchDynamic, onnxtest.MeanEmbedder(-1)
		}
		r := testRunner(t, data, kind, RunnerOptions{Budget: testBudget(t, 1), Batch: batch})
		for _, tc := range []struct {
			in   []int64
			outs [][]int64
		}{
			{nil, oneVector},
			{[]int64{0, 3, 112, 112}, oneVector},
			{[]int64{-1, 3, 112, 112}, oneVector},
			{[]int64{1 << 40, 1 << 40}, oneVector},
			{[]int64{1, 1 << 40}, oneVector},
			{[]int64{1, 3, 112}, oneVector},
			{[]int64{1, 3, 64, 64}, oneVector},
			{oneCrop, [][]int64{{1, 4}}},
			{oneCrop, nil},
			{oneCrop, [][]int64{{1, 3}, {1, 3}}},
			{oneCrop, [][]int64{{}}},
			{oneCrop, [][]int64{{3}}},
		} {
			if err := r.Run(t.Context(), tc.in, tc.outs, nothing, nothingRead); !errors.Is(err, ErrRun) {
				t.Errorf("batch %d: %v %v: got %v, want ErrRun", batch, tc.in, tc.outs, err)
			}
		}
		mine := errors.New("mine")
		if err := r.Run(t.Context(), oneCrop, oneVector, func([]float32) error { return mine }, nil); err != mine {
			t.Errorf("batch %d: fill: %v", batch, err)
		}
		if err := r.Run(t.Context(), oneCrop, oneVector, nothing, func([][]float32) error { return mine }); err != mine {
			t.Errorf("batch %d: read: %v", batch, err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := meanOf(ended, r, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("batch %d: a context that has ended: %v", batch, err)
		}
		if err := meanOf(t.Context(), r, 7); err != nil {
			t.Errorf("batch %d: after all that: %v", batch, err)
		}
	}
}

func TestNewRunnerRefuses(t *testing.T) {
	rt := testRuntime(t)
	open := func(man Manifest, data []byte, opt RunnerOptions) error {
		r, err := rt.NewRunner(t.Context(), &Resolved{Manifest: man, Data: data}, opt)
		if err == nil {
			r.Close()
		}
		return err
	}
	man := embedderManifest(BatchStatic)
	for _, opt := range []RunnerOptions{{IntraOp: -1}, {IntraOp: maxIntraOp + 1}, {Batch: -1}, {Batch: maxBatch + 1}} {
		if err := open(man, onnxtest.MeanEmbedder(1), opt); err == nil || !strings.Contains(err.Error(), "runner options") {
			t.Errorf("%+v: %v", opt, err)
		}
	}
	if err := open(man, onnxtest.MeanEmbedder(1), RunnerOptions{Batch: 2}); !errors.Is(err, ErrModelShape) || !strings.Contains(err.Error(), "open batch") {
		t.Errorf("batches of a model without: %v", err)
	}
	if err := open(man, nil, RunnerOptions{}); !errors.Is(err, ErrNotModel) {
		t.Errorf("no model: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := rt.NewRunner(ctx, &Resolved{Manifest: man, Data: onnxtest.MeanEmbedder(1)}, RunnerOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestRunAllocatesLittle: what is left are the binding's two slices of values
// for each run, and with a context that can end, what context.AfterFunc makes.
func TestRunAllocatesLittle(t *testing.T) {
	r := testRunner(t, onnxtest.MeanEmbedder(1), BatchStatic, RunnerOptions{Budget: testBudget(t, 1)})
	ending, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, tc := range []struct {
		name string
		ctx  context.Context
		most float64
	}{
		{"without end", context.Background(), 4},
		{"that may end", ending, 7},
	} {
		n := testing.AllocsPerRun(100, func() {
			if err := r.Run(tc.ctx, oneCrop, oneVector, nothing, nothingRead); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("a context %s: %v allocations", tc.name, n)
		if n > tc.most {
			t.Errorf("a context %s: %v allocations, want at most %v", tc.name, n, tc.most)
		}
	}
}
