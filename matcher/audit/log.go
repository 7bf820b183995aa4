package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/signing"
)

// Options of Open. Dir, Key, Pseudonyms and Logger are required.
type Options struct {
	// Dir is the log's folder; it is made where it is missing.
	Dir string
	// Key signs checkpoints; Keys are the public keys of earlier ones.
	Key  *signing.Key
	Keys signing.PublicKeys
	// Pseudonyms stand for subjects. The caller keeps their state.
	Pseudonyms *Pseudonyms
	// KeepActs says how long acts are kept; zero: for ever. Whole UTC days are
	// dropped.
	KeepActs time.Duration
	// MinFree is the free disk space, in bytes, below which no decision is written
	// and Writable refuses acts, so that there is room for those that must be
	// written: erasures and revocations. Nil: none is kept.
	MinFree func() uint64
	// LinkableFor says for how long who knows a subject's id can have its
	// pseudonyms found; zero: for ever.
	LinkableFor time.Duration
	// AcceptDamage sets damaged chains aside and begins new ones, whose first
	// record says so. Verify goes on to report what was set aside. Without
	// it, Open fails: somebody has to look first.
	AcceptDamage bool
	Logger       *slog.Logger
	// Clock is time.Now where it is nil.
	Clock func() time.Time

	// Failpoint, when set, is called at each step of taking acts out of the outbox.
	// Tests end the process there; nil otherwise.
	Failpoint func(step string)

	write      func(*os.File, []byte) (int, error) // a seam for tests: the disk
	flushEvery time.Duration                       // likewise; 0: the constant
}

const (
	// flushEvery is how long a decision waits to be written and synced, and so
	// what a crash can lose.
	flushEvery = 100 * time.Millisecond
	// collectEvery is how many flushes there are for one look into the outbox, a second.
	// What waits there is durable, and whoever reads looks first; with a look every
	// 100 ms, whose syncs the store's have to wait for, acts took 5% of a bulk enrolment.
	collectEvery = 10
	// queuedDecisions bounds memory to about 20 MiB: a third of a second at 200,000
	// decisions a second.
	queuedDecisions = 1 << 16
	// batchDecisions are written with one call, and wake the writer early.
	batchDecisions = 1 << 13
	// queuedActs wait for the next sync, which takes all of them.
	queuedActs = 1024
	// headsPerRecord keeps a record of the tenants' ends small.
	headsPerRecord = 1000
)

func (o *Options) failpoint(step string) {
	if o.Failpoint != nil {
		o.Failpoint(step)
	}
}

// Log is an open audit log. Safe for many goroutines.
type Log struct {
	opt  Options
	lock *os.File

	mu     sync.RWMutex // chains
	chains map[string]*chain

	open   sync.RWMutex // held for reading by those who hand something over
	closed bool

	free atomic.Pointer[freeSpace]

	outbox outbox

	acts    chan *pendingAct
	wake    chan struct{} // a batch of decisions is there
	stop    chan struct{}
	writers sync.WaitGroup

	flushing    sync.Mutex // one flush at a time
	checkpoints sync.Mutex // one checkpoint at a time

	queue    sync.Mutex // what follows
	pending  map[scope.Ref][]Decision
	count    int          // of all scopes
	spare    [][]Decision // to be filled again
	lost     map[scope.Ref]loss
	troubled map[scope.Ref]error // the last write of its decisions failed
	late     []*pendingAct       // acts that could not be written yet
}

// loss counts decisions that are not in the log.
type loss struct{ queue, write uint64 }

type pendingAct struct {
	chain  *chain
	record *Record
	done   chan error // buffered
}

