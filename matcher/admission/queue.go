package admission

import (
	"context"
	"slices"
	"time"
)

// flowKey names a queue: a tenant's, and beside it that of its patient work.
type flowKey struct {
	tenant  string
	patient bool
}

// flow is one queue of fair queuing (start-time fair queuing: each start moves
// the flow's tag on by the cost, and the flow with the smallest tag is next).
// Flows are never removed: there are as many as tenants that called.
type flow struct {
	divisor     int64   // of its share
	first, last *waiter // in the order of their coming
	tag         int64   // virtual time at which its next call may start
	running     int64   // weight at work
	backlog     int64   // estimated core time that waits
	held        int     // items of streams outside of the queue
	usual       int64   // what its calls cost lately
	shed        float64 // the part of its calls that was refused lately
	slow        float64 // by how much its calls waited longer than thought lately
	coming      incoming
}

// waiter is one call in a queue.
type waiter struct {
	ticket     Ticket
	deadline   time.Time // zero: none
	came       int64     // when
	thought    float64   // how long it would wait, before slow
	prev, next *waiter   // in its flow
	gone       bool      // left the queue: its result is in ready, or its caller went
	ready      chan error
}

func (l *Limiter) newWaiter(ctx context.Context, t Ticket) *waiter {
	w, ok := l.waiters.Get().(*waiter)
	if !ok {
		w = &waiter{ready: make(chan error, 1)}
	}
	w.ticket, w.gone = t, false
	w.deadline, _ = ctx.Deadline()
	return w
}

func (l *Limiter) flow(key flowKey) *flow {
	f := l.flows[key]
	if f == nil {
		f = &flow{divisor: 1, usual: int64(firstCall), slow: 1}
		if key.patient {
			f.divisor = bulkShare
		}
		l.flows[key] = f
	}
	return f
}

// catchUp forgets what a flow did not use of its share, but for a burst: whoever
// keeps to its share on the whole may use it unevenly.
func (l *Limiter) catchUp(f *flow) { f.tag = max(f.tag, l.clock-l.credit()) }

// credit is how much core time a flow can have saved.
func (l *Limiter) credit() int64 { return credits * l.bound() * l.cores }

func (l *Limiter) enqueue(f *flow, w *waiter) {
	if f.first == nil {
		l.catchUp(f)
		l.queued = append(l.queued, f)
		f.first = w
	} else {
		f.last.next, w.prev = w, f.last
	}
	f.last = w
	f.backlog += w.ticket.cost
	l.backlog += w.ticket.cost
	l.waiting++
}

// remove takes a waiter out of its flow's queue.
func (l *Limiter) remove(w *waiter) {
	f := w.ticket.flow
	if w.prev == nil {
		f.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		f.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.gone = nil, nil, true
	if f.first == nil {
		l.queued = slices.DeleteFunc(l.queued, func(q *flow) bool { return q == f })
	}
	f.backlog -= w.ticket.cost
	l.backlog -= w.ticket.cost
	l.waiting--
}

// dispatch starts what may start now, the flow with the smallest tag first.
// Who cannot meet its deadline any more is refused instead.
func (l *Limiter) dispatch(now int64) {
	for {
		f := l.next()
		if f == nil {
			return
		}
		w := f.first
		if !w.deadline.IsZero() && time.Until(w.deadline) < time.Duration(w.ticket.cost) {
			l.remove(w)
			l.bytes -= w.ticket.bytes
			w.ready <- l.refuse(f, w.ticket.cost, now, Deadline)
			continue
		}
		if l.running+w.ticket.weight > l.room(w.ticket.cost) {
			return
		}
		l.remove(w)
		l.waited(f, w, now)
		l.start(&w.ticket, now)
		w.ready <- nil
	}
}

// mostSlow bounds what is learned of a flow's waiting.
const mostSlow = 16

// waited takes note of how long a call of a flow waited. What is below a part of
// the bound is noise. Of the one tenant of four that asks for twenty times its
// share the calls that are admitted waited 20 ms, 54 at the 99th percentile,
// before this was learned, and 7 and 39 since, where 8 are allowed (TestShares).
func (l *Limiter) waited(f *flow, w *waiter, now int64) {
	seen := float64(now-w.came) / max(w.thought, float64(l.bound())/4)
	f.slow = min(max(f.slow+(seen-f.slow)*learning, 1), mostSlow)
}

// next is the flow whose turn it is among those below their quota. A few
// tenants wait at a time, so that looking at each costs less than a heap.
func (l *Limiter) next() (best *flow) {
	for _, f := range l.queued {
		if f.running+f.first.ticket.weight <= l.quotaOf(f.first.ticket.cost) && (best == nil || f.tag < best.tag) {
			best = f
		}
	}
	return best
}

// wait is the caller's side of the queue.
func (l *Limiter) wait(ctx context.Context, w *waiter) (Ticket, error) {
	var err error
	select {
	case err = <-w.ready:
	case <-ctx.Done():
		if l.leave(w) {
			err = ctx.Err()
		} else if err = <-w.ready; err == nil {
			w.ticket.end(false)
			err = ctx.Err()
		}
	}
	t := w.ticket
	w.ticket = Ticket{}
	l.waiters.Put(w)
	if err != nil {
		return Ticket{}, err
	}
	return t, nil
}

// leave takes a waiter whose caller went out of the queue; false when its turn
// had come.
func (l *Limiter) leave(w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.gone {
		return false
	}
	l.remove(w)
	l.bytes -= w.ticket.bytes
	l.dispatch(l.now()) // it may have stood before one that fits
	return true
}
