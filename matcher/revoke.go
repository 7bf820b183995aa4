package matcher

import (
	"context"
	"errors"
	"fmt"
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
// removed, and the files searched for them; the receipt is signed and written. A crash after the second step is finished by the next start. When a
// step fails the fence stays, and repeating the call goes on from there.
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
	if sc.info.Load().erasure == nil {
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

// revoke puts the fence up and makes the revocation durable.
func (m *Matcher) revoke(ctx context.Context, sc *scopeEntry, by requester, remember []store.Record) error {
	info := *sc.info.Load()
	now := m.now().UTC()
	info.state, info.updated, info.revoked = scope.Revoked, now, now
	fence := info
	sc.info.Store(&fence)   // before waiting for anything
	epoch := sc.nextEpoch() // after every change that got past the fence
	m.failpoint("matcher/revoke/fenced")
	info.ended = epoch
	info.erasure = sc.census()
	kept, journaled := m.journal.of(sc.ref)
	if journaled && sc.gallery == nil {
		info.erasure.Subjects, info.erasure.Templates = kept.Subjects, kept.Templates
	}
	revocation := revocationRecord{Time: now, By: by, Epoch: epoch, Subjects: info.erasure.Subjects, Templates: info.erasure.Templates}
	if journaled {
		revocation.Time, revocation.By = kept.Time, kept.By // it was asked for then
	}
	puts := append(remember,
		store.Record{Key: scopeKey(sc.ref), Value: encode(sc.record(&info, epoch))},
		store.Record{Key: revocationKey(sc.ref), Value: encode(revocation)})
	if err := m.store.Commit(ctx, store.Mutation{Puts: puts, Reserve: true}); err != nil {
		if jerr := m.journal.write(sc.ref, revocation); jerr != nil {
			m.log.Error("a revocation is not durable: the scope matches nothing until the server stops, and would match again after a restart; it is tried again every minute",
				"scope", sc.ref.String(), "error", err.Error(), "journal", jerr.Error())
			return fmt.Errorf("%w: %s: %w", ErrRevocationNotDurable, sc.ref, err)
		}
		m.log.Error("a revocation stands in the journal only: the scope matches nothing any more, but its data is not destroyed yet; it is tried again every minute",
			"scope", sc.ref.String(), "error", err.Error())
		return fmt.Errorf("%w: %s: %w", ErrErasureUnfinished, sc.ref, err)
	}
	if err := m.journal.free(sc.ref); err != nil {
		m.log.Warn("a slot of the journal is not free yet", "scope", sc.ref.String(), "error", err.Error())
	}
	if sc.gallery != nil {
		info.erasure = sc.census() // enrolments that were ahead of the fence are in the gallery now
	}
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
// writes the receipt. Errors wrap ErrErasureUnfinished; calling it again goes on.
func (m *Matcher) destroy(ctx context.Context, sc *scopeEntry) error {
	if sc.info.Load().erasure.Statement == nil {
		if err := m.eraseScope(ctx, sc); err != nil {
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
	return nil
}

// eraseScope destroys the key, overwrites the memory and removes the records.
// What the receipt will state is durable in the transaction that ends the erasure.
func (m *Matcher) eraseScope(ctx context.Context, sc *scopeEntry) error {
	if err := m.takeOver(ctx, sc); err != nil {
		return fmt.Errorf("%w: %w", ErrErasureUnfinished, err)
	}
	keyErr := m.keyring.Destroy(sc.ref)
	destroyed := m.now().UTC()
	m.failpoint("matcher/revoke/key")
	sc.wipe() // whatever became of the key: memory is overwritten
	m.index.Drop(sc.ref)
	m.filing.count(sc)
	if keyErr != nil {
		return fmt.Errorf("%w: destroying the key of %s failed: %w", ErrErasureUnfinished, sc.ref, keyErr)
	}
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
		r.Times.Fenced, r.Times.KeyDestroyed = revocation.Time, destroyed
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
// about to go: it writes down what is to be stated, without naming anybody.
func (m *Matcher) takeOver(ctx context.Context, sc *scopeEntry) error {
	const page = 500
	for after := ""; ; {
		prefix := store.Key{Kind: store.KindErasure, Ref: sc.ref}
		records, err := m.store.List(prefix, after, page)
		if errors.Is(err, keyring.ErrNoKey) || err == nil && len(records) == 0 {
			return nil // taken over before, or nothing to take
		}
		if err != nil {
			m.log.Error("receipts of erasures are lost: their notes cannot be read any more", "scope", sc.ref.String(), "error", err.Error())
			return nil // a damaged scope is revoked all the same
		}
		after = prefix.Cursor(records[len(records)-1].Key)
		var puts []store.Record
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
			puts = append(puts, store.Record{Key: waitingKey(sc.ref, n.Epoch), Value: encode(n.state(sc.ref))})
		}
		if err := m.store.Commit(ctx, store.Mutation{Puts: puts, Reserve: true}); err != nil {
			return err
		}
		m.failpoint("matcher/revoke/taken-over")
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
