package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/signing"
)

// The names of chains, which are also their folders.
const (
	platformChain = "platform"
	tenantsFolder = "tenants"
	actsChain     = "acts"
	decisionChain = "decisions" // a folder of chains, one for each scope
)

// ActsOf names the chain of a tenant's administrative acts; the empty tenant's is
// the platform's own.
func ActsOf(tenant scope.TenantID) string {
	if tenant == "" {
		return platformChain
	}
	return tenantsFolder + "/" + string(tenant) + "/" + actsChain
}

// DecisionsOf names the chain of a scope's decisions.
func DecisionsOf(ref scope.Ref) string {
	return tenantsFolder + "/" + string(ref.Tenant) + "/" + decisionChain + "/" + string(ref.Scope)
}

// validChain reports whether a name is one that the log gives.
func validChain(name string) bool {
	if name == platformChain {
		return true
	}
	part := strings.Split(name, "/")
	if len(part) < 3 || part[0] != tenantsFolder || scope.TenantID(part[1]).Validate() != nil {
		return false
	}
	_, decisions := decisionsOf(name)
	return decisions || len(part) == 3 && part[2] == actsChain
}

// decisionsOf is the scope whose decisions a chain holds.
func decisionsOf(name string) (ref scope.Ref, ok bool) {
	part := strings.Split(name, "/")
	if len(part) != 4 || part[0] != tenantsFolder || part[2] != decisionChain {
		return scope.Ref{}, false
	}
	ref = scope.Ref{Tenant: scope.TenantID(part[1]), Scope: scope.ScopeID(part[3])}
	return ref, ref.Validate() == nil
}

// segmentBytes is when a new segment is begun: small enough that Open, which
// reads the last segment of each chain, takes about 50 ms for it; large enough
// that a busy day has hundreds of files and not more.
const segmentBytes = 16 << 20

// chain is one hash chain of records, open for writing. Its lock is held while
// a batch is written and synced.
type chain struct {
	name, dir string
	write     func(*os.File, []byte) (int, error) // a seam for tests: the disk

	// silent is set with closed and broken, for those who do not wait for mu.
	silent atomic.Bool
	// stuck is why acts of the outbox could not be written last; nil: they were.
	stuck atomic.Pointer[error]
	// at is the end's position, for those who do not wait for mu.
	at atomic.Uint64

	mu     sync.Mutex
	closed bool
	broken error    // ErrFailed: nothing more is written
	heads  []header // of the segments, oldest first; the last is written to
	file   *os.File // the last segment, nil while idle
	used   bool     // written to since the last rest
	size   int64    // of the last segment
	end    Head     // after the last record
	link   Hash     // what the next record is chained to
	synced uint64   // position up to which the disk has it
	signed uint64   // position of the newest checkpoint, this start
	buf    []byte
	// payload is room for one record.
	payload []byte
}

// append gives the records their positions and writes them, all or none. It
// returns once the file has them, and with sync once the disk has.
func (c *chain) append(now time.Time, records []*Record, sync bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.writable(); err != nil {
		return err
	}
	if err := c.ready(now); err != nil {
		return c.explain(err)
	}
	buf, at, prev := c.buf[:0], c.end.Position, c.link
	for _, r := range records {
		at++
		r.Position = at
		payload, err := r.appendTo(c.payload[:0])
		c.payload = payload
		if err == nil && len(payload) > maxPayload {
			err = fmt.Errorf("it has %d bytes, more than %d", len(payload), maxPayload)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		buf, prev = appendFrame(buf, prev, payload)
	}
	if cap(buf) <= 8<<20 { // a burst's buffer is not kept
		c.buf = buf
	}
	if _, err := c.write(c.file, buf); err != nil {
		// What was written in part is taken back, which needs no space.
		if terr := c.file.Truncate(c.size); terr != nil {
			c.silent.Store(true)
			c.broken = fmt.Errorf("%w: %s: %w, and what was written in part could not be taken back: %w; restart the server once the disk works", ErrFailed, c.name, err, terr)
			return c.broken
		}
		return c.explain(err)
	}
	c.size += int64(len(buf))
	c.end.Position, c.end.Hash, c.link = at, prev, prev
	c.at.Store(at)
	c.used = true
	if sync {
		return c.sync()
	}
	return nil
}

// position is that of the last record; what is written from now on comes behind it.
func (c *chain) position() uint64 { return c.at.Load() }

func (c *chain) writable() error {
	if c.closed {
		return ErrClosed
	}
	return c.broken
}

// sync makes what was written durable. After a sync that failed nobody knows
// what the disk has; trying again would be told that all is well.
func (c *chain) sync() error {
	if c.synced == c.end.Position {
		return nil
	}
	if err := unix.Fdatasync(int(c.file.Fd())); err != nil {
		c.silent.Store(true)
		c.broken = fmt.Errorf("%w: sync %s: %w; restart the server once the disk works", ErrFailed, c.name, err)
		return c.broken
	}
	c.synced = c.end.Position
	return nil
}

// explain says what a failed write means.
func (c *chain) explain(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("%w: %s: %w; free some space on its disk", ErrNoSpace, c.name, err)
	}
	return fmt.Errorf("write the audit log %s: %w", c.name, err)
}