// Open opens the log, or begins one. Errors: ErrLocked; ErrDamaged, naming every
// chain that is not as it was written; that of the file system.
func Open(opt Options) (*Log, error) {
	if opt.Dir == "" || opt.Key == nil || opt.Pseudonyms == nil || opt.Logger == nil {
		return nil, errors.New("open the audit log: Dir, Key, Pseudonyms and Logger are required")
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.flushEvery == 0 {
		opt.flushEvery = flushEvery
	}
	keys := signing.NewPublicKeys(opt.Key.Public())
	maps.Copy(keys, opt.Keys)
	opt.Keys = keys
	if err := errors.Join(os.MkdirAll(opt.Dir, 0o700), syncDir(filepath.Dir(opt.Dir))); err != nil {
		return nil, fmt.Errorf("make the folder of the audit log: %w", err)
	}
	lock, err := takeLock(filepath.Join(opt.Dir, lockFile))
	if err != nil {
		return nil, err
	}
	// For who verifies a copy: see Report.Unclosed. On a full disk it is not told.
	_, _ = lock.WriteAt([]byte("open\n"), 0)
	l := &Log{
		opt: opt, lock: lock, chains: map[string]*chain{},
		acts: make(chan *pendingAct, queuedActs), wake: make(chan struct{}, 1), stop: make(chan struct{}),
		pending: map[scope.Ref][]Decision{}, lost: map[scope.Ref]loss{}, troubled: map[scope.Ref]error{},
	}
	if err := l.openChains(); err != nil {
		for _, c := range l.chains {
			c.close()
		}
		lock.Close()
		return nil, err
	}
	l.writers.Go(l.writeActs)
	l.writers.Go(l.writeDecisions)
	return l, nil
}

// lockFile is locked while a log is open, and empty once it was closed in order.
const lockFile = "lock"

func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the audit log: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: another server holds %s; stop it, or give this one a data directory of its own", ErrLocked, path)
		}
		return nil, fmt.Errorf("lock the audit log: %s: %w", path, err)
	}
	return f, nil
}

func (l *Log) openChains() error {
	names, aside, err := chainFolders(l.opt.Dir)
	if err != nil {
		return fmt.Errorf("list the audit log: %w", err)
	}
	for _, folder := range aside {
		l.opt.Logger.Warn("a damaged part of the audit log stands aside", "folder", folder)
	}
	var damage []error
	for _, name := range names {
		err := l.openChain(name)
		if errors.Is(err, ErrDamaged) {
			damage = append(damage, err)
		} else if err != nil {
			return err
		}
	}
	if len(damage) > 0 {
		return fmt.Errorf("%w\nKeep a copy of the folder, find out what happened, then start with the damage accepted: the damaged chains are set aside and new ones begun", errors.Join(damage...))
	}
	return nil
}

// openChain opens a chain that has a folder, and writes down what was cut off or
// set aside.
func (l *Log) openChain(name string) error {
	dir := l.folder(name)
	if err := removeUnfinished(dir); err != nil {
		return fmt.Errorf("remove a half-written file of the audit log: %w", err)
	}
	now := l.opt.Clock()
	c, cut, err := openChain(name, dir, l.opt.Keys)
	var gap *Gap
	switch {
	case errors.Is(err, ErrDamaged) && l.opt.AcceptDamage:
		l.opt.Logger.Error("a damaged chain of the audit log is set aside and a new one begun", "chain", name, "error", err)
		aside := dir + setAside + now.UTC().Format("20060102T150405.000000000")
		if rerr := errors.Join(os.Rename(dir, aside), syncDir(filepath.Dir(dir))); rerr != nil {
			return fmt.Errorf("set a damaged chain of the audit log aside: %w", rerr)
		}
		gap = &Gap{Cause: GapDamage, Detail: err.Error()}
		c = l.newChain(name)
	case err != nil:
		return err
	case cut > 0:
		l.opt.Logger.Warn("cut an incomplete last record off the audit log", "chain", name, "bytes", cut)
		gap = &Gap{Cause: GapTail, Lost: uint64(cut)}
	}
	if l.opt.write != nil {
		c.write = l.opt.write
	}
	l.chains[name] = c
	if gap == nil {
		return nil
	}
	at, _ := when(time.Time{}, now)
	if err := c.append(now, []*Record{{Time: at, Kind: KindGap, Gap: gap}}, true); err != nil {
		return fmt.Errorf("write down that the audit log has a gap: %w", err)
	}
	return nil
}

func (l *Log) folder(name string) string { return filepath.Join(l.opt.Dir, filepath.FromSlash(name)) }

func (l *Log) newChain(name string) *chain {
	h := genesis(name)
	c := &chain{name: name, dir: l.folder(name), write: (*os.File).Write, end: Head{Chain: name, Hash: h}, link: h}
	if l.opt.write != nil {
		c.write = l.opt.write
	}
	return c
}

