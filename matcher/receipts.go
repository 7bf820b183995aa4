package matcher

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/receipt"
	"github.com/menshen-io/menshen/matcher/signing"
)

// ReceiptState is how far an erasure has come that a receipt is for.
type ReceiptState uint8

// The states. The zero ReceiptState is none.
const (
	// ReceiptPending: nothing matches any more, durably; the sealed bytes are
	// still to be removed from the files, or the receipt to be written.
	ReceiptPending ReceiptState = 1 + iota
	// ReceiptComplete: the receipt is signed and in the ledger.
	ReceiptComplete
)

// Receipt is the receipt of an erasure as callers see it.
type Receipt struct {
	Tenant scope.TenantID
	ID     string // the last part of its name
	State  ReceiptState
	Kind   receipt.Kind
	Scope  scope.ScopeID
	Cause  receipt.Cause
	Epoch  scope.Epoch
	// Number in the ledger, when it was Completed, and Sum, the SHA-256 of the
	// document in hexadecimal: once it is complete.
	Number    uint64
	Completed time.Time
	Sum       string
	// Document is the signed receipt, to be kept as it is. Empty while it is
	// pending, and for a subject or a template whose scope was revoked: the document
	// names the subject, and is unreadable since the scope's key is gone.
	Document []byte
}

// receiptID names the receipt of an erasure in its tenant: the scope and the
// epoch, which no other erasure has. So it is known before the receipt is written.
func receiptID(ref scope.Ref, epoch scope.Epoch) string {
	return string(ref.Scope) + "-" + strconv.FormatUint(uint64(epoch), 10)
}

// ReceiptScope is the scope that a receipt of that id speaks of; false for what
// is no id of a receipt.
func ReceiptScope(id string) (scope.ScopeID, scope.Epoch, bool) {
	i := strings.LastIndexByte(id, '-')
	if i < 0 {
		return "", 0, false
	}
	s := scope.ScopeID(id[:i])
	n, err := strconv.ParseUint(id[i+1:], 10, 64)
	if err != nil || s.Validate() != nil || strconv.FormatUint(n, 10) != id[i+1:] {
		return "", 0, false
	}
	return s, scope.Epoch(n), true
}

// receiptName is the resource name that stands in a receipt.
func receiptName(t scope.TenantID, id string) string {
	return "tenants/" + string(t) + "/receipts/" + id
}

// receipts is the ledger and what is needed to write it.
type receipts struct {
	writing sync.Mutex      // held from appending until the store knows of it
	ledger  *receipt.Ledger // nil when it is damaged
	damage  error
}

// ledgerKey is where the store keeps the end of the ledger, so that a shorter
// one is noticed.
var ledgerKey = store.Key{Kind: store.KindLedger, ID: "receipts"}

// openLedger opens the ledger. A damaged one is no reason to stop gates or to
// refuse erasures, which would hurt those whom receipts are for: the
// erasures go on and their receipts wait in the store, while receipts are refused and
// no new scope is opened until the ledger was restored. Errors: ErrOldKeyring,
// ErrOldRecords, those of the store and the file system.
func (m *Matcher) openLedger(dir string) error {
	var least receipt.Mark
	b, err := m.store.Get(ledgerKey)
	if err == nil {
		least, err = decodeRecord[receipt.Mark](b)
	} else if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	if err != nil {
		return err
	}
	_, keys, err := m.signer()
	if err != nil {
		return err
	}
	book, err := receipt.OpenLedger(dir, keys, least)
	if err == nil {
		err = book.Each(least.Number, keys, m.knows)
		if err != nil {
			err = errors.Join(err, book.Close())
		} else {
			m.receipts.ledger = book
		}
	}
	if errors.Is(err, receipt.ErrLedger) {
		m.receipts.damage = err
		m.log.Error("the ledger of receipts is damaged: gates and erasures go on and receipts wait, but none is shown and no scope is opened", "error", err.Error())
		return nil
	}
	return err
}

