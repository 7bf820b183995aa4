package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"golang.org/x/sys/unix"
)

// formatVersion is the version of layout.go's table and of the seal. A change
// that an older server would misread gets the next number.
const formatVersion = 1

// formatProof is sealed under the system key in the format record, so that a
// foreign keyring is noticed before anything else is read.
const formatProof = "menshen store, format 1"

// DefaultMinFreeBytes is the free space below which writes are refused. Badger
// maps its files into memory, where a full disk is a SIGBUS: the reserve covers two memory
// tables (64 MiB of log), their flush and a compaction beside it.
const DefaultMinFreeBytes = 256 << 20

// Options say where the store is and how it behaves. Dir and Keyring are needed.
type Options struct {
	// Dir is the data directory; made with mode 0700 where it is missing.
	Dir string
	// Keyring seals and opens records. It is not closed with the store, and has
	// to be closed after it.
	Keyring *keyring.Keyring
	// Logger hears of Badger's doings (at Debug), and of erasures that had to be
	// finished. Nil is silence.
	Logger *slog.Logger
	// MinFreeBytes is the free space below which mutations are refused with
	// ErrNoSpace; those with Reserve may use all but an eighth of it. 0 means
	// DefaultMinFreeBytes.
	MinFreeBytes uint64
	// FreeBytes tells the free space of a directory's file system. Nil asks the
	// operating system; tests put a full disk here.
	FreeBytes func(dir string) (uint64, error)
	// QueueLen is how many mutations may wait for the committer before Submit
	// blocks. 0 means 1,024.
	QueueLen int
	// MemTableBytes is the size of a memory table of Badger: up to three are in
	// memory, and a transaction holds at most 15% of one. 0 means 32 MiB; the
	// least is 8 MiB.
	MemTableBytes int64
}

// Store is an open data directory. All methods are safe for many goroutines.
type Store struct {
	opt     Options
	dir     string // of Badger, below opt.Dir
	log     *slog.Logger
	db      *badger.DB
	keys    *keyring.Keyring
	lock    *os.File
	witness *witness
	free    freeSpace

	queue     chan *op
	closing   sync.RWMutex // held for reading while an op is put into the queue
	closed    bool
	committer sync.WaitGroup

	mu     sync.RWMutex // guards what follows
	heads  map[scope.Ref]Head
	tip    tip
	failed error

	commits, mutations atomic.Uint64
}

// Stats are counts since Open, and sizes now.
type Stats struct {
	Transactions  uint64 // synced transactions
	Mutations     uint64 // mutations made durable
	Waiting       int    // mutations in the queue
	Scopes        int    // scopes with a head
	Bytes         int64  // of Badger's tables and logs; brought up to date about once a minute
	Failed        bool   // writing has stopped
	FreeBytes     uint64 // of the file system, when last looked at
	MinFreeBytes  uint64 // below which mutations are refused
	SystemRecords uint64 // records that belong to no scope
}

