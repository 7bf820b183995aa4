package matcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
	"github.com/menshen-io/menshen/matcher/receipt"
)

// Revocation tells what the end of a scope destroyed.
type Revocation struct {
	Scope     Scope
	Subjects  int
	Templates int
	// Receipt is pending where everything is destroyed but the receipt could not
	// be written yet.
	Receipt Receipt
}

// RevokeScope ends a purpose for ever. In this order: the fence goes up in
// memory, so that nothing matches from then on, calls in flight included; the
// revocation is made durable; the scope's key is destroyed, so that no copy of
// its records opens; the codes in memory are overwritten; the records are
// removed, and the files searched for them; the receipt is signed and written. A crash
// after the second step is finished by the next start. When a step fails the fence
// stays, and repeating the call goes on from there.
//
// On a full disk the first four steps are taken all the same, in room that was taken
// in advance: the journal's, and the keyring's reserve. The receipt is pending then,
// until there is room to remove the records; the maintenance tries every minute.
//
// Repeating it later is answered like the first time.
func (m *Matcher) RevokeScope(ctx context.Context, g scope.Grant, r idempotency.Request) (Revocation, error) {
	requested := m.now().UTC()
	sc, err := m.granted(g, scope.UseManage)
	if err != nil {
		return Revocation{}, err
	}
	if err := r.Validate(); err != nil {
		return Revocation{}, err
	}
	unlock, err := m.lockCommand(ctx, sc, r)
	if err != nil {
		return Revocation{}, err
	}
	defer unlock()
	requestKey := tenantRequestKey(sc.ref.Tenant, r)
	if _, again, err := m.repeated(requestKey, r); err != nil && !again {
		return Revocation{}, err
	}
	ctx = context.WithoutCancel(ctx) // a revocation that began is finished
	if info := sc.info.Load(); info.erasure == nil || info.journaled {
		if err := m.revoke(ctx, sc, requesterOf(g, requested), m.remember(requestKey, r, string(sc.ref.Scope))); err != nil {
			return Revocation{}, err
		}
	}
	if !sc.info.Load().erasure.Done {
		if err := m.destroy(ctx, sc); err != nil {
			return Revocation{}, err
		}
	}
	m.departed(sc)
	done := sc.info.Load()
	out := Revocation{Scope: sc.view(), Subjects: done.erasure.Subjects, Templates: done.erasure.Templates}
	out.Receipt, err = m.receipt(sc.ref, receiptID(sc.ref, done.ended))
	if err != nil {
		m.log.Error("the scope is revoked, but its receipt cannot be shown", "scope", sc.ref.String(), "error", err.Error())
		out.Receipt, err = m.pendingReceipt(sc.ref, done.ended)
	}
	return out, err
}

// revoke puts the fence up and makes the revocation durable, in the store or else in
// the journal; called again it tries the store again.
func (m *Matcher) revoke(ctx context.Context, sc *scopeEntry, by requester, remember []store.Record) error {
	info := *sc.info.Load()
	now := m.now().UTC()
	kept, journaled := m.journal.of(sc.ref)
	if journaled {
		now, by = kept.Time, kept.By // it was asked for then
	}
	info.state, info.updated, info.revoked = scope.Revoked, now, now
	fence := info
	sc.info.Store(&fence) // before waiting for anything
	census := func() *erasureRecord {
		if journaled && (sc.gallery == nil || sc.shredded.Load() != nil) {
			return &erasureRecord{Subjects: kept.Subjects, Templates: kept.Templates}
		}
		return sc.census()
	}
	if info.ended = kept.Epoch; !journaled {
		info.ended = sc.nextEpoch() // after every change that got past the fence
	}
	m.failpoint("matcher/revoke/fenced")
	info.erasure, info.journaled = census(), false
	revocation := revocationRecord{Time: now, By: by, Epoch: info.ended, Subjects: info.erasure.Subjects, Templates: info.erasure.Templates}
	puts := append(remember,
		store.Record{Key: scopeKey(sc.ref), Value: encode(sc.record(&info, info.ended))},
		store.Record{Key: revocationKey(sc.ref), Value: encode(revocation)})
	if err := m.store.Commit(ctx, store.Mutation{Puts: puts, Reserve: true}); err != nil {
		// What was ahead of the fence is in the gallery now.
		info.erasure, info.journaled = census(), true
		revocation.Subjects, revocation.Templates = info.erasure.Subjects, info.erasure.Templates
		if jerr := m.journal.write(sc.ref, revocation); jerr != nil {
			m.log.Error("a revocation is not durable: the scope matches nothing until the server stops, and would match again after a restart; it is tried again every minute",
				"scope", sc.ref.String(), "error", err.Error(), "journal", jerr.Error())
			return fmt.Errorf("%w: %s: %w", ErrRevocationNotDurable, sc.ref, err)
		}
		sc.info.Store(&info)
		m.log.Warn("a revocation stands in the journal: the scope matches nothing any more and its key is destroyed, but its records are removed once the database can write; it is tried again every minute",
			"scope", sc.ref.String(), "error", err.Error())
		m.failpoint("matcher/revoke/journaled")
		return nil
	}
	if err := m.journal.free(sc.ref); err != nil {
		m.log.Warn("a slot of the journal is not free yet", "scope", sc.ref.String(), "error", err.Error())
	}
	info.erasure = census() // enrolments that were ahead of the fence are in the gallery now
	sc.info.Store(&info)
	m.failpoint("matcher/revoke/durable")
	return nil
}

