package load

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-io/menshen/bench/target"
)

// Options of a run. Caller, Mix and Piles are required.
type Options struct {
	Caller   Caller
	Mix      Mix
	Piles    [][][]target.Request // by tenant, by share of the mix
	Spacing  Spacing
	Seed     uint64
	Deadline time.Duration // of a call, from when it was due
	// Outstanding is the most calls under way at a time.
	Outstanding int
	// ServerPID is the process whose CPU and memory are read every second; 0 is
	// none.
	ServerPID int
	// Progress, where not nil, is told every second what goes on.
	Progress func(Second)
}

// Flow is what one tenant sends in a phase: calls a second, from the beginning to
// the end.
type Flow struct {
	Tenant   int
	From, To float64
}

// Phase is a time with given rates.
type Phase struct {
	Name   string
	Length time.Duration
	Flows  []Flow
}

// Second is one second of a run. Calls are counted when they were due, answers
// when they came. CPU is in cores; nil where it is not known.
type Second struct {
	At    float64 `json:"at"` // end of the second, after the run's beginning
	Phase string  `json:"phase"`
	Counts
	P50MS       float64  `json:"p50_ms"`
	P99MS       float64  `json:"p99_ms"`
	UnderWay    int64    `json:"under_way"`
	ServerCPU   *float64 `json:"server_cpu"`
	ServerRSSMB *float64 `json:"server_rss_mb"`
	ClientCPU   *float64 `json:"client_cpu"`
	// OtherCPU is what the rest of the machine used, with what its host took away;
	// nil for a server that was not started here.
	OtherCPU *float64 `json:"other_cpu"`
}

// PhaseResult is what became of a phase, by flow.
type PhaseResult struct {
	Phase   Phase
	Flows   []Summary
	All     Summary
	tallies []*tally // by flow
	windows []window // of windowLength, by when calls were due
}

// windowLength is fine enough to say when a server was itself again.
const windowLength = 250 * time.Millisecond

// window is a short part of a phase.
type window struct {
	due, ok int64
	slow    int64 // answered later than the phase's bar
}

// Generator plays phases. It is for one goroutine; what it knows of seconds goes
// on from phase to phase.
type Generator struct {
	opt    Options
	began  time.Time
	decks  []*deck
	played uint64 // phases, for their seeds
	bar    time.Duration
	lanes  int
	jobs   sync.Pool           // of *job
	pause  func(time.Duration) // rests; a test puts its own clock here

	underWay atomic.Int64

	mu      sync.Mutex
	current *playing
	second  *tally
	seconds []Second

	usage struct {
		at             time.Time
		server, client time.Duration
		machine        time.Duration
		haveServer     bool
	}
	memoryPeak int64
}

// playing is the phase that goes on, with its calls that are still under way.
type playing struct {
	phase   Phase
	began   time.Time
	flows   []*tally
	all     *tally
	windows []window
	bar     time.Duration
	pending sync.WaitGroup
}

// job is one call under way.
type job struct {
	generator *Generator
	of        *playing
	flow      int
	due, sent time.Time
}

// NewGenerator begins a run. Error: ErrOptions.
func NewGenerator(opt Options) (*Generator, error) {
	switch {
	case opt.Caller == nil || len(opt.Piles) == 0:
		return nil, fmt.Errorf("%w: nobody to call", ErrOptions)
	case opt.Outstanding < 1 || opt.Outstanding > maxOutstanding:
		return nil, fmt.Errorf("%w: %d calls under way; 1 to %d are possible", ErrOptions, opt.Outstanding, maxOutstanding)
	case opt.Deadline <= 0 || opt.Deadline > time.Minute:
		return nil, fmt.Errorf("%w: a deadline of %s; more than nothing, at most a minute", ErrOptions, opt.Deadline)
	case opt.Spacing != Poisson && opt.Spacing != Even:
		return nil, fmt.Errorf("%w: arrivals %q; there are %s and %s", ErrOptions, opt.Spacing, Poisson, Even)
	}
	g := &Generator{opt: opt, second: newTally(), began: time.Now(), pause: pause}
	for i, piles := range opt.Piles {
		if len(piles) != len(opt.Mix) {
			return nil, fmt.Errorf("%w: %d piles of requests for a mix of %d", ErrOptions, len(piles), len(opt.Mix))
		}
		g.decks = append(g.decks, newDeck(opt.Mix, piles, opt.Seed+uint64(i)))
	}
	g.sample(g.began)
	return g, nil
}

// maxOutstanding bounds memory.
const maxOutstanding = 1 << 15

// Seconds are those that have passed.
func (g *Generator) Seconds() []Second { return g.seconds }

