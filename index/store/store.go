package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
)

// formatVersion is the version of layout.go's table and of the seal. A change
// that an older server would misread gets the next number.
const formatVersion = 2

// formatProof is sealed under the system key in the format record, so that a
// foreign keyring is noticed before anything else is read.
const formatProof = "menshen store, format 2"

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
	// Logger hears of Badger's doings (at Debug). Nil is silence.
	Logger *slog.Logger
	// MinFreeBytes is the free space below which mutations are refused with
	// ErrNoSpace; those with Reserve may use all but an eighth of it. 0 means
	// DefaultMinFreeBytes.
	MinFreeBytes uint64
	// ReserveBytes is room that KeepReserve takes on the disk in advance, for mutations
	// with Reserve on a disk that another program has filled. 0 means none.
	ReserveBytes int64
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
	// Failpoint, when set, is called at each step of a commit, an erasure, a
	// backup or a restore with the step's name. Tests end the process there; nil otherwise.
	Failpoint func(step string)
}

func (o *Options) failpoint(step string) {
	if o.Failpoint != nil {
		o.Failpoint(step)
	}
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
	readers   gate
	outbox    outbox

	mu     sync.RWMutex // guards what follows
	heads  map[scope.Ref]Head
	tip    tip
	failed error
	// unproven are how the values of scopes begin whose erasure has not ended.
	unproven map[scope.Ref][]uint64
	// awaiting are the prefixes of deleted records whose bytes were not dropped.
	awaiting map[string]struct{}

	commits, mutations atomic.Uint64
	drops              atomic.Uint64 // removals of bytes, for backups under way
	torn               atomic.Bool   // the database must not be touched any more (dropPrefixes)
}

// Stats are counts since Open, and sizes now.
type Stats struct {
	Transactions  uint64 // synced transactions
	Mutations     uint64 // mutations made durable
	Waiting       int    // mutations in the queue
	Scopes        int    // scopes with a head
	Bytes         uint64 // that the database takes up on disk
	Failed        bool   // writing has stopped
	FreeBytes     uint64 // of the file system, when last looked at
	MinFreeBytes  uint64 // below which mutations are refused
	SystemRecords uint64 // records that belong to no scope
}

// Open opens the data directory, or makes a new store in an empty one, and
// checks it: format, keyring, that no acknowledged transaction is missing, all
// heads, and all records of the system space. The records of a scope are checked by Load.
// An erasure that a crash interrupted goes on when it is called for again. ctx
// is looked at between the steps.
//
// Errors: ErrLocked, ErrReadOnlyDir, ErrFormat, ErrKeyring, ErrDamaged, or those
// of the file system.
func Open(ctx context.Context, opt Options) (*Store, error) {
	if opt.Dir == "" || opt.Keyring == nil {
		return nil, errors.New("open the store: Options.Dir and Options.Keyring are needed")
	}
	s := newStore(opt)
	if err := s.open(ctx); err != nil {
		s.release()
		return nil, fmt.Errorf("open the store in %s: %w", opt.Dir, err)
	}
	s.committer.Go(s.commitLoop)
	return s, nil
}

// newStore fills in the defaults; nothing is opened.
func newStore(opt Options) *Store {
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

		unproven: map[scope.Ref][]uint64{},
		awaiting: map[string]struct{}{},
	}
	s.free = freeSpace{dir: opt.Dir, ask: opt.FreeBytes, min: opt.MinFreeBytes, size: opt.ReserveBytes}
	return s
}

// Head returns the head of a scope, or of the system space for the zero Ref, as
// of the last transaction; false when nothing was ever written there.
func (s *Store) Head(ref scope.Ref) (Head, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h, ok := s.heads[ref]
	return h, ok
}

// Stats returns counts and sizes. It looks at the files of the database.
func (s *Store) Stats() Stats {
	st := Stats{
		Transactions: s.commits.Load(),
		Mutations:    s.mutations.Load(),
		Waiting:      len(s.queue),
		Bytes:        diskUse(s.dir),
		FreeBytes:    s.free.last(),
		MinFreeBytes: s.free.min,
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

// Close makes what is queued durable, reports it, waits for the reads that have
// begun, and closes the files. What comes later is ErrClosed. Closing again does
// nothing. Not to be called from what Submit or Load calls.
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
	s.readers.close()
	return s.release()
}

// release closes what is open, in the reverse order of opening.
func (s *Store) release() error {
	var errs []error
	if s.db != nil && !s.torn.Load() { // a torn one would flush tables that it freed
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
