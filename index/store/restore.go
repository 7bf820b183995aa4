package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
)

// restoringName is the folder in the data directory in which a restore builds
// the store. While it is there, Open refuses the directory.
const restoringName = "restoring"

// RestoreOptions say what Restore brings back, and where to. All are needed.
type RestoreOptions struct {
	// Options of the store; Dir holds the keyring's data directory, without
	// records.
	Options
	// Admit may refuse the backup for where it comes from.
	Admit func(Origin) error
	// Sift sees every record, in clear and in order (the system's before the
	// scopes', subjects before templates), with the head that its space had in the
	// backup. It returns the value to keep, or nil to leave the record out. What
	// it leaves out is not written anywhere.
	Sift func(at Head, r Record) ([]byte, error)
	// Finish gives records of the system space to add, once all were seen, and
	// the least epoch of a scope.
	Finish func() ([]Record, error)
	Epoch  func(scope.Ref, Head) scope.Epoch
}

// Restored tells what a restore did.
type Restored struct {
	Contents Contents
	// Scopes and Records that were written, and scopes that were left out since
	// their keys were destroyed.
	Scopes, Dropped int
	Records         uint64
	// Damaged scopes lacked records when the backup was made. They are refused
	// by the server, as they were then.
	Damaged []scope.Ref
	// Finished: an earlier restore was complete but for its last step, which
	// was taken; nothing else was done.
	Finished bool
}

// Restore makes the store of a data directory from a backup. The keyring is
// today's: scopes whose keys were destroyed since are left out. The directory is no
// store before the last step, which is one rename; after a crash it is refused
// by Open, and Restore begins again. Count and digest of every space are checked
// when all is written.
//
// Errors: ErrBackup, ErrKeyring (the backup is another server's, or the keyring
// is older than it), ErrNotEmpty, ErrNoSpace, ErrLocked, ErrReadOnlyDir, that of Admit
// and Sift, those of the file system.
func Restore(ctx context.Context, opt RestoreOptions, in io.Reader) (_ Restored, err error) {
	if opt.Dir == "" || opt.Keyring == nil || opt.Sift == nil || opt.Admit == nil || opt.Epoch == nil || opt.Finish == nil {
		return Restored{}, errors.New("restore: Dir, Keyring, Admit, Sift, Epoch and Finish are needed")
	}
	home := newStore(opt.Options)
	defer func() { err = errors.Join(err, home.release()) }()
	if err := home.lockDir(); err != nil {
		return Restored{}, fmt.Errorf("restore into %s: %w", opt.Dir, err)
	}
	r := &restorer{opt: opt, staging: filepath.Join(opt.Dir, restoringName), heads: map[scope.Ref]Head{}}
	if done, err := r.prepare(); err != nil || done {
		return Restored{Finished: done}, wrapRestore(opt.Dir, err)
	}
	if err := r.build(ctx, in); err != nil {
		return Restored{}, wrapRestore(opt.Dir, err)
	}
	r.step("built")
	if err := r.publish(); err != nil {
		return Restored{}, wrapRestore(opt.Dir, err)
	}
	return r.result, nil
}

func wrapRestore(dir string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("restore into %s: %w", dir, err)
}

// restorer is a restore under way.
type restorer struct {
	opt     RestoreOptions
	staging string
	store   *Store // in staging
	floor   uint64 // the least sequence: above what the directory had before
	result  Restored

	space   Space // being read, as it is in the backup
	skip    bool  // its key is destroyed
	open    func(sealed, aad []byte) ([]byte, error)
	kept    Head // what was written of it
	heads   map[scope.Ref]Head
	txn     *badger.Txn
	size    int
	scratch []byte
}

func (r *restorer) step(name string) { r.opt.failpoint("store/restore/" + name) }