// MemoryPeak is the most that the server had in memory, in bytes; 0 where it is
// not known.
func (g *Generator) MemoryPeak() int64 { return g.memoryPeak }

// Slow sets from when on the windows of phases count an answer as slow.
func (g *Generator) Slow(bar time.Duration) { g.bar = bar }

// Play plays phases, one right after the other, and waits for the last calls. An
// error is that of ctx.
func (g *Generator) Play(ctx context.Context, phases ...Phase) ([]PhaseResult, error) {
	clock := newClock(g)
	defer clock.stop()
	began := time.Now()
	var played []*playing
	for _, phase := range phases {
		p := &playing{phase: phase, began: began, bar: g.bar, all: newTally(), windows: make([]window, int((phase.Length+windowLength-1)/windowLength))}
		for range phase.Flows {
			p.flows = append(p.flows, newTally())
		}
		played = append(played, p)
		if err := g.play(ctx, p); err != nil {
			return nil, err
		}
		began = began.Add(phase.Length)
	}
	results := make([]PhaseResult, len(played))
	for i, p := range played {
		p.pending.Wait()
		results[i] = p.result()
	}
	return results, nil
}

func (p *playing) result() PhaseResult {
	r := PhaseResult{Phase: p.phase, All: p.all.summary(p.phase.Name, p.phase.Length), windows: p.windows, tallies: p.flows}
	for _, t := range p.flows {
		r.Flows = append(r.Flows, t.summary(p.phase.Name, p.phase.Length))
	}
	return r
}

// play sends the calls of a phase when they are due.
func (g *Generator) play(ctx context.Context, p *playing) error {
	g.mu.Lock()
	g.current = p
	g.mu.Unlock()
	type source struct {
		arrivals *Arrivals
		next     time.Duration
	}
	sources := make([]source, len(p.phase.Flows))
	const never = time.Duration(1<<63 - 1)
	advance := func(s *source) {
		at, ok := s.arrivals.Next()
		if !ok {
			at = never
		}
		s.next = at
	}
	for i, f := range p.phase.Flows {
		g.played++
		sources[i].arrivals = NewArrivals(f.From, f.To, p.phase.Length, g.opt.Spacing, g.opt.Seed+g.played<<16)
		advance(&sources[i])
	}
	for {
		// All that is due, and then a rest.
		var wait time.Duration
		for now := time.Since(p.began); ; {
			flow := 0
			for i := range sources {
				if sources[i].next < sources[flow].next {
					flow = i
				}
			}
			if len(sources) == 0 || sources[flow].next == never {
				g.opt.Caller.Flush()
				return g.sleep(ctx, time.Until(p.began.Add(p.phase.Length)))
			}
			if wait = sources[flow].next - now; wait > 0 {
				break
			}
			g.send(p, flow, p.began.Add(sources[flow].next))
			advance(&sources[flow])
		}
		g.opt.Caller.Flush()
		if err := g.sleep(ctx, max(wait, leastRest)); err != nil {
			return err
		}
	}
}

// leastRest is how long the generator rests at least. What comes due meanwhile
// leaves together, up to so much too late: the latency of an answer counts from when
// the call was due, so that it is charged for. To wake up for each of 10,000 calls a
// second takes a tenth of a core of the machine that is measured.
const leastRest = time.Millisecond

