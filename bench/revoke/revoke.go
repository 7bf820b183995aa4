package revoke

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/menshen-io/menshen/bench/load"
	"github.com/menshen-io/menshen/bench/target"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// Errors of a run.
var (
	// ErrOptions: a number out of range; the text says which.
	ErrOptions = errors.New("the options do not fit")
	// ErrErasure: the server did not revoke, or wrote no receipt in time.
	ErrErasure = errors.New("the scope was not erased")
)

// Caller sends one request and waits for its end. It is called from many
// goroutines; lane spreads calls over connections, tenant is the index of who asks.
type Caller interface {
	Call(ctx context.Context, lane, tenant int, r *target.Request) load.Reply
}

// Options of a run. Ended and Other are enrolled already; both are of the server
// that Conn and Caller lead to, as tenants 0 and 1 of the Caller.
type Options struct {
	Ended *target.Tenant // is revoked
	Other *target.Tenant // is not
	// Conn carries the revocation: a connection of its own.
	Conn   *grpc.ClientConn
	Caller Caller
	// Piles are the requests to send, those of Ended and those of Other.
	Piles [2][]target.Request
	// Clients is how many call each of the two scopes without a rest, each one
	// call after the other. Those of Ended, once they are refused, ask there every
	// fourth time only and Other else, as people go to the next gate: so the load
	// during the erasure is that after it. As many others send Rate calls a second to
	// Other between them: their latency is what is measured.
	Clients int
	Rate    float64
	// Warm passes before anything is measured, Before is what the other scope's
	// latency is compared with, After likewise, and how long late answers are waited
	// for.
	Warm, Before, After time.Duration
	// Progress, where not nil, hears what goes on.
	Progress func(stage string)
}

// Result of a run. Times are in milliseconds. What a run did not measure is nil.
type Result struct {
	// MatchesAfterRevoke is the sum of the two below, and must be 0.
	MatchesAfterRevoke int64 `json:"matches_after_revoke"`
	// BeganAfter counts MATCH for calls sent after the revocation was answered,
	// ArrivedAfter MATCH that arrived after it for calls sent before.
	BeganAfter   int64 `json:"began_after"`
	ArrivedAfter int64 `json:"arrived_after"`
	// RevokeMS is from sending the revocation to the last MATCH that arrived, 0
	// where none arrived after sending.
	RevokeMS float64 `json:"revoke_ms"`
	// EraseMS is from sending the revocation until its answer was there with a
	// complete receipt.
	EraseMS float64 `json:"erase_ms"`
	// OthersP99Ratio is the other scope's 99th percentile of calls due during the
	// erasure, over the lesser of those before and after. Before, the ended scope is
	// searched too, which takes more of the machine; after, the load is just that of
	// the erasure.
	OthersP99Ratio *float64 `json:"others_p99_ratio"`
	OthersBefore   Latency  `json:"others_before"`
	OthersDuring   Latency  `json:"others_during"`
	OthersAfter    Latency  `json:"others_after"`

	Subjects  int64 `json:"subjects"`  // that the server says it erased
	Templates int64 `json:"templates"` // likewise
	// MatchesBefore counts MATCH of the ended scope up to the revocation; without
	// any, the run shows nothing. RateBefore is its answers a second then.
	MatchesBefore int64   `json:"matches_before"`
	RateBefore    float64 `json:"rate_before"`
	// Refused counts calls to the ended scope after the answer, by status code.
	Refused map[string]int64 `json:"calls_after"`

	Receipt *pb.Receipt `json:"-"` // complete
}

// Latency of the calls of one phase, in milliseconds from when they were due.
type Latency struct {
	Calls  int     `json:"calls"`
	Failed int     `json:"failed"` // not among the others
	P50MS  float64 `json:"p50_ms"`
	P99MS  float64 `json:"p99_ms"`
	MaxMS  float64 `json:"max_ms"`
}

func (o *Options) validate() error {
	switch {
	case o.Clients < 1 || len(o.Piles[0]) == 0 || len(o.Piles[1]) == 0:
		return fmt.Errorf("%w: no clients or no requests", ErrOptions)
	case !(o.Rate > 0) || math.IsInf(o.Rate, 0):
		return fmt.Errorf("%w: a rate of %g", ErrOptions, o.Rate)
	}
	return nil
}

const (
	// deadline of a call: a client that waits longer does not open its gate.
	deadline = 10 * time.Second
	// receiptPatience is how long a pending receipt is waited for.
	receiptPatience = time.Minute
	// stillAsks is one in how many calls of a refused client goes on to ask the scope
	// that ended.
	stillAsks = 4
)

// call is one call that ended.
type call struct {
	due, began, ended time.Time
	reply             load.Reply
}