// Open opens the data directory, or makes a new store in an empty one, and
// checks it: format, keyring, that no acknowledged transaction is missing, all
// heads, and all records of the system space. The records of a scope are checked by Load.
// Erasures that a crash interrupted are finished. ctx is looked at between the steps.
//
// Errors: ErrLocked, ErrReadOnlyDir, ErrFormat, ErrKeyring, ErrDamaged, or those
// of the file system.
func Open(ctx context.Context, opt Options) (*Store, error) {
	if opt.Dir == "" || opt.Keyring == nil {
		return nil, errors.New("open the store: Options.Dir and Options.Keyring are needed")
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.MinFreeBytes == 0 {
		opt.MinFreeBytes = DefaultMinFreeBytes
	}
	if opt.FreeBytes == nil {
		opt.FreeBytes = statfsFree
	}
	if opt.QueueLen <= 0 {
		opt.QueueLen = 1024
	}
	if opt.MemTableBytes == 0 {
		opt.MemTableBytes = 32 << 20
	}
	opt.MemTableBytes = max(opt.MemTableBytes, 8<<20)
	s := &Store{
		opt:   opt,
		dir:   filepath.Join(opt.Dir, "records"),
		log:   opt.Logger,
		keys:  opt.Keyring,
		queue: make(chan *op, opt.QueueLen),
		heads: map[scope.Ref]Head{},
	}
	s.free = freeSpace{dir: opt.Dir, ask: opt.FreeBytes, min: opt.MinFreeBytes}
	if err := s.open(ctx); err != nil {
		s.release()
		return nil, fmt.Errorf("open the store in %s: %w", opt.Dir, err)
	}
	s.committer.Go(s.commitLoop)
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	if err := s.takeDir(); err != nil {
		return err
	}
	w, found, err := openWitness(filepath.Join(s.opt.Dir, "witness"))
	if err != nil {
		return err
	}
	s.witness = w
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
		s.finishErasures,
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

// takeDir makes the directory, sees that it can be written, and locks it.
func (s *Store) takeDir() error {
	refused := func(err error) error {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
			return fmt.Errorf("%w: %w; give this user the directory (chown), or name another one", ErrReadOnlyDir, err)
		}
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
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
	probe := filepath.Join(s.dir, "writable")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		return refused(err)
	}
	return os.Remove(probe)
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
	db, err := badger.Open(o)
	if err != nil {
		return fmt.Errorf("%w: %v; restore the data directory from its copy", ErrDamaged, err)
	}
	s.db = db
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

// compare reports how the records found differ from the head.
func (h Head) compare(what string, got Head) error {
	if got.Records != h.Records {
		return fmt.Errorf("%w: %s holds %d records and should hold %d; restore the data directory from its copy",
			ErrDamaged, what, got.Records, h.Records)
	}
	if got.Digest != h.Digest {
		return fmt.Errorf("%w: %s holds %d records, as it should, but not those that were acknowledged; restore the data directory from its copy",
			ErrDamaged, what, got.Records)
	}
	return nil
}

// Head returns the head of a scope, or of the system space for the zero Ref, as
// of the last transaction; false when nothing was ever written there.
func (s *Store) Head(ref scope.Ref) (Head, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h, ok := s.heads[ref]
	return h, ok
}

// Stats returns counts and sizes.
func (s *Store) Stats() Stats {
	s.closing.RLock()
	defer s.closing.RUnlock()
	st := Stats{
		Transactions: s.commits.Load(),
		Mutations:    s.mutations.Load(),
		Waiting:      len(s.queue),
		FreeBytes:    s.free.last(),
		MinFreeBytes: s.free.min,
	}
	if !s.closed {
		lsm, vlog := s.db.Size()
		st.Bytes = lsm + vlog
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	st.Failed = s.failed != nil
	st.Scopes = len(s.heads)
	if h, ok := s.heads[scope.Ref{}]; ok {
		st.Scopes--
		st.SystemRecords = h.Records
	}
	return st
}

// Close makes what is queued durable, reports it, and closes the files. Reads
// must have ended. Closing again does nothing.
func (s *Store) Close() error {
	s.closing.Lock()
	if s.closed {
		s.closing.Unlock()
		return nil
	}
	s.closed = true
	close(s.queue)
	s.closing.Unlock()
	s.committer.Wait()
	return s.release()
}

// release closes what is open, in the reverse order of opening.
func (s *Store) release() error {
	var errs []error
	if s.db != nil {
		errs = append(errs, guard(s.db.Close))
	}
	if s.witness != nil {
		errs = append(errs, s.witness.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the store in %s: %w", s.opt.Dir, err)
	}
	return nil
}

// guard turns a panic of Badger over damaged files into ErrDamaged.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the database gave up: %v; restore the data directory from its copy", ErrDamaged, p)
		}
	}()
	return f()
}

// freeSpace knows the free space, asked for at most every freeSpaceAge. Used by
// the committer alone but for last.
type freeSpace struct {
	dir  string
	ask  func(string) (uint64, error)
	min  uint64
	at   time.Time
	free atomic.Uint64
}

// freeSpaceAge bounds how old the knowledge is. In 250 ms the committer writes
// some 20 MiB at most, far less than the reserve.
const freeSpaceAge = 250 * time.Millisecond

func (f *freeSpace) last() uint64 { return f.free.Load() }

// check returns ErrNoSpace when a mutation may not be written.
func (f *freeSpace) check(now time.Time, reserve bool) error {
	if f.at.IsZero() || now.Sub(f.at) >= freeSpaceAge || now.Before(f.at) {
		free, err := f.ask(f.dir)
		if err != nil {
			return fmt.Errorf("%w: the free space of %s is not known: %w", ErrNoSpace, f.dir, err)
		}
		f.at = now
		f.free.Store(free)
	}
	floor := f.min
	if reserve {
		floor /= 8
	}
	if free := f.free.Load(); free < floor {
		return fmt.Errorf("%w: %s has %d MiB left and %d MiB are kept free; make room", ErrNoSpace, f.dir, free>>20, floor>>20)
	}
	return nil
}

func statfsFree(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}
