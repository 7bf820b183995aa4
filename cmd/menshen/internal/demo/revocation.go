package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// Revocation is what came of ending the purpose of hall A.
type Revocation struct {
	Milliseconds float64        `json:"took_ms"`
	Subjects     int64          `json:"subjects_erased"`
	Templates    int64          `json:"templates_erased"`
	MatchesUntil int            `json:"matches_until_revoked"` // by the gates that worked meanwhile
	CallsAfter   int            `json:"calls_after"`
	MatchesAfter int            `json:"matches_after"`
	Refused      map[string]int `json:"refused"` // by reason
	State        string         `json:"state"`
	OwnAtB       answers        `json:"hall_b_after"`
}

// threshold asks for the score from which hall A identifies.
func (s *show) threshold(ctx context.Context) (float64, error) {
	resp, err := menshenv1.NewScopeServiceClient(s.fair.operator).GetScope(ctx, &menshenv1.GetScopeRequest{Name: s.fair.a.name})
	return resp.GetScope().GetIdentifyThreshold(), err
}

// afterwards bounds the calls that the gates make after the revocation.
const afterwards = 500

// revoke ends hall A while its gates work, and goes on asking.
func (s *show) revoke(ctx context.Context) error {
	s.head("The fair is over: hall A is revoked while its gates go on asking")
	visitors, err := s.album.portraits(ctx, 0, min(shownAgain, s.opt.Visitors), enrollmentShot)
	if err != nil {
		return err
	}
	r := &s.report.Revocation
	w := &watch{refused: map[string]int{}}
	working, stop := context.WithCancel(ctx)
	defer stop()
	var gates sync.WaitGroup
	for i := range s.opt.Gates {
		api, err := s.fair.a.gate()
		if err != nil {
			return err
		}
		gates.Go(func() { w.keepAsking(working, api, s.fair.a, visitors, i) })
	}
	// The gates are known to work before the scope is revoked under them.
	if err := w.waitForMatches(ctx, 4*s.opt.Gates); err != nil {
		return err
	}
	scopes := menshenv1.NewScopeServiceClient(s.fair.operator)
	started := time.Now()
	resp, err := scopes.RevokeScope(ctx, &menshenv1.RevokeScopeRequest{Name: s.fair.a.name})
	w.revoked(time.Now())
	if err != nil {
		return fmt.Errorf("revoke hall A: %w", err)
	}
	r.Milliseconds = float64(time.Since(started).Microseconds()) / 1000
	r.Subjects, r.Templates = resp.SubjectsErased, resp.TemplatesErased
	if err := w.waitForCalls(ctx, afterwards); err != nil {
		return err
	}
	stop()
	gates.Wait()
	r.MatchesUntil, r.CallsAfter, r.MatchesAfter, r.Refused = w.before, w.after, w.matchesAfter, w.refused

	scope, err := scopes.GetScope(ctx, &menshenv1.GetScopeRequest{Name: s.fair.a.name})
	if err != nil {
		return fmt.Errorf("look at the revoked hall A: %w", err)
	}
	r.State = strings.TrimPrefix(scope.Scope.State.String(), "SCOPE_STATE_")
	own, err := s.album.portraits(ctx, s.opt.Visitors, Others, gateShot)
	if err != nil {
		return err
	}
	r.OwnAtB, err = s.askAll(ctx, s.fair.b, own, func(ctx context.Context, api menshenv1.MatchServiceClient, p portrait) (*menshenv1.Decision, error) {
		return identify(ctx, api, s.fair.b.name, p.probe)
	})
	if err != nil {
		return err
	}
	s.judgeRevocation(scope.Scope)
	return nil
}

func (s *show) judgeRevocation(scope *menshenv1.Scope) {
	r := s.report.Revocation
	refused := 0
	var reasons []string
	for reason, n := range r.Refused {
		refused += n
		reasons = append(reasons, fmt.Sprintf("%s %d", reason, n))
	}
	slices.Sort(reasons)
	s.say("  revoked in %.0f ms: %d subjects and %d templates erased; %d matches until then, %d in %d calls since (refused: %v)",
		r.Milliseconds, r.Subjects, r.Templates, r.MatchesUntil, r.MatchesAfter, r.CallsAfter, reasons)
	s.claim("after the revocation nothing matches and every call is refused",
		fmt.Sprintf("%d matches in %d calls, %d refused", r.MatchesAfter, r.CallsAfter, refused),
		r.CallsAfter > 0 && r.MatchesAfter == 0 && refused == r.CallsAfter)
	s.claim("revoking erases every template of the scope",
		fmt.Sprintf("%d of %d subjects erased, scope %s", r.Subjects, s.report.Enrollment.Enrolled, r.State),
		r.Subjects == int64(s.report.Enrollment.Enrolled) && scope.State == menshenv1.ScopeState_SCOPE_STATE_REVOKED && scope.SubjectCount == 0)
	s.claim("hall B is not touched by the end of hall A",
		share(r.OwnAtB.Right, r.OwnAtB.Asked)+" identified", r.OwnAtB == s.report.OtherHall.Own && r.OwnAtB.Asked > 0)
}

// watch counts what gates are answered before and after a revocation. A call
// counts as after it only if it began when RevokeScope had returned.
type watch struct {
	mu           sync.Mutex
	at           time.Time
	before       int // matches
	after        int // calls
	matchesAfter int
	refused      map[string]int
	failure      error
}

func (w *watch) revoked(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = at
}

// keepAsking identifies and verifies visitors in turn until ctx is done.
func (w *watch) keepAsking(ctx context.Context, api menshenv1.MatchServiceClient, h *hall, visitors []portrait, from int) {
	for i := from; ctx.Err() == nil; i++ {
		p := visitors[i%len(visitors)]
		began := time.Now()
		var d *menshenv1.Decision
		var err error
		if i%2 == 0 {
			d, err = identify(ctx, api, h.name, p.probe)
		} else {
			var resp *menshenv1.VerifyResponse
			resp, err = api.Verify(ctx, &menshenv1.VerifyRequest{Subject: h.subject(p.person), Probe: p.probe})
			d = resp.GetDecision()
		}
		if ctx.Err() == nil {
			w.note(began, d, err)
		}
	}
}

func (w *watch) note(began time.Time, d *menshenv1.Decision, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	matched := d.GetOutcome() == menshenv1.Outcome_OUTCOME_MATCH
	switch after := !w.at.IsZero() && began.After(w.at); {
	case after:
		w.after++
		if matched {
			w.matchesAfter++
		}
		if err != nil {
			w.refused[reason(err)]++
		}
	case matched:
		w.before++
	case err != nil && w.before == 0 && w.failure == nil:
		w.failure = err
	}
}

// waitForMatches returns when the gates have let so many people in.
func (w *watch) waitForMatches(ctx context.Context, n int) error {
	return w.wait(ctx, func() bool { return w.before >= n })
}

// waitForCalls returns when so many calls have been made since the revocation.
func (w *watch) waitForCalls(ctx context.Context, n int) error {
	return w.wait(ctx, func() bool { return w.after >= n })
}

func (w *watch) wait(ctx context.Context, enough func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		w.mu.Lock()
		done, failure := enough(), w.failure
		w.mu.Unlock()
		switch {
		case done:
			return nil
		case failure != nil:
			return fmt.Errorf("a gate failed: %w", failure)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the gates got too few answers: %w", ctx.Err())
		}
	}
}

// reason is the stable reason of a refusal, or its code.
func reason(err error) string {
	st := status.Convert(err)
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return st.Code().String()
}