// prepare sees that the directory holds no records and removes what an
// interrupted restore left; done when that one had only to be tidied up.
func (r *restorer) prepare() (done bool, err error) {
	exists := func(path string) bool {
		_, serr := os.Lstat(path)
		if serr != nil && !errors.Is(serr, fs.ErrNotExist) {
			err = serr
		}
		return serr == nil
	}
	records := exists(filepath.Join(r.opt.Dir, "records"))
	half, built := exists(r.staging), exists(filepath.Join(r.staging, "records"))
	if err != nil {
		return false, err
	}
	if records && half && !built {
		// The rename has happened; only the folder is left.
		return true, r.tidy()
	}
	if records {
		return false, fmt.Errorf("%w: move %s away first; keyring, receipts and audit log stay", ErrNotEmpty, filepath.Join(r.opt.Dir, "records"))
	}
	w, found, err := openWitness(filepath.Join(r.opt.Dir, "witness"))
	if found && err == nil {
		r.floor = w.last.seq
		err = w.close()
	}
	if errors.Is(err, ErrDamaged) {
		err = nil // it witnessed records that are gone
	}
	if err != nil {
		return false, err
	}
	if err := os.RemoveAll(r.staging); err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Join(r.staging, "records"), 0o700); err != nil {
		return false, err
	}
	return false, syncPath(r.opt.Dir)
}

// build writes the store into staging and verifies it.
func (r *restorer) build(ctx context.Context, in io.Reader) (err error) {
	opt := r.opt.Options
	opt.Dir = r.staging
	r.store = newStore(opt)
	defer func() {
		if cerr := r.store.release(); err == nil {
			err = cerr
		}
	}()
	if err := r.store.free.check(time.Now(), false); err != nil {
		return err
	}
	if r.store.witness, err = createWitness(filepath.Join(r.staging, "witness")); err != nil {
		return err
	}
	if err := guard(r.store.openBadger); err != nil {
		return err
	}
	r.step("begun")
	b := newBackupReader(in)
	r.txn = r.store.db.NewTransaction(true)
	defer func() { r.txn.Discard() }()
	err = guard(func() error {
		return b.read(visitor{
			origin: r.origin, space: r.begin, close: r.close, trailer: r.trailer,
			record: func(key, value []byte) error { return r.record(ctx, key, value) },
		})
	})
	if err != nil {
		return err
	}
	r.step("read")
	r.result.Contents = b.contents
	if err := guard(r.writeHeads); err != nil {
		return err
	}
	return r.check(ctx)
}

func (r *restorer) origin(o Origin) error {
	if g := r.opt.Keyring.Generation(); g < o.Generation {
		return fmt.Errorf("%w: the backup was made under generation %d of the root key, and this keyring is of generation %d; use the newest copy of the keyring and the root key",
			ErrKeyring, o.Generation, g)
	}
	return r.opt.Admit(o)
}

func (r *restorer) begin(sp Space) error {
	r.space, r.kept, r.skip = sp, Head{}, false
	if sp.Ref == (scope.Ref{}) {
		r.open = r.opt.Keyring.System().Open
		return nil
	}
	keys, err := r.opt.Keyring.Keys(sp.Ref)
	switch {
	case errors.Is(err, keyring.ErrDestroyed):
		r.skip = true
		return nil
	case errors.Is(err, keyring.ErrNoKey):
		return fmt.Errorf("%w: it never had a key for %s, which the backup holds; use the newest copy of the keyring", ErrKeyring, sp.Ref)
	case err != nil:
		return err
	}
	r.open = keys.Open
	return nil
}

