package matcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/auth"
	"github.com/menshen-io/menshen/matcher/receipt"
	"github.com/menshen-io/menshen/matcher/signing"
)

// epochsApart is how far the epochs of a restored scope are moved on, above
// all that were given away after the backup: names of receipts hold them.
const epochsApart = 1 << 32

// RestoreOptions say where to restore to. Store and Receipts are needed.
type RestoreOptions struct {
	// Store has the data directory, without records, and today's keyring.
	Store store.Options
	// Receipts is the folder of the ledger.
	Receipts string
	// Keep tells which credentials keep their lives; nil means none.
	Keep func(store.Key) bool
	// MissingReceipts accepts that the receipt of a scope is missing whose key was
	// destroyed: its revocation was interrupted.
	MissingReceipts bool
	// TornReceipts accepts a ledger that ends within a line, which is then cut off:
	// whoever was erased in that line or after it comes back.
	TornReceipts bool
	// Least is the number of a receipt that the ledger must reach, as somebody keeps
	// it elsewhere: a ledger that is newer than the backup need not be the newest. 0:
	// that of the backup.
	Least uint64
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
}

// Restoration tells what came back and what did not.
type Restoration struct {
	store.Restored
	Receipts    uint64      // in the ledger
	Newest      time.Time   // when the last of them was completed
	Suspended   []scope.Ref // were active in the backup
	Revoked     []scope.Ref // since the backup
	Lost        []scope.Ref // have a key but no records: made after the backup
	Credentials int         // that are revoked now and were not
	Kept        int         // credentials that were kept
	Subjects    int         // left out: erased since, or expired
	Templates   int         // left out with them, or erased on their own
}

// Restore makes the records of a data directory from a backup without bringing
// back anything that ended since. What that is it knows from what a restore
// does not touch:
//
//   - the keyring: a scope without a key comes back revoked and empty; one that
//     holds the key of a scope whose receipt says that it was destroyed is refused;
//   - the ledger of receipts: subjects and templates erased after the backup are
//     left out, and so is who has expired, and everybody in a scope for single
//     use, since receipts do not say who was used up;
//   - nothing, of credentials and settings: every credential comes back revoked
//     unless it is named, every active scope suspended until its operator has looked
//     at its settings and resumes it.
//
// Errors: ErrOldLedger, ErrOldKeyring, receipt.ErrLedger, those of store.Restore.
func Restore(ctx context.Context, opt RestoreOptions, in io.Reader) (Restoration, error) {
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Keep == nil {
		opt.Keep = func(store.Key) bool { return false }
	}
	r := &restorer{
		opt: opt, keys: opt.Store.Keyring, now: opt.Clock().UTC(),
		erased: map[scope.Ref]map[scope.SubjectID]*ended{}, last: map[scope.Ref]scope.Epoch{},
		ended: map[scope.Ref]receipt.Entry{}, unnamed: map[scope.Ref]scope.Epoch{}, known: map[scope.Ref]*knownScope{},
	}
	done, err := store.Restore(ctx, store.RestoreOptions{
		Options: opt.Store, Admit: r.admit, Sift: r.sift, Epoch: r.epoch, Finish: r.finish,
	}, in)
	if err != nil {
		return Restoration{}, err
	}
	r.out.Restored = done
	if !done.Finished {
		for _, ref := range r.keys.List() {
			if r.known[ref] == nil {
				r.out.Lost = append(r.out.Lost, ref)
			}
		}
	}
	return r.out, nil
}

// restorer decides record by record.
type restorer struct {
	opt  RestoreOptions
	keys *keyring.Keyring
	now  time.Time
	out  Restoration

	// Of the ledger.
	mark   receipt.Mark
	erased map[scope.Ref]map[scope.SubjectID]*ended
	ended  map[scope.Ref]receipt.Entry // receipts of scopes
	last   map[scope.Ref]scope.Epoch   // of any entry
	// unnamed are erasures in a scope whose receipts name nobody, so that it is
	// not known who is meant: those of subjects that were used up.
	unnamed map[scope.Ref]scope.Epoch

	// Of the backup.
	known    map[scope.Ref]*knownScope
	in       scope.Ref
	expected map[scope.SubjectID]bool // subjects of the scope being read that are kept
}

