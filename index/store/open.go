package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/menshen-io/menshen/index/reserve"
	"github.com/menshen-io/menshen/index/scope"
	"golang.org/x/sys/unix"
)

// open takes the steps of Open.
func (s *Store) open(ctx context.Context) error {
	if err := s.takeDir(); err != nil {
		return err
	}
	w, found, err := openWitness(filepath.Join(s.opt.Dir, "witness"))
	if err != nil {
		return err
	}
	s.witness = w
	if s.opt.ReserveBytes > 0 {
		s.free.reserve = reserve.Open(filepath.Join(s.opt.Dir, "reserve"), func(step string) { s.opt.failpoint("store/reserve/" + step) })
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := guard(s.openBadger); err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return s.readFormat(found) },
		s.readHeads,
		s.checkSystem,
		s.readOutbox,
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := guard(step); err != nil {
			return err
		}
	}
	return nil
}

// takeDir locks the directory, makes that of the database and sees that it can
// be written.
func (s *Store) takeDir() error {
	if err := s.lockDir(); err != nil {
		return err
	}
	if err := unfinished(s.opt.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return refused(err)
	}
	probe := filepath.Join(s.dir, "writable")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		return refused(err)
	}
	return os.Remove(probe)
}

// refused tells what to do about a directory that can not be written.
func refused(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w: %w; give this user the directory (chown), or name another one", ErrReadOnlyDir, err)
	}
	return err
}

// lockDir makes the data directory and locks it for this process.
func (s *Store) lockDir() error {
	if err := os.MkdirAll(s.opt.Dir, 0o700); err != nil {
		return refused(err)
	}
	path := filepath.Join(s.opt.Dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return refused(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%w: another server uses this data directory: %s; stop it, or name another directory", ErrLocked, s.opt.Dir)
		}
		return err
	}
	s.lock = f
	return nil
}

// openBadger opens the database. Memory: up to three memory tables, the indexes
// and filters of the tables (about 2 bytes a record), and no block cache: sealed values do
// not compress, so that blocks are read where the kernel has them mapped.
func (s *Store) openBadger() error {
	o := badger.DefaultOptions(s.dir).
		WithSyncWrites(true). // the default acknowledges what is not durable
		WithLogger(badgerLog{s.log}).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithMemTableSize(s.opt.MemTableBytes).
		WithNumMemtables(3).
		WithNumCompactors(2).
		WithDetectConflicts(false). // one committer: nothing to conflict with
		WithMetricsEnabled(false).
		// Values never go to the value log (they are far below the default
		// ValueThreshold of 1 MiB), so that its preallocated file may be small.
		WithValueLogFileSize(1 << 20).
		// The default never looks at the checksums of what it reads.
		WithChecksumVerificationMode(options.OnBlockRead)
	if err := verifyTables(s.dir, o); err != nil {
		return err
	}
	if err := removeEmptyLogs(s.dir); err != nil {
		return err
	}
	db, err := badger.Open(o)
	if err != nil {
		return fmt.Errorf("%w: %v; restore the data directory from its copy", ErrDamaged, err)
	}
	s.db = db
	return nil
}