// Run revokes Ended under load. Errors: ErrOptions, ErrErasure, that of ctx.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	say := func(stage string) {
		if o.Progress != nil {
			o.Progress(stage)
		}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var (
		group  sync.WaitGroup
		ended  = make([][]call, o.Clients) // by client
		others = make([][]call, o.Clients)
	)
	for client := range o.Clients {
		group.Go(func() { ended[client] = o.client(ctx, 0, client, 0) })
		// The load on the other scope goes on when that on the ended one is over.
		group.Go(func() { o.client(ctx, 1, client, 0) })
		group.Go(func() { others[client] = o.client(ctx, 1, client, o.Rate) })
	}
	say("warming up")
	rest(ctx, o.Warm)
	say("before the revocation")
	measured := time.Now()
	rest(ctx, o.Before)
	say("revoking")
	sent := time.Now()
	answer, receipt, answered, err := o.revoke(ctx)
	if err == nil {
		say("waiting for late answers")
		rest(ctx, o.After)
		err = ctx.Err()
	}
	stop()
	group.Wait()
	if err != nil {
		return nil, err
	}
	r := &Result{
		EraseMS: ms(answered.complete.Sub(sent)), Subjects: answer.GetSubjectsErased(), Templates: answer.GetTemplatesErased(),
		Refused: map[string]int64{}, Receipt: receipt,
	}
	r.ended(ended, measured, sent, answered.answer)
	r.OthersBefore = latency(others, func(c call) bool { return !c.due.Before(measured) && c.due.Before(sent) })
	r.OthersDuring = latency(others, func(c call) bool { return !c.due.Before(sent) && c.due.Before(answered.complete) })
	r.OthersAfter = latency(others, func(c call) bool { return !c.due.Before(answered.complete) })
	r.OthersP99Ratio = ratio(r.OthersBefore, r.OthersDuring, r.OthersAfter)
	return r, nil
}

// ratio is that of the 99th percentiles, nil where one of them is not known.
func ratio(before, during, after Latency) *float64 {
	quiet := min(before.P99MS, after.P99MS)
	if quiet <= 0 || during.Calls == 0 {
		return nil
	}
	r := during.P99MS / quiet
	return &r
}

// moments are when the answer to a revocation came and when its receipt was
// complete.
type moments struct{ answer, complete time.Time }

// revoke revokes the scope and waits for the receipt.
func (o *Options) revoke(ctx context.Context) (answer *pb.RevokeScopeResponse, receipt *pb.Receipt, at moments, err error) {
	answer, err = o.Ended.Revoke(ctx, o.Conn)
	at.answer = time.Now()
	if err != nil {
		return nil, nil, at, fmt.Errorf("%w: %w", ErrErasure, err)
	}
	receipt = answer.GetReceipt()
	for receipt.GetState() != pb.ReceiptState_RECEIPT_STATE_COMPLETE {
		if time.Since(at.answer) > receiptPatience {
			return nil, nil, at, fmt.Errorf("%w: its receipt is pending for %s", ErrErasure, receiptPatience)
		}
		rest(ctx, 10*time.Millisecond)
		if receipt, err = o.Ended.Receipt(ctx, o.Conn, answer.GetReceipt().GetName()); err != nil {
			return nil, nil, at, fmt.Errorf("%w: its receipt: %w", ErrErasure, err)
		}
	}
	at.complete = time.Now()
	return answer, receipt, at, nil
}

// client calls until ctx ends and returns its calls to its tenant's scope. All
// clients together make rate calls a second; at 0 none rests.
func (o *Options) client(ctx context.Context, tenant, client int, rate float64) (calls []call) {
	refused := false
	interval := time.Duration(0)
	if rate > 0 {
		interval = time.Duration(float64(time.Second) * float64(o.Clients) / rate)
	}
	due := time.Now().Add(interval * time.Duration(client) / time.Duration(o.Clients))
	for n := client; ; n += o.Clients {
		if interval > 0 {
			rest(ctx, time.Until(due))
		} else {
			due = time.Now()
		}
		if ctx.Err() != nil {
			return calls
		}
		asked := tenant
		if refused && n/o.Clients%stillAsks != 0 {
			asked = 1
		}
		pile := o.Piles[asked]
		c := call{due: due, began: time.Now()}
		within, cancel := context.WithDeadline(context.Background(), c.began.Add(deadline))
		c.reply = o.Caller.Call(within, client, asked, &pile[n%len(pile)])
		cancel()
		c.ended = time.Now()
		due = due.Add(interval)
		if asked == tenant {
			calls = append(calls, c)
			refused = refused || tenant == 0 && c.reply.Code == codes.FailedPrecondition
		}
	}
}

// ended fills in what the clients of the ended scope saw.
func (r *Result) ended(clients [][]call, measured, sent, answered time.Time) {
	last, answers := sent, 0
	for _, calls := range clients {
		for _, c := range calls {
			if c.ended.After(measured) && !c.ended.After(sent) && c.reply.Code == codes.OK {
				answers++
			}
			if c.began.After(answered) {
				r.Refused[c.reply.Code.String()]++
			}
			if c.reply.Code != codes.OK || c.reply.Outcome != pb.Outcome_OUTCOME_MATCH {
				continue
			}
			if c.ended.After(last) {
				last = c.ended
			}
			switch {
			case c.began.After(answered):
				r.BeganAfter++
			case c.ended.After(answered):
				r.ArrivedAfter++
			case !c.ended.After(sent):
				r.MatchesBefore++
			}
		}
	}
	r.MatchesAfterRevoke = r.BeganAfter + r.ArrivedAfter
	r.RevokeMS = ms(last.Sub(sent))
	r.RateBefore = float64(answers) / sent.Sub(measured).Seconds()
}

// latency is that of the calls that belong.
func latency(clients [][]call, belongs func(call) bool) (l Latency) {
	var took []time.Duration
	for _, calls := range clients {
		for _, c := range calls {
			if !belongs(c) {
				continue
			}
			if c.reply.Code != codes.OK {
				l.Failed++
				continue
			}
			took = append(took, c.ended.Sub(c.due))
		}
	}
	if l.Calls = len(took); l.Calls == 0 {
		return l
	}
	slices.Sort(took)
	at := func(part float64) float64 { return ms(took[int(math.Ceil(part*float64(len(took))))-1]) }
	l.P50MS, l.P99MS, l.MaxMS = at(0.5), at(0.99), at(1)
	return l
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// rest waits for d or the end of ctx.
func rest(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
