package keyring

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/menshen-io/menshen/index/scope"
	"golang.org/x/sys/unix"
)

// Options say how Open behaves where there is a choice.
type Options struct {
	// Create makes a new, empty keyring where there is no file. Without it a
	// missing file is ErrMissing: an empty keyring beside a full database would
	// make every record unreadable.
	Create bool
	// Failpoint, when set, is called at each step of a change with the step's
	// name. Tests end the process there.
	Failpoint func(step string)
	// Fault, when set, is asked for an error each time that a file is written. Tests
	// let the disk be full with it.
	Fault func() error
}

// Keyring is an open keyring file. Safe for many goroutines: Keys and List take
// a read lock; Create, Destroy and the like rewrite the file one at a time, which
// costs a few milliseconds and grows with the number of scopes (BenchmarkCreate).
type Keyring struct {
	path      string
	root      *Root
	lock      *os.File // holds the flock
	failpoint func(step string)
	fault     func() error
	reserves  []keptRoom
	keeping   atomic.Bool // KeepReserve was called
	safe      safe        // holds the keys of scopes and of the system

	write sync.Mutex // serialises rewrites of the file; taken before mu

	mu     sync.RWMutex
	closed bool
	system *SystemKeys
	state  state
}

// state is what changes of a keyring. Its maps are copied for a change and never
// changed in place.
type state struct {
	signing    signingContent
	pseudonyms []byte // state of the audit log's, which alone knows what it means
	tenants    map[scope.TenantID][keyLen]byte
	live       map[scope.Ref]*ScopeKeys
	destroyed  map[scope.Ref]struct{}
}

func (s state) clone() state {
	s.signing.retired, s.pseudonyms = slices.Clone(s.signing.retired), bytes.Clone(s.pseudonyms)
	s.tenants, s.live, s.destroyed = maps.Clone(s.tenants), maps.Clone(s.live), maps.Clone(s.destroyed)
	return s
}

// Open reads the keyring file at path under the root key and locks it against
// other processes until Close; the root is then the keyring's. Its folder must
// exist and be writable. What a crash interrupted is finished. Errors:
// ErrMissing, ErrWrongRoot, ErrOldCopy, ErrDamaged, ErrLocked, those of LoadRoot, or
// that of the file system.
func Open(path string, root *Root, opt Options) (*Keyring, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the keyring's folder: %w", err)
	}
	lock, err := takeLock(path + ".lock")
	if err != nil {
		return nil, err
	}
	k := &Keyring{path: path, root: root, lock: lock, failpoint: opt.Failpoint, fault: opt.Fault}
	discreetly(deep, func() { err = k.open(opt) })
	if err != nil {
		k.forget(err)
		lock.Close()
		return nil, err
	}
	return k, nil
}

func (k *Keyring) open(opt Options) error {
	path, root := k.path, k.root
	if k.failpoint == nil {
		k.failpoint = func(string) {}
	}
	if err := k.openReserves(); err != nil {
		return err
	}
	root.watch(k.step("root"))
	k.state = state{tenants: map[scope.TenantID][keyLen]byte{}, live: map[scope.Ref]*ScopeKeys{}, destroyed: map[scope.Ref]struct{}{}}
	file, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && opt.Create:
		var system [keyLen]byte
		rand.Read(system[:])
		sealer, err := newSealer(&k.safe, &system)
		if err != nil {
			return err
		}
		k.system = &SystemKeys{sealer}
		k.state.signing = newSigning(nil)
		if err := k.save(k.state, root.sealing()); err != nil {
			return fmt.Errorf("create the keyring %s: %w", path, err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s; restore it from its copy (without it the stored records stay unreadable)", ErrMissing, path)
	case err != nil:
		return fmt.Errorf("read the keyring %s: %w", path, err)
	}
	if err := k.unlock(file); err != nil {
		return fmt.Errorf("open the keyring %s: %w; use the root key that it was made with and the keyring's newest copy", path, err)
	}
	// Only once the file is known to be good may its predecessor go.
	if err := finishReplace(path, k.step("keyring")); err != nil {
		return fmt.Errorf("remove the replaced keyring file beside %s: %w", path, err)
	}
	return nil
}

// step is the failpoint for the steps of one file's replacement.
func (k *Keyring) step(file string) steps {
	return steps{func(step string) { k.failpoint(file + "/" + step) }, k.fault}
}

// unlock opens the file with the root key and takes over what it says. A file of
// version 1 gets what it lacks and is written anew.
func (k *Keyring) unlock(file []byte) error {
	h, err := parseHeader(file)
	if err != nil {
		return err
	}
	var c *content
	if err := k.root.unlock(h.generation, func(key rootKey) (err error) {
		c, err = decode(file, key)
		return err
	}); err != nil {
		return err
	}
	defer c.wipe()
	sealer, err := newSealer(&k.safe, &c.system)
	if err != nil {
		return err
	}
	k.system = &SystemKeys{sealer}
	k.state.signing, k.state.pseudonyms, k.state.destroyed = c.signing, bytes.Clone(c.pseudonyms), c.destroyed
	maps.Copy(k.state.tenants, c.tenants)
	for ref, key := range c.live {
		sealer, err := newSealer(&k.safe, key)
		if err != nil {
			return err
		}
		keys := &ScopeKeys{sealer: sealer, wrapped: c.wrapped[ref]}
		if h.version == 1 {
			if keys.wrapped, err = wrapScope(k.state.tenant(ref.Tenant), ref, key); err != nil {
				return err
			}
		}
		k.state.live[ref] = keys
	}
	if h.version == 1 {
		k.state.signing = newSigning(nil)
		if err := k.save(k.state, k.root.sealing()); err != nil {
			return fmt.Errorf("write it in the present version: %w", err)
		}
	}
	return nil
}

// tenant returns the key of a tenant and draws it where there is none. The
// caller may change the maps.
func (s state) tenant(id scope.TenantID) [keyLen]byte {
	key, ok := s.tenants[id]
	if !ok {
		rand.Read(key[:])
		s.tenants[id] = key
	}
	return key
}

// takeLock locks the file beside the keyring for this process.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the keyring: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: another server holds %s; stop it, or give this one a data directory of its own", ErrLocked, path)
		}
		return nil, fmt.Errorf("lock the keyring: %s: %w", path, err)
	}
	return f, nil
}

