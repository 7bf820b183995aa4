package models

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// batcher lets the images of several callers share a run: those that come while
// the batch before waits for its tokens. It never waits for more to come, so
// an idle model answers at once.
type batcher struct {
	runner *Runner
	size   int // images of a run, at most
	under  sync.WaitGroup

	mu   sync.Mutex
	open *batch // the batch that may be joined, or nil
}

// batch is one run. Its goroutine waits for the tokens, closes it to newcomers,
// has every member fill its row, runs the model and ends.
type batch struct {
	inShape   []int64 // of one image
	outShapes [][]int64

	// Under batcher.mu until ready is closed.
	members []*member
	closed  bool

	ctx    context.Context // ends when all members have left
	cancel context.CancelFunc
	ready  chan struct{} // rows may be filled, or err is set
	filled sync.WaitGroup
	done   chan struct{} // rows may be read, or err is set
	err    error
	t      *tensors

	left int // members that gave up; under batcher.mu
	refs int // members and the goroutine that may still touch t; under batcher.mu
}

// member is one image of a batch.
type member struct{ row int }

// run is Runner.Run for one image.
func (q *batcher) run(ctx context.Context, inShape []int64, outShapes [][]int64, fill func([]float32) error, read func([][]float32) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b, m := q.join(inShape, outShapes)
	select {
	case <-b.ready:
	case <-ctx.Done():
		if q.leave(b, m) {
			return ctx.Err()
		}
		<-b.ready // its row has been made: it has to be given back
	}
	if b.err != nil {
		return b.err
	}
	defer q.drop(b)
	if err := ctx.Err(); err != nil {
		b.filled.Done()
		q.giveUp(b)
		return err
	}
	err := fill(row(b.t.in.GetData(), m.row, b.t.inShape))
	b.filled.Done()
	if err != nil {
		q.giveUp(b)
		return err
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		q.giveUp(b)
		return ctx.Err()
	}
	if b.err != nil {
		return b.err
	}
	outs := make([][]float32, len(b.t.outData))
	for i, data := range b.t.outData {
		outs[i] = row(data, m.row, b.t.outShapes[i])
	}
	return read(outs)
}

// row is one image's part of a tensor.
func row(data []float32, i int, shape []int64) []float32 {
	n := len(data) / int(shape[0])
	return data[i*n : (i+1)*n : (i+1)*n]
}

// join adds a member to the open batch, or opens one.
func (q *batcher) join(inShape []int64, outShapes [][]int64) (*batch, *member) {
	m := &member{}
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.open
	if b == nil || !slices.Equal(b.inShape, inShape) || !slices.EqualFunc(b.outShapes, outShapes, slices.Equal[[]int64]) {
		b = &batch{inShape: slices.Clone(inShape), ready: make(chan struct{}), done: make(chan struct{})}
		for _, s := range outShapes {
			b.outShapes = append(b.outShapes, slices.Clone(s))
		}
		b.ctx, b.cancel = context.WithCancel(context.Background())
		q.open = b
		q.under.Go(func() { q.serve(b) })
	}
	b.members = append(b.members, m)
	if len(b.members) == q.size {
		q.open = nil
	}
	return b, m
}

// leave takes a member out of a batch that is not closed yet.
func (q *batcher) leave(b *batch, m *member) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if b.closed {
		return false
	}
	b.members = slices.DeleteFunc(b.members, func(x *member) bool { return x == m })
	if len(b.members) == 0 {
		if q.open == b {
			q.open = nil
		}
		b.cancel()
	}
	return true
}

// giveUp tells that a member does not want its answer any more. The run ends
// when nobody does.
func (q *batcher) giveUp(b *batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if b.left++; b.left == len(b.members) {
		b.cancel()
	}
}

// drop tells that somebody does not touch the tensors any more.
func (q *batcher) drop(b *batch) {
	q.mu.Lock()
	b.refs--
	last := b.refs == 0
	q.mu.Unlock()
	if last {
		q.runner.pool.put(b.t)
	}
}

// serve runs one batch.
func (q *batcher) serve(b *batch) {
	defer b.cancel()
	f, err := q.runner.acquire(b.ctx)
	if err == nil {
		defer q.runner.budget.release(f.tokens)
	}
	if !q.prepare(b, err) {
		return
	}
	b.filled.Wait()
	b.err = f.sess.infer(b.ctx, b.t)
	close(b.done)
	q.drop(b)
}

// prepare closes b to newcomers and makes its rows. It reports whether there is
// anything to run.
func (q *batcher) prepare(b *batch, err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open == b {
		q.open = nil
	}
	b.closed = true
	n := len(b.members)
	if n == 0 {
		return false
	}
	// Few sizes: a provider may prepare itself anew for each.
	rows := int64(1)
	for rows < int64(n) {
		rows *= 2
	}
	rows = min(rows, int64(q.size))
	if err == nil {
		in := slices.Clone(b.inShape)
		in[0] = rows
		outs := make([][]int64, len(b.outShapes))
		for i, s := range b.outShapes {
			outs[i] = slices.Clone(s)
			if len(s) == 0 || s[0] != 1 {
				err = fmt.Errorf("%w: an output of shape %v cannot be part of a batch", ErrRun, s)
				break
			}
			outs[i][0] = rows
		}
		if err == nil {
			b.t, err = q.runner.pool.get(in, outs)
		}
	}
	b.err = err
	if err == nil {
		clear(b.t.in.GetData()[n*len(b.t.in.GetData())/int(rows):]) // rows of nobody
		for i, m := range b.members {
			m.row = i
		}
		b.refs = n + 1
		b.filled.Add(n)
	}
	close(b.ready)
	return err == nil
}
