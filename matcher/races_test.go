package matcher

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/internal/history"
	"github.com/menshen-io/menshen/matcher/admission"
)

// races is how often a test races an erasure against matches.
func races(t *testing.T, usual int) int {
	if n, err := strconv.Atoi(os.Getenv("MENSHEN_RACES")); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		return max(1, usual/4)
	}
	return usual
}

// 64 clients verify and identify one person while it is erased: the history is
// linearisable every time, so no call that began after the answer matched.
// MENSHEN_RACES sets how many races there are of each kind.
func TestEraseRaces(t *testing.T) {
	const clients, perWorld = 64, 500
	ctx := context.Background()
	for name, erase := range map[string]func(*world, scope.Ref, scope.SubjectID) error{
		"revoke": func(w *world, ref scope.Ref, _ scope.SubjectID) error {
			return second(w.RevokeScope(ctx, grant(ref), request()))
		},
		"delete": func(w *world, ref scope.Ref, id scope.SubjectID) error {
			return second(w.DeleteSubject(ctx, grant(ref), id, request()))
		},
		"withdraw": func(w *world, ref scope.Ref, id scope.SubjectID) error {
			return second(w.WithdrawConsent(ctx, grant(ref), id, request()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			total, began := races(t, 20), time.Now()
			all, matches, late, latest := 0, 0, 0, time.Duration(0)
			for done := 0; done < total; {
				t.Run(strconv.Itoa(done), func(t *testing.T) {
					w := newWorld(t)
					w.Matcher.admission = admission.New(admission.Options{Cores: 256})
					for n := 0; n < perWorld && done < total; n++ {
						f := race(w, n, name == "revoke", clients, erase)
						must(t, f.Check())
						a, m := f.Reads()
						all, matches, done = all+a, matches+m, done+1
						if d := f.Late(); d > 0 {
							late, latest = late+1, max(latest, d)
						}
					}
				})
				if t.Failed() {
					return
				}
			}
			t.Logf("%d races in %v: %d calls, %d matches; %d races had a match that was handed out after the answer, by at most %v",
				total, time.Since(began).Round(time.Second), all, matches, late, latest)
		})
	}
}

// race erases one person, in a scope of its own or in hall A.
func race(w *world, n int, ownScope bool, clients int, erase func(*world, scope.Ref, scope.SubjectID) error) *history.Flag {
	ref, id, ctx := hallA, subjectID(n), context.Background()
	if ownScope {
		ref.Scope = scope.ScopeID("tiny-" + strconv.Itoa(n))
	}
	if ownScope || n == 0 {
		w.create(ref)
	}
	w.enroll(ref, id, vectorOf(uint16(n), 0))
	probe := vectorOf(uint16(n), 1)
	f := new(history.Flag)
	var over atomic.Bool
	var running, all sync.WaitGroup
	running.Add(clients)
	for c := range clients {
		all.Go(func() {
			for calls, after := 0, 0; after < 2; calls++ {
				if over.Load() {
					after++
				}
				began := time.Now()
				var d Decision
				var err error
				if (c+calls)%2 == 0 {
					d, err = w.Verify(ctx, grant(ref), VerifyQuery{Subject: id, Probe: probe})
				} else {
					var r []FaceResult
					if r, err = w.Identify(ctx, grant(ref), IdentifyQuery{Probe: probe}); err == nil {
						d = r[0].Decision
					}
				}
				if err == nil || errors.Is(err, ErrScopeRevoked) {
					f.Read(began, err == nil && d.Outcome == Match)
				} else {
					w.t.Errorf("a call beside an erasure: %v", err)
				}
				if calls == 0 {
					running.Done()
				}
				if err != nil { // others shall run too
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	running.Wait()
	began := time.Now()
	err := erase(w, ref, id)
	f.Erased(began)
	over.Store(true)
	all.Wait()
	must(w.t, err)
	return f
}
