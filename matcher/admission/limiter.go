// Package admission decides which calls may use the machine, and when.
//
// One Limiter stands before everything that costs core time: decoding,
// inference, search. It knows roughly what a call will cost (cost.go, learned
// from what such calls took), lets work for as many cores begin as there are,
// keeps the rest in a queue for each tenant, and refuses what would wait too
// long.
//
// It promises: cores do not idle while work waits; among tenants that wait,
// each gets an equal share of the core time, and one that is alone gets all of
// it; the wait of who is admitted is bounded by a few service times, whatever
// comes; who cannot be answered before its deadline is refused at once, and
// work whose caller has gone leaves the queue without cost; a refusal
// (*Overload) tells when to come again. A call that need not wait is admitted
// without an allocation.
//
// What it does not do: bound connections, streams or bytes on the wire
// (matcher/rpc), and interrupt what has begun. Erasing, revoking and
// administrative calls never come here, so they are never shed.
package admission

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"
)

// Options tune a Limiter. The zero value is right for a server.
type Options struct {
	// Cores is how many cores there are to give away. 0: GOMAXPROCS.
	Cores int
	// TenantShare is the most of the machine that one tenant may have at a
	// time, also when it is alone: above 0 to 1. 0 means 1.
	TenantShare float64
	// MaxBytes bounds the bytes of the probes that wait or are worked on.
	// 0: DefaultMaxBytes.
	MaxBytes int64
}

// DefaultMaxBytes holds 16 images of the largest size that is accepted by
// default, and more than a thousand of a usual one.
const DefaultMaxBytes = 256 << 20

const (
	// core is the weight of work that keeps one core busy.
	core = 16
	// seeing is the weight of work with a crop: two such calls a core are under way,
	// so that one is read and decoded while the other's model runs. They are off the
	// cores for half of the time, since the models have a budget of cores of their own
	// (models.Budget). Camera images are on the cores all the time: two a core gave
	// 0.89 of the peak at ten times the capacity, and 114 ms instead of 87.
	seeing = core / 2
	// shared is the weight of a search of a large gallery, which the workers
	// of the index do: sixteen of them share a pass as one does alone.
	shared = 1

	// brief is work that is over sooner than another could take its place.
	brief = 100_000 // ns

	// waits is how many mean service times somebody may have to wait. Under
	// ten times the load nearly all who are admitted wait this long. Camera
	// images at ten times the capacity, half and 99th percentile of the answers:
	// 72 and 95 ms with 2.5, 53 and 73 with 1.75; at 80% of the capacity 0.4%
	// and 0.8% were refused.
	waits = 1.75
	// briefWaits is the same of work that is soon done, up to briefWait: a fleet of
	// four callers a core, each of whom waits for its answer, is no overload.
	briefWaits, briefWait = 4, 20 * time.Millisecond
	// A flow of whose calls more than fewShed are refused asks for more than it can
	// get, so that a longer queue would only make everybody in it late: from manyShed
	// on its calls wait the shorter time of the two.
	fewShed, manyShed = 0.1, 0.5
	// shedding follows the last 64 calls or so.
	shedding = 1.0 / 64
	// leastWait keeps the pauses of a busy machine (garbage collection,
	// scheduling) from looking like overload, mostWait the wait tolerable
	// where one service time is long.
	leastWait, mostWait = 5 * time.Millisecond, 500 * time.Millisecond

	// credits is how many bounds' worth of the machine a tenant can have saved
	// by using less than its share. Of a tenant that used 80% of its quarter,
	// beside one that asked for twenty times its own, 1.1%, 0.2% and none of
	// the calls were refused with 1, 2 and 4 (TestShares).
	credits = 4

	// patience bounds the wait of those who would rather wait than repeat.
	patience = time.Minute
	// bulkShare is the share of patient work, as a divisor: while gates wait,
	// it gets a quarter of what a tenant gets.
	bulkShare = 4
	// maxWaiting bounds the queue by number too; each has a goroutine.
	maxWaiting = 1 << 14
)

// Limiter gives the machine's core time away. Safe for concurrent use.
type Limiter struct {
	cores    int64
	slots    int64 // weight that may be at work at a time
	quota    int64 // weight that one tenant may have of it
	maxBytes int64
	began    time.Time
	waiters  sync.Pool // of *waiter

	mu       sync.Mutex
	costs    costs
	flows    map[flowKey]*flow
	queued   []*flow  // flows with somebody waiting
	running  int64    // weight at work
	waiting  int      // calls
	backlog  int64    // estimated core time that waits, ns
	coming   incoming // announced and not here yet
	bytes    int64
	held     int64 // of them those of items of streams that are held
	clock    int64 // virtual time of fair queuing: the tag of the last start
	returns  int64 // when the last of the refused is expected again
	admitted int64
	refused  int64
}

