package matcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/admission"
)

// lockers is a world whose hall A is one of lockers, with calls that all begin
// at once.
func lockers(t *testing.T) *world {
	w := newWorld(t)
	w.Matcher.admission = admission.New(admission.Options{Cores: 256})
	s := w.settings()
	s.Preset = Locker
	_, err := w.CreateScope(context.Background(), grant(hallA), s, request())
	must(t, err)
	return w
}

func (w *world) rent(id scope.SubjectID, p Probe) {
	w.t.Helper()
	c := w.told(hallA)
	c.Transmission = true
	_, err := w.Enroll(context.Background(), grant(hallA), Enrollment{Subject: id, Consent: c, Probes: []Probe{p}})
	must(w.t, err)
}

func TestSingleUse(t *testing.T) {
	w := lockers(t)
	w.rent("box-1", vectorOf(1, 0))
	w.rent("box-2", vectorOf(2, 0))
	w.rent("box-3", vectorOf(1, 2))                                  // the same person rents another
	expect(t, w.verify(hallA, "box-1", vectorOf(2, 1)), NoMatch, "") // uses nobody up
	var acts []string
	w.Matcher.acts = func(ref scope.Ref, act string) { acts = append(acts, ref.String()+" "+act) }
	d := w.verify(hallA, "box-1", vectorOf(1, 1))
	expect(t, d, Match, "box-1")
	if want := hallA.String() + " EraseUsed"; len(acts) != 1 || acts[0] != want {
		t.Errorf("the acts %q, want %q", acts, want)
	}
	must(t, w.Stands(d, nil)) // it may wait on a stream
	expect(t, w.verify(hallA, "box-1", vectorOf(1, 1)), NoMatch, "")
	if _, err := w.Subject(context.Background(), grant(hallA), "box-1"); !errors.Is(err, ErrNoSubject) {
		t.Errorf("after its use: %v, want ErrNoSubject", err)
	}
	expect(t, w.identify(hallA, vectorOf(1, 1)), Match, "box-3")
	expect(t, w.identify(hallA, vectorOf(1, 1)), NoMatch, "")
	w.restart()
	expect(t, w.identify(hallA, vectorOf(1, 1)), NoMatch, "")
	expect(t, w.identify(hallA, vectorOf(2, 1)), Match, "box-2")

	// An answer that waits does not leave once the scope has ended.
	_, err := w.RevokeScope(context.Background(), grant(hallA), request())
	must(t, err)
	if err := w.Stands(d, nil); !errors.Is(err, ErrScopeRevoked) {
		t.Errorf("a decision that waited: %v, want ErrScopeRevoked", err)
	}
}

// The second-best candidate is not told where the best was used up: a gate could
// let it in, and it could come again.
func TestSingleUseTellsOneCandidate(t *testing.T) {
	w := lockers(t)
	w.rent("box-1", vectorOf(1, 1))
	w.rent("box-2", vectorOf(1, 2))
	r, err := w.Identify(context.Background(), grant(hallA), IdentifyQuery{Probe: vectorOf(1, 1), K: 5})
	must(t, err)
	if c := r[0].Candidates; len(c) != 1 || c[0].Subject != "box-1" || r[0].Decision.Subject != "box-1" {
		t.Errorf("candidates %+v of %+v, want box-1 alone", c, r[0].Decision)
	}
	expect(t, w.verify(hallA, "box-2", vectorOf(1, 1)), Match, "box-2")
}

// A camera that shows two people uses up both.
func TestSingleUseOfEachFace(t *testing.T) {
	w := lockers(t)
	w.rent("box-7", cropOf(7, 0))
	w.rent("box-8", cropOf(8, 0))
	q := IdentifyQuery{Probe: imageOf(t, 7, 1, 2), EachFace: true}
	for _, want := range []Outcome{Match, NoMatch} {
		r, err := w.Identify(context.Background(), grant(hallA), q)
		must(t, err)
		if len(r) != 2 || r[0].Decision.Outcome != want || r[1].Decision.Outcome != want {
			t.Errorf("got %v and %v, want both %v", r[0].Decision.Outcome, r[1].Decision.Outcome, want)
		}
	}
}

