package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/menshen-io/menshen/index/scope"
)

// Append writes an administrative act and returns once the disk has it. Acts
// that wait at the same time share a sync. When it fails, the act is not in the log, with two
// exceptions: after ErrFailed or the error of ctx it may be. Other errors: ErrInvalid,
// ErrNoSpace, ErrClosed.
func (l *Log) Append(ctx context.Context, e Event) error {
	record, err := e.record(l.opt.Clock(), l.opt.Pseudonyms)
	if err != nil {
		return err
	}
	a := &pendingAct{chain: l.chain(ActsOf(e.Tenant)), record: record, done: make(chan error, 1)}
	if err := l.submit(ctx, a); err != nil {
		return err
	}
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the audit log: %w", ctx.Err())
	}
}

func (l *Log) submit(ctx context.Context, a *pendingAct) error {
	l.open.RLock()
	defer l.open.RUnlock()
	if l.closed {
		return ErrClosed
	}
	select {
	case l.acts <- a:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for room in the audit log: %w", ctx.Err())
	}
}

// writeActs is the goroutine that writes acts, as many at once as wait.
func (l *Log) writeActs() {
	for {
		select {
		case a := <-l.acts:
			l.commit(l.waiting([]*pendingAct{a}))
		case <-l.stop:
			if rest := l.waiting(nil); len(rest) > 0 {
				l.commit(rest)
			}
			return
		}
	}
}

// waiting takes the acts that are queued now.
func (l *Log) waiting(batch []*pendingAct) []*pendingAct {
	for len(batch) < queuedActs {
		select {
		case a := <-l.acts:
			batch = append(batch, a)
		default:
			return batch
		}
	}
	return batch
}

// commit writes a batch, behind what waits in the outbox, which was done before;
// chains side by side: each has a sync of its own.
func (l *Log) commit(batch []*pendingAct) {
	l.Collect()
	byChain := map[*chain][]*pendingAct{}
	for _, a := range batch {
		byChain[a.chain] = append(byChain[a.chain], a)
	}
	now := l.opt.Clock()
	var wg sync.WaitGroup
	for c, acts := range byChain {
		wg.Go(func() {
			records := make([]*Record, len(acts))
			for i, a := range acts {
				records[i] = a.record
			}
			err := c.append(now, records, true)
			for _, a := range acts {
				a.done <- err
			}
		})
	}
	wg.Wait()
}

// Record queues a decision and never waits. It is written and synced within
// about flushEvery; a crash loses what was not. An error means that the decision
// is not in the log: if it was Required, the call must fail; if not, the log
// counts it and writes the count down as a gap. Once a write has failed, required
// decisions of the scope are refused until one succeeds. Errors: ErrInvalid, ErrBusy,
// ErrNoSpace, ErrFailed, ErrClosed.
func (l *Log) Record(d Decision) error {
	if err := d.check(l.opt.Clock()); err != nil {
		return err
	}
	l.open.RLock()
	defer l.open.RUnlock()
	if l.closed {
		return ErrClosed
	}
	l.queue.Lock()
	defer l.queue.Unlock()
	if d.Required {
		if err := l.troubled[d.Scope]; err != nil {
			return err
		}
	}
	if l.count >= queuedDecisions {
		if !d.Required {
			l.lose(d.Scope, loss{queue: 1})
		}
		return l.busy()
	}
	queued, ok := l.pending[d.Scope]
	if n := len(l.spare); !ok && n > 0 {
		queued, l.spare = l.spare[n-1], l.spare[:n-1]
	}
	l.pending[d.Scope] = append(queued, d)
	if l.count++; l.count%batchDecisions == 0 {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// lose counts; the caller holds queue.
func (l *Log) lose(ref scope.Ref, more loss) {
	sum := l.lost[ref]
	l.lost[ref] = loss{sum.queue + more.queue, sum.write + more.write}
}

// writeDecisions is the goroutine that writes decisions in batches.
func (l *Log) writeDecisions() {
	tick := time.NewTicker(l.opt.flushEvery)
	defer tick.Stop()
	failing, looks := false, 0
	for {
		select {
		case <-tick.C:
		case <-l.wake:
		case <-l.stop:
			return // Close flushes
		}
		if looks++; looks%collectEvery == 0 {
			l.Collect()
		}
		l.writeLate()
		err := l.flush()
		if err != nil && !failing {
			l.opt.Logger.Error("decisions cannot be written to the audit log", "error", err)
		} else if err == nil && failing {
			l.opt.Logger.Info("decisions are written to the audit log again")
		}
		failing = err != nil
	}
}

// flush writes and syncs the decisions that are queued.
func (l *Log) flush() error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	l.queue.Lock()
	pending, lost := l.pending, l.lost
	if l.count == 0 && len(lost) == 0 {
		l.queue.Unlock()
		return nil
	}
	l.pending, l.lost, l.count = map[scope.Ref][]Decision{}, map[scope.Ref]loss{}, 0
	l.queue.Unlock()

	for ref := range lost {
		if _, ok := pending[ref]; !ok {
			pending[ref] = nil // an entry for the count alone
		}
	}
	room := l.room()
	errs, slots := make(chan error, len(pending)), make(chan struct{}, flushers)
	for ref, decisions := range pending {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			errs <- l.flushScope(ref, decisions, lost[ref], room)
		}()
	}
	var err error
	for range len(pending) {
		err = errors.Join(err, <-errs)
	}
	return err
}