// New makes a Limiter.
func New(opt Options) *Limiter {
	if opt.Cores <= 0 {
		opt.Cores = runtime.GOMAXPROCS(0)
	}
	if opt.TenantShare <= 0 || opt.TenantShare > 1 {
		opt.TenantShare = 1
	}
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = DefaultMaxBytes
	}
	slots := int64(opt.Cores) * core
	return &Limiter{
		cores: int64(opt.Cores), slots: slots, quota: max(core, int64(float64(slots)*opt.TenantShare)), maxBytes: opt.MaxBytes,
		began: time.Now(), costs: newCosts(), flows: make(map[flowKey]*flow),
	}
}

// Ask is what a call wants.
type Ask struct {
	Tenant string
	Work   Work
	// Bytes of the probe, held while it waits and is worked on.
	Bytes int
	// Patient work waits rather than being refused, behind the others: bulk
	// enrolment, whose stream holds its sender back by itself.
	Patient bool
	// Streamed work comes on a stream, whose sender sends no more than is under way:
	// what would be refused is held for a moment first (hold.go).
	Streamed bool
}

// Admit waits for its turn. The Ticket's Done must be called once. Errors:
// *Overload, or ctx.Err() when the caller went away first.
func (l *Limiter) Admit(ctx context.Context, ask Ask) (Ticket, error) {
	if err := ctx.Err(); err != nil {
		return Ticket{}, err
	}
	prior := ask.Work.prior()
	cell := ask.Work.cell()
	weight := ask.Work.weight()

	l.mu.Lock()
	now := l.now()
	f := l.flow(flowKey{ask.Tenant, ask.Patient})
	t := Ticket{limiter: l, flow: f, cell: cell, weight: weight, prior: prior, cost: l.costs.estimate(cell, prior), bytes: int64(ask.Bytes)}
	if l.tooMuch(&t) {
		err := l.refuse(f, t.cost, now, Memory)
		l.mu.Unlock()
		return Ticket{}, err
	}
	if l.waiting == 0 && l.fits(f, weight, t.cost) {
		l.bytes += t.bytes
		l.catchUp(f)
		l.start(&t, now)
		l.mu.Unlock()
		return t, nil
	}
	wait, why, late := l.tooLate(ctx, f, t.cost, now, ask.Patient)
	if late && why == Queue && ask.Streamed && l.hold(ctx, &t, now) {
		l.mu.Unlock()
		ask.Streamed = false
		return l.Admit(ctx, ask)
	}
	if late {
		err := l.refuse(f, t.cost, now, why)
		l.mu.Unlock()
		return Ticket{}, err
	}
	l.bytes += t.bytes
	w := l.newWaiter(ctx, t)
	w.came, w.thought = now, float64(wait)/f.slow
	l.enqueue(f, w)
	l.dispatch(now)
	l.mu.Unlock()
	return l.wait(ctx, w)
}

// now is the time in ns since the limiter was made.
func (l *Limiter) now() int64 { return int64(time.Since(l.began)) }

// room is the weight that may be at work beside work of that cost. Nothing begins
// beyond the cores but what is brief: that would wait longer for a core's hand-over
// than for the core.
func (l *Limiter) room(cost int64) int64 {
	if cost < brief {
		return 2 * l.slots
	}
	return l.slots
}

func (l *Limiter) fits(f *flow, weight, cost int64) bool {
	return l.running+weight <= l.room(cost) && f.running+weight <= l.quotaOf(cost)
}

// quotaOf is a tenant's part of the room.
func (l *Limiter) quotaOf(cost int64) int64 { return l.quota * (l.room(cost) / l.slots) }

// start begins the work of a ticket; it has been counted in bytes.
func (l *Limiter) start(t *Ticket, now int64) {
	f := t.flow
	t.since = now
	l.running += t.weight
	f.running += t.weight
	l.clock = max(l.clock, f.tag)
	f.tag += t.cost * f.divisor
	f.shed -= f.shed * shedding
	l.admitted++
}

// tooMuch tells whether the bytes of a ticket have no room beside those that are held.
func (l *Limiter) tooMuch(t *Ticket) bool { return l.bytes > 0 && l.bytes+t.bytes > l.maxBytes }