func (r *restorer) record(ctx context.Context, key, value []byte) error {
	if r.skip {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	plain, err := r.store.unseal(key, value, r.open)
	if string(key) == string(keyFormat) {
		if err != nil || string(plain) != formatProof {
			return fmt.Errorf("%w: the backup is another server's, or of an unknown format", ErrKeyring)
		}
		return r.put(key, value)
	}
	if err != nil {
		return err
	}
	k, err := parseKey(key)
	if err != nil {
		return badBackup("%w", err)
	}
	kept, err := r.opt.Sift(r.space.Head, Record{k, plain})
	if err != nil || kept == nil {
		return err
	}
	if string(kept) != string(plain) {
		if value, err = r.store.seal(k, key, kept); err != nil {
			return err
		}
	}
	return r.add(key, value)
}

// add writes a record of the space and counts it.
func (r *restorer) add(key, value []byte) error {
	var d Digest
	d, r.scratch = digestOf(r.scratch, key, value)
	r.kept.Records++
	r.kept.Digest = r.kept.Digest.add(d)
	r.result.Records++
	return r.put(key, value)
}

// put writes a key; what was put is committed by the MiB.
func (r *restorer) put(key, value []byte) error {
	if r.size += len(key) + len(value) + recordOverhead; r.size > groupBytes {
		if err := r.commit(); err != nil {
			return err
		}
	}
	key, value = append([]byte(nil), key...), append([]byte(nil), value...) // until the commit they are Badger's
	return r.txn.Set(key, value)
}

func (r *restorer) commit() error {
	if err := r.store.free.check(time.Now(), false); err != nil {
		return err
	}
	if err := r.txn.Commit(); err != nil {
		return fmt.Errorf("write the records: %w", err)
	}
	r.step("batch")
	r.txn, r.size = r.store.db.NewTransaction(true), 0
	return nil
}

// close notes the head of a space whose records have been read.
func (r *restorer) close(sp Space) error {
	if r.skip {
		r.result.Dropped++
		return nil
	}
	if sp.Ref == (scope.Ref{}) {
		r.heads[sp.Ref] = Head{Epoch: sp.Head.Epoch + 1, Records: r.kept.Records, Digest: r.kept.Digest}
		return nil
	}
	r.result.Scopes++
	h := Head{Epoch: r.opt.Epoch(sp.Ref, sp.Head), Records: r.kept.Records, Digest: r.kept.Digest}
	if sp.Damaged() {
		// What is missing stays missing: by one record more than there are, the
		// server knows that it is.
		h.Records++
		r.result.Damaged = append(r.result.Damaged, sp.Ref)
	}
	r.heads[sp.Ref] = h
	return nil
}

func (r *restorer) trailer(sum, sealed []byte) error {
	plain, err := r.opt.Keyring.System().Open(sealed, []byte(backupMagic))
	if err != nil || string(plain) != string(sum) {
		return badBackup("its seal is not this server's")
	}
	return nil
}

// writeHeads adds what Finish has to say, then the heads, and then the tip.
func (r *restorer) writeHeads() error {
	more, err := r.opt.Finish()
	if err != nil {
		return err
	}
	r.kept = r.heads[scope.Ref{}]
	for _, rec := range more {
		key, err := rec.Key.encode()
		if err != nil {
			return err
		}
		value, err := r.store.seal(rec.Key, key, rec.Value)
		if err != nil {
			return err
		}
		if err := r.add(key, value); err != nil {
			return err
		}
	}
	r.heads[scope.Ref{}] = r.kept
	s := r.store
	for ref, h := range r.heads {
		key, value := headKey(ref), h.encode()
		if err := r.put(key, value); err != nil {
			return err
		}
		var d Digest
		d, r.scratch = digestOf(r.scratch, key, value)
		s.tip.heads = s.tip.heads.add(d)
		s.heads[ref] = h
	}
	if err := r.commit(); err != nil {
		return err
	}
	s.tip.seq = max(r.floor, r.result.Contents.Origin.Sequence)
	return s.finish(r.txn, nil)
}

// check reads all that was written and compares it with the heads. Damaged
// scopes are known and passed over.
func (r *restorer) check(ctx context.Context) error {
	known := map[scope.Ref]bool{}
	for _, ref := range r.result.Damaged {
		known[ref] = true
	}
	for ref, h := range r.heads {
		if err := ctx.Err(); err != nil {
			return err
		}
		prefix, name := []byte{spaceSystem}, "the system space"
		if ref != (scope.Ref{}) {
			prefix, name = scopePrefix(ref), ref.String()
		}
		got, err := r.store.measure(prefix)
		if err != nil {
			return err
		}
		if err := h.compare(name, got); err != nil && !known[ref] {
			return fmt.Errorf("read back what was written: %w", err)
		}
	}
	r.step("checked")
	return nil
}

// publish makes the store of staging that of the data directory. The witness
// goes first: without records nothing is served, whatever it says.
func (r *restorer) publish() error {
	for _, name := range []string{"witness", "records"} {
		if err := os.Rename(filepath.Join(r.staging, name), filepath.Join(r.opt.Dir, name)); err != nil {
			return err
		}
		if err := errors.Join(syncPath(r.opt.Dir), syncPath(r.staging)); err != nil {
			return err
		}
		r.step("renamed " + name)
	}
	return r.tidy()
}

func (r *restorer) tidy() error {
	if err := os.RemoveAll(r.staging); err != nil {
		return err
	}
	return syncPath(r.opt.Dir)
}

// unfinished reports a restore into the directory that was interrupted.
func unfinished(dir string) error {
	path := filepath.Join(dir, restoringName)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s is there; run \"menshen restore\" again", ErrRestoring, path)
}
