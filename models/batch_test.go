package models

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/menshen-io/menshen/models/internal/onnxtest"
)

// batchRunner is a runner with batches of up to size on one core, which the
// test holds until it calls the function.
func batchRunner(t *testing.T, size int) (*Runner, func()) {
	t.Helper()
	b := testBudget(t, 1)
	r := testRunner(t, onnxtest.MeanEmbedder(-1), BatchDynamic, RunnerOptions{Budget: b, Batch: size})
	if err := b.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What warming left would hide what is made later.
	r.pool.mu.Lock()
	for _, idle := range r.pool.idle {
		idle.free()
		r.pool.live--
	}
	r.pool.idle = nil
	r.pool.mu.Unlock()
	return r, b.Release
}

// joined is how many have joined the open batch.
func (q *batcher) joined() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open == nil {
		return 0
	}
	return len(q.open.members)
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not come to this: %s", what)
		}
	}
}

// rows are the batch sizes that the pool has tensors for.
func (p *tensorPool) rows() map[int64]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	rows := map[int64]bool{}
	for _, t := range p.idle {
		rows[t.inShape[0]] = true
	}
	return rows
}

// settled waits until every tensor is back in the pool: a batch gives its own
// back after its callers have their answers.
func (r *Runner) settled(t *testing.T) {
	t.Helper()
	eventually(t, "all tensors are back in the pool", func() bool {
		r.pool.mu.Lock()
		defer r.pool.mu.Unlock()
		return len(r.pool.idle) == r.pool.live
	})
}

// TestBatchTakesThoseWhoWait: while the core is busy, three come; they share
// one run of four rows, and each gets its own answer.
func TestBatchTakesThoseWhoWait(t *testing.T) {
	noGoroutineLeft(t)
	r, free := batchRunner(t, 8)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			if err := meanOf(t.Context(), r, float32(10*i)); err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	eventually(t, "three have joined", func() bool { return r.batcher.joined() == 3 })
	free()
	wg.Wait()
	r.settled(t)
	if rows := r.pool.rows(); !rows[4] || rows[1] {
		t.Errorf("rows of the runs: %v", rows)
	}
	// Alone: a run of one.
	if err := meanOf(t.Context(), r, 5); err != nil {
		t.Error(err)
	}
	r.settled(t)
	if rows := r.pool.rows(); !rows[1] {
		t.Errorf("rows of the runs: %v", rows)
	}
}

// TestBatchIsFull: the one too many opens the next batch.
func TestBatchIsFull(t *testing.T) {
	noGoroutineLeft(t)
	r, free := batchRunner(t, 3)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if err := meanOf(t.Context(), r, float32(i)); err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	eventually(t, "one waits in the second batch", func() bool {
		return r.batcher.joined() == 1 && func() bool { r.budget.mu.Lock(); defer r.budget.mu.Unlock(); return r.budget.queued() == 2 }()
	})
	free()
	wg.Wait()
	r.settled(t)
	if rows := r.pool.rows(); !rows[3] || !rows[1] {
		t.Errorf("rows of the runs: %v", rows)
	}
}

// TestBatchWithoutOneOfItsMembers: who gives up while waiting is freed at once
// and the others are served; when all have given up, nothing is run.
func TestBatchWithoutOneOfItsMembers(t *testing.T) {
	noGoroutineLeft(t)
	r, free := batchRunner(t, 8)
	ctx, cancel := context.WithCancel(t.Context())
	gave, stayed := make(chan error, 2), make(chan error, 1)
	for range 2 {
		go func() { gave <- meanOf(ctx, r, 1) }()
	}
	eventually(t, "two have joined", func() bool { return r.batcher.joined() == 2 })
	go func() { stayed <- meanOf(t.Context(), r, 2) }()
	eventually(t, "three have joined", func() bool { return r.batcher.joined() == 3 })
	cancel()
	for range 2 {
		if err := <-gave; !errors.Is(err, context.Canceled) {
			t.Errorf("gave up: %v", err)
		}
	}
	free()
	if err := <-stayed; err != nil {
		t.Errorf("stayed: %v", err)
	}

	if err := r.budget.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, end := context.WithCancel(t.Context())
	go func() { gave <- meanOf(all, r, 1) }()
	eventually(t, "one has joined", func() bool { return r.batcher.joined() == 1 })
	end()
	if err := <-gave; !errors.Is(err, context.Canceled) {
		t.Errorf("the only one: %v", err)
	}
	r.budget.waitFor(t, "nobody waits for the core", func() bool { return r.budget.queued() == 0 })
	r.budget.Release()
}

// TestBatchMemberLeavesWhileItRuns: the run goes on for the others, and ends
// when nobody wants it.
func TestBatchMemberLeavesWhileItRuns(t *testing.T) {
	noGoroutineLeft(t)
	r, free := batchRunner(t, 2)
	mine := errors.New("mine")
	ctx, cancel := context.WithCancel(t.Context())
	filling, goOn := make(chan struct{}), make(chan struct{})
	left, stayed := make(chan error, 1), make(chan error, 1)
	go func() {
		left <- r.Run(ctx, oneCrop, oneVector, func([]float32) error { close(filling); <-goOn; return nil }, func([][]float32) error { return mine })
	}()
	eventually(t, "one has joined", func() bool { return r.batcher.joined() == 1 })
	go func() { stayed <- meanOf(t.Context(), r, 2) }()
	free()
	<-filling
	cancel()
	close(goOn)
	// It gives up, unless the run was done before it looked.
	if err := <-left; !errors.Is(err, context.Canceled) && err != mine {
		t.Errorf("left: %v", err)
	}
	if err := <-stayed; err != nil {
		t.Errorf("stayed: %v", err)
	}
}
