package admission

import (
	"context"
	"time"
)

// A client that sends ahead on a stream would have all that it sent refused within a
// moment: nothing slows it down but answers, and refusals are the quickest of them. So
// an item of a stream that would be refused is held, outside of the queues, until a
// refused call would be told to come again, and asks once more. While it is held the
// stream has one place less, and when none is left it is not read from: its sender
// waits.
//
// What is held has no place in a queue and no claim to one. Its second question is
// answered as that of any call of its tenant, so that who floods through streams gets
// its share as by calls, and nobody else waits longer.
const (
	// holds is the longest that an item is held: as long as anybody waits for a turn.
	holds = mostWait
	// mostHeld is how many items of a tenant are held at a time, four streams full;
	// further ones are refused at once.
	mostHeld = 64
	// heldBytes is the part of the bytes of all probes, as a divisor, that may be held.
	heldBytes = 4
)

// hold holds the work of a ticket, and leaves the lock meanwhile. It is false, and
// nothing was held, where too many are held or the deadline comes first.
func (l *Limiter) hold(ctx context.Context, t *Ticket, now int64) bool {
	if t.flow.held >= mostHeld || l.held+t.bytes > l.maxBytes/heldBytes {
		return false
	}
	lasts := min(l.comeAgain(t.flow, t.cost, now), holds)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < lasts+time.Duration(t.cost) {
		return false
	}
	t.flow.held++
	l.held += t.bytes
	l.bytes += t.bytes
	l.mu.Unlock()
	timer := time.NewTimer(lasts)
	select {
	case <-timer.C:
	case <-ctx.Done():
		timer.Stop()
	}
	l.mu.Lock()
	t.flow.held--
	l.held -= t.bytes
	l.bytes -= t.bytes
	return true
}
