package inference

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/menshen-io/menshen/bench/inference/wire"
	"github.com/menshen-io/menshen/bench/target"
	"github.com/menshen-io/menshen/models/pipeline"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// ErrOptions: a measurement that cannot be made as asked for; the text says what
// to change.
var ErrOptions = errors.New("cannot measure that")

// The parts of a run.
const (
	PartCrop      = "crop"
	PartIdle      = "idle"
	PartImage     = "image"
	PartEmbedding = "embedding"
	PartStream    = "stream"
)

// Parts are all parts, in the order in which they are measured.
var Parts = []string{PartCrop, PartIdle, PartImage, PartEmbedding, PartStream}

// Options say what is measured.
type Options struct {
	Server  target.ServerOptions
	Only    []string // parts; none are all that the models allow
	Gallery int      // templates that images are identified among
	Rounds  int
	Slice   time.Duration // of each measurement in a round
	Scenes  [][]byte      // camera images, JPEG
	Seed    uint64
	// Echo starts a process that runs ServeEcho for messages of size bytes.
	Echo func(ctx context.Context, size int) (*target.Process, error)
	// Progress, where not nil, is called when a phase of steps steps begins; the
	// function that it returns is called after each.
	Progress func(phase string, steps int) (step func())
}

func (o *Options) wants(part string) bool {
	return len(o.Only) == 0 && (part != PartImage || o.Server.Detector != "") || slices.Contains(o.Only, part)
}

// Validate wraps ErrOptions when the fields make no sense.
func (o *Options) Validate() error {
	for _, part := range o.Only {
		if !slices.Contains(Parts, part) {
			return fmt.Errorf("%w: there is no part %q", ErrOptions, part)
		}
	}
	switch {
	case o.Gallery < 1 || o.Gallery > 10_000_000:
		return fmt.Errorf("%w: a gallery of %d; 1 to 10000000 are possible", ErrOptions, o.Gallery)
	case o.Rounds < 1 || o.Rounds > 1000:
		return fmt.Errorf("%w: %d rounds; 1 to 1000 are possible", ErrOptions, o.Rounds)
	case o.Slice < 10*time.Millisecond || o.Slice > time.Minute:
		return fmt.Errorf("%w: %s a measurement; 10ms to 1m are possible", ErrOptions, o.Slice)
	case o.wants(PartImage) && o.Server.Detector == "":
		return fmt.Errorf("%w: images need a detector", ErrOptions)
	}
	return nil
}

// run is a run that goes on.
type run struct {
	Options
	pipe   *pipeline.Pipeline
	server *target.Server
	tenant *target.Tenant
	conns  []*grpc.ClientConn
	call   context.Context // holds the gate's key
	result *Result
}

// connections of the client: enough that none is the limit.
const connections = 4

// Requests of a kind, and people enrolled.
const (
	requests = 64
	people   = 64
)