// save writes the file, sealed under that generation of the root key, and puts
// the root file into step. The caller holds write, or is alone.
func (k *Keyring) save(s state, g generation) error {
	c := content{system: k.system.sealer.keys.key, signing: s.signing, pseudonyms: s.pseudonyms, tenants: s.tenants, wrapped: make(map[scope.Ref][]byte, len(s.live)), destroyed: s.destroyed}
	defer clear(c.system[:])
	for ref, keys := range s.live {
		c.wrapped[ref] = keys.wrapped
	}
	file, err := c.encode(g)
	if err != nil {
		return err
	}
	if err := replaceFile(k.path, file, k.step("keyring")); err != nil {
		return err
	}
	k.failpoint("keyring/written")
	if err := k.root.commit(); err != nil {
		return err
	}
	k.failpoint("keyring/settled")
	return nil
}

// change writes a changed copy of the state and then takes it up. forward moves
// the root key on, so that no copy of the file as it was opens under it.
func (k *Keyring) change(forward func(generation) generation, edit func(*state) error) (err error) {
	discreetly(deep, func() { err = k.rewrite(forward, edit) })
	return err
}

func (k *Keyring) rewrite(forward func(generation) generation, edit func(*state) error) error {
	s, err := k.snapshot()
	if err != nil {
		return err
	}
	if err := edit(&s); err != nil {
		return err
	}
	g := k.root.sealing()
	if forward != nil {
		if g, err = k.root.stage(forward(g)); err != nil {
			return err
		}
		k.failpoint("keyring/staged")
	}
	if err := k.save(s, g); err != nil {
		return fmt.Errorf("write the keyring %s: %w", k.path, err)
	}
	k.mu.Lock()
	before := k.state.pseudonyms
	k.state = s
	k.mu.Unlock()
	clear(before)
	return nil
}

// Create draws a key for a scope and makes it durable before it returns.
// Errors: ErrExists; ErrDestroyed, for an id is never used twice; ErrClosed;
// scope.ErrBadID; that of the file system, after which the scope has no key.
func (k *Keyring) Create(ref scope.Ref) error {
	if err := ref.Validate(); err != nil {
		return fmt.Errorf("create the key of a scope: %w", err)
	}
	k.write.Lock()
	defer k.write.Unlock()
	var keys *ScopeKeys
	err := k.change(nil, func(s *state) error {
		if _, ok := s.live[ref]; ok {
			return fmt.Errorf("%w: %s", ErrExists, ref)
		}
		if _, ok := s.destroyed[ref]; ok {
			return fmt.Errorf("%w: %s; choose an id that was never used", ErrDestroyed, ref)
		}
		var key [keyLen]byte
		rand.Read(key[:])
		wrapped, err := wrapScope(s.tenant(ref.Tenant), ref, &key)
		if err != nil {
			return err
		}
		sealer, err := newSealer(&k.safe, &key)
		if err != nil {
			return err
		}
		keys = &ScopeKeys{sealer: sealer, wrapped: wrapped}
		s.live[ref] = keys
		return nil
	})
	if err != nil && keys != nil {
		keys.sealer.wipe(ErrNoKey)
	}
	return err
}

