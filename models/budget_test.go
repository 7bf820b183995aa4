package models

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// testBudget is a budget of n tokens, for as many cores; 0: as for a server.
func testBudget(t testing.TB, n int) *Budget {
	t.Helper()
	b, err := NewBudget(n)
	if err != nil {
		t.Fatal(err)
	}
	if n > 0 {
		b.size, b.free = n, n
	}
	t.Cleanup(func() {
		if b.free != b.size || b.first != nil || b.last != nil {
			t.Errorf("%d of %d tokens are free at the end, the queue is %p %p", b.free, b.size, b.first, b.last)
		}
	})
	return b
}

// waitFor waits until cond holds of the budget.
func (b *Budget) waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		ok := cond()
		b.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it did not come to this: %s", what)
		}
	}
}

// queued is the number of waiters; the caller holds mu.
func (b *Budget) queued() int {
	n := 0
	for w := b.first; w != nil; w = w.next {
		n++
	}
	return n
}

func TestBudgetGivesAllToWhoIsAlone(t *testing.T) {
	b := testBudget(t, 4)
	take := func(wantAlone bool) {
		t.Helper()
		alone, err := b.acquire(t.Context(), 1, 3)
		if err != nil || alone != wantAlone {
			t.Fatalf("alone %v, %v", alone, err)
		}
	}
	take(true)  // 3 of 4
	take(false) // the one that is left
	b.release(3)
	take(false) // not the only one
	b.release(1)
	b.release(1)
	take(true)
	b.release(3)
}

func TestBudgetServesInOrderOfArrival(t *testing.T) {
	b := testBudget(t, 2)
	if err := b.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	// The second wants both tokens, and those behind it must not overtake.
	for i, load := range []int{1, 2, 1, 1, 2, 1} {
		wg.Go(func() {
			if _, err := b.acquire(t.Context(), load, load); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			b.release(load)
		})
		b.waitFor(t, "the waiter stands in the queue", func() bool { return b.queued() == i+1 })
	}
	b.Release()
	b.Release()
	wg.Wait()
	// 2 and 3 may be served at once, so their order is theirs.
	if order[0] != 0 || order[1] != 1 || order[4] != 4 || order[5] != 5 {
		t.Errorf("served in the order %v", order)
	}
}

func TestBudgetForgetsWhoGaveUp(t *testing.T) {
	b := testBudget(t, 1)
	if err := b.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gave, got := make(chan error), make(chan error)
	go func() { gave <- b.Acquire(ctx) }()
	b.waitFor(t, "one waits", func() bool { return b.queued() == 1 })
	go func() { got <- b.Acquire(t.Context()) }()
	b.waitFor(t, "two wait", func() bool { return b.queued() == 2 })
	cancel()
	if err := <-gave; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.Release()
	if err := <-got; err != nil {
		t.Errorf("the one behind: %v", err)
	}
	b.Release()
	if err := b.Acquire(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
}

// TestBudgetNeverOverspends lets random callers come, wait, give up and go.
func TestBudgetNeverOverspends(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.IntRange(1, 5).Draw(rt, "size")
		b := testBudget(t, size)
		type step struct{ load, idle, patience int }
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{rapid.IntRange(1, size).Draw(rt, "load"), rapid.IntRange(1, size).Draw(rt, "idle"), rapid.IntRange(0, 200).Draw(rt, "us")}
		}), 1, 40).Draw(rt, "steps")
		var mu sync.Mutex
		used := 0
		change := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			if used += n; used > size || used < 0 {
				t.Errorf("%d of %d tokens are in use", used, size)
			}
		}
		var wg sync.WaitGroup
		for _, s := range steps {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(s.patience)*time.Microsecond)
				defer cancel()
				alone, err := b.acquire(ctx, s.load, s.idle)
				if err != nil {
					return
				}
				n := s.load
				if alone {
					n = s.idle
				}
				change(n)
				time.Sleep(10 * time.Microsecond)
				change(-n)
				b.release(n)
			})
		}
		wg.Wait()
		if b.free != size || b.first != nil {
			rt.Fatalf("%d of %d free, queue %p", b.free, size, b.first)
		}
	})
}

func TestBudgetSizes(t *testing.T) {
	for _, n := range []int{-1, maxConcurrency + 1} {
		if _, err := NewBudget(n); err == nil {
			t.Errorf("%d cores were taken", n)
		}
	}
	if b := testBudget(t, 0); b.Cores() < 1 || b.Size() <= b.Cores() {
		t.Errorf("%d cores, %d tokens by default", b.Cores(), b.Size())
	}
	for _, tc := range []struct{ cores, threads, tokens int }{{1, 1, 1}, {4, 1, 1}, {4, 2, 2}, {4, 4, 6}, {4, 8, 6}, {3, 3, 5}} {
		b, err := NewBudget(tc.cores)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.tokens(tc.threads); got != tc.tokens {
			t.Errorf("%d threads of %d cores take %d tokens, want %d", tc.threads, tc.cores, got, tc.tokens)
		}
	}
}

func TestBudgetAllocatesNothing(t *testing.T) {
	b := testBudget(t, 2)
	if n := testing.AllocsPerRun(100, func() {
		if err := b.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.Release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	// Places in the queue are used again.
	var seen []*waiter
	for range 3 {
		b.mu.Lock()
		w := b.join(1, 1)
		b.remove(w)
		b.recycle(w)
		b.mu.Unlock()
		if !slices.Contains(seen, w) {
			seen = append(seen, w)
		}
	}
	if len(seen) != 1 {
		t.Errorf("%d places were made for one after the other", len(seen))
	}
}