// ended is what the ledger says of a subject: until which epoch it was erased
// as a whole, and its templates one by one.
type ended struct {
	whole     scope.Epoch
	templates map[scope.TemplateID]scope.Epoch
}

func (e *ended) gone(n scope.TemplateID, at scope.Epoch) bool {
	return e != nil && (e.whole > at || e.templates[n] > at)
}

type knownScope struct {
	epoch   scope.Epoch
	single  bool // its templates are for one use
	dead    bool // its key is destroyed
	revoked bool // has its permanent record
}

// admit opens the ledger, which must be whole and at least as long as when the
// backup was begun, and reads it.
func (r *restorer) admit(o store.Origin) error {
	if _, err := os.Stat(r.opt.Receipts); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no folder %s; bring its newest copy back first", ErrOldLedger, r.opt.Receipts)
	}
	key, keys, err := signerOf(r.keys)
	if err != nil {
		return err
	}
	key.Wipe()
	open := receipt.OpenWhole
	if r.opt.TornReceipts {
		open = receipt.OpenLedger
	}
	book, err := open(r.opt.Receipts, keys, receipt.Mark{Number: o.LedgerNumber, Sum: o.LedgerSum})
	if errors.Is(err, receipt.ErrTorn) {
		return fmt.Errorf("%w: %w; bring the newest copy of the folder back, or, if no copy is whole, accept with --accept-torn-receipts that whoever was erased in that line or after it comes back",
			ErrOldLedger, err)
	} else if err != nil {
		return fmt.Errorf("%w: %w", ErrOldLedger, err)
	}
	defer book.Close()
	r.mark = book.Mark()
	r.out.Receipts = r.mark.Number
	if r.mark.Number < r.opt.Least {
		return fmt.Errorf("%w: it ends with receipt %d, and receipt %d was written; bring its newest copy back", ErrOldLedger, r.mark.Number, r.opt.Least)
	}
	return book.Each(0, keys, func(e receipt.Entry) error {
		ref := scope.Ref{Tenant: e.Tenant, Scope: e.Scope}
		r.last[ref] = max(r.last[ref], e.Epoch)
		r.out.Newest = e.Completed
		switch e.Kind {
		case receipt.Scope:
			if err := keyDestroyed(r.keys, e); err != nil {
				return err
			}
			r.ended[ref] = e
		case receipt.Subject, receipt.Template:
			return r.note(ref, e, keys)
		case receipt.Subjects:
			if e.Cause != receipt.Expired {
				r.unnamed[ref] = max(r.unnamed[ref], e.Epoch)
			}
		}
		return nil
	})
}

// note takes the receipt of a subject or a template up, which is sealed under
// the key of its scope. Without the key the scope does not come back at all.
func (r *restorer) note(ref scope.Ref, e receipt.Entry, keys signing.PublicKeys) error {
	if _, err := r.keys.Keys(ref); errors.Is(err, keyring.ErrNoKey) {
		return nil
	}
	doc := documentOf(r.keys, e)
	if doc == nil {
		return fmt.Errorf("%w: entry %d does not open, so that it is not known who was erased; bring its newest copy back", receipt.ErrLedger, e.Number)
	}
	stated, _, err := receipt.Parse(doc, keys)
	if err != nil {
		return fmt.Errorf("%w: entry %d: %w", receipt.ErrLedger, e.Number, err)
	}
	if r.erased[ref] == nil {
		r.erased[ref] = map[scope.SubjectID]*ended{}
	}
	of := r.erased[ref][stated.Subject]
	if of == nil {
		of = &ended{templates: map[scope.TemplateID]scope.Epoch{}}
		r.erased[ref][stated.Subject] = of
	}
	if e.Kind == receipt.Subject {
		of.whole = max(of.whole, e.Epoch)
	} else {
		of.templates[stated.Template] = max(of.templates[stated.Template], e.Epoch)
	}
	return nil
}