// tooLate returns how long somebody who comes now will wait, or why it must not
// be queued.
func (l *Limiter) tooLate(ctx context.Context, f *flow, cost, now int64, patient bool) (wait int64, why Why, late bool) {
	bound := l.boundOf(f)
	if patient {
		bound = int64(patience)
	}
	wait = l.waitOf(f, now, true)
	if wait > bound || l.waiting >= maxWaiting {
		return 0, Queue, true
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < time.Duration(wait+cost) {
		return 0, Deadline, true
	}
	return wait, 0, false
}

// bound is how long somebody may have to wait whose calls are not refused.
func (l *Limiter) bound() int64 { return l.boundAt(0) }

// boundOf is how long somebody of a flow may have to wait.
func (l *Limiter) boundOf(f *flow) int64 { return l.boundAt(f.shed) }

func (l *Limiter) boundAt(shed float64) int64 {
	service := l.costs.service()
	long := max(waits*service, min(briefWaits*service, float64(briefWait)))
	part := min(max((shed-fewShed)/(manyShed-fewShed), 0), 1)
	wait := long + (waits*service-long)*part
	return min(max(int64(wait), int64(leastWait)), int64(mostWait))
}

// waitOf estimates how long somebody of a flow waits who comes now: behind
// everybody, or behind the flow's own, whichever is sooner. What the flow left
// unused of its share lately goes first, the rest at the rate of its share. So
// who keeps to its share does not feel what others pile up.
// Others that come later and have more saved up go before a flow that takes more
// than its share: how much longer its calls waited than was thought is learned.
// here is whether the one who asks stands at the queue, and not still on its
// way to it.
func (l *Limiter) waitOf(f *flow, now int64, here bool) int64 {
	flows := int64(len(l.queued))
	if f.first == nil {
		flows++
	}
	all, own := l.backlog, f.backlog
	if !here {
		all += l.coming.sum(now)
		own += f.coming.sum(now)
	}
	ahead := min(own, max(0, min(l.clock-f.tag, l.credit()))/f.divisor)
	wait := min(all, ahead+(own-ahead)*flows*f.divisor) / l.cores
	if l.quota < l.slots {
		wait = max(wait, own*core/l.quota)
	}
	return int64(float64(wait) * f.slow)
}

// retryLongest bounds what a caller is told to wait.
const retryLongest = 10 * time.Second

// refuse counts a refusal and says when to come again.
func (l *Limiter) refuse(f *flow, cost, now int64, why Why) error {
	l.refused++
	if why == Queue {
		f.shed += (1 - f.shed) * shedding
	}
	return &Overload{Why: why, RetryAfter: l.comeAgain(f, cost, now)}
}

// comeAgain is when there is likely to be room: who cannot be admitted stands in a
// line of its own, as fast as the machine works, so that not all come back at once.
func (l *Limiter) comeAgain(f *flow, cost, now int64) time.Duration {
	drained := now + max(l.waitOf(f, now, false), int64(leastWait))
	l.returns = min(max(l.returns, drained)+cost/l.cores, now+int64(retryLongest))
	return time.Duration(float64(l.returns-now) * (0.75 + rand.Float64()/2))
}

// finish gives back what a ticket holds. took is the core time that it used;
// learn is whether that tells anything about others.
func (l *Limiter) finish(t *Ticket, now int64, learn bool) {
	took := t.spent + (now-t.since)*t.weight/core
	f := t.flow
	l.running -= t.weight
	f.running -= t.weight
	l.bytes -= t.bytes
	f.tag += (took - t.cost) * f.divisor // what it cost, not what was thought
	if learn {
		l.costs.learn(t.cell, t.prior, took)
		f.usual += (t.cost - f.usual) / 8
	}
	l.dispatch(now)
}

// Stats is what the limiter does at this moment.
type Stats struct {
	Running  float64       // cores' worth of work begun
	Waiting  int           // calls in queues
	Wait     time.Duration // estimated, of a new tenant's call
	Bound    time.Duration // longest wait that is accepted
	Bytes    int64         // of probes held
	Admitted int64         // since the start
	Refused  int64         // since the start
}

// Stats tells what the limiter does at this moment.
func (l *Limiter) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{
		Running: float64(l.running) / core, Waiting: l.waiting, Wait: time.Duration(l.backlog / l.cores),
		Bound: time.Duration(l.bound()), Bytes: l.bytes, Admitted: l.admitted, Refused: l.refused,
	}
}
