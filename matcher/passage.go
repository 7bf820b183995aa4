package matcher

import (
	"sync"
	"sync/atomic"
	"time"
)

// Passage is the way out of one answer: from its last fence until it has left
// the process. An erasure is not answered while a match is on its way out that
// passed the fence before it, so that who is told "deleted" is not matched
// afterwards by an answer that was only slow to leave.
//
// A caller that hands answers to a transport gives the address of a zero Passage
// with its query, and calls End when the transport has taken the answer. A match
// begins it; every other answer leaves it ended. A nil Passage says that the
// answer has left when the call returns. Not for concurrent use; it may be moved.
type Passage struct{ among *cohort }

// Begun reports whether somebody has to call End.
func (p *Passage) Begun() bool { return p.among != nil }

// End says that the answer has left, or never will. It may be called again.
func (p *Passage) End() {
	if p != nil && p.among != nil {
		p.among.leave()
		p.among = nil
	}
}

// begin is called before the fence.
func (p *Passage) begin(sc *scopeEntry) {
	if p != nil && p.among == nil {
		p.among = sc.departures.join()
	}
}

// cohort counts the passages that began between two erasures. It counts one
// more while further ones may join.
type cohort struct {
	n     atomic.Int64
	empty chan struct{} // holds a message once n was 0
}

func newCohort() *cohort {
	c := &cohort{empty: make(chan struct{}, 1)}
	c.n.Store(1)
	return c
}

func (c *cohort) leave() {
	if c.n.Add(-1) == 0 {
		select {
		case c.empty <- struct{}{}:
		default:
		}
	}
}

// departures are the answers of a scope that are on their way out. The zero
// departures is ready. Safe for concurrent use.
//
// A passage joins the present cohort and then asks the fence. An erasure puts the
// fence up, then begins a new cohort, and waits for the old one: each passage is
// either waited for, or sees the fence.
type departures struct {
	present atomic.Pointer[cohort]

	mu           sync.Mutex
	begun, ended uint64        // waits
	turn         chan struct{} // closed when the running wait ends; nil while none runs
}

func (d *departures) join() *cohort {
	for {
		c := d.present.Load()
		if c == nil {
			d.present.CompareAndSwap(nil, newCohort())
			continue
		}
		c.n.Add(1)
		if d.present.Load() == c {
			return c // whoever ends this cohort sees it
		}
		c.leave()
	}
}

// wait returns when every passage has ended that had begun before the call, or
// false after the patience. Those are forgotten then. Waits that come
// while one runs share the next one.
func (d *departures) wait(patience time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := true
	for mine := d.begun + 1; d.ended < mine; {
		if turn := d.turn; turn != nil {
			d.mu.Unlock()
			<-turn
			d.mu.Lock()
			continue
		}
		turn := make(chan struct{})
		d.turn, d.begun = turn, d.begun+1
		d.mu.Unlock()
		left = d.endCohort(patience)
		d.mu.Lock()
		d.ended, d.turn = d.begun, nil
		close(turn)
	}
	return left
}

func (d *departures) endCohort(patience time.Duration) bool {
	c := d.present.Swap(newCohort())
	if c == nil {
		return true
	}
	c.leave() // nobody joins any more
	if c.n.Load() <= 0 {
		return true
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	for c.n.Load() > 0 {
		select {
		case <-c.empty:
		case <-late.C:
			return false
		}
	}
	return true
}

// departPatience is how long an erasure waits at most for answers that a gate
// does not take. It is more than the time after which the server cuts such a gate
// off (rpc.DefaultStallLimit and a quarter of it); what is left by then lies with
// the transport, and the gate would have to ask for it.
const departPatience = 15 * time.Second

// departed waits until no match that passed the scope's fence before is on its way
// out. It must not be called with a lock that a match needs.
func (m *Matcher) departed(sc *scopeEntry) {
	if !sc.departures.wait(departPatience) {
		m.log.Warn("an erasure did not wait longer for a gate that does not take its answer: the answer was decided before the erasure", "scope", sc.ref.String())
	}
}
