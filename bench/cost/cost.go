package cost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/menshen-io/menshen/bench/inference/wire"
	"github.com/menshen-io/menshen/bench/target"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// ErrOptions: a number out of range; the text says which.
var ErrOptions = errors.New("cannot measure that")

// Options of a run.
type Options struct {
	Source string // a folder of the source tree, for Build
	// Embedder and Runtime are those of target.ServerOptions.
	Embedder, Runtime string
	Rounds            int
	// Slice is how long a server enrols in a round; a scope is verified in for half
	// of it, four times a round.
	Slice time.Duration
	// Progress, where not nil, is called when a phase of steps steps begins; the
	// function that it returns is called after each.
	Progress func(phase string, steps int) (step func())
}

// Result of a run. A cost is the part of the throughput that is lost: 0.05 means
// that there were 5% more without.
type Result struct {
	EnrolCost    float64 `json:"enrol_cost"`    // of sealing and auditing
	SealingCost  float64 `json:"sealing_cost"`  // of bulk enrolment, sealing alone
	AuditingCost float64 `json:"auditing_cost"` // of bulk enrolment, auditing alone
	VerifyCost   float64 `json:"verify_cost"`   // of a record of every decision

	EnrolRounds  []EnrolRound  `json:"enrol_rounds"`
	VerifyRounds []VerifyRound `json:"verify_rounds"`

	Rounds      int     `json:"rounds"`
	SecondsEach float64 `json:"seconds_each"`
	Model       string  `json:"model"`
	Dim         int     `json:"dim"`
	Kernel      string  `json:"kernel"`
}

// EnrolRound is what one round saw, in enrolments a second.
type EnrolRound struct {
	AsItIs          float64 `json:"as_it_is"`
	WithoutSealing  float64 `json:"without_sealing"`
	WithoutAuditing float64 `json:"without_auditing"`
	WithoutBoth     float64 `json:"without_both"`
}

// VerifyRound is what one round saw, in answers a second.
type VerifyRound struct {
	Off      float64 `json:"off"`
	Required float64 `json:"required"`
}

// Validate wraps ErrOptions when the fields make no sense.
func (o *Options) Validate() error {
	switch {
	case o.Rounds < 1 || o.Rounds > 1000:
		return fmt.Errorf("%w: %d rounds; 1 to 1000 are possible", ErrOptions, o.Rounds)
	case o.Slice < 50*time.Millisecond || o.Slice > time.Minute:
		return fmt.Errorf("%w: %s a measurement; 50ms to 1m are possible", ErrOptions, o.Slice)
	}
	return nil
}

const (
	connections = 4  // of the client, enough that none is the limit
	lanes       = 16 // that verify at a time
	gallery     = 1000
	requests    = 64
)

// side is one server with its client.
type side struct {
	server *target.Server
	conns  []*grpc.ClientConn
	info   target.Info
	tenant *target.Tenant
}

// Run builds the servers, measures, and leaves nothing behind. Errors: ErrOptions,
// ErrSource, target.ErrChild, target.ErrPopulate, those of calls, that of ctx.
func Run(ctx context.Context, o Options) (_ *Result, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = func(string, int) func() { return func() {} }
	}
	dir, err := os.MkdirTemp("", "menshen-bench-cost-")
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrSource, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	step := o.Progress("building servers with and without", len(All))
	sides := map[Without]*side{}
	for _, w := range All {
		if err := Build(ctx, o.Source, w, filepath.Join(dir, string(w))); err != nil {
			return nil, err
		}
		step()
	}
	step = o.Progress("starting them", len(All))
	for _, w := range All {
		s := &side{}
		sides[w] = s
		defer func() { err = errors.Join(err, s.close()) }()
		if err := s.open(ctx, target.ServerOptions{Binary: filepath.Join(dir, string(w)), Embedder: o.Embedder, Runtime: o.Runtime}); err != nil {
			return nil, err
		}
		step()
	}
	whole := sides[Nothing]
	r := &Result{Rounds: o.Rounds, SecondsEach: o.Slice.Seconds(), Model: whole.info.ModelID, Dim: whole.info.Dim, Kernel: whole.info.Kernel}
	if err := r.enrol(ctx, &o, sides); err != nil {
		return nil, err
	}
	if err := r.verify(ctx, &o, whole); err != nil {
		return nil, err
	}
	return r, nil
}

func (s *side) open(ctx context.Context, opt target.ServerOptions) (err error) {
	if s.server, err = target.Start(ctx, opt); err != nil {
		return err
	}
	dialer, err := target.NewDialer(s.server.Address, "", false)
	if err != nil {
		return err
	}
	for range connections {
		conn, err := dialer.Dial()
		if err != nil {
			return err
		}
		s.conns = append(s.conns, conn)
	}
	if s.info, err = target.Describe(ctx, s.conns[0], s.server.AdminKey); err != nil {
		return err
	}
	s.tenant, err = s.populate(ctx, false)
	return err
}