// knows returns an error unless the records know of the erasure that an entry
// tells of. It is for entries above the end that they noted: a crash leaves such,
// but only of erasures that were durable before, while an older copy of the
// data directory beside a newer ledger would bring back who was erased since.
func (m *Matcher) knows(e receipt.Entry) error {
	ref := scope.Ref{Tenant: e.Tenant, Scope: e.Scope}
	if e.Kind == receipt.Scope {
		return keyDestroyed(m.keyring, e)
	}
	if _, err := m.keyring.Keys(ref); errors.Is(err, keyring.ErrNoKey) {
		return nil // nothing of it can come back
	} else if err != nil {
		return err
	}
	if head, ok := m.store.Head(ref); ok && head.Epoch >= e.Epoch {
		return nil
	}
	return fmt.Errorf("%w: receipt %d tells of an erasure in %s that they do not know", ErrOldRecords, e.Number, ref)
}

// keyDestroyed returns ErrOldKeyring where the keyring holds the key of a scope
// although its receipt, e, says that it was destroyed.
func keyDestroyed(k *keyring.Keyring, e receipt.Entry) error {
	ref := scope.Ref{Tenant: e.Tenant, Scope: e.Scope}
	if _, err := k.Keys(ref); !errors.Is(err, keyring.ErrNoKey) {
		return errors.Join(err, fmt.Errorf("%w: receipt %d says that the key of %s was destroyed, and the keyring holds it; bring the newest copies of the keyring and the root key back",
			ErrOldKeyring, e.Number, ref))
	}
	return nil
}

// closeLedger closes ledger and journal.
func (m *Matcher) closeLedger() error {
	err := m.journal.close()
	if m.receipts.ledger != nil {
		err = errors.Join(err, m.receipts.ledger.Close())
	}
	return err
}

// book is the ledger, or why there is none.
func (m *Matcher) book() (*receipt.Ledger, error) {
	if m.receipts.ledger == nil {
		return nil, m.receipts.damage
	}
	return m.receipts.ledger, nil
}

// signer gives the key that signs, and all that may have signed. The caller
// wipes the key.
func (m *Matcher) signer() (*signing.Key, signing.PublicKeys, error) { return signerOf(m.keyring) }

func signerOf(k *keyring.Keyring) (*signing.Key, signing.PublicKeys, error) {
	s, err := k.Signing()
	if err != nil {
		return nil, nil, err
	}
	secret := append([]byte{1}, s.Seed[:]...)
	defer clear(secret)
	defer clear(s.Seed[:])
	key := &signing.Key{}
	if err := key.UnmarshalBinary(secret); err != nil {
		return nil, nil, err
	}
	keys := signing.NewPublicKeys(key.Public())
	for _, p := range s.Retired {
		old := signing.NewPublicKey(p)
		keys[old.ID()] = old
	}
	return key, keys, nil
}

// enter writes receipts into the ledger and then calls commit, which makes
// durable that they need not be written any more, together with a record of the
// ledger's new end. A crash in between is no harm: a receipt that is there
// already is not written again.
func (m *Matcher) enter(statements []receipt.Receipt, commit func(end store.Record) error) error {
	book, err := m.book()
	if err != nil {
		return err
	}
	key, _, err := m.signer()
	if err != nil {
		return err
	}
	defer key.Wipe()
	entries := make([]receipt.Entry, len(statements))
	for i, r := range statements {
		if entries[i], err = m.entryFor(key, r); err != nil {
			return err
		}
	}
	m.receipts.writing.Lock()
	defer m.receipts.writing.Unlock()
	mark, err := book.Append(key, entries...)
	if err != nil {
		return err
	}
	m.failpoint("matcher/receipt/written")
	return commit(store.Record{Key: ledgerKey, Value: encode(mark)})
}

// entryFor signs a receipt and makes its line. What names a subject is sealed
// under the scope's key, or left out when that is gone.
func (m *Matcher) entryFor(key *signing.Key, r receipt.Receipt) (receipt.Entry, error) {
	r.ServerVersion = m.version
	doc, err := receipt.Sign(key, r)
	if err != nil {
		return receipt.Entry{}, fmt.Errorf("sign the receipt %s: %w", r.ID, err)
	}
	line, err := receipt.Compact(doc)
	if err != nil {
		return receipt.Entry{}, err
	}
	e := receipt.Entry{
		ID: strings.TrimPrefix(r.ID, receiptName(r.Tenant, "")), Kind: r.Kind, Tenant: r.Tenant, Scope: r.Scope,
		Cause: r.Cause, Epoch: r.Epoch, Completed: m.now(), Sum: receipt.SumOf(doc),
	}
	if r.Subject == "" {
		e.Document = line
		return e, nil
	}
	keys, err := m.keyring.Keys(scope.Ref{Tenant: r.Tenant, Scope: r.Scope})
	if err == nil {
		e.Sealed, err = keys.Seal(line, []byte(r.ID))
	}
	if err != nil {
		m.log.Info("a receipt is kept without its document: its scope was revoked meanwhile", "receipt", r.ID)
	}
	return e, nil
}