// sleep waits for d, or until ctx ends, of which it takes notice within short.
func (g *Generator) sleep(ctx context.Context, d time.Duration) error {
	const short = 20 * time.Millisecond
	for end := time.Now().Add(d); d > 0; d = time.Until(end) {
		g.pause(min(d, short))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// send begins a call, or counts it as not sent.
func (g *Generator) send(p *playing, flow int, due time.Time) {
	full := g.underWay.Load() >= int64(g.opt.Outstanding)
	g.mu.Lock()
	for _, t := range [...]*tally{p.flows[flow], p.all, g.second} {
		t.due++
		if full {
			t.notSent++
		}
	}
	p.windowOf(due).due++
	g.mu.Unlock()
	if full {
		return
	}
	tenant := p.phase.Flows[flow].Tenant
	j, ok := g.jobs.Get().(*job)
	if !ok {
		j = new(job)
	}
	*j = job{g, p, flow, due, time.Now()}
	g.underWay.Add(1)
	p.pending.Add(1)
	g.opt.Caller.Send(g.lanes, tenant, g.decks[tenant].draw(), due.Add(g.opt.Deadline), j)
	g.lanes++
}

// Ended counts a call that has ended.
func (j *job) Ended(reply Reply) {
	g, p, ended := j.generator, j.of, time.Now()
	took, lag := ended.Sub(j.due), j.sent.Sub(j.due)
	g.underWay.Add(-1)
	g.mu.Lock()
	for _, t := range [...]*tally{p.flows[j.flow], p.all, g.second} {
		t.add(reply, took, lag)
	}
	w := p.windowOf(j.due)
	if reply.Code == 0 {
		w.ok++
		if p.bar > 0 && took > p.bar {
			w.slow++
		}
	}
	g.mu.Unlock()
	g.jobs.Put(j)
	p.pending.Done()
}

func (p *playing) windowOf(due time.Time) *window {
	i := int(due.Sub(p.began) / windowLength)
	return &p.windows[min(max(i, 0), len(p.windows)-1)]
}

// clock closes a second after the other.
type clock struct {
	ended, done chan struct{}
}

func newClock(g *Generator) *clock {
	c := &clock{make(chan struct{}), make(chan struct{})}
	go func() {
		defer close(c.done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				g.closeSecond(now)
			case <-c.ended:
				return
			}
		}
	}()
	return c
}

func (c *clock) stop() {
	close(c.ended)
	<-c.done
}

func (g *Generator) closeSecond(now time.Time) {
	s := g.sample(now)
	g.mu.Lock()
	s.At = now.Sub(g.began).Seconds()
	if g.current != nil {
		s.Phase = g.current.phase.Name
	}
	s.Counts, s.UnderWay = g.second.counts(), g.underWay.Load()
	s.P50MS, s.P99MS = quantile(g.second.answered, 50), quantile(g.second.answered, 99)
	g.second.reset()
	g.mu.Unlock()
	g.seconds = append(g.seconds, s)
	if g.opt.Progress != nil {
		g.opt.Progress(s)
	}
}

// sample reads what the processes have used since the last time.
func (g *Generator) sample(now time.Time) (s Second) {
	u := &g.usage
	since := now.Sub(u.at).Seconds()
	cores := func(used time.Duration) *float64 {
		x := used.Seconds() / since
		return &x
	}
	if client, ok := target.UsageOf(os.Getpid()); ok {
		if !u.at.IsZero() {
			s.ClientCPU = cores(client.CPU - u.client)
		}
		u.client = client.CPU
	}
	if g.opt.ServerPID != 0 {
		if server, ok := target.UsageOf(g.opt.ServerPID); ok {
			if u.haveServer {
				s.ServerCPU = cores(server.CPU - u.server)
			}
			mb := float64(server.RSS) / (1 << 20)
			s.ServerRSSMB = &mb
			u.server, u.haveServer = server.CPU, true
			g.memoryPeak = max(g.memoryPeak, server.Peak)
		}
	}
	if machine, ok := target.MachineCPU(); ok {
		if s.ServerCPU != nil && s.ClientCPU != nil && u.machine > 0 {
			other := max(0, *cores(machine - u.machine)-*s.ServerCPU-*s.ClientCPU)
			s.OtherCPU = &other
		}
		u.machine = machine
	}
	u.at = now
	return s
}

// Capacity lets as many callers as Concurrency call one right after the other's
// answer, and returns answers a second: where to begin looking for the peak.
func (g *Generator) Capacity(ctx context.Context, callers int, length time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, length+g.opt.Deadline)
	defer cancel()
	var (
		group   sync.WaitGroup
		sending sync.Mutex
		ok      atomic.Int64
		fault   atomic.Pointer[Reply]
		end     = time.Now().Add(length)
		decks   = make([]*deck, callers)
	)
	for i := range decks {
		decks[i] = newDeck(g.opt.Mix, g.opt.Piles[i%len(g.opt.Piles)], g.opt.Seed^uint64(i)<<32)
		group.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				end := make(waiting, 1)
				sending.Lock()
				g.opt.Caller.Send(i, i%len(g.opt.Piles), decks[i].draw(), time.Now().Add(g.opt.Deadline), end)
				g.opt.Caller.Flush()
				sending.Unlock()
				r := <-end
				if r.Code == 0 {
					ok.Add(1)
					continue
				}
				fault.Store(&r)
				time.Sleep(refusedPause)
			}
		})
	}
	group.Wait()
	if err := ctx.Err(); err != nil && time.Now().Before(end) {
		return 0, err
	}
	if ok.Load() == 0 {
		if r := fault.Load(); r != nil {
			return 0, fmt.Errorf("%w: the server answered no call; the last one ended with %s", ErrOptions, r.Code)
		}
		return 0, fmt.Errorf("%w: the server answered no call within %s", ErrOptions, length)
	}
	return float64(ok.Load()) / length.Seconds(), nil
}

// refusedPause keeps refused callers from spinning.
const refusedPause = time.Millisecond

// capacityCallers keep every core of both sides busy.
func capacityCallers() int { return 8 * runtime.GOMAXPROCS(0) }