func (s *side) populate(ctx context.Context, recorded bool) (*target.Tenant, error) {
	tenants, err := target.Populate(ctx, s.conns[0], s.server.AdminKey, target.PopulateOptions{Tenants: 1, Gallery: gallery, Seed: 1, Recorded: recorded})
	if err != nil {
		return nil, err
	}
	return tenants[0], nil
}

func (s *side) close() error {
	var errs []error
	for _, c := range s.conns {
		errs = append(errs, c.Close())
	}
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	return errors.Join(errs...)
}

// turns calls each once, in another order every round.
func turns(ctx context.Context, round int, all ...func() error) error {
	for i := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := (i + round/2) % len(all)
		if round%2 == 1 {
			n = len(all) - 1 - n
		}
		if err := all[n](); err != nil {
			return err
		}
	}
	return nil
}

func (r *Result) enrol(ctx context.Context, o *Options, sides map[Without]*side) error {
	step := o.Progress("enrolling", o.Rounds+1)
	for round := range o.Rounds + 1 {
		var e EnrolRound
		on := func(w Without, rate *float64) func() error {
			return func() (err error) {
				*rate, err = sides[w].tenant.EnrolFor(ctx, sides[w].conns, o.Slice)
				return err
			}
		}
		if err := turns(ctx, round, on(Nothing, &e.AsItIs), on(Sealing, &e.WithoutSealing), on(Auditing, &e.WithoutAuditing), on(Both, &e.WithoutBoth)); err != nil {
			return fmt.Errorf("enrolling: %w", err)
		}
		if round > 0 { // the first warms up
			r.EnrolRounds = append(r.EnrolRounds, e)
		}
		step()
	}
	r.EnrolCost = cost(r.EnrolRounds, func(e EnrolRound) (float64, float64) { return e.AsItIs, e.WithoutBoth })
	r.SealingCost = cost(r.EnrolRounds, func(e EnrolRound) (float64, float64) { return e.AsItIs, e.WithoutSealing })
	r.AuditingCost = cost(r.EnrolRounds, func(e EnrolRound) (float64, float64) { return e.AsItIs, e.WithoutAuditing })
	return nil
}

func (r *Result) verify(ctx context.Context, o *Options, s *side) error {
	off, err := s.populate(ctx, false)
	if err != nil {
		return err
	}
	required, err := s.populate(ctx, true)
	if err != nil {
		return err
	}
	on := func(t *target.Tenant, sum *float64) (func() error, error) {
		ask, err := mated(s, t)
		if err != nil {
			return nil, err
		}
		keyed := target.WithKey(ctx, t.GateKey)
		return func() error {
			rate, err := wire.Unary(keyed, ask, lanes, o.Slice/2)
			*sum += rate / 2
			return err
		}, nil
	}
	var v VerifyRound
	without, err := on(off, &v.Off)
	if err != nil {
		return err
	}
	with, err := on(required, &v.Required)
	if err != nil {
		return err
	}
	step := o.Progress("verifying", o.Rounds+1)
	for round := range o.Rounds + 1 {
		v = VerifyRound{}
		order := []func() error{without, with, with, without} // what drifts hits both
		if round%2 == 1 {
			order = []func() error{with, without, without, with}
		}
		if err := turns(ctx, 0, order...); err != nil {
			return fmt.Errorf("verifying: %w", err)
		}
		if round > 0 {
			r.VerifyRounds = append(r.VerifyRounds, v)
		}
		step()
	}
	r.VerifyCost = cost(r.VerifyRounds, func(v VerifyRound) (float64, float64) { return v.Required, v.Off })
	return nil
}

// mated are verifications that all match, which costs the log most.
func mated(s *side, t *target.Tenant) (wire.Target, error) {
	out := wire.Target{Conns: s.conns, Check: func(answer []byte) error {
		var resp pb.VerifyResponse
		if err := proto.Unmarshal(answer, &resp); err != nil {
			return err
		}
		if o := resp.GetDecision().GetOutcome(); o != pb.Outcome_OUTCOME_MATCH {
			return fmt.Errorf("somebody who is enrolled was answered %s", o)
		}
		return nil
	}}
	all, err := t.Requests(target.Kind{Verb: target.Verify, Probe: target.Embedding}, 2*requests, nil)
	for i, one := range all {
		if i%2 == 0 { // every second one is mated
			out.Method, out.Requests = one.Method, append(out.Requests, one.Body)
		}
	}
	return out, err
}

// cost is the median over the rounds of what is lost.
func cost[R any](rounds []R, of func(R) (with, without float64)) float64 {
	return Median(rounds, func(r R) float64 {
		with, without := of(r)
		return 1 - with/without
	})
}

// Median of a figure of the rounds, of which there must be one.
func Median[R any](rounds []R, of func(R) float64) float64 {
	var all []float64
	for _, r := range rounds {
		all = append(all, of(r))
	}
	slices.Sort(all)
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2
}
