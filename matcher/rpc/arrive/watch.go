// Package arrive looks after request messages that are still on their way.
//
// gRPC hands a message over when its last byte is there; until then its bytes
// lie in gRPC's buffers, where nobody counts them. So this package reads along
// on each connection, above TLS: it sees every frame of HTTP/2 at the moment at
// which gRPC takes it up, knows of each call how much of its message has come
// and since when, and counts what has arrived and was not yet handed over.
//
// It promises: a message makes progress or its call is cut off; the bytes that
// wait are bounded, in all; while there are too many, who holds more than an
// even share is refused and its oldest unfinished call cut off, and who holds
// less is not; what erases and revokes is neither refused nor cut off for
// others' bytes. Counted are bytes as they were sent, and CallBytes for each
// call under way; what gRPC allocates for them is at most about twice as much,
// and for a moment a copy of the message that is handed over.
//
// What it does not do: look into messages, and bound what comes before a call's
// headers are complete (gRPC does: 16 KiB each) or after they are handed over
// (matcher/admission does).
package arrive

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of a call: why it is cut off, or not let in.
var (
	// ErrStalled: nothing, or too little, moved for too long.
	ErrStalled = errors.New("nothing moved on this call for too long: send the whole message at once, and read the answers")
	// ErrFull: too many bytes are on their way already.
	ErrFull = errors.New("the server is busy: the messages that are on their way hold as much memory as they may; repeat the call in a moment, or use the alternative")
)

// Options tune a Watch.
type Options struct {
	// Bound is how many bytes may wait, in all. 0: DefaultBound.
	Bound int64
	// Limit is how long a message may take to arrive, and Rate, in bytes a
	// second, what it must have brought for each second beyond that.
	Limit time.Duration
	Rate  int64
	// Cut ends a call, whose context is the handler's, with ErrStalled or
	// ErrFull. It must not block.
	Cut func(ctx context.Context, why error)
}

const (
	// CallBytes is what a call counts for beside its messages: its goroutines'
	// stacks and its buffers. A MatchStream that is silent after an answer keeps
	// 26 KB resident (BenchmarkIdleStream in matcher/rpc), so what is counted is
	// a little more than half.
	CallBytes = 16 << 10
	// sparedBytes is the longest message of what erases and revokes that is
	// let in whatever else is on its way; names and reasons have under 1 KiB.
	sparedBytes = 64 << 10
	// looksPerLimit is how often calls are looked at within the limit.
	looksPerLimit = 4
	// pause is the least time between two looks for somebody to cut off.
	pause = 5 * time.Millisecond
)

// Watch is what a server's connections have in common. Safe for concurrent use.
type Watch struct {
	opt     Options
	began   time.Time
	held    atomic.Int64 // bytes
	pressed chan struct{}
	looks   atomic.Int64

	stalled, crowded, refused atomic.Int64

	mu     sync.Mutex
	conns  map[*conn]struct{}
	owners map[string]*owner
}

// owner is who answers for calls: a tenant.
type owner struct{ held atomic.Int64 }

// New makes a Watch. Nothing is cut off before Run.
func New(opt Options) *Watch {
	if opt.Bound <= 0 {
		opt.Bound = DefaultBound()
	}
	return &Watch{opt: opt, began: time.Now(), pressed: make(chan struct{}, 1), conns: make(map[*conn]struct{}), owners: make(map[string]*owner)}
}

// Stats is what a Watch has seen.
type Stats struct {
	Held, Bound int64 // bytes that wait, and may
	Stalled     int64 // calls cut off because nothing moved, since the start
	Crowded     int64 // calls cut off because too much was on its way
	Refused     int64 // calls not let in because of that
}

// Stats tells what the Watch has seen.
func (w *Watch) Stats() Stats {
	return Stats{w.held.Load(), w.opt.Bound, w.stalled.Load(), w.crowded.Load(), w.refused.Load()}
}

// now is the time in ns since the Watch was made.
func (w *Watch) now() int64 { return int64(time.Since(w.began)) }

// Run cuts off what must be until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	ticker := time.NewTicker(w.opt.Limit / looksPerLimit)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			w.look()
		case <-w.pressed:
			w.relieve()
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// Room tells whether a call of an owner may begin: ErrFull if not. It takes no
// lock unless too much is on its way.
func (w *Watch) Room(name string) error {
	if w.held.Load() < w.opt.Bound {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	holders, own := int64(1), w.owners[name]
	for _, o := range w.owners {
		if o != own && o.held.Load() > 0 {
			holders++
		}
	}
	if own != nil && own.held.Load() >= w.opt.Bound/holders {
		w.refused.Add(1)
		return ErrFull
	}
	return nil
}

func (w *Watch) owner(name string) *owner {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.owners[name]
	if o == nil {
		o = new(owner)
		w.owners[name] = o
	}
	return o
}

// hold counts bytes; negative ones are given back.
func (w *Watch) hold(o *owner, n int64) {
	o.held.Add(n)
	if w.held.Add(n) > w.opt.Bound && n > 0 {
		select {
		case w.pressed <- struct{}{}:
		default:
		}
	}
}

func (w *Watch) open() []*conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]*conn, 0, len(w.conns))
	for c := range w.conns {
		out = append(out, c)
	}
	return out
}

// look cuts off calls that do not move, and then connections on which nothing
// is left.
func (w *Watch) look() {
	w.looks.Add(1)
	now := w.now()
	for _, c := range w.open() {
		stalled, useless := c.look(now)
		for _, ctx := range stalled {
			w.stalled.Add(1)
			w.opt.Cut(ctx, ErrStalled)
		}
		if useless {
			c.raw.Close()
		}
	}
}

// relieve cuts off calls until an eighth of the bound is free: of the owner who
// holds the most the one that has been unfinished the longest, and where none is
// unfinished, the stream that has been silent the longest.
func (w *Watch) relieve() {
	waiting := map[*owner][]candidate{}
	for _, c := range w.open() {
		c.candidates(waiting)
	}
	for _, calls := range waiting {
		slices.SortFunc(calls, func(a, b candidate) int {
			if a.idle != b.idle {
				if a.idle {
					return 1
				}
				return -1
			}
			return cmp.Compare(a.since, b.since)
		})
	}
	for w.held.Load() > w.opt.Bound-w.opt.Bound/8 {
		var most *owner
		for o, calls := range waiting {
			if len(calls) > 0 && (most == nil || o.held.Load() > most.held.Load()) {
				most = o
			}
		}
		if most == nil {
			return
		}
		call := waiting[most][0].call
		waiting[most] = waiting[most][1:]
		if ctx, ok := call.conn.cut(call); ok {
			w.crowded.Add(1)
			w.opt.Cut(ctx, ErrFull)
		}
	}
}

// candidate is a call that may be cut off to make room.
type candidate struct {
	call  *Call
	idle  bool
	since int64 // of the same kind as another's that is as idle
}
