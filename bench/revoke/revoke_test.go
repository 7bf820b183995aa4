package revoke

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/menshen-io/menshen/bench/load"
	"github.com/menshen-io/menshen/bench/target"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

var start = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

func answered(due, ended int, outcome pb.Outcome) call {
	return call{at(due), at(due), at(ended), load.Reply{Outcome: outcome}}
}

// The revocation is sent at 1000 and answered at 1200.
func TestLateMatchesAreCounted(t *testing.T) {
	const match, other = pb.Outcome_OUTCOME_MATCH, pb.Outcome_OUTCOME_NO_MATCH
	for name, c := range map[string]struct {
		calls        []call
		before       int64
		began, after int64
		ms           float64
	}{
		"nobody":                   {nil, 0, 0, 0, 0},
		"before":                   {[]call{answered(900, 990, match)}, 1, 0, 0, 0},
		"while it is carried out":  {[]call{answered(900, 1040, match), answered(1010, 1030, match)}, 0, 0, 0, 40},
		"sent before, comes late":  {[]call{answered(1100, 1201, match)}, 0, 0, 1, 201},
		"sent after":               {[]call{answered(1201, 1300, match)}, 0, 1, 0, 300},
		"not a match, sent after":  {[]call{answered(1201, 1300, other)}, 0, 0, 0, 0},
		"refused, sent after":      {[]call{{at(1201), at(1201), at(1300), load.Reply{Code: codes.FailedPrecondition}}}, 0, 0, 0, 0},
		"one of several is a late": {[]call{answered(900, 990, match), answered(1050, 1060, other), answered(1300, 1400, match)}, 1, 1, 0, 400},
	} {
		r := &Result{Refused: map[string]int64{}}
		r.ended([][]call{nil, c.calls}, at(0), at(1000), at(1200))
		if r.MatchesBefore != c.before || r.BeganAfter != c.began || r.ArrivedAfter != c.after || r.MatchesAfterRevoke != c.began+c.after || r.RevokeMS != c.ms {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestLatencyCountsFromWhenACallWasDue(t *testing.T) {
	var calls []call
	for i := range 99 {
		calls = append(calls, answered(i, i+1, pb.Outcome_OUTCOME_MATCH))
	}
	calls = append(calls, call{due: at(99), began: at(150), ended: at(199)}, call{due: at(99), ended: at(5000), reply: load.Reply{Code: codes.Unavailable}}, answered(500, 9000, pb.Outcome_OUTCOME_MATCH))
	l := latency([][]call{calls}, func(c call) bool { return c.due.Before(at(100)) })
	if l != (Latency{Calls: 100, Failed: 1, P50MS: 1, P99MS: 1, MaxMS: 100}) {
		t.Errorf("%+v", l)
	}
	if l := latency(nil, func(call) bool { return true }); l != (Latency{}) {
		t.Errorf("of nothing: %+v", l)
	}
}

// The erasure is compared with the quieter time beside it.
func TestRatio(t *testing.T) {
	for name, c := range map[string]struct{ before, during, after, want float64 }{
		"quieter before":        {2, 3, 4, 1.5},
		"quieter after":         {4, 3, 2, 1.5},
		"nothing due after":     {4, 3, 0, 0},
		"nothing due meanwhile": {4, 0, 2, 0},
	} {
		of := func(p99 float64) Latency { return Latency{Calls: int(p99), P99MS: p99} }
		switch r := ratio(of(c.before), of(c.during), of(c.after)); {
		case r == nil && c.want == 0:
		case r == nil || *r != c.want:
			t.Errorf("%s: %v, want %g", name, r, c.want)
		}
	}
}

// still answers MATCH at once.
type still struct{}

func (still) Call(context.Context, int, int, *target.Request) load.Reply {
	time.Sleep(100 * time.Microsecond)
	return load.Reply{Outcome: pb.Outcome_OUTCOME_MATCH}
}

// Clients with a rate keep to it, those without do not rest, and both end with
// the context.
func TestClients(t *testing.T) { synctest.Test(t, clients) }

func clients(t *testing.T) {
	o := Options{Caller: still{}, Piles: [2][]target.Request{make([]target.Request, 3), make([]target.Request, 3)}, Clients: 2, Rate: 100}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	paced := o.client(ctx, 1, 1, o.Rate)
	for i, c := range paced {
		if c.began.Before(c.due) || i > 0 && c.due.Sub(paced[i-1].due) != 20*time.Millisecond {
			t.Errorf("call %d of %d was due %s after the one before", i, len(paced), c.due.Sub(paced[max(i-1, 0)].due))
		}
	}
	if n := len(paced); n < 14 || n > 16 {
		t.Errorf("%d calls in 300 ms at 50 a second", n)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if n := len(o.client(ctx, 0, 0, 0)); n < 499 || n > 501 {
		t.Errorf("%d calls of 100 us in 50 ms", n)
	}
}

// closed refuses the calls of the first scope and counts those of the other.
type closed struct{ elsewhere int }

func (c *closed) Call(_ context.Context, _, tenant int, _ *target.Request) load.Reply {
	time.Sleep(100 * time.Microsecond)
	if tenant == 0 {
		return load.Reply{Code: codes.FailedPrecondition}
	}
	c.elsewhere++
	return load.Reply{Outcome: pb.Outcome_OUTCOME_MATCH}
}

// Who is refused asks elsewhere, and goes on to ask the scope that ended; what it
// hears elsewhere is no answer of that.
func TestRefusedClientsGoElsewhere(t *testing.T) { synctest.Test(t, elsewhere) }

func elsewhere(t *testing.T) {
	c := &closed{}
	o := Options{Caller: c, Piles: [2][]target.Request{make([]target.Request, 3), make([]target.Request, 3)}, Clients: 1}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	calls := o.client(ctx, 0, 0, 0)
	for _, call := range calls {
		if call.reply.Code != codes.FailedPrecondition {
			t.Errorf("an answer of the other scope counts: %+v", call)
		}
	}
	if len(calls) == 0 || c.elsewhere < 2*(len(calls)-1) || c.elsewhere > 3*len(calls) {
		t.Errorf("%d calls to the scope that ended, %d elsewhere", len(calls), c.elsewhere)
	}
}

func TestOptions(t *testing.T) {
	pile := make([]target.Request, 1)
	for _, o := range []Options{
		{},
		{Clients: 1, Rate: 1},
		{Clients: 0, Rate: 1, Piles: [2][]target.Request{pile, pile}},
		{Clients: 1, Piles: [2][]target.Request{pile, pile}},
		{Clients: 1, Rate: -1, Piles: [2][]target.Request{pile, pile}},
	} {
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