// Of 64 calls that come at once, by either way, one is answered MATCH; the
// others are answered as for an unknown subject.
func TestSingleUseOnce(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	w := lockers(t)
	ctx := context.Background()
	for round := range rounds {
		id := scope.SubjectID(fmt.Sprintf("box-%d", round))
		w.rent(id, vectorOf(uint16(round), 0))
		var matches, strangers atomic.Int64
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for n := range 64 {
			wg.Go(func() {
				<-begin
				probe := vectorOf(uint16(round), byte(n+1))
				var d Decision
				var err error
				if n%2 == 0 {
					d, err = w.Verify(ctx, grant(hallA), VerifyQuery{Subject: id, Probe: probe})
				} else {
					var r []FaceResult
					if r, err = w.Identify(ctx, grant(hallA), IdentifyQuery{Probe: probe}); err == nil {
						d = r[0].Decision
					}
				}
				switch {
				case err != nil:
					t.Errorf("call %d: %v", n, err)
				case d.Outcome == Match:
					matches.Add(1)
				case d.Outcome == NoMatch && d.Subject == "" && d.Template == 0:
					strangers.Add(1)
				}
			})
		}
		close(begin)
		wg.Wait()
		if matches.Load() != 1 || strangers.Load() != 63 {
			t.Fatalf("round %d: %d matches and %d strangers, want 1 and 63", round, matches.Load(), strangers.Load())
		}
	}
}

// Withdrawals compete with uses: whoever comes first, there is one at most, and
// none after a withdrawal that found the subject.
func TestSingleUseAgainstWithdrawal(t *testing.T) {
	w := lockers(t)
	ctx := context.Background()
	for round := range 10 {
		id := scope.SubjectID(fmt.Sprintf("box-%d", round))
		w.rent(id, vectorOf(uint16(round), 0))
		var matches atomic.Int64
		var withdrawn error
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				d, err := w.Verify(ctx, grant(hallA), VerifyQuery{Subject: id, Probe: vectorOf(uint16(round), byte(n+1))})
				must(t, err)
				if d.Outcome == Match {
					matches.Add(1)
				}
			})
		}
		wg.Go(func() { _, withdrawn = w.WithdrawConsent(ctx, grant(hallA), id, request()) })
		wg.Wait()
		switch {
		case withdrawn == nil && matches.Load() == 0:
		case errors.Is(withdrawn, ErrNoSubject) && matches.Load() == 1:
		default:
			t.Fatalf("round %d: %d matches, withdrawal %v", round, matches.Load(), withdrawn)
		}
	}
}

// No match leaves whose use could not be written down, and the subject is there
// when it can.
func TestSingleUseOnAFullDisk(t *testing.T) {
	w := lockers(t)
	w.rent("box-1", vectorOf(1, 0))
	w.full(0)
	_, err := w.Verify(context.Background(), grant(hallA), VerifyQuery{Subject: "box-1", Probe: vectorOf(1, 1)})
	if !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("verify: %v, want ErrNoSpace", err)
	}
	_, err = w.Identify(context.Background(), grant(hallA), IdentifyQuery{Probe: vectorOf(1, 1)})
	if !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("identify: %v, want ErrNoSpace", err)
	}
	w.full(roomy)
	expect(t, w.verify(hallA, "box-1", vectorOf(1, 1)), Match, "box-1")
	expect(t, w.verify(hallA, "box-1", vectorOf(1, 1)), NoMatch, "")
}

// A use that waited for the subject's lock does not use up whoever has the id by
// then, nor somebody whose time is over, nor for a caller that is gone.
func TestSingleUseIsOfWhomMatched(t *testing.T) {
	w := lockers(t)
	ctx := context.Background()
	sc, err := w.entry(hallA)
	must(t, err)
	matched := func(id scope.SubjectID, p Probe) Decision {
		embedding, err := sc.decodeEmbedding(make([]float32, sc.dim), p.Embedding)
		must(t, err)
		r, err := w.identifyOne(ctx, grant(hallA), sc, sighting{embedding: embedding}, 1)
		must(t, err)
		expect(t, r.Decision, Match, id)
		return r.Decision
	}
	use := func(ctx context.Context, d Decision) error {
		_, err := w.use(ctx, new(admission.Ticket), sc, d)
		return err
	}
	w.rent("box-1", vectorOf(1, 0))
	d := matched("box-1", vectorOf(1, 1))
	_, err = w.DeleteSubject(ctx, grant(hallA), "box-1", request())
	must(t, err)
	w.rent("box-1", vectorOf(2, 0))
	if err := use(ctx, d); !errors.Is(err, ErrOvertaken) {
		t.Errorf("somebody else has the id: %v, want ErrOvertaken", err)
	}
	d = matched("box-1", vectorOf(2, 1))
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := use(gone, d); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller is gone: %v, want Canceled", err)
	}
	_, err = w.SuspendScope(ctx, grant(hallA), request())
	must(t, err)
	if err := use(ctx, d); !errors.Is(err, ErrScopeSuspended) {
		t.Errorf("suspended meanwhile: %v, want ErrScopeSuspended", err)
	}
	_, err = w.ResumeScope(ctx, grant(hallA), request())
	must(t, err)
	w.pass(12*time.Hour - time.Second)
	d = matched("box-1", vectorOf(2, 1))
	w.pass(time.Second)
	if err := use(ctx, d); !errors.Is(err, ErrOvertaken) {
		t.Errorf("expired meanwhile: %v, want ErrOvertaken", err)
	}
}