// Destroy takes the scope's key out of the file, durably, overwrites the file
// that held it and the key in memory, and remembers the id. The root key moves
// on, so that no older copy of the file opens under it. Handles from Keys go
// dead. Destroying again is no error, nor is destroying what never had a key: its id
// is used up all the same. On a full disk it uses what KeepReserve took. Other errors are those of the file system and of the
// keeper of the root key; the key may then still be in the file, and Destroy is to be
// called again.
func (k *Keyring) Destroy(ref scope.Ref) error {
	if err := ref.Validate(); err != nil {
		return fmt.Errorf("destroy the key of a scope: %w", err)
	}
	k.write.Lock()
	defer k.write.Unlock()
	s, err := k.snapshot()
	if err != nil {
		return err
	}
	keys := s.live[ref]
	if _, done := s.destroyed[ref]; done && keys == nil {
		// An earlier call may have failed between the two files.
		return k.WithReserve(func() error { return errors.Join(finishReplace(k.path, k.step("keyring")), k.root.commit()) })
	}
	// The handle dies first: whatever the file system says, nothing is sealed or
	// opened under a key that was told to go.
	if keys != nil {
		keys.sealer.wipe(ErrDestroyed)
		k.mu.Lock()
		k.state = s
		delete(k.state.live, ref)
		k.mu.Unlock()
	}
	err = k.WithReserve(func() error {
		return k.change(generation.next, func(s *state) error {
			delete(s.live, ref)
			s.destroyed[ref] = struct{}{}
			return nil
		})
	})
	k.settleReserve()
	if err != nil {
		return fmt.Errorf("%w; the key of %s may still be in the file: destroy it again", err, ref)
	}
	if keys != nil {
		clear(keys.wrapped)
	}
	return nil
}

// Rotate draws a new root key, seals the keyring under it and puts it in the
// place of the old one. Unlike the next generation that Destroy makes, it cannot
// be computed from an older root file: every copy of the root file is worth
// nothing afterwards, and a new one has to be kept. Errors: as Destroy's.
func (k *Keyring) Rotate() error {
	k.write.Lock()
	defer k.write.Unlock()
	return k.change(func(g generation) generation { return generation{g.number + 1, newRootKey()} }, func(*state) error { return nil })
}

// Generation is that of the root key; see Root.
func (k *Keyring) Generation() uint64 { return k.root.Generation() }

// snapshot copies the state for a change; the handles are shared.
func (k *Keyring) snapshot() (state, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return state{}, ErrClosed
	}
	return k.state.clone(), nil
}

// Keys returns the keys of a scope: ErrNoKey when it never had one,
// ErrDestroyed (which is an ErrNoKey too) when it was destroyed, ErrClosed.
func (k *Keyring) Keys(ref scope.Ref) (*ScopeKeys, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return nil, ErrClosed
	}
	if keys, ok := k.state.live[ref]; ok {
		return keys, nil
	}
	if _, ok := k.state.destroyed[ref]; ok {
		return nil, fmt.Errorf("%w: %s", ErrDestroyed, ref)
	}
	return nil, fmt.Errorf("%w: %s", ErrNoKey, ref)
}

// System returns the keys of what belongs to no scope.
func (k *Keyring) System() *SystemKeys { return k.system }

// List names the scopes that have a key, ordered by tenant and scope.
func (k *Keyring) List() []scope.Ref {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(k.state.live), compareRefs)
}

// Close overwrites the keys in memory, after which every handle fails with
// ErrClosed, and releases the lock. Closing again does nothing.
func (k *Keyring) Close() error {
	k.write.Lock()
	defer k.write.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	k.forget(ErrClosed)
	k.root.wipe()
	return k.lock.Close()
}

// forget overwrites the keys in memory. The caller holds the locks, or is alone.
func (k *Keyring) forget(why error) {
	for _, keys := range k.state.live {
		keys.sealer.wipe(why)
	}
	if k.system != nil {
		k.system.sealer.wipe(why)
	}
	_ = k.safe.close() // what is not given back holds zeros
	clear(k.state.signing.seed[:])
	clear(k.state.pseudonyms)
	clear(k.state.tenants)
	k.state = state{}
}