// Run measures. The server that it starts is gone when it returns.
func Run(ctx context.Context, opt Options) (_ *Result, err error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	if opt.Progress == nil {
		opt.Progress = func(string, int) func() { return func() {} }
	}
	r := &run{Options: opt, result: &Result{Gallery: opt.Gallery, Rounds: opt.Rounds, SecondsEach: opt.Slice.Seconds()}}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		name    string
		measure func(context.Context) error
	}{{PartCrop, r.crop}, {PartIdle, r.idle}, {PartImage, r.image}, {PartEmbedding, r.embedding}, {PartStream, r.stream}} {
		if !opt.wants(p.name) {
			continue
		}
		if err := p.measure(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return r.result, nil
}

// open starts the server and fills it. The pipeline in this process is opened
// for its runtime and for finding the faces in the scenes.
func (r *run) open(ctx context.Context) (err error) {
	if r.pipe, err = pipeline.Open(ctx, pipeline.Options{Detector: r.Server.Detector, Embedder: r.Server.Embedder, RuntimeLibrary: r.Server.Runtime}); err != nil {
		return err
	}
	step := r.Progress("starting the server", 1)
	if r.server, err = target.Start(ctx, r.Server); err != nil {
		return err
	}
	step()
	dialer, err := target.NewDialer(r.server.Address, "", false)
	if err != nil {
		return err
	}
	for range connections {
		conn, err := dialer.Dial()
		if err != nil {
			return err
		}
		r.conns = append(r.conns, conn)
	}
	info, err := target.Describe(ctx, r.conns[0], r.server.AdminKey)
	if err != nil {
		return err
	}
	r.result.Model, r.result.Detector, r.result.Kernel, r.result.Runtime = info.ModelID, info.DetectorID, info.Kernel, info.Runtime
	gallery := 1000 // beside images, galleries are only verified in
	if r.wants(PartImage) {
		gallery = r.Gallery
	}
	tenants, err := target.Populate(ctx, r.conns[0], r.server.AdminKey, target.PopulateOptions{Tenants: 1, Gallery: gallery, Faces: people, Seed: r.Seed, Progress: r.Progress})
	if err != nil {
		return err
	}
	r.tenant = tenants[0]
	r.call = target.WithKey(ctx, r.tenant.GateKey)
	return nil
}

func (r *run) close() error {
	var errs []error
	for _, c := range r.conns {
		errs = append(errs, c.Close())
	}
	if r.server != nil {
		errs = append(errs, r.server.Close())
	}
	if r.pipe != nil {
		r.pipe.Close()
	}
	return errors.Join(errs...)
}

// usable keeps the requests that the server compares: a probe that it finds too
// poor costs it less.
func (r *run) usable(kind target.Kind, scenes [][]byte) (wire.Target, error) {
	t := wire.Target{Conns: r.conns}
	all, err := r.tenant.Requests(kind, requests, scenes)
	if err != nil {
		return t, err
	}
	identify := kind.Verb == target.Identify
	t.Check = func(answer []byte) error { return compared(answer, identify) }
	for _, one := range all {
		t.Method = one.Method
		probe := t
		probe.Requests = [][]byte{one.Body}
		switch err := wire.Calls(r.call, probe, 1); {
		case err == nil:
			t.Requests = append(t.Requests, one.Body)
		case !errors.Is(err, errNotCompared):
			return t, err
		}
	}
	if len(t.Requests) == 0 {
		return t, fmt.Errorf("%w: the server compares none of the %d probes %s: it finds no face in them, or too poor ones; give photographs", ErrOptions, requests, kind)
	}
	return t, nil
}

// errNotCompared: an answer without a comparison.
var errNotCompared = errors.New("the server answered without comparing")

// compared looks at an encoded answer.
func compared(answer []byte, identify bool) error {
	var d *pb.Decision
	if identify {
		var resp pb.IdentifyResponse
		if err := proto.Unmarshal(answer, &resp); err != nil {
			return err
		}
		if len(resp.Results) == 0 {
			return errNotCompared
		}
		d = resp.Results[0].Decision
	} else {
		var resp pb.VerifyResponse
		if err := proto.Unmarshal(answer, &resp); err != nil {
			return err
		}
		d = resp.Decision
	}
	if o := d.GetOutcome(); o != pb.Outcome_OUTCOME_MATCH && o != pb.Outcome_OUTCOME_NO_MATCH {
		return fmt.Errorf("%w: %s", errNotCompared, o)
	}
	return nil
}

// streamed looks at an encoded answer of a stream.
func streamed(answer []byte) error {
	var resp pb.MatchStreamResponse
	if err := proto.Unmarshal(answer, &resp); err != nil {
		return err
	}
	if e := resp.GetError(); e != nil {
		return fmt.Errorf("item %d: %s: %s", resp.SequenceId, e.Reason, e.Message)
	}
	if o := resp.GetVerify().GetDecision().GetOutcome(); o != pb.Outcome_OUTCOME_MATCH && o != pb.Outcome_OUTCOME_NO_MATCH {
		return fmt.Errorf("%w: %s", errNotCompared, o)
	}
	return nil
}

// callers tries how many callers at a time get the most answers.
func (r *run) callers(t wire.Target) (best int, err error) {
	most, cores := 0.0, runtime.GOMAXPROCS(0)
	for _, n := range []int{cores, 2 * cores, 4 * cores, 8 * cores, 16 * cores} {
		got, failed := wire.Unary(r.call, t, n, r.Slice)
		switch {
		case failed != nil:
			err = errors.Join(err, fmt.Errorf("%d callers: %w", n, failed))
		case got > most:
			best, most = n, got
		}
	}
	if best == 0 {
		return 0, err
	}
	return best, nil
}

// rounds measures base and service by turns, the other one first in every other
// round.
func (r *run) rounds(ctx context.Context, phase string, base, service func() (float64, error)) ([]pair, error) {
	step := r.Progress(phase, r.Rounds)
	pairs := make([]pair, r.Rounds)
	for i := range pairs {
		order := []func() error{
			func() (err error) { pairs[i].base, err = base(); return err },
			func() (err error) { pairs[i].service, err = service(); return err },
		}
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, measure := range order {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := measure(); err != nil {
				return nil, err
			}
		}
		step()
	}
	return pairs, nil
}