// census counts what an erasure will destroy.
func (sc *scopeEntry) census() *erasureRecord {
	if sc.gallery == nil {
		left := sc.left
		return &left
	}
	return &erasureRecord{Subjects: sc.gallery.Subjects(), Templates: sc.gallery.Templates()}
}

// destroy makes what is left of a revoked scope unreadable, removes it, and
// writes the receipt. Where the disk has no room to remove it, or the store did not
// write the revocation, that waits for the next call, and is no error. Errors wrap
// ErrErasureUnfinished; calling it again goes on.
func (m *Matcher) destroy(ctx context.Context, sc *scopeEntry) error {
	if info := sc.info.Load(); info.erasure.Statement == nil {
		if err := m.shred(ctx, sc); err != nil || info.journaled {
			return err
		}
		if err := m.eraseScope(ctx, sc); errors.Is(err, store.ErrNoSpace) {
			m.log.Warn("a scope is revoked and its key destroyed, but its records are removed once there is room on the disk; it is tried again every minute",
				"scope", sc.ref.String(), "error", err.Error())
			return nil
		} else if err != nil {
			return err
		}
	}
	info := *sc.info.Load()
	done := *info.erasure
	statement := *done.Statement
	done.Statement, done.Done = nil, true
	info.erasure = &done
	rec := sc.record(&info, sc.currentEpoch())
	statements, deletes, err := m.waiting(sc.ref, statement)
	if err == nil {
		err = m.enter(append(statements, statement), func(end store.Record) error {
			return m.store.Commit(ctx, store.Mutation{Puts: []store.Record{{Key: scopeKey(sc.ref), Value: encode(rec)}, end}, Deletes: deletes, Reserve: true})
		})
	}
	if err == nil {
		sc.info.Store(&info)
	} else { // the statement is kept in the scope's record
		m.log.Error("a scope is revoked and destroyed, but its receipt is not written yet; it is tried again every minute", "scope", sc.ref.String(), "error", err.Error())
	}
	bare := bareEntry(sc.ref, rec)
	bare.info.Store(sc.info.Load())
	m.mu.Lock()
	m.scopes[sc.ref] = bare // which holds no secret
	m.mu.Unlock()
	m.scourSoon()
	return nil
}

// shred destroys the key of a scope and overwrites its memory. It needs no room on the
// disk but what the keyring took in advance. Doing it again is no harm.
func (m *Matcher) shred(ctx context.Context, sc *scopeEntry) error {
	if err := m.takeOver(ctx, sc); err != nil {
		return fmt.Errorf("%w: %w", ErrErasureUnfinished, err)
	}
	keyErr := m.keyring.Destroy(sc.ref)
	if now := m.now().UTC(); keyErr == nil {
		sc.shredded.CompareAndSwap(nil, &now)
	}
	m.failpoint("matcher/revoke/key")
	sc.wipe() // whatever became of the key: memory is overwritten
	m.index.Drop(sc.ref)
	m.filing.count(sc)
	if keyErr != nil {
		return fmt.Errorf("%w: destroying the key of %s failed: %w", ErrErasureUnfinished, sc.ref, keyErr)
	}
	return nil
}

