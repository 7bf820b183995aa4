package admission

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A search of a large gallery leaves the cores to others, and what it costs is
// learned as core time.
func TestSharedSearches(t *testing.T) {
	l := New(Options{Cores: 4})
	ask := Ask{Tenant: "a", Work: Work{Op: Identify, Probe: Embedding, Rows: 1_000_000, Shared: true}}
	var tickets []Ticket
	for range 4 * core {
		ticket, err := l.Admit(t.Context(), ask)
		if err != nil {
			t.Fatalf("after %d: %v", len(tickets), err)
		}
		tickets = append(tickets, ticket)
	}
	if got := l.Stats().Running; got != 4 {
		t.Errorf("%v cores at work", got)
	}
	for i := range tickets {
		tickets[i].Done(nil)
	}
	image, err := l.Admit(t.Context(), Ask{Tenant: "a", Work: Work{Op: Identify, Probe: Image, Pixels: 640 * 480, Rows: 1_000_000, Shared: true}})
	if err != nil || l.Stats().Running != 1 {
		t.Fatalf("%v, %v", err, l.Stats())
	}
	image.Lighten()
	image.Lighten()
	if got := l.Stats().Running; got != 1.0/core {
		t.Errorf("%v cores at work after Lighten", got)
	}
	image.Done(nil)
	var none Ticket
	none.Lighten()
	none.Done(nil)
	idle(t, l)
}

// Two calls with crops a core are under way, and what one took counts as half of
// that core's time.
func TestSeeingSharesCores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{Cores: 4})
		ask := Ask{Tenant: "a", Work: Work{Op: Verify, Probe: Crop}}
		var held []Ticket
		for range 8 {
			ticket, err := l.Admit(t.Context(), ask)
			if err != nil {
				t.Fatalf("after %d: %v", len(held), err)
			}
			held = append(held, ticket)
		}
		if got := l.Stats().Running; got != 4 {
			t.Errorf("%v cores at work", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		waits := make(chan error)
		go func() {
			_, err := l.Admit(ctx, ask)
			waits <- err
		}()
		synctest.Wait()
		if got := l.Stats().Waiting; got != 1 {
			t.Errorf("%d wait behind eight", got)
		}
		cancel()
		if err := <-waits; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		const factor = 4
		time.Sleep(time.Duration(2 * factor * ask.Work.prior()))
		for i := range held {
			held[i].Done(nil)
		}
		want := 1 + (factor-1)*(1-math.Pow(1-learning, 8))
		if got := l.costs.factor[ask.Work.cell()]; math.Abs(got-want) > 1e-3 {
			t.Errorf("learned %v times the prior, want %v", got, want)
		}
		idle(t, l)
	})
}

// Bytes are bounded, but one probe is always let in.
func TestBytes(t *testing.T) {
	l := New(Options{Cores: 4, MaxBytes: 1000})
	big, err := l.Admit(t.Context(), Ask{Tenant: "a", Bytes: 5000})
	if err != nil {
		t.Fatal(err)
	}
	var o *Overload
	if _, err := l.Admit(t.Context(), Ask{Tenant: "b", Bytes: 1}); !errors.As(err, &o) || o.Why != Memory {
		t.Errorf("over the bound: %v", err)
	}
	big.Done(nil)
	small, err := l.Admit(t.Context(), Ask{Tenant: "b", Bytes: 999})
	if err != nil {
		t.Error(err)
	}
	small.Done(nil)
	idle(t, l)
}

// A tenant's quota holds also when it is alone, and does not block the others.
func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{TenantShare: 0.5}) // two of four slots
		var all sync.WaitGroup
		a := offer(t, l, "a", time.Second/5000, time.Second, &all)
		b := offer(t, l, "b", time.Second/500, time.Second, &all)
		all.Wait()
		if a.admitted < 980 || a.admitted > 1020 {
			t.Errorf("%d calls admitted; two slots do 1000", a.admitted)
		}
		if b.refused > 0 {
			t.Errorf("%d of the other tenant's calls refused", b.refused)
		}
		idle(t, l)
	})
}
