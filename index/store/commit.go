package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/menshen-io/menshen/index/scope"
)

// Submit queues a mutation and returns; while the queue is full it blocks. When
// the mutation is durable, or was refused, done is called once, from the
// committer's goroutine, in the order of submission; what it does delays all
// commits, and it must not call Submit, Commit, EraseScope or Close. Only when the
// store was closed already is done called from within Submit.
//
// Mutations of one scope must be submitted in the order of their epochs.
// done hears ErrBadMutation, ErrBadKey, ErrTooBig, ErrEpoch, ErrPermanent,
// ErrNoSpace, keyring.ErrNoKey (refused; nothing was written), ErrFailed
// (the write failed or one before it; whether it is durable is known after the
// store was opened again) or ErrClosed.
func (s *Store) Submit(m Mutation, done func(error)) {
	o := s.prepare(m)
	o.done = done
	if err := s.enqueue(context.Background(), o); err != nil {
		done(err)
	}
}

// Commit submits a mutation and waits for it. A ctx that ends while it waits
// ends the waiting and does not undo the mutation. Errors: those that Submit
// reports, and that of ctx.
func (s *Store) Commit(ctx context.Context, m Mutation) error {
	o := s.prepare(m)
	return s.wait(ctx, o)
}

// wait queues an op and waits until it is done.
func (s *Store) wait(ctx context.Context, o *op) error {
	result := make(chan error, 1)
	o.done = func(err error) { result <- err }
	if err := s.enqueue(ctx, o); err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) enqueue(ctx context.Context, o *op) error {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return ErrClosed
	}
	select {
	case s.queue <- o:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// commitLoop is the committer: it takes what waits, commits it, reports it.
func (s *Store) commitLoop() {
	var next *op
	group := make([]*op, 0, groupMutations)
	for {
		first := next
		if next = nil; first == nil {
			var ok bool
			if first, ok = <-s.queue; !ok {
				s.tidyAll()
				return
			}
		}
		if first.run != nil {
			first.done(s.alone(first.run))
			continue
		}
		group, next = s.gather(append(group[:0], first))
		s.commitGroup(group)
		clear(group)
	}
}

// gather takes more of what waits, without waiting for more, up to the limits
// of a group. It returns what it took one too far.
func (s *Store) gather(group []*op) (_ []*op, next *op) {
	size, posts := group[0].size, len(group[0].post)
	for len(group) < groupMutations {
		select {
		case o, ok := <-s.queue:
			if !ok {
				return group, nil
			}
			if o.run != nil || size+o.size > groupBytes || posts+len(o.post) > groupPosts {
				return group, o
			}
			group = append(group, o)
			size, posts = size+o.size, posts+len(o.post)
		default:
			return group, nil
		}
	}
	return group, nil
}

// alone runs what has the committer for itself.
func (s *Store) alone(run func() error) error {
	if err := s.stopped(); err != nil {
		return err
	}
	return guard(run)
}

// commitGroup commits mutations in one transaction and reports them in order.
// A group that Badger finds too big is halved, between mutations; a single
// mutation that is too big is refused.
func (s *Store) commitGroup(group []*op) {
	err := s.stopped()
	if err == nil {
		s.clearWay(group)
		err = guard(func() error { return s.tryGroup(group) })
	}
	if errors.Is(err, badger.ErrTxnTooBig) {
		if half := len(group) / 2; half > 0 {
			s.commitGroup(group[:half])
			s.commitGroup(group[half:])
			return
		}
		group[0].err = fmt.Errorf("%w: the mutation does not fit into one transaction", ErrTooBig)
		err = nil
	}
	if err != nil {
		err = s.stop(err)
	}
	for _, o := range group {
		if o.err == nil {
			o.err = err
		}
		if o.err == nil {
			s.mutations.Add(1)
			s.await(o.purge)
			o.forget()
		}
		o.done(o.err)
	}
}

// stopped is why nothing is written any more, nil while it is.
func (s *Store) stopped() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.failed
}

// Writable reports whether the store is still writing: false once a write has
// failed. It takes no time.
func (s *Store) Writable() bool { return s.stopped() == nil }

// stop fails the store closed after a write that failed.
func (s *Store) stop(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = fmt.Errorf("%w: %w; restart the server", ErrFailed, err)
		s.log.Error("the store has stopped writing", "dir", s.opt.Dir, "error", err)
	}
	return s.failed
}

// tryGroup writes those of the group that may be written. What it refuses has
// its reason in op.err; an error that it returns concerns all of them.
func (s *Store) tryGroup(group []*op) error {
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	st := staging{store: s, txn: txn, heads: map[scope.Ref]Head{}}
	now := time.Now()
	refused := make([]error, len(group))
	some := false
	posted := parcel{number: s.tip.seq + 1}
	for i, o := range group {
		if o.err != nil {
			continue
		}
		if refused[i] = st.admit(o, now); refused[i] != nil {
			continue
		}
		some = true
		if err := st.write(o); err != nil {
			return err
		}
		if len(o.post) > 0 {
			posted.posts = append(posted.posts, o.post)
		}
	}
	if some {
		due := s.outbox.due()
		if err := st.parcel(posted, due); err != nil {
			return err
		}
		if err := s.finish(txn, st.heads); err != nil {
			return err
		}
		s.outbox.committed(posted, len(due))
	}
	for i, o := range group {
		if o.err == nil {
			o.err = refused[i]
		}
	}
	return nil
}