// chain gives a chain, a new one where there is none; the name must be valid.
func (l *Log) chain(name string) *chain {
	l.mu.RLock()
	c := l.chains[name]
	l.mu.RUnlock()
	if c != nil {
		return c
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c = l.chains[name]; c == nil {
		c = l.newChain(name)
		l.chains[name] = c
	}
	return c
}

// all gives the chains in the order of their names.
func (l *Log) all() []*chain {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var out []*chain
	for _, name := range slices.Sorted(maps.Keys(l.chains)) {
		out = append(out, l.chains[name])
	}
	return out
}

// Signed is a checkpoint and the document that proves it, to be kept elsewhere.
type Signed struct {
	Checkpoint
	Document []byte
}

// Checkpoint makes everything durable and signs the end of every chain that has
// grown since the last one. The ends of the tenants' chains go into the
// platform's chain first, whose checkpoint comes last and so stands for all. The
// newest checkpoint of a chain lies beside it. What could be signed is
// returned beside the error.
func (l *Log) Checkpoint(ctx context.Context) ([]Signed, error) {
	l.checkpoints.Lock()
	defer l.checkpoints.Unlock()
	l.Collect()
	err := l.flush()
	now := l.opt.Clock()
	at, _ := when(time.Time{}, now)
	platform := l.chain(platformChain)
	var grown []*chain
	var heads []Head
	for _, c := range l.all() {
		if cerr := ctx.Err(); cerr != nil {
			return nil, errors.Join(err, cerr)
		}
		if c == platform {
			continue
		}
		head, herr := c.head()
		if herr != nil {
			err = errors.Join(err, herr)
		} else if head.Position > c.signed {
			grown, heads = append(grown, c), append(heads, head)
		}
	}
	for part := range slices.Chunk(heads, headsPerRecord) {
		if aerr := platform.append(now, []*Record{{Time: at, Kind: KindHeads, Heads: part}}, true); aerr != nil {
			return nil, errors.Join(err, aerr)
		}
	}
	head, herr := platform.head()
	if herr != nil {
		return nil, errors.Join(err, herr)
	}
	if head.Position > platform.signed {
		grown, heads = append(grown, platform), append(heads, head)
	}
	var out []Signed
	for i, c := range grown {
		cp := Checkpoint{Head: heads[i], Time: at}
		doc, werr := writeStatement(c.dir, checkpointFile, cp, l.opt.Key)
		if werr != nil {
			err = errors.Join(err, c.explain(werr))
			continue
		}
		c.signed = cp.Position
		out = append(out, Signed{cp, doc})
	}
	return out, err
}

// Tend does what is due: a checkpoint, dropping what has been kept long enough,
// making old pseudonyms unlinkable. keepDecisions says how long the decisions of a scope are
// kept; zero: for ever. Call it every minute or so. It returns the checkpoints.
func (l *Log) Tend(ctx context.Context, keepDecisions func(scope.Ref) time.Duration) ([]Signed, error) {
	signed, err := l.Checkpoint(ctx)
	now := l.opt.Clock()
	for _, c := range l.all() {
		keep := l.opt.KeepActs
		if ref, ok := decisionsOf(c.name); ok {
			keep = keepDecisions(ref)
		}
		n, perr := c.prune(now, keep, l.opt.Key)
		if n > 0 {
			l.opt.Logger.Info("dropped expired segments of the audit log", "chain", c.name, "segments", n)
		}
		err = errors.Join(err, perr, c.idle())
	}
	if l.opt.LinkableFor > 0 {
		err = errors.Join(err, l.opt.Pseudonyms.Forget(now.Add(-l.opt.LinkableFor)))
	}
	return signed, err
}

// Close writes what is queued and what waits in the outbox, signs a last checkpoint and releases the log.
// Closing again does nothing.
func (l *Log) Close() error {
	l.open.Lock()
	if l.closed {
		l.open.Unlock()
		return nil
	}
	l.closed = true
	l.open.Unlock()
	close(l.stop)
	l.writers.Wait()
	l.Collect()
	l.writeLate()
	_, err := l.Checkpoint(context.Background())
	for _, c := range l.all() {
		err = errors.Join(err, c.close())
	}
	if l.outbox.waiting.Load() == 0 {
		err = errors.Join(err, l.lock.Truncate(0))
	}
	return errors.Join(err, l.lock.Close())
}
