package load

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/menshen-io/menshen/bench/target"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// server is a tiny server of known capacity: workers at a time take service
// each; up to queue calls wait, the others are refused.
type server struct {
	workers chan struct{}
	waiting chan struct{}
	service time.Duration

	mu   sync.Mutex
	gate chan struct{} // closed while the server goes on
}

func newServer(workers, queue int, service time.Duration) *server {
	s := &server{workers: make(chan struct{}, workers), waiting: make(chan struct{}, workers+queue), service: service, gate: make(chan struct{})}
	close(s.gate)
	return s
}

// stop lets no call pass until the function that it returns is called.
func (s *server) stop() (goOn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gate := make(chan struct{})
	s.gate = gate
	return func() { close(gate) }
}

func (s *server) Call(ctx context.Context, _, _ int, _ *target.Request) Reply {
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return Reply{Code: codes.ResourceExhausted}
	}
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	<-gate
	select {
	case s.workers <- struct{}{}:
		defer func() { <-s.workers }()
	case <-ctx.Done():
		return Reply{Code: codes.DeadlineExceeded}
	}
	time.Sleep(s.service)
	return Reply{Outcome: pb.Outcome_OUTCOME_MATCH}
}

// async makes a Caller of what waits.
type async func(ctx context.Context, lane, tenant int, r *target.Request) Reply

func (f async) Send(lane, tenant int, r *target.Request, deadline time.Time, to Ender) {
	go func() {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		defer cancel()
		to.Ended(f(ctx, lane, tenant, r))
	}()
}

func (async) Flush() {}

func options(c async, tenants int) Options {
	opt := Options{Caller: c, Mix: Mix{{target.Kind{Verb: target.Verify, Probe: target.Crop}, 1}},
		Spacing: Even, Seed: 1, Deadline: 5 * time.Second, Outstanding: 1000}
	for range tenants {
		opt.Piles = append(opt.Piles, [][]target.Request{{{Method: "/x"}}})
	}
	return opt
}

// generator is one whose rests are those of a bubble of synctest: in these tests
// nothing takes longer than it is said to, whatever the machine does beside it.
func generator(t *testing.T, opt Options) *Generator {
	t.Helper()
	g, err := NewGenerator(opt)
	if err != nil {
		t.Fatal(err)
	}
	g.pause = time.Sleep
	return g
}

// A server that stops for a second is charged for all who came meanwhile: of
// three seconds' calls a third waited, evenly up to a second. A client that
// waits for its answers would have seen one slow call.
func TestStallShowsInPercentiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(1000, 1000, 0)
		g := generator(t, options(s.Call, 1))
		time.AfterFunc(time.Second, func() {
			goOn := s.stop()
			time.AfterFunc(time.Second, goOn)
		})
		results, err := g.Play(t.Context(), Phase{"stall", 3 * time.Second, []Flow{{0, 200, 200}}})
		if err != nil {
			t.Fatal(err)
		}
		got := results[0].All
		if got.Offered < 599 || got.Offered > 601 || got.Match != got.Offered {
			t.Fatalf("%d calls of 600, %d answered", got.Offered, got.Match)
		}
		// One call in a hundred waited longer than 0.97 s, one in ten longer than 0.7 s.
		if math.Abs(got.P99MS-970) > 10 || math.Abs(got.P90MS-700) > 10 {
			t.Errorf("p90 %.1f, p99 %.1f ms; want about 700 and 970", got.P90MS, got.P99MS)
		}
	})
}

// The generator is bounded, and says so: the server answers nobody until so many
// calls were not sent.
func TestNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound, missed = 20, 40
		s := newServer(1000, 1000, 0)
		goOn := s.stop()
		opt := options(s.Call, 1)
		opt.Outstanding, opt.Deadline = bound, time.Minute
		g := generator(t, opt)
		go func() {
			for notSent(g) < missed {
				time.Sleep(time.Millisecond)
			}
			goOn()
		}()
		r, err := Constant(t.Context(), g, 100, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		p := r.Phases[0]
		if p.NotSent != missed || p.Sent < bound || p.Sent+p.NotSent != p.Offered || p.Match != p.Sent {
			t.Errorf("%d offered, %d sent, %d not sent, %d answered; want %d under way at most until %d were not sent",
				p.Offered, p.Sent, p.NotSent, p.Match, bound, missed)
		}
		// A busy machine is remarked on too.
		said := slices.ContainsFunc(r.Remarks, func(text string) bool { return strings.HasPrefix(text, "THE GENERATOR WAS THE LIMIT") })
		if r.NotSent != p.NotSent || !said {
			t.Errorf("it is not said: %d, %q", r.NotSent, r.Remarks)
		}
	})
}