// flushers write the decisions of several scopes at a time: each has a sync of its
// own.
const flushers = 8

// flushScope writes one scope's decisions, unless there is no room. What failed
// for a reason that can pass is queued again; what failed for good is counted as lost.
func (l *Log) flushScope(ref scope.Ref, decisions []Decision, lost loss, room error) error {
	c := l.chain(DecisionsOf(ref))
	now := l.opt.Clock()
	err := room
	if err == nil {
		err = l.writeGaps(c, now, &lost)
	}
	all := decisions
	batch := make([]struct {
		Record
		DecisionSummary
	}, min(len(decisions), batchDecisions))
	records := make([]*Record, 0, len(batch))
	for err == nil && len(decisions) > 0 {
		n := min(len(decisions), batchDecisions)
		records = records[:0]
		for i := range n {
			decisions[i].fill(&batch[i].Record, &batch[i].DecisionSummary, l.opt.Pseudonyms)
			records = append(records, &batch[i].Record)
		}
		if err = c.append(now, records, false); err == nil {
			decisions = decisions[n:]
		}
	}
	if err == nil {
		_, err = c.head() // syncs
	}
	l.queue.Lock()
	defer l.queue.Unlock()
	if err == nil {
		delete(l.troubled, ref)
		if clear(all); len(l.spare) < flushers {
			l.spare = append(l.spare, all[:0])
		}
		return nil
	}
	l.troubled[ref] = err
	if errors.Is(err, ErrNoSpace) {
		l.pending[ref] = append(decisions, l.pending[ref]...)
		l.count += len(decisions)
	} else {
		lost.write += uint64(len(decisions))
	}
	if lost != (loss{}) {
		l.lose(ref, lost)
	}
	return err
}

// writeGaps writes down what was lost and clears what it wrote.
func (l *Log) writeGaps(c *chain, now time.Time, lost *loss) error {
	at, _ := when(time.Time{}, now)
	for _, g := range []struct {
		cause GapCause
		n     *uint64
	}{{GapQueue, &lost.queue}, {GapWrite, &lost.write}} {
		if *g.n == 0 {
			continue
		}
		if err := c.append(now, []*Record{{Time: at, Kind: KindGap, Gap: &Gap{Cause: g.cause, Lost: *g.n}}}, false); err != nil {
			return err
		}
		*g.n = 0
	}
	return nil
}

// busy is the error of a full queue; the caller holds queue.
func (l *Log) busy() error {
	return fmt.Errorf("%w: %d decisions wait to be written; look at the disk", ErrBusy, l.count)
}