// finish adds heads and tip to the transaction, commits it, writes the witness,
// and makes the new state that of the store. A head without records and epoch
// is deleted.
func (s *Store) finish(txn *badger.Txn, heads map[scope.Ref]Head) error {
	next := tip{seq: s.tip.seq + 1, heads: s.tip.heads}
	var scratch []byte
	var d Digest
	for ref, h := range heads {
		key := headKey(ref)
		if old, ok := s.heads[ref]; ok {
			d, scratch = digestOf(scratch, key, old.encode())
			next.heads = next.heads.sub(d)
		}
		if h == (Head{}) {
			if err := txn.Delete(key); err != nil {
				return err
			}
			continue
		}
		value := h.encode()
		d, scratch = digestOf(scratch, key, value)
		next.heads = next.heads.add(d)
		if err := txn.Set(key, value); err != nil {
			return err
		}
	}
	sealed, err := s.keys.System().Seal(next.encode(), aad(keyTip))
	if err != nil {
		return err
	}
	if err := txn.Set(keyTip, append([]byte{formatVersion}, sealed...)); err != nil {
		return err
	}
	s.opt.failpoint("store/commit/staged")
	if err := txn.Commit(); err != nil {
		return err
	}
	s.opt.failpoint("store/commit/durable")
	if err := s.witness.write(next); err != nil {
		return fmt.Errorf("write the witness: %w", err)
	}
	s.opt.failpoint("store/commit/witnessed")
	s.commits.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tip = next
	for ref, h := range heads {
		if h == (Head{}) {
			delete(s.heads, ref)
		} else {
			s.heads[ref] = h
		}
	}
	return nil
}

// staging is the transaction of a group in the making. Only the committer
// changes the store's heads, so that it reads them without the lock.
type staging struct {
	store   *Store
	txn     *badger.Txn
	heads   map[scope.Ref]Head
	scratch []byte
}

func (st *staging) head(ref scope.Ref) Head {
	if h, ok := st.heads[ref]; ok {
		return h
	}
	return st.store.heads[ref]
}

// admit says whether the mutation may be written now; it changes nothing.
func (st *staging) admit(o *op, now time.Time) error {
	if err := st.store.free.check(now, o.reserve); err != nil {
		return err
	}
	if o.ref != (scope.Ref{}) {
		// A key that was destroyed since the mutation was sealed: what comes late
		// must not put records into a scope that was erased.
		if _, err := st.store.keys.Keys(o.ref); err != nil {
			return err
		}
		if last := st.head(o.ref).Epoch; o.epoch <= last {
			return fmt.Errorf("%w: %s is at epoch %d, the mutation makes it %d", ErrEpoch, o.ref, last, o.epoch)
		}
	}
	for _, p := range o.sets {
		if p.kind != KindRevocation {
			continue
		}
		switch _, err := st.txn.Get(p.key); {
		case err == nil:
			return ErrPermanent
		case !errors.Is(err, badger.ErrKeyNotFound):
			return fmt.Errorf("%w: %v", ErrDamaged, err)
		}
	}
	return nil
}

// write puts an admitted mutation into the transaction and into its heads.
func (st *staging) write(o *op) error {
	own, system := st.head(o.ref), st.head(scope.Ref{})
	touched := o.ref == scope.Ref{}
	space := func(k Kind) *Head {
		if k.inScope() {
			return &own
		}
		touched = true
		return &system
	}
	for _, d := range o.deletes {
		found, err := st.forget(d.key, space(d.kind))
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		if err := st.txn.Delete(d.key); err != nil {
			return err
		}
	}
	for _, p := range o.sets {
		h := space(p.kind)
		if _, err := st.forget(p.key, h); err != nil {
			return err
		}
		if err := st.txn.Set(p.key, p.value); err != nil {
			return err
		}
		h.Records++
		h.Digest = h.Digest.add(p.digest)
	}
	if touched {
		system.Epoch++
		st.heads[scope.Ref{}] = system
	}
	if o.ref != (scope.Ref{}) {
		own.Epoch = o.epoch
		st.heads[o.ref] = own
	}
	return nil
}

// forget takes the record that stands at key, if any, out of the head.
func (st *staging) forget(key []byte, h *Head) (found bool, err error) {
	item, err := st.txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	err = item.Value(func(value []byte) error {
		var d Digest
		d, st.scratch = digestOf(st.scratch, key, value)
		h.Records--
		h.Digest = h.Digest.sub(d)
		return nil
	})
	return err == nil, err
}
