package matcher

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/receipt"
)

// erasureNote is an erasure of a subject or a template that is durable, and
// whose bytes are still to be removed from the files. It is put in the transaction
// that deletes the records and stands in the scope's space, so that it is
// sealed under the scope's key and goes with it.
type erasureNote struct {
	Kind      receipt.Kind     `json:"kind"`
	Cause     receipt.Cause    `json:"cause"`
	By        requester        `json:"by"`
	Epoch     scope.Epoch      `json:"epoch"`
	Subject   scope.SubjectID  `json:"subject"`
	Template  scope.TemplateID `json:"template,omitempty"`
	Templates int              `json:"templates"`
	Whole     bool             `json:"whole"` // the subject goes with them
	// What the store told of the records before they were deleted.
	Records uint64   `json:"records"`
	Bytes   uint64   `json:"bytes"`
	Digest  string   `json:"digest"`
	Needles []uint64 `json:"needles"`

	fenced time.Time // when it was out of the gallery
}

// trace takes over what the store knows of the records that go.
func (n *erasureNote) trace(s *store.Store, keys []store.Key) error {
	t, err := s.Trace(keys)
	if err != nil {
		return err
	}
	n.Records, n.Bytes, n.Needles, n.Digest = t.Head.Records, t.Bytes, t.Needles, digestText(t.Head)
	return nil
}

// subjectKeys are where everything of a subject stands.
func subjectKeys(ref scope.Ref, id scope.SubjectID) []store.Key {
	return []store.Key{subjectKey(ref, id), templateKey(ref, id, 0)}
}

// keys are what the note says is to be removed.
func (n *erasureNote) keys(ref scope.Ref) []store.Key {
	if n.Whole {
		return subjectKeys(ref, n.Subject)
	}
	return []store.Key{templateKey(ref, n.Subject, n.Template)}
}

// noteKey is where the note of an epoch stands: notes are ordered by epoch.
func noteKey(ref scope.Ref, epoch scope.Epoch) store.Key {
	return store.Key{Kind: store.KindErasure, Ref: ref, ID: fmt.Sprintf("%020d", epoch)}
}

func (n *erasureNote) record(ref scope.Ref) store.Record {
	return store.Record{Key: noteKey(ref, n.Epoch), Value: encode(n)}
}

// state begins the receipt.
func (n *erasureNote) state(ref scope.Ref) receipt.Receipt {
	r := statement(ref, n.Kind, n.Cause, n.Epoch, n.By)
	r.Times.Fenced = n.fenced
	r.Destroyed = receipt.Destroyed{Templates: uint64(n.Templates), Records: n.Records, Bytes: n.Bytes, Digest: n.Digest}
	if n.Whole {
		r.Destroyed.Subjects = 1
	}
	if n.Kind != receipt.Subjects {
		r.Subject, r.Template = n.Subject, n.Template
	}
	return r
}

// The rhythm of the purge. Writes wait while records are dropped: measured on a
// scope of 100,000 subjects, see purgeBatch. A pass is followed by ten times its length
// of rest, so that erasing all the time costs a tenth of one core and a tenth
// of the writes' time at most.
const (
	purgeEvery = 2 * time.Second
	purgeRest  = 10
	// purgeBatch is the most erasures of one pass.
	purgeBatch = 500
)

// purging is what waits for the purge: erasures by scope, ordered by epoch. The
// zero purging is ready. Safe for concurrent use.
type purging struct {
	pass sync.Mutex // one pass at a time

	mu    sync.Mutex
	notes map[scope.Ref][]erasureNote
}

func (p *purging) add(ref scope.Ref, n erasureNote) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.notes == nil {
		p.notes = make(map[scope.Ref][]erasureNote)
	}
	list := p.notes[ref]
	i, _ := slices.BinarySearchFunc(list, n.Epoch, func(n erasureNote, e scope.Epoch) int {
		if n.Epoch < e {
			return -1
		} else if n.Epoch > e {
			return 1
		}
		return 0
	})
	p.notes[ref] = slices.Insert(list, i, n)
}

// some gives up to most of what waits, and leaves it waiting.
func (p *purging) some(most int) map[scope.Ref][]erasureNote {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[scope.Ref][]erasureNote{}
	for ref, list := range p.notes {
		if most == 0 {
			break
		}
		n := min(most, len(list))
		out[ref] = slices.Clone(list[:n])
		most -= n
	}
	return out
}

// done forgets the notes up to an epoch that is among them; of all for the
// greatest.
func (p *purging) done(ref scope.Ref, up scope.Epoch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notes[ref] = slices.DeleteFunc(p.notes[ref], func(n erasureNote) bool { return n.Epoch <= up })
	if len(p.notes[ref]) == 0 {
		delete(p.notes, ref)
	}
}

// count tells how many wait in the scopes that are meant.
func (p *purging) count(meant func(scope.Ref) bool) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ref, list := range p.notes {
		if meant(ref) {
			n += len(list)
		}
	}
	return n
}

// find returns the note of an epoch.
func (p *purging) find(ref scope.Ref, epoch scope.Epoch) (erasureNote, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.notes[ref] {
		if n.Epoch == epoch {
			return n, true
		}
	}
	return erasureNote{}, false
}