// Receipt returns one receipt. The grant is for its scope; a receipt outlives
// the scope. Errors: receipt.ErrNoReceipt, receipt.ErrLedger.
func (m *Matcher) Receipt(ctx context.Context, g scope.Grant, id string) (Receipt, error) {
	if err := g.Check(g.Ref(), scope.UseRead); err != nil {
		return Receipt{}, err
	}
	r, err := m.receipt(g.Ref(), id)
	if err != nil {
		return Receipt{}, err
	}
	return r, ctx.Err()
}

// receipt finds a receipt of a scope by its id.
func (m *Matcher) receipt(ref scope.Ref, id string) (Receipt, error) {
	s, epoch, ok := ReceiptScope(id)
	missing := fmt.Errorf("%w: %s", receipt.ErrNoReceipt, receiptName(ref.Tenant, id))
	if !ok || s != ref.Scope {
		return Receipt{}, missing
	}
	book, err := m.book()
	if err != nil {
		return Receipt{}, err
	}
	if !book.Has(ref.Tenant, id) {
		if p, err := m.pendingReceipt(ref, epoch); err == nil {
			return p, nil
		}
		if !book.Has(ref.Tenant, id) { // it may have been completed meanwhile
			return Receipt{}, missing
		}
	}
	_, keys, err := m.signer()
	if err != nil {
		return Receipt{}, err
	}
	e, err := book.Get(ref.Tenant, id, keys)
	if err != nil {
		return Receipt{}, err
	}
	return m.receiptOf(e), nil
}

// Receipts returns up to limit complete receipts of a tenant, numbered above
// after, in order. Error: receipt.ErrLedger.
func (m *Matcher) Receipts(ctx context.Context, g scope.TenantGrant, after uint64, limit int) ([]Receipt, error) {
	if err := g.Check(g.Tenant()); err != nil {
		return nil, err
	}
	return m.receiptsOf(ctx, g.Tenant(), "", after, limit)
}

// ScopeReceipts is Receipts for callers that may read one scope.
func (m *Matcher) ScopeReceipts(ctx context.Context, g scope.Grant, after uint64, limit int) ([]Receipt, error) {
	if err := g.Check(g.Ref(), scope.UseRead); err != nil {
		return nil, err
	}
	return m.receiptsOf(ctx, g.Ref().Tenant, g.Ref().Scope, after, limit)
}

// PendingReceipts counts the erasures of subjects and templates of a tenant whose
// receipts are still to be written.
func (m *Matcher) PendingReceipts(g scope.TenantGrant) (int, error) {
	if err := g.Check(g.Tenant()); err != nil {
		return 0, err
	}
	return m.purging.count(func(ref scope.Ref) bool { return ref.Tenant == g.Tenant() }), nil
}

// ScopePendingReceipts is PendingReceipts for callers that may read one scope.
func (m *Matcher) ScopePendingReceipts(g scope.Grant) (int, error) {
	if err := g.Check(g.Ref(), scope.UseRead); err != nil {
		return 0, err
	}
	return m.purging.count(func(ref scope.Ref) bool { return ref == g.Ref() }), nil
}

func (m *Matcher) receiptsOf(ctx context.Context, t scope.TenantID, in scope.ScopeID, after uint64, limit int) ([]Receipt, error) {
	book, err := m.book()
	if err != nil {
		return nil, err
	}
	_, keys, err := m.signer()
	if err != nil {
		return nil, err
	}
	entries, err := book.List(t, in, after, limit, keys)
	if err != nil {
		return nil, err
	}
	out := make([]Receipt, len(entries))
	for i, e := range entries {
		out[i] = m.receiptOf(e)
	}
	return out, ctx.Err()
}

// receiptOf puts a line of the ledger into the form that callers see.
func (m *Matcher) receiptOf(e receipt.Entry) Receipt {
	r := Receipt{
		Tenant: e.Tenant, ID: e.ID, State: ReceiptComplete, Kind: e.Kind, Scope: e.Scope, Cause: e.Cause, Epoch: e.Epoch,
		Number: e.Number, Completed: e.Completed, Sum: e.Sum,
	}
	r.Document = documentOf(m.keyring, e)
	return r
}