// ready opens the last segment for writing, or begins one: each holds the
// records of one UTC day at most, so that retention can drop whole files.
func (c *chain) ready(now time.Time) error {
	if n := len(c.heads); n > 0 && c.size < segmentBytes && day(c.heads[n-1].opened) == day(now.Unix()) {
		if c.file != nil {
			return nil
		}
		f, err := os.OpenFile(filepath.Join(c.dir, c.heads[n-1].name()), os.O_WRONLY|os.O_APPEND, 0)
		c.file = f
		return err
	}
	if c.file != nil {
		if err := c.sync(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	h := header{chain: c.name, first: c.end.Position + 1, prev: c.end.Hash, opened: now.Unix()}
	// A last segment that is still empty has the same name and is replaced: its
	// header speaks of another day.
	if err := replaceDurably(filepath.Join(c.dir, h.name()), h.encode()); err != nil {
		return err
	}
	if n := len(c.heads); n > 0 && c.heads[n-1].first == h.first {
		c.heads = c.heads[:n-1]
	}
	c.heads = append(c.heads, h)
	c.size, c.link = int64(len(h.encode())), h.link()
	if err := c.rest(); err != nil {
		return err
	}
	if len(c.heads) == 1 {
		// The folders above may be new too.
		for up, n := c.dir, strings.Count(c.name, "/")+1; n > 0; n-- {
			up = filepath.Dir(up)
			if err := syncDir(up); err != nil {
				return err
			}
		}
	}
	f, err := os.OpenFile(filepath.Join(c.dir, h.name()), os.O_WRONLY|os.O_APPEND, 0)
	c.file = f
	return err
}

// rest closes the file until the next write; idle tenants hold none open.
func (c *chain) rest() error {
	c.used = false
	if c.file == nil {
		return nil
	}
	err := c.file.Close()
	c.file = nil
	return err
}

// idle closes the file if nothing was written since the last call.
func (c *chain) idle() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used {
		c.used = false
		return nil
	}
	if err := c.sync(); err != nil {
		return err
	}
	return c.rest()
}

// head syncs and gives the end of the chain.
func (c *chain) head() (Head, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.writable(); err != nil {
		return Head{}, err
	}
	return c.end, c.sync()
}

// snapshot gives the segments as they stand, for a reader, and the size of the
// last. They go on to exist until they are pruned.
func (c *chain) snapshot() (heads []header, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]header(nil), c.heads...), c.size
}

// prune drops the segments whose records are all older than keep. Where the
// chain then begins is signed first.
func (c *chain) prune(now time.Time, keep time.Duration, key *signing.Key) (dropped int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.writable(); err != nil {
		return 0, err
	}
	n := 0
	for n < len(c.heads) && c.heads[n].expired(now, keep) {
		n++
	}
	if n == 0 {
		return 0, nil
	}
	begin := Checkpoint{Head: c.end, Time: now, Pruned: true}
	if n < len(c.heads) {
		begin.Position, begin.Hash = c.heads[n].first-1, c.heads[n].prev
	} else if err := c.sync(); err != nil {
		return 0, err
	} else if err := c.rest(); err != nil {
		return 0, err
	}
	if _, err := writeStatement(c.dir, prunedFile, begin, key); err != nil {
		return 0, c.explain(err)
	}
	for n > 0 {
		if err := os.Remove(filepath.Join(c.dir, c.heads[0].name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return dropped, fmt.Errorf("drop an expired part of the audit log: %w", err)
		}
		c.heads = c.heads[1:]
		dropped++
		n--
	}
	if len(c.heads) == 0 {
		c.link = c.end.Hash
	}
	return dropped, syncDir(c.dir)
}

func (c *chain) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	var err error
	if c.broken == nil && c.file != nil {
		err = c.sync()
	}
	c.closed = true
	c.silent.Store(true)
	return errors.Join(err, c.rest())
}