// removeEmptyLogs removes logs without a byte, over which Badger refuses to open.
// It makes a log empty and then lengthens it, and empties one that it is done with
// before it removes it: a crash in between leaves the file, and nothing is lost
// with it. A log that lost its transactions otherwise is behind the witness.
func removeEmptyLogs(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if ext := filepath.Ext(f.Name()); ext != ".mem" && ext != ".vlog" {
			continue
		}
		info, err := f.Info()
		if err != nil {
			return err
		}
		if info.Size() > 0 {
			continue
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return nil
}

// readFormat checks format record, keyring and tip, or writes them into a new store.
func (s *Store) readFormat(hasWitness bool) error {
	value, err := s.raw(keyFormat)
	if errors.Is(err, ErrNotFound) {
		return s.initialise(hasWitness)
	} else if err != nil {
		return err
	}
	if len(value) < 1 || value[0] != formatVersion {
		return fmt.Errorf("%w: it was written by another version of the server; this one knows format %d", ErrFormat, formatVersion)
	}
	proof, err := s.keys.System().Open(value[1:], aad(keyFormat))
	if err != nil || string(proof) != formatProof {
		return fmt.Errorf("%w: use the keyring that was made with it", ErrKeyring)
	}
	if value, err = s.raw(keyTip); err != nil {
		return fmt.Errorf("%w: no tip (%w); restore the data directory from its copy", ErrDamaged, err)
	}
	plain, err := s.unseal(keyTip, value, s.keys.System().Open)
	if err != nil {
		return err
	}
	if s.tip, err = parseTip(plain); err != nil {
		return err
	}
	if !hasWitness {
		return fmt.Errorf("%w: the file witness is missing; restore the data directory as a whole from its copy", ErrDamaged)
	}
	switch last := s.witness.last; {
	case s.tip.seq > last.seq:
		// Durable and not acknowledged before the crash. From here on it is part
		// of what answers are made of, and so must not be lost either. (Badger
		// syncs what it replays.)
		return s.witness.write(s.tip)
	case s.tip.seq < last.seq:
		return fmt.Errorf("%w: the last %d of %d acknowledged transactions are missing; restore the data directory from its copy",
			ErrDamaged, last.seq-s.tip.seq, last.seq)
	case s.tip.seq == last.seq && s.tip.heads != last.heads:
		return fmt.Errorf("%w: tip and witness differ at transaction %d; restore the data directory as a whole from its copy", ErrDamaged, last.seq)
	}
	return nil
}

// initialise makes a new store in an empty directory.
func (s *Store) initialise(hasWitness bool) error {
	if err := s.free.check(time.Now(), true); err != nil {
		return err
	}
	if n := len(s.keys.List()); n > 0 && !hasWitness {
		return fmt.Errorf("%w: the keyring holds the keys of %d scopes, but %s holds no records; restore it from its copy, or take a new keyring for an empty store",
			ErrDamaged, n, s.opt.Dir)
	}
	empty := true
	if err := s.scan(nil, false, func(_, _ []byte) error { empty = false; return nil }); err != nil {
		return err
	}
	if !empty {
		return fmt.Errorf("%w: a Badger database without a format record; name an empty directory", ErrFormat)
	}
	if hasWitness && s.witness.last.seq > 0 {
		return fmt.Errorf("%w: the database is empty after %d acknowledged transactions; restore the data directory from its copy",
			ErrDamaged, s.witness.last.seq)
	}
	if !hasWitness {
		w, err := createWitness(filepath.Join(s.opt.Dir, "witness"))
		if err != nil {
			return err
		}
		s.witness = w
	}
	sealed, err := s.keys.System().Seal([]byte(formatProof), aad(keyFormat))
	if err != nil {
		return err
	}
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	if err := txn.Set(keyFormat, append([]byte{formatVersion}, sealed...)); err != nil {
		return err
	}
	return s.finish(txn, nil)
}

// readHeads reads all heads and compares them with the tip.
func (s *Store) readHeads() error {
	var sum Digest
	var scratch []byte
	err := s.scan([]byte{spaceHeads}, true, func(key, value []byte) error {
		ref, err := parseRefKey(key)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if s.heads[ref], err = parseHead(value); err != nil {
			return err
		}
		var d Digest
		d, scratch = digestOf(scratch, key, value)
		sum = sum.add(d)
		return nil
	})
	if err != nil {
		return err
	}
	if sum != s.tip.heads {
		return fmt.Errorf("%w: the heads of %d scopes do not agree with the tip at transaction %d; restore the data directory from its copy",
			ErrDamaged, len(s.heads), s.tip.seq)
	}
	return nil
}

// checkSystem compares the records of the system space with their head.
func (s *Store) checkSystem() error {
	got, err := s.measure([]byte{spaceSystem})
	if err != nil {
		return err
	}
	return s.heads[scope.Ref{}].compare("the system space", got)
}
