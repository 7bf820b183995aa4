package models

import (
	"context"
	"fmt"
	"runtime"
	"sync"
)

// Budget shares the cores of a machine among all who compute on it: a core is a
// core, whichever model it runs. Who takes tokens from it waits in the order of
// arrival, so neither a detector nor an embedder can starve the other; a wait
// ends with its context. Safe for concurrent use.
//
// There are half as many tokens again as cores: between two runs on a token lie
// a hand-over, an answer and the next picture's pixels, and a core whose run is over
// goes on with another one meanwhile. Verify from crops, 4 cores of an EPYC Zen 5,
// of raw ONNX Runtime's faces a second, and the share of the cores that was idle:
// 4 tokens 0.76 to 0.84, 0.10; 5 0.85 to 0.91, 0.02; 6 0.91 to 0.95, 0.02; 8 0.79
// to 0.90, 0.02.
type Budget struct {
	cores, size int

	mu          sync.Mutex
	free        int
	granted     uint64 // so far
	first, last *waiter
	spare       *waiter // waiters for later use, linked by next
}

// waiter is a place in the queue.
type waiter struct {
	load, idle int
	granted    chan bool // was it granted as to somebody alone? Room for one
	next, prev *waiter
}

// NewBudget returns a budget of so many cores. 0: GOMAXPROCS.
func NewBudget(cores int) (*Budget, error) {
	if cores == 0 {
		cores = runtime.GOMAXPROCS(0)
	}
	if cores < 0 || cores > maxConcurrency {
		return nil, fmt.Errorf("models: a budget of %d cores: give 1 to %d, or 0 for all", cores, maxConcurrency)
	}
	size := cores + (cores+1)/2
	return &Budget{cores: cores, size: size, free: size}, nil
}

// Cores is the number of threads that one run may have.
func (b *Budget) Cores() int { return b.cores }

// Size is the number of tokens: the runs of one thread that may go on at once.
func (b *Budget) Size() int { return b.size }

// Granted is how many have had their turn so far.
func (b *Budget) Granted() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.granted
}

// tokens are those of a run with so many threads: all of them for one that takes
// every core.
func (b *Budget) tokens(threads int) int {
	if threads > 1 && threads >= b.cores {
		return b.size
	}
	return threads
}

// Acquire waits for one token: for work on one core that is no inference.
// Give it back with Release. Error: ctx.Err().
func (b *Budget) Acquire(ctx context.Context) error {
	_, err := b.acquire(ctx, 1, 1)
	return err
}

// Release gives back what Acquire took.
func (b *Budget) Release() { b.release(1) }

// acquire takes idle tokens if nobody else holds or wants any, and load tokens
// otherwise, when they are free and those who came before have theirs. It says
// which. Both are at most the size.
func (b *Budget) acquire(ctx context.Context, load, idle int) (alone bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	b.mu.Lock()
	if b.first == nil {
		if b.free == b.size {
			b.free -= idle
			b.granted++
			b.mu.Unlock()
			return true, nil
		}
		if b.free >= load {
			b.free -= load
			b.granted++
			b.mu.Unlock()
			return false, nil
		}
	}
	w := b.join(load, idle)
	b.mu.Unlock()

	select {
	case alone = <-w.granted:
		b.mu.Lock()
		b.recycle(w)
		b.mu.Unlock()
		return alone, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case alone := <-w.granted: // it came too late
		if alone {
			b.free += idle
		} else {
			b.free += load
		}
	default:
		b.remove(w)
	}
	b.recycle(w)
	b.grant()
	return false, ctx.Err()
}

// release gives tokens back.
func (b *Budget) release(tokens int) {
	b.mu.Lock()
	b.free += tokens
	b.grant()
	b.mu.Unlock()
}

// grant serves the queue from its head as far as the tokens go.
func (b *Budget) grant() {
	for w := b.first; w != nil; w = b.first {
		alone := b.free == b.size && w.next == nil
		tokens := w.load
		if alone {
			tokens = w.idle
		}
		if b.free < tokens {
			return
		}
		b.free -= tokens
		b.granted++
		b.remove(w)
		w.granted <- alone
	}
}

func (b *Budget) join(load, idle int) *waiter {
	w := b.spare
	if w != nil {
		b.spare = w.next
	} else {
		w = &waiter{granted: make(chan bool, 1)}
	}
	*w = waiter{load: load, idle: idle, granted: w.granted, prev: b.last}
	if b.last != nil {
		b.last.next = w
	} else {
		b.first = w
	}
	b.last = w
	return w
}

func (b *Budget) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		b.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		b.last = w.prev
	}
}

// recycle keeps w, which has left the queue and whose channel is empty.
func (b *Budget) recycle(w *waiter) {
	w.prev, w.next = nil, b.spare
	b.spare = w
}