// keepPurging removes the bytes of what was erased, every few seconds, until ctx
// ends.
func (m *Matcher) keepPurging(ctx context.Context) {
	timer := time.NewTimer(purgeEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		if _, err := m.purge(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("the bytes of what was erased could not be removed yet; it is tried again", "error", err.Error())
		}
		timer.Reset(max(purgeEvery, purgeRest*time.Since(began)))
	}
}

// purge removes the bytes of some of the erasures that wait from the files,
// searches the files for them, and writes the receipts. It returns how many erasures
// that were. A crash at any step repeats it: what was dropped is not there to be
// dropped, and what stands in the ledger is not written again.
func (m *Matcher) purge(ctx context.Context) (done int, err error) {
	m.purging.pass.Lock()
	defer m.purging.pass.Unlock()
	batch := m.purging.some(purgeBatch)
	for ref, notes := range batch {
		if sc, err := m.entry(ref); err == nil && sc.reachable(sc.info.Load()) != nil {
			m.purging.done(ref, notes[len(notes)-1].Epoch) // revoked meanwhile: its revocation removes and states them
			delete(batch, ref)
		}
	}
	if len(batch) == 0 {
		return 0, nil
	}
	if _, err := m.book(); err != nil {
		return 0, err
	}
	var keys []store.Key
	var needles []uint64
	for ref, notes := range batch {
		for _, n := range notes {
			keys, needles = append(keys, n.keys(ref)...), append(needles, n.Needles...)
		}
	}
	scan, err := m.store.Purge(ctx, keys, needles)
	if err != nil {
		return 0, err
	}
	m.failpoint("matcher/purge/scanned")
	var errs []error
	for ref, notes := range batch {
		if err := m.settlePurge(ctx, ref, notes, scan); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", ref, err))
			continue
		}
		done += len(notes)
	}
	m.scourSoon()
	return done, errors.Join(errs...)
}

// settlePurge writes the receipts of one scope's erasures and forgets the notes.
func (m *Matcher) settlePurge(ctx context.Context, ref scope.Ref, notes []erasureNote, scan store.Scan) error {
	last := notes[len(notes)-1].Epoch
	sc, err := m.entry(ref)
	if err != nil {
		return err
	}
	if sc.reachable(sc.info.Load()) != nil {
		m.purging.done(ref, last) // revoked meanwhile: its revocation states them
		return nil
	}
	now := m.now().UTC()
	statements := merge(ref, notes, m.writtenUpTo)
	for i := range statements {
		scanned(&statements[i], scan, now)
	}
	var deletes []store.Key
	for _, n := range notes {
		deletes = append(deletes, noteKey(ref, n.Epoch))
	}
	err = m.enter(statements, func(mark store.Record) error {
		_, err := m.mutate(sc, nil, func() error { return sc.reachable(sc.info.Load()) }, []store.Record{mark}, deletes, index.Change{})
		return err
	})
	if err != nil && !errors.Is(err, ErrScopeRevoked) {
		return err
	}
	m.purging.done(ref, last)
	return ctx.Err()
}

// merge makes the receipts of erasures: one each, but one a cause for all that were due.
// That has the name of the first of them, so that a repetition after a crash, with the
// same notes or more, finds it: written tells up to which epoch a receipt of that name
// states them already.
func merge(ref scope.Ref, notes []erasureNote, written func(ref scope.Ref, id string) scope.Epoch) (out []receipt.Receipt) {
	due := map[receipt.Cause]int{}
	stated := map[receipt.Cause]scope.Epoch{}
	sums := map[receipt.Cause][]byte{}
	for _, n := range notes {
		r := n.state(ref)
		if n.Kind != receipt.Subjects {
			out = append(out, r)
			continue
		}
		i, begun := due[n.Cause]
		if !begun && n.Epoch > stated[n.Cause] {
			stated[n.Cause] = written(ref, receiptID(ref, n.Epoch))
		}
		if n.Epoch <= stated[n.Cause] {
			continue
		}
		digest, _ := hex.DecodeString(n.Digest) // of digestText's making
		sums[n.Cause] = append(sums[n.Cause], digest...)
		if !begun {
			due[n.Cause] = len(out)
			out = append(out, r)
			continue
		}
		all := &out[i]
		all.Epoch = n.Epoch
		all.Times.Fenced = later(all.Times.Fenced, n.fenced)
		all.Destroyed.Subjects += r.Destroyed.Subjects
		all.Destroyed.Templates += r.Destroyed.Templates
		all.Destroyed.Records += r.Destroyed.Records
		all.Destroyed.Bytes += r.Destroyed.Bytes
		all.Destroyed.Digest = receipt.SumOf(sums[n.Cause])
	}
	return out
}

// writtenUpTo is the epoch of a receipt in the ledger; 0 where there is none.
func (m *Matcher) writtenUpTo(ref scope.Ref, id string) scope.Epoch {
	book, err := m.book()
	if err != nil || !book.Has(ref.Tenant, id) {
		return 0
	}
	_, keys, err := m.signer()
	if err != nil {
		return 0
	}
	e, err := book.Get(ref.Tenant, id, keys)
	if err != nil {
		return 0
	}
	return e.Epoch
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