// sift decides on one record.
func (r *restorer) sift(at store.Head, rec store.Record) ([]byte, error) {
	if rec.Key.Ref != r.in {
		r.in, r.expected = rec.Key.Ref, map[scope.SubjectID]bool{}
	}
	switch rec.Key.Kind {
	case store.KindCredential:
		value, revoked, err := auth.Restored(rec, r.now, r.opt.Keep)
		if revoked {
			r.out.Credentials++
		} else if r.opt.Keep(rec.Key) {
			r.out.Kept++
		}
		return value, err
	case store.KindScope:
		return r.siftScope(rec)
	case store.KindRevocation:
		if k := r.known[rec.Key.Ref]; k != nil {
			k.revoked = true
		}
	case store.KindLedger:
		return nil, nil // finish notes its end as it is today
	case store.KindPost:
		return nil, nil // acts on their way into the audit log, which is not restored and has them
	case store.KindSubject:
		return r.siftSubject(at, rec)
	case store.KindTemplate:
		if !r.expected[scope.SubjectID(rec.Key.ID)] || r.erased[rec.Key.Ref][scope.SubjectID(rec.Key.ID)].gone(rec.Key.Template, at.Epoch) {
			r.out.Templates++
			return nil, nil
		}
	}
	return rec.Value, nil
}

// siftScope revokes a scope whose key is gone, and suspends an active one.
func (r *restorer) siftScope(rec store.Record) ([]byte, error) {
	ref := rec.Key.Ref
	s, err := decodeRecord[scopeRecord](rec.Value)
	if err != nil {
		return nil, err
	}
	_, err = r.keys.Keys(ref)
	dead := errors.Is(err, keyring.ErrNoKey)
	if err != nil && !dead {
		return nil, err
	}
	r.known[ref] = &knownScope{epoch: s.Epoch, single: s.Settings.SingleUse, dead: dead}
	switch {
	case dead && s.State != scope.Revoked:
		if _, stated := r.ended[ref]; !stated && !r.opt.MissingReceipts {
			return nil, fmt.Errorf("%w: the key of %s was destroyed after the backup and there is no receipt for it; bring the newest copy of the ledger back, or, if its revocation was interrupted, accept that with --accept-missing-receipts",
				ErrOldLedger, ref)
		}
		r.out.Revoked = append(r.out.Revoked, ref)
		s.State, s.Updated, s.Erasure = scope.Revoked, r.now, &erasureRecord{}
	case dead || s.State == scope.Revoked:
		return rec.Value, nil
	case s.State == scope.Active:
		r.out.Suspended = append(r.out.Suspended, ref)
		s.State, s.Updated = scope.Suspended, r.now
		fallthrough
	default:
		s.Epoch = r.epoch(ref, store.Head{})
	}
	return encode(s), nil
}

// siftSubject leaves out who was erased after the backup, or has expired.
func (r *restorer) siftSubject(at store.Head, rec store.Record) ([]byte, error) {
	ref, id := rec.Key.Ref, scope.SubjectID(rec.Key.ID)
	s, err := decodeRecord[subjectRecord](rec.Value)
	if err != nil {
		return nil, err
	}
	of := r.erased[ref][id]
	had := len(s.Templates)
	s.Templates = slices.DeleteFunc(s.Templates, func(t templateEntry) bool { return of.gone(t.ID, at.Epoch) })
	usedUp := r.unnamed[ref] > at.Epoch || r.known[ref] != nil && r.known[ref].single
	if len(s.Templates) == 0 || usedUp || !r.now.Before(s.Expires) {
		r.out.Subjects++
		return nil, nil
	}
	r.expected[id] = true
	if len(s.Templates) == had {
		return rec.Value, nil
	}
	return encode(s), nil
}

// epoch is above all that a scope had.
func (r *restorer) epoch(ref scope.Ref, h store.Head) scope.Epoch {
	e := max(h.Epoch, r.last[ref])
	if k := r.known[ref]; k != nil {
		e = max(e, k.epoch)
	}
	return e + epochsApart
}

// finish adds the end of the ledger and the permanent records of revocations that the backup knows
// nothing of. The next start of the server finishes these scopes.
func (r *restorer) finish() ([]store.Record, error) {
	out := []store.Record{{Key: ledgerKey, Value: encode(r.mark)}}
	for ref, k := range r.known {
		if !k.dead || k.revoked {
			continue
		}
		rev := revocationRecord{Time: r.now, By: service(r.now), Epoch: max(k.epoch, r.last[ref]) + epochsApart}
		if e, ok := r.ended[ref]; ok {
			rev.Time, rev.Epoch = e.Completed, e.Epoch
		}
		out = append(out, store.Record{Key: revocationKey(ref), Value: encode(rev)})
	}
	return out, nil
}
