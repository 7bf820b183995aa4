package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/menshen-io/menshen/index/scope"
)

// freeAge bounds how old the knowledge of the free space is. In 100 ms the log
// writes a few MiB, far less than is kept free. Asking for every act took 3% of a
// server that enrolled 20,000 a second.
const freeAge = 100 * time.Millisecond

// freeSpace is what was known of the disk at a time. Several may ask at once.
type freeSpace struct {
	at    time.Time
	bytes uint64
}

// room reports whether there is more free space than is kept for what must be
// written.
func (l *Log) room() error {
	if l.opt.MinFree == nil {
		return nil
	}
	least := l.opt.MinFree()
	known := l.free.Load()
	if known == nil || time.Since(known.at) >= freeAge {
		var st unix.Statfs_t
		if err := unix.Statfs(l.opt.Dir, &st); err != nil {
			return fmt.Errorf("%w: the free space of %s is not known: %w", ErrNoSpace, l.opt.Dir, err)
		}
		known = &freeSpace{time.Now(), uint64(st.Bavail) * uint64(st.Bsize)}
		l.free.Store(known)
	}
	if known.bytes < least {
		return fmt.Errorf("%w: %s has %d MiB left and %d MiB are kept free; make room", ErrNoSpace, l.opt.Dir, known.bytes>>20, least>>20)
	}
	return nil
}

// Writable tells whether an act of the tenant can be written, before it is done:
// what is asked here and done is then as good as certain to find its room. Nor can
// it while acts of the tenant that wait in the outbox could not be written: these come
// first. Errors: ErrNoSpace, ErrFailed, ErrClosed.
func (l *Log) Writable(tenant scope.TenantID) error {
	l.mu.RLock()
	c := l.chains[ActsOf(tenant)]
	l.mu.RUnlock()
	if c != nil {
		if stuck := c.stuck.Load(); stuck != nil {
			return *stuck
		}
	}
	if c != nil && c.silent.Load() { // else not waiting for a sync under way
		c.mu.Lock()
		err := c.writable()
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return l.room()
}

// Recordable tells whether a required decision of the scope would be taken now.
// Errors: those of Record.
func (l *Log) Recordable(ref scope.Ref) error {
	l.queue.Lock()
	defer l.queue.Unlock()
	if err := l.troubled[ref]; err != nil {
		return err
	}
	if l.count >= queuedDecisions {
		return l.busy()
	}
	return nil
}

// maxLate bounds the acts that wait for the disk, to a few MiB.
const maxLate = 10_000

// Insist writes an act that must go on whether or not it can be written: what
// erases and revokes is not held up by a log. When it cannot be written it is kept
// in memory and written as soon as that succeeds, marked as late; the error then
// says why. A crash before that loses it, so the caller leaves a trace elsewhere too.
func (l *Log) Insist(ctx context.Context, e Event) error {
	err := l.Append(ctx, e)
	if err == nil || errors.Is(err, ErrInvalid) {
		return err
	}
	if e.Time.IsZero() {
		e.Time = l.opt.Clock()
	}
	record, rerr := e.record(l.opt.Clock(), l.opt.Pseudonyms)
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	record.Act.Late = true
	l.queue.Lock()
	defer l.queue.Unlock()
	if len(l.late) >= maxLate {
		return fmt.Errorf("%w, and %d acts wait already: this one is lost", err, maxLate)
	}
	l.late = append(l.late, &pendingAct{chain: l.chain(ActsOf(e.Tenant)), record: record})
	return err
}

// writeLate writes the acts that wait, oldest first and each by itself: there are
// few, and one that cannot be written must not keep another tenant's back.
func (l *Log) writeLate() {
	l.queue.Lock()
	late := l.late
	l.late = nil
	l.queue.Unlock()
	if len(late) == 0 {
		return
	}
	var left []*pendingAct
	failed := map[*chain]bool{}
	for _, a := range late {
		if failed[a.chain] || a.chain.append(l.opt.Clock(), []*Record{a.record}, true) != nil {
			failed[a.chain] = true
			left = append(left, a)
		}
	}
	if n := len(late) - len(left); n > 0 {
		l.opt.Logger.Info("acts that had waited were written to the audit log", "written", n, "waiting", len(left))
	}
	l.queue.Lock()
	defer l.queue.Unlock()
	l.late = append(left, l.late...)
}
