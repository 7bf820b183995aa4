package admission

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// busyFor takes the whole limiter for a tenant, with as many waiting as may, and gives
// it back after d.
func busyFor(t *testing.T, l *Limiter, tenant string, d time.Duration) *sync.WaitGroup {
	var all sync.WaitGroup
	for refused := false; !refused; synctest.Wait() {
		all.Go(func() {
			ticket, err := l.Admit(t.Context(), Ask{Tenant: tenant, Work: calls})
			if err != nil {
				refused = true
				return
			}
			time.Sleep(d)
			ticket.Done(errors.New("only held"))
		})
		synctest.Wait()
	}
	return &all
}

// An item of a stream is not refused while it can be hoped to be admitted soon: it is
// held, with its bytes counted, and admitted when there is room.
func TestStreamedWorkIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{})
		began := time.Now()
		all := busyFor(t, l, "a", time.Millisecond)
		if _, err := l.Admit(t.Context(), Ask{Tenant: "a", Work: calls}); !errors.Is(err, ErrOverloaded) {
			t.Fatalf("a call: %v", err)
		}
		refused := l.Stats().Refused
		all.Go(func() {
			ticket, err := l.Admit(t.Context(), Ask{Tenant: "a", Work: calls, Streamed: true, Bytes: 7})
			if err != nil {
				t.Errorf("an item: %v", err)
			}
			if waited := time.Since(began); waited == 0 || waited > holds+time.Duration(l.bound()) {
				t.Errorf("held for %v", waited)
			}
			ticket.Done(nil)
		})
		synctest.Wait()
		if s := l.Stats(); s.Bytes != 7 || s.Refused != refused {
			t.Errorf("while an item is held: %+v, %d refused before", s, refused)
		}
		all.Wait()
		idle(t, l)
	})
}

// What is held is answered: refused after the longest time at the latest, at once
// where its deadline comes first or its tenant has too many held, and given up with
// its caller.
func TestHoldingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{})
		all := busyFor(t, l, "a", time.Minute)
		item := Ask{Tenant: "a", Work: calls, Streamed: true}
		ask := func(ctx context.Context) (time.Duration, error) {
			began := time.Now()
			_, err := l.Admit(ctx, item)
			return time.Since(began), err
		}
		if took, err := ask(t.Context()); !errors.Is(err, ErrOverloaded) || took == 0 || took > holds {
			t.Errorf("an item: %v after %v", err, took)
		}
		soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if took, err := ask(soon); !errors.Is(err, ErrOverloaded) || took != 0 {
			t.Errorf("an item with a deadline: %v after %v", err, took)
		}
		large := item
		large.Bytes = DefaultMaxBytes/heldBytes + 1
		began := time.Now()
		if _, err := l.Admit(t.Context(), large); !errors.Is(err, ErrOverloaded) || time.Since(began) != 0 {
			t.Errorf("an item that is too large to be held: %v after %v", err, time.Since(began))
		}
		gone, leave := context.WithCancel(t.Context())
		for range mostHeld {
			all.Go(func() {
				if took, err := ask(gone); !errors.Is(err, context.Canceled) || took != 0 {
					t.Errorf("an item whose caller went: %v after %v", err, took)
				}
			})
		}
		synctest.Wait()
		if took, err := ask(t.Context()); !errors.Is(err, ErrOverloaded) || took != 0 {
			t.Errorf("one item too many: %v after %v", err, took)
		}
		leave()
		synctest.Wait()
		if took, err := ask(t.Context()); !errors.Is(err, ErrOverloaded) || took == 0 {
			t.Errorf("an item after others went: %v after %v", err, took)
		}
		all.Wait()
		idle(t, l)
	})
}

// A tenant that floods through pipelined streams gets no more than by calls, and a
// tenant within its share does not feel it.
func TestStreamsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{})
		ctx, stop := context.WithTimeout(t.Context(), 4*time.Second)
		defer stop()
		var all sync.WaitGroup
		var mu sync.Mutex
		served, burnt := 0, 0
		for range 20 * 16 { // twenty streams, all places taken, again and again
			all.Go(func() {
				for ctx.Err() == nil {
					// Not ctx: it would be the items' deadline.
					ticket, err := l.Admit(context.WithoutCancel(ctx), Ask{Tenant: "streams", Work: calls, Streamed: true})
					if err == nil {
						time.Sleep(serviceTime)
						ticket.Done(nil)
					} else {
						time.Sleep(time.Millisecond) // its answer, and the next item
					}
					mu.Lock()
					if err == nil {
						served++
					} else {
						burnt++
					}
					mu.Unlock()
				}
			})
		}
		// Half of the machine is 1,000 of these calls a second.
		gates := offer(t, l, "gates", time.Second/800, 4*time.Second, &all)
		all.Wait()
		sum := gates.admitted + gates.refused
		if gates.refused*50 > sum || gates.latest > 2*time.Duration(l.bound())+serviceTime {
			t.Errorf("gates within their share: %d of %d refused, the latest after %v", gates.refused, sum, gates.latest)
		}
		if served < 4000 || served > 5200 { // what the gates leave of 8,000
			t.Errorf("streams got %d", served)
		}
		t.Logf("streams: %d served, %d burnt; gates: %d, %d refused, latest %v", served, burnt, gates.admitted, gates.refused, gates.latest)
		idle(t, l)
	})
}