// documentOf is the signed receipt of an entry; nil where it does not open.
func documentOf(k *keyring.Keyring, e receipt.Entry) []byte {
	line := []byte(e.Document)
	if len(e.Sealed) > 0 {
		if keys, err := k.Keys(scope.Ref{Tenant: e.Tenant, Scope: e.Scope}); err == nil {
			line, _ = keys.Open(e.Sealed, []byte(receiptName(e.Tenant, e.ID))) // nil where it does not open
		}
	}
	if len(line) > 0 {
		if doc, err := receipt.Spell(line); err == nil && receipt.SumOf(doc) == e.Sum {
			return doc
		}
	}
	return nil
}

// pendingReceipt finds a receipt that is still to be written.
func (m *Matcher) pendingReceipt(ref scope.Ref, epoch scope.Epoch) (Receipt, error) {
	p := Receipt{Tenant: ref.Tenant, ID: receiptID(ref, epoch), State: ReceiptPending, Scope: ref.Scope, Epoch: epoch}
	if n, ok := m.purging.find(ref, epoch); ok {
		p.Kind, p.Cause = n.Kind, n.Cause
		return p, nil
	}
	if r, ok := m.journal.of(ref); ok && r.Epoch == epoch {
		p.Kind, p.Cause = receipt.Scope, receipt.Revoked
		return p, nil
	}
	for key, take := range map[store.Key]func([]byte) error{
		waitingKey(ref, epoch): func(b []byte) error {
			r, err := decodeRecord[receipt.Receipt](b)
			p.Kind, p.Cause = r.Kind, r.Cause
			return err
		},
		revocationKey(ref): func(b []byte) error {
			r, err := decodeRecord[revocationRecord](b)
			if err == nil && r.Epoch != epoch {
				err = store.ErrNotFound
			}
			p.Kind, p.Cause = receipt.Scope, receipt.Revoked
			return err
		},
	} {
		b, err := m.store.Get(key)
		if err == nil {
			err = take(b)
		}
		if err == nil || !errors.Is(err, store.ErrNotFound) {
			return p, err
		}
	}
	return Receipt{}, fmt.Errorf("%w: %s", receipt.ErrNoReceipt, receiptName(ref.Tenant, p.ID))
}

// statement begins the receipt of an erasure with who asked for it.
func statement(ref scope.Ref, kind receipt.Kind, cause receipt.Cause, epoch scope.Epoch, by requester) receipt.Receipt {
	return receipt.Receipt{
		ID: receiptName(ref.Tenant, receiptID(ref, epoch)), Kind: kind, Tenant: ref.Tenant, Scope: ref.Scope, Cause: cause, Epoch: epoch,
		RequestedBy: receipt.Requester{Credential: by.Credential, Role: by.Role},
		Times:       receipt.Times{Requested: by.Requested},
	}
}

// requester is who asked for an erasure, and when.
type requester struct {
	Credential string    `json:"credential"`
	Role       string    `json:"role"`
	Requested  time.Time `json:"requested"`
}

// service is the requester of what is erased because its time is over.
func service(now time.Time) requester {
	return requester{Credential: "menshen", Role: "SERVICE", Requested: now}
}

func requesterOf(g scope.Grant, now time.Time) requester {
	by := requester{Credential: g.Holder(), Role: g.Role(), Requested: now}
	if by.Role == "" {
		by.Role = "UNSPECIFIED"
	}
	return by
}

// digestText is how a receipt gives the digest of what was destroyed.
func digestText(h store.Head) string {
	sum := h.Sum()
	return hex.EncodeToString(sum[:])
}

// scanned takes the result of a search over, which ended now.
func scanned(r *receipt.Receipt, s store.Scan, now time.Time) {
	r.Scan = &receipt.Scan{Files: s.Files, Bytes: s.Bytes}
	r.Times.Erased, r.Times.Verified = now.Add(-s.Took), now
	// A clock that is set back must not make the order of the steps impossible.
	last := r.Times.Requested
	for _, t := range []*time.Time{&r.Times.Fenced, &r.Times.KeyDestroyed, &r.Times.Erased, &r.Times.Verified} {
		if t.IsZero() {
			continue
		}
		if t.Before(last) {
			*t = last
		}
		last = *t
	}
}
