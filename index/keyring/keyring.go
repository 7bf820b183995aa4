package keyring

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/menshen-io/menshen/index/scope"
	"golang.org/x/sys/unix"
)

// Options say how Open behaves where there is a choice.
type Options struct {
	// Create makes a new, empty keyring where there is no file. Without it a
	// missing file is ErrMissing: an empty keyring beside a full database would
	// make every record unreadable.
	Create bool
}

// Keyring is an open keyring file. Safe for many goroutines: Keys and List take
// a read lock; Create and Destroy rewrite the file one at a time, which costs a
// few milliseconds and grows with the number of scopes: 35 ms measured at 10,000
// on four busy cores (BenchmarkCreate).
type Keyring struct {
	path string
	root RootKey
	lock *os.File // holds the flock

	write sync.Mutex // serialises rewrites of the file; taken before mu

	mu        sync.RWMutex
	closed    bool
	system    *SystemKeys
	live      map[scope.Ref]*ScopeKeys
	destroyed map[scope.Ref]struct{}
}

// Open reads the keyring file at path under the root key and locks it against
// other processes until Close. Its folder must exist and be writable. Errors:
// ErrMissing, ErrWrongRoot, ErrDamaged, ErrLocked, or that of the file system.
func Open(path string, root RootKey, opt Options) (*Keyring, error) {
	if root.zero() {
		return nil, fmt.Errorf("%w: it is the zero key; load it with LoadRootKey", ErrWrongRoot)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the keyring's folder: %w", err)
	}
	lock, err := takeLock(path + ".lock")
	if err != nil {
		return nil, err
	}
	k, err := open(path, root, opt)
	if err != nil {
		lock.Close()
		return nil, err
	}
	k.lock = lock
	return k, nil
}

func open(path string, root RootKey, opt Options) (*Keyring, error) {
	k := &Keyring{path: path, root: root, live: map[scope.Ref]*ScopeKeys{}, destroyed: map[scope.Ref]struct{}{}}
	file, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && opt.Create:
		var system [keyLen]byte
		rand.Read(system[:])
		k.system = &SystemKeys{newSealer(system)}
		clear(system[:])
		if err := k.save(k.live, k.destroyed); err != nil {
			return nil, fmt.Errorf("create the keyring %s: %w", path, err)
		}
		return k, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %s; restore it from its copy (without it the stored records stay unreadable)", ErrMissing, path)
	case err != nil:
		return nil, fmt.Errorf("read the keyring %s: %w", path, err)
	}
	c, err := decode(file, root)
	if err != nil {
		return nil, fmt.Errorf("open the keyring %s: %w; use the root key that it was made with, or restore the file from its copy", path, err)
	}
	// Only once the file is known to be good may its predecessor go.
	if err := finishReplace(path); err != nil {
		return nil, fmt.Errorf("remove the replaced keyring file beside %s: %w", path, err)
	}
	k.system = &SystemKeys{newSealer(c.system)}
	for ref, key := range c.live {
		k.live[ref] = &ScopeKeys{newSealer(key)}
	}
	k.destroyed = c.destroyed
	clear(c.live)
	return k, nil
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

// save writes the file with these scopes. The caller holds write, or is alone.
func (k *Keyring) save(live map[scope.Ref]*ScopeKeys, destroyed map[scope.Ref]struct{}) error {
	c := content{system: k.system.sealer.key, live: make(map[scope.Ref][keyLen]byte, len(live)), destroyed: destroyed}
	for ref, keys := range live {
		c.live[ref] = keys.sealer.key
	}
	defer func() {
		clear(c.system[:])
		for ref := range c.live {
			c.live[ref] = [keyLen]byte{}
		}
	}()
	file, err := c.encode(k.root)
	if err != nil {
		return err
	}
	return replaceFile(k.path, file)
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
	live, destroyed, err := k.snapshot()
	if err != nil {
		return err
	}
	if _, ok := live[ref]; ok {
		return fmt.Errorf("%w: %s", ErrExists, ref)
	}
	if _, ok := destroyed[ref]; ok {
		return fmt.Errorf("%w: %s; choose an id that was never used", ErrDestroyed, ref)
	}
	var key [keyLen]byte
	rand.Read(key[:])
	live[ref] = &ScopeKeys{newSealer(key)}
	clear(key[:])
	if err := k.save(live, destroyed); err != nil {
		live[ref].sealer.wipe(ErrNoKey)
		return fmt.Errorf("write the keyring %s: %w", k.path, err)
	}
	k.mu.Lock()
	k.live = live
	k.mu.Unlock()
	return nil
}

// Destroy takes the scope's key out of the file, durably, overwrites the file
// that held it and the key in memory, and remembers the id. Handles from Keys go
// dead. Destroying again is no error, nor is destroying what never had a key: its id
// is used up all the same. Other errors are those of the file system; the key
// may then still be in the file, and Destroy is to be called again.
func (k *Keyring) Destroy(ref scope.Ref) error {
	if err := ref.Validate(); err != nil {
		return fmt.Errorf("destroy the key of a scope: %w", err)
	}
	k.write.Lock()
	defer k.write.Unlock()
	live, destroyed, err := k.snapshot()
	if err != nil {
		return err
	}
	keys := live[ref]
	if _, done := destroyed[ref]; done && keys == nil {
		return finishReplace(k.path) // in case an earlier call failed there
	}
	delete(live, ref)
	destroyed[ref] = struct{}{}
	// The handle dies first: whatever the file system says, nothing is sealed or
	// opened under a key that was told to go.
	if keys != nil {
		keys.sealer.wipe(ErrDestroyed)
	}
	k.mu.Lock()
	k.live, k.destroyed = live, destroyed
	k.mu.Unlock()
	if err := k.save(live, destroyed); err != nil {
		k.mu.Lock()
		delete(k.destroyed, ref) // so that the next call writes the file again
		k.mu.Unlock()
		return fmt.Errorf("write the keyring %s without %s: %w; the key may still be in the file: destroy it again", k.path, ref, err)
	}
	return nil
}

// snapshot copies the maps for a rewrite; the handles are shared.
func (k *Keyring) snapshot() (map[scope.Ref]*ScopeKeys, map[scope.Ref]struct{}, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return nil, nil, ErrClosed
	}
	return maps.Clone(k.live), maps.Clone(k.destroyed), nil
}

// Keys returns the keys of a scope: ErrNoKey when it never had one,
// ErrDestroyed (which is an ErrNoKey too) when it was destroyed, ErrClosed.
func (k *Keyring) Keys(ref scope.Ref) (*ScopeKeys, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return nil, ErrClosed
	}
	if keys, ok := k.live[ref]; ok {
		return keys, nil
	}
	if _, ok := k.destroyed[ref]; ok {
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
	return slices.SortedFunc(maps.Keys(k.live), compareRefs)
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
	for _, keys := range k.live {
		keys.sealer.wipe(ErrClosed)
	}
	k.system.sealer.wipe(ErrClosed)
	k.live = nil
	clear(k.root.b[:])
	return k.lock.Close()
}