// eraseScope removes the records of a scope whose key is destroyed.
// What the receipt will state is durable in the transaction that ends the erasure.
func (m *Matcher) eraseScope(ctx context.Context, sc *scopeEntry) error {
	b, err := m.store.Get(revocationKey(sc.ref))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrErasureUnfinished, err)
	}
	revocation, err := decodeRecord[revocationRecord](b)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrErasureUnfinished, err)
	}
	info := *sc.info.Load()
	settle := func(e store.Erased) []store.Record {
		r := statement(sc.ref, receipt.Scope, receipt.Revoked, revocation.Epoch, revocation.By)
		r.Times.Fenced, r.Times.KeyDestroyed = revocation.Time, *sc.shredded.Load()
		r.Destroyed = receipt.Destroyed{
			Subjects: uint64(info.erasure.Subjects), Templates: uint64(info.erasure.Templates),
			Records: e.Head.Records, Bytes: e.Bytes, Digest: digestText(e.Head),
		}
		scanned(&r, e.Scan, m.now().UTC())
		done := *info.erasure
		done.Statement = &r
		info.erasure = &done
		return []store.Record{{Key: scopeKey(sc.ref), Value: encode(sc.record(&info, sc.currentEpoch()))}}
	}
	if _, err := m.store.EraseScope(ctx, sc.ref, settle); err != nil {
		return fmt.Errorf("%w: the key of %s is destroyed, but removing its records failed: %w", ErrErasureUnfinished, sc.ref, err)
	}
	sc.info.Store(&info)
	m.failpoint("matcher/revoke/erased")
	return nil
}

// waitingKey is where the receipt of an erasure waits whose scope was revoked
// before its bytes were removed.
func waitingKey(ref scope.Ref, epoch scope.Epoch) store.Key {
	return store.Key{Kind: store.KindLedger, ID: waitingFor(ref) + fmt.Sprintf("%020d", epoch)}
}

func waitingFor(ref scope.Ref) string { return "waiting " + ref.String() + " " }

// takeOver makes sure that erasures of subjects whose bytes still wait get
// their receipts although the scope's key, under which their notes are sealed, is
// about to go: it writes down what is to be stated, without naming anybody, in the
// store or else beside the journal.
func (m *Matcher) takeOver(ctx context.Context, sc *scopeEntry) error {
	statements, err := m.journal.stated(sc.ref)
	if err != nil {
		m.log.Error("receipts of erasures are lost: what was kept of them beside the journal cannot be read", "scope", sc.ref.String(), "error", err.Error())
	}
	beside := len(statements)
	statements = append(statements, m.noted(sc)...)
	const page = 500
	for some := range slices.Chunk(statements, page) {
		puts := make([]store.Record, len(some))
		for i, r := range some {
			puts[i] = store.Record{Key: waitingKey(sc.ref, r.Epoch), Value: encode(r)}
		}
		if err := m.store.Commit(ctx, store.Mutation{Puts: puts, Reserve: true}); err != nil {
			if len(statements) == beside {
				return nil
			}
			return m.keyring.WithReserve(func() error { return m.journal.state(sc.ref, statements) })
		}
		m.failpoint("matcher/revoke/taken-over")
	}
	return m.journal.unstate(sc.ref)
}

// noted are the statements of the erasures whose notes stand under the scope's key;
// none once that is gone.
func (m *Matcher) noted(sc *scopeEntry) (statements []receipt.Receipt) {
	const page = 500
	for after := ""; ; {
		prefix := store.Key{Kind: store.KindErasure, Ref: sc.ref}
		records, err := m.store.List(prefix, after, page)
		if errors.Is(err, keyring.ErrNoKey) || err == nil && len(records) == 0 {
			return statements // taken over before, or nothing to take
		}
		if err != nil { // a damaged scope is revoked all the same
			m.log.Error("receipts of erasures are lost: their notes cannot be read any more", "scope", sc.ref.String(), "error", err.Error())
			return statements
		}
		after = prefix.Cursor(records[len(records)-1].Key)
		for _, rec := range records {
			n, err := decodeRecord[erasureNote](rec.Value)
			if err != nil {
				m.log.Error("the receipt of an erasure is lost: its note cannot be read", "scope", sc.ref.String(), "error", err.Error())
				continue
			}
			n.Kind, n.fenced = receipt.Subjects, n.By.Requested
			if known, ok := m.purging.find(sc.ref, n.Epoch); ok {
				n.fenced = known.fenced
			}
			statements = append(statements, n.state(sc.ref))
		}
	}
}

// waiting are the receipts that takeOver left for the end of the scope's
// erasure, which removed their bytes too.
func (m *Matcher) waiting(ref scope.Ref, end receipt.Receipt) (out []receipt.Receipt, keys []store.Key, err error) {
	records, err := m.store.List(store.Key{Kind: store.KindLedger}, waitingFor(ref), 0)
	for _, rec := range records {
		if !strings.HasPrefix(rec.Key.ID, waitingFor(ref)) {
			break
		}
		r, err := decodeRecord[receipt.Receipt](rec.Value)
		if err != nil {
			return nil, nil, err
		}
		r.Times.Erased, r.Times.Verified, r.Scan = later(r.Times.Fenced, end.Times.Erased), later(r.Times.Fenced, end.Times.Verified), end.Scan
		out, keys = append(out, r), append(keys, rec.Key)
	}
	return out, keys, err
}