// notSent is how many calls of the phase that goes on were not sent.
func notSent(g *Generator) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.current == nil {
		return 0
	}
	return g.current.all.notSent
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := generator(t, options(newServer(1, 1, time.Millisecond).Call, 1))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		began := time.Now()
		if _, err := Constant(ctx, g, 10, time.Minute); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want canceled", err)
		}
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("it went on for %v, and was cancelled after 100 ms", took)
		}
	})
}

// Overload of a server that serves 4 at a time for 10 ms: 400 a second at most.
func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := generator(t, options(newServer(4, 8, 10*time.Millisecond).Call, 1))
		r, err := Overload(t.Context(), g, 10, Stages{Step: time.Second, Steady: time.Second, Overload: time.Second, Recovery: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		// Of a step's calls it answers 400 while the step lasts and the 12 that it
		// holds at the end.
		if *r.PeakRate < 395 || *r.PeakRate > 415 {
			t.Errorf("a peak of %.0f a second, the server has 400", *r.PeakRate)
		}
		if math.Abs(*r.GoodputRatio-1) > 0.05 {
			t.Errorf("goodput_ratio %.2f of a server that sheds load", *r.GoodputRatio)
		}
		last := r.Phases[len(r.Phases)-3] // then recovery, and the peak again
		if math.Abs(last.Rate / *r.PeakRate - 10) > 0.1 || last.Refused == 0 || r.RefusalP99MS == nil {
			t.Errorf("under overload: %+v", last)
		}
		if r.P99Ratio == nil || *r.P99Ratio < 1 || r.RecoveryS == nil || *r.RecoveryS > 0.5 {
			t.Errorf("p99_ratio %v, recovered after %v", r.P99Ratio, r.RecoveryS)
		}
	})
}

func TestRecovery(t *testing.T) {
	good, slow, refused := window{10, 10, 0}, window{10, 10, 1}, window{10, 9, 0}
	many := func(w window, n int) (out []window) {
		for range n {
			out = append(out, w)
		}
		return out
	}
	tests := map[string]struct {
		windows []window
		want    float64 // -1: none
	}{
		"at once":     {many(good, 8), 0},
		"empty":       {nil, -1},
		"too short":   {many(good, 7), -1},
		"later":       {append(many(slow, 3), many(good, 8)...), 0.75},
		"a relapse":   {append(append(many(good, 5), refused), many(good, 9)...), 1.5},
		"never quite": {append(append(many(good, 7), slow), many(good, 7)...), -1},
		"idle":        {many(window{}, 8), 0},
	}
	for name, test := range tests {
		got := recovery(test.windows)
		if (got == nil) != (test.want < 0) || got != nil && *got != test.want {
			t.Errorf("%s: %v, want %g", name, got, test.want)
		}
	}
}

// Fairness compares the others only: a server that refuses the flooding tenant
// keeps theirs.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fair := async(func(_ context.Context, _, tenant int, _ *target.Request) Reply {
			if tenant == 2 {
				return Reply{Code: codes.ResourceExhausted}
			}
			time.Sleep(5 * time.Millisecond)
			return Reply{Outcome: pb.Outcome_OUTCOME_NO_MATCH}
		})
		g := generator(t, options(fair, 3))
		r, err := Fairness(t.Context(), g, 5, 0.1, Stages{Step: time.Second, Steady: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if r.FairnessP99Ratio == nil || math.Abs(*r.FairnessP99Ratio-1) > 0.3 || r.OthersAnswered == nil || *r.OthersAnswered != 1 {
			t.Fatalf("ratio %v, answered %v", r.FairnessP99Ratio, r.OthersAnswered)
		}
		flood := r.Phases[len(r.Phases)-1]
		if flood.Tenant != "flooding" || flood.Refused != flood.Sent || flood.Sent == 0 {
			t.Errorf("the flood: %+v", flood)
		}
	})
}
