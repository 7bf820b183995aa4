package matcher

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
)

// Whoever tells of an end waits for a match that is on its way out, and for
// nothing else.
func TestPassageHoldsErasure(t *testing.T) {
	ctx := context.Background()
	for name, end := range map[string]func(*world) error{
		"delete":   func(w *world) error { return second(w.DeleteSubject(ctx, grant(hallA), "v", request())) },
		"withdraw": func(w *world) error { return second(w.WithdrawConsent(ctx, grant(hallA), "v", request())) },
		"template": func(w *world) error { return second(w.DeleteTemplate(ctx, grant(hallA), "v", 1, request())) },
		"revoke":   func(w *world) error { return second(w.RevokeScope(ctx, grant(hallA), request())) },
		"nobody":   func(w *world) error { second(w.DeleteSubject(ctx, grant(hallA), "nobody", request())); return nil },
		"suspend":  func(w *world) error { return second(w.SuspendScope(ctx, grant(hallA), request())) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.create(hallA)
			w.enroll(hallA, "v", vectorOf(1, 0))
			var verified, identified, stranger, streamed Passage
			_, err := w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "v", Probe: vectorOf(1, 1), Passage: &verified})
			must(t, err)
			_, err = w.Identify(ctx, grant(hallA), IdentifyQuery{Probe: vectorOf(1, 1), Passage: &identified})
			must(t, err)
			_, err = w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "v", Probe: vectorOf(2, 1), Passage: &stranger})
			must(t, err)
			d, err := w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "v", Probe: vectorOf(1, 1), Deferred: true})
			must(t, err)
			must(t, w.Stands(d, &streamed))
			if !verified.Begun() || !identified.Begun() || !streamed.Begun() || stranger.Begun() {
				t.Fatalf("begun: %v %v %v, and without a match %v", verified.Begun(), identified.Begun(), streamed.Begun(), stranger.Begun())
			}
			var left, told atomic.Bool
			done := make(chan error, 1)
			go func() {
				err := end(w)
				if !left.Load() {
					t.Error("answered while a match was on its way out")
				}
				told.Store(true)
				done <- err
			}()
			for _, p := range []*Passage{&streamed, &verified, &identified} {
				time.Sleep(20 * time.Millisecond)
				if told.Load() {
					t.Fatal("answered while a match was on its way out")
				}
				left.Store(p == &identified)
				p.End()
				p.End()
			}
			must(t, <-done)
			var after Passage
			if d, _ := w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "v", Probe: vectorOf(1, 1), Passage: &after}); name != "nobody" && (d.Outcome == Match || after.Begun()) {
				t.Errorf("afterwards: %v", d.Outcome)
			}
			after.End()
		})
	}
}

// A passage that never ends costs one patience, not one an erasure.
func TestDeparturesPatience(t *testing.T) {
	var d departures
	d.join()
	if d.wait(time.Millisecond) {
		t.Error("did not wait for a passage")
	}
	if !d.wait(time.Hour) {
		t.Error("waited for a passage that was given up")
	}
}

// Passages come and go while others wait: nobody waits for ever, and what had
// begun before a wait has ended after it.
func TestDeparturesRace(t *testing.T) {
	var d departures
	const ends = 1000
	var fence, told [ends]atomic.Bool
	var next atomic.Int64
	var all sync.WaitGroup
	over := make(chan struct{})
	for range 8 {
		all.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				c, i := d.join(), min(next.Load(), ends-1)
				if !fence[i].Load() { // a match
					runtime.Gosched()
					if told[i].Load() {
						t.Errorf("%d was told to have ended, and its match had not left", i)
					}
				}
				c.leave()
			}
		})
	}
	var enders sync.WaitGroup
	for range 4 {
		enders.Go(func() {
			for i := next.Add(1) - 1; i < ends; i = next.Add(1) - 1 {
				fence[i].Store(true)
				if !d.wait(time.Minute) {
					t.Error("waited in vain")
				}
				told[i].Store(true)
			}
		})
	}
	enders.Wait()
	close(over)
	all.Wait()
}

// Beginning and ending costs no memory.
func TestPassageAllocations(t *testing.T) {
	var p Passage
	sc := &scopeEntry{ref: scope.Ref{Tenant: "fair", Scope: "hall-a"}}
	p.begin(sc)
	p.End()
	if n := testing.AllocsPerRun(1000, func() { p.begin(sc); p.End() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPassage(b *testing.B) {
	sc := &scopeEntry{}
	b.RunParallel(func(pb *testing.PB) {
		var p Passage
		for pb.Next() {
			p.begin(sc)
			p.End()
		}
	})
}
