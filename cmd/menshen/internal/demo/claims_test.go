package demo

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func decision(o menshenv1.Outcome, subject string) *menshenv1.Decision {
	return &menshenv1.Decision{Outcome: o, Subject: subject}
}

const (
	match       = menshenv1.Outcome_OUTCOME_MATCH
	noMatch     = menshenv1.Outcome_OUTCOME_NO_MATCH
	alternative = menshenv1.Outcome_OUTCOME_USE_ALTERNATIVE
)

func TestSharesOfNothingAreNotHeld(t *testing.T) {
	for _, tc := range []struct {
		part, whole int
		bound       float64
		least, most bool
	}{
		{97, 100, 0.97, true, true}, {96, 100, 0.97, false, true}, {98, 100, 0.97, true, false},
		{0, 0, 0.97, false, false}, {0, 50, 0.01, false, true}, {1, 50, 0.01, true, false},
	} {
		if got := atLeast(tc.part, tc.whole, tc.bound); got != tc.least {
			t.Errorf("%v: at least %v", tc, got)
		}
		if got := atMost(tc.part, tc.whole, tc.bound); got != tc.most {
			t.Errorf("%v: at most %v", tc, got)
		}
	}
	if (Report{}).AllHeld() {
		t.Error("a report without claims holds")
	}
	r := Report{Claims: []Claim{{Held: true}, {Held: false}}}
	if r.AllHeld() {
		t.Error("a broken claim holds")
	}
	var out strings.Builder
	r.WriteTable(&out)
	if !strings.Contains(out.String(), "NOT HELD") {
		t.Errorf("got\n%s", out.String())
	}
}

func TestAnswersTellWhoWasLetIn(t *testing.T) {
	var a answers
	a.add(decision(match, "s/ann"), "s/ann")
	a.add(decision(match, "s/bob"), "s/ann")
	a.add(decision(match, "s/bob"), "") // a stranger who was taken for bob
	a.add(decision(match, ""), "")      // a match with nobody is no right match
	a.add(decision(noMatch, ""), "s/ann")
	a.add(decision(alternative, ""), "s/ann")
	a.add(nil, "s/ann")
	want := answers{Asked: 7, Right: 1, Wrong: 3, NoMatch: 2, Alternative: 1}
	if a != want || a.matched() != 4 {
		t.Errorf("got %+v", a)
	}
}

// TestTrafficClaimsSeeBreaches: the claims see every kind of
// breach.
func TestTrafficClaimsSeeBreaches(t *testing.T) {
	good := Traffic{
		Decisions: 400, VisitorIdentify: answers{Asked: 100, Right: 98, NoMatch: 2}, VisitorVerify: answers{Asked: 100, Right: 99, NoMatch: 1},
		StrangerIdentify: answers{Asked: 100, Wrong: 1, NoMatch: 99}, StrangerVerify: answers{Asked: 100, NoMatch: 100},
	}
	judge := func(change func(*Traffic)) int {
		s := &show{out: &strings.Builder{}}
		s.report.Traffic = good
		change(&s.report.Traffic)
		s.judgeTraffic()
		broken := 0
		for _, c := range s.report.Claims {
			if !c.Held {
				broken++
			}
		}
		return broken
	}
	for name, tc := range map[string]struct {
		change func(*Traffic)
		broken int
	}{
		"good":                  {func(*Traffic) {}, 0},
		"few identified":        {func(t *Traffic) { t.VisitorIdentify.Right = 95 }, 1},
		"few verified":          {func(t *Traffic) { t.VisitorVerify.Right = 95 }, 1},
		"taken for another":     {func(t *Traffic) { t.VisitorIdentify.Wrong = 2 }, 1},
		"strangers identified":  {func(t *Traffic) { t.StrangerIdentify.Wrong = 2 }, 1},
		"strangers with ticket": {func(t *Traffic) { t.StrangerVerify.Wrong = 2 }, 1},
		"nobody came":           {func(t *Traffic) { *t = Traffic{} }, 5},
	} {
		if got := judge(tc.change); got != tc.broken {
			t.Errorf("%s: %d claims broken, want %d", name, got, tc.broken)
		}
	}
}

func TestRevocationClaimsSeeBreaches(t *testing.T) {
	own := answers{Asked: 10, Right: 10}
	gone := &menshenv1.Scope{State: menshenv1.ScopeState_SCOPE_STATE_REVOKED}
	judge := func(change func(*Report), scope *menshenv1.Scope) int {
		s := &show{out: &strings.Builder{}}
		s.report = Report{Enrollment: Enrollment{Enrolled: 5}, OtherHall: OtherHall{Own: own},
			Revocation: Revocation{Subjects: 5, CallsAfter: 3, Refused: map[string]int{"SCOPE_REVOKED": 3}, OwnAtB: own}}
		change(&s.report)
		s.judgeRevocation(scope)
		broken := 0
		for _, c := range s.report.Claims {
			if !c.Held {
				broken++
			}
		}
		return broken
	}
	for name, tc := range map[string]struct {
		change func(*Report)
		scope  *menshenv1.Scope
		broken int
	}{
		"good":              {func(*Report) {}, gone, 0},
		"a match after":     {func(r *Report) { r.Revocation.MatchesAfter = 1 }, gone, 1},
		"a call answered":   {func(r *Report) { r.Revocation.CallsAfter = 4 }, gone, 1},
		"no calls":          {func(r *Report) { r.Revocation.CallsAfter, r.Revocation.Refused = 0, nil }, gone, 1},
		"a subject is left": {func(r *Report) { r.Revocation.Subjects = 4 }, gone, 1},
		"counted still":     {func(*Report) {}, &menshenv1.Scope{State: gone.State, SubjectCount: 1}, 1},
		"not revoked":       {func(*Report) {}, &menshenv1.Scope{State: menshenv1.ScopeState_SCOPE_STATE_ACTIVE}, 1},
		"hall B suffers":    {func(r *Report) { r.Revocation.OwnAtB.Right = 9 }, gone, 1},
	} {
		if got := judge(tc.change, tc.scope); got != tc.broken {
			t.Errorf("%s: %d claims broken, want %d", name, got, tc.broken)
		}
	}
}

// TestWatchCountsCallsThatBeganAfterwards: an answer that was under way while
// the scope was revoked is neither here nor there; one that began later counts.
func TestWatchCountsCallsThatBeganAfterwards(t *testing.T) {
	start := time.Now()
	refusal, err := status.New(codes.FailedPrecondition, "revoked").WithDetails(&errdetails.ErrorInfo{Reason: "SCOPE_REVOKED"})
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{refused: map[string]int{}}
	w.note(start, decision(match, "s/ann"), nil)
	w.revoked(start.Add(time.Second))
	w.note(start, decision(match, "s/ann"), nil)
	w.note(start, nil, refusal.Err())
	w.note(start.Add(2*time.Second), nil, refusal.Err())
	w.note(start.Add(2*time.Second), nil, errors.New("other"))
	w.note(start.Add(2*time.Second), decision(match, "s/ann"), nil)
	w.note(start.Add(2*time.Second), decision(noMatch, ""), nil)
	if w.before != 2 || w.after != 4 || w.matchesAfter != 1 || w.refused["SCOPE_REVOKED"] != 1 || w.refused["Unknown"] != 1 {
		t.Errorf("got %d before, %d after, %d matches, %v", w.before, w.after, w.matchesAfter, w.refused)
	}
}
