package store

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"sync"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
)

// Get returns the value of one record, newly allocated. Errors: ErrNotFound,
// ErrBadKey, ErrDamaged when it does not open in its place, keyring.ErrNoKey when
// the scope's key is gone.
func (s *Store) Get(k Key) ([]byte, error) {
	key, err := k.encode()
	if err != nil {
		return nil, err
	}
	open, err := s.opener(k)
	if err != nil {
		return nil, err
	}
	value, err := s.raw(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, k)
	}
	return s.unseal(key, value, open)
}

// opener returns what opens the values of the key's space.
func (s *Store) opener(k Key) (func(sealed, aad []byte) ([]byte, error), error) {
	if !k.Kind.inScope() {
		return s.keys.System().Open, nil
	}
	keys, err := s.keys.Keys(k.Ref)
	if err != nil {
		return nil, err
	}
	return keys.Open, nil
}

// unseal opens a stored value.
func (s *Store) unseal(key, value []byte, open func(sealed, aad []byte) ([]byte, error)) ([]byte, error) {
	if len(value) < 1 || value[0] != formatVersion {
		return nil, fmt.Errorf("%w: a value of an unknown format at %q", ErrDamaged, key)
	}
	plain, err := open(value[1:], aad(key))
	if errors.Is(err, keyring.ErrSealed) {
		return nil, fmt.Errorf("%w: the value at %q does not open in its place", ErrDamaged, key)
	}
	return plain, err
}

// raw reads a value as it stands in Badger.
func (s *Store) raw(key []byte) (value []byte, err error) {
	err = guard(func() error {
		return s.db.View(func(txn *badger.Txn) error {
			item, err := txn.Get(key)
			if err != nil {
				return err
			}
			value, err = item.ValueCopy(nil)
			return err
		})
	})
	switch {
	case errors.Is(err, badger.ErrKeyNotFound):
		return nil, ErrNotFound
	case errors.Is(err, ErrDamaged):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return value, nil
}

// scan calls f with all keys under the prefix, in order, in one snapshot, and
// with the values when they are wanted. Both slices are good for the call only.
func (s *Store) scan(prefix []byte, values bool, f func(key, value []byte) error) error {
	return guard(func() error {
		return s.db.View(func(txn *badger.Txn) error {
			return scanTxn(txn, prefix, prefix, values, f)
		})
	})
}

// scanTxn is scan in a transaction, from a first key on.
func scanTxn(txn *badger.Txn, prefix, from []byte, values bool, f func(key, value []byte) error) error {
	o := badger.DefaultIteratorOptions
	o.Prefix = prefix
	o.PrefetchValues = false // values stand beside their keys: prefetching would only copy
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Seek(from); it.Valid(); it.Next() {
		item := it.Item()
		if !values {
			if err := f(item.Key(), nil); err != nil {
				return err
			}
			continue
		}
		// An error of f and one of Badger look alike here; both end the scan.
		if err := item.Value(func(v []byte) error { return f(item.Key(), v) }); err != nil {
			return err
		}
	}
	return nil
}

// measure counts and digests what stands under a prefix.
func (s *Store) measure(prefix []byte) (Head, error) {
	var h Head
	var scratch []byte
	err := s.scan(prefix, true, func(key, value []byte) error {
		var d Digest
		d, scratch = digestOf(scratch, key, value)
		h.Records++
		h.Digest = h.Digest.add(d)
		return nil
	})
	return h, err
}

// List returns the records under a prefix in the order of their keys, at most
// limit of them (0: all), beginning behind the record for which Cursor gave
// after ("": from the first). A prefix has a Kind, the Ref of a scope's kind,
// and of the further parts of its kind as many of the first as it pleases, not all: the templates of one
// subject, the scopes of one tenant, all tenants. The values are the caller's.
// Errors: ErrBadKey, ErrDamaged, keyring.ErrNoKey.
func (s *Store) List(prefix Key, after string, limit int) ([]Record, error) {
	begin, err := prefix.encodePrefix()
	if err != nil {
		return nil, err
	}
	open, err := s.opener(prefix)
	if err != nil {
		return nil, err
	}
	from := begin
	if after != "" {
		// The least key above: no part holds a zero byte at its end.
		from = append(bytes.Clone(begin), after...)
		from = append(from, 0)
	}
	var out []Record
	full := errors.New("full")
	err = guard(func() error {
		return s.db.View(func(txn *badger.Txn) error {
			return scanTxn(txn, begin, from, true, func(key, value []byte) error {
				k, err := parseKey(key)
				if err != nil {
					return fmt.Errorf("%w: %w", ErrDamaged, err)
				}
				plain, err := s.unseal(key, value, open)
				if err != nil {
					return err
				}
				out = append(out, Record{k, plain})
				if len(out) == limit {
					return full
				}
				return nil
			})
		})
	})
	if err != nil && err != full {
		return nil, err
	}
	return out, nil
}

// Cursor gives the place of a listed key under the prefix, for List's after. It
// is the key's id where one id is all that the prefix leaves open, and opaque
// otherwise. It may hold any byte.
func (prefix Key) Cursor(k Key) string {
	begin, err := prefix.encodePrefix()
	if err != nil {
		return ""
	}
	key, err := k.encode()
	if err != nil || !bytes.HasPrefix(key, begin) {
		return ""
	}
	return string(key[len(begin):])
}

// loadBatch is how many records of Load are opened at a time in one goroutine:
// about 1.5 us each, so that handing over costs little.
const loadBatch = 256

// loaded is a batch on its way through Load.
type loaded struct {
	keys, values [][]byte
	records      []Record
	digest       Digest
	err          error
	ready        chan struct{}
}

// Load calls fn with every record of a scope, in the order of their keys
// (subjects before templates), from one snapshot, and then compares count and
// digest with the scope's head: if they differ, ErrDamaged, and what fn was given is not
// to be used. fn runs in the caller's goroutine and owns what it gets; its error
// ends the loading and is returned. Reading and opening run ahead in others. A
// scope without records and head gives the zero Head. Other errors:
// keyring.ErrNoKey.
func (s *Store) Load(ref scope.Ref, fn func(Record) error) (Head, error) {
	if err := ref.Validate(); err != nil {
		return Head{}, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	keys, err := s.keys.Keys(ref)
	if err != nil {
		return Head{}, err
	}
	workers := runtime.GOMAXPROCS(0)
	work := make(chan *loaded, workers)  // to be opened
	order := make(chan *loaded, workers) // to be handed to fn, in order
	stop := make(chan struct{})

	var running sync.WaitGroup
	var want Head
	var readErr error
	running.Go(func() {
		defer close(order)
		defer close(work)
		want, readErr = s.readScope(ref, func(b *loaded) error {
			for _, to := range []chan *loaded{order, work} {
				select {
				case to <- b:
				case <-stop:
					return errStopped
				}
			}
			return nil
		})
	})
	for range workers {
		running.Go(func() {
			for b := range work {
				b.open(s, keys)
				close(b.ready)
			}
		})
	}
	got, err := collect(order, fn)
	close(stop)
	running.Wait()
	if err != nil {
		return Head{}, err
	}
	if readErr != nil {
		return Head{}, readErr
	}
	return want, want.compare(ref.String(), got)
}

// errStopped ends the reading ahead when fn wanted no more.
var errStopped = errors.New("stopped")

// readScope reads head and records of a scope in one snapshot, in batches.
func (s *Store) readScope(ref scope.Ref, emit func(*loaded) error) (head Head, err error) {
	prefix := scopePrefix(ref)
	err = guard(func() error {
		return s.db.View(func(txn *badger.Txn) error {
			item, err := txn.Get(headKey(ref))
			if err == nil {
				err = item.Value(func(v []byte) error {
					head, err = parseHead(v)
					return err
				})
			}
			if err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
				return fmt.Errorf("%w: the head of %s: %v", ErrDamaged, ref, err)
			}
			b := &loaded{ready: make(chan struct{})}
			err = scanTxn(txn, prefix, prefix, true, func(key, value []byte) error {
				b.keys = append(b.keys, bytes.Clone(key))
				b.values = append(b.values, bytes.Clone(value))
				if len(b.keys) < loadBatch {
					return nil
				}
				full := b
				b = &loaded{ready: make(chan struct{})}
				return emit(full)
			})
			if err == nil && len(b.keys) > 0 {
				err = emit(b)
			}
			return err
		})
	})
	return head, err
}

// open digests and opens the records of a batch.
func (b *loaded) open(s *Store, keys *keyring.ScopeKeys) {
	b.records = make([]Record, len(b.keys))
	var scratch []byte
	var d Digest
	for i, key := range b.keys {
		d, scratch = digestOf(scratch, key, b.values[i])
		b.digest = b.digest.add(d)
		k, err := parseKey(key)
		if err != nil {
			b.err = fmt.Errorf("%w: %w", ErrDamaged, err)
			return
		}
		plain, err := s.unseal(key, b.values[i], keys.Open)
		if err != nil {
			b.err = err
			return
		}
		b.records[i] = Record{k, plain}
	}
}

// collect hands the batches to fn and adds them up.
func collect(order <-chan *loaded, fn func(Record) error) (got Head, err error) {
	for b := range order {
		<-b.ready
		if b.err != nil {
			return got, b.err
		}
		got.Records += uint64(len(b.records))
		got.Digest = got.Digest.add(b.digest)
		for _, r := range b.records {
			if err := fn(r); err != nil {
				return got, err
			}
		}
	}
	return got, nil
}

// Check compares the records of every scope, and of the system space, with
// their heads, without opening them, and looks for records outside every head.
// Mutations should rest meanwhile: each space is read in a snapshot of its own.
func (s *Store) Check() error {
	if err := s.checkSystem(); err != nil {
		return err
	}
	s.mu.RLock()
	refs := make([]scope.Ref, 0, len(s.heads))
	heads := map[scope.Ref]Head{}
	var total uint64
	for ref, h := range s.heads {
		heads[ref] = h
		if ref != (scope.Ref{}) {
			refs = append(refs, ref)
			total += h.Records
		}
	}
	s.mu.RUnlock()
	for _, ref := range refs {
		got, err := s.measure(scopePrefix(ref))
		if err != nil {
			return err
		}
		if err := heads[ref].compare(ref.String(), got); err != nil {
			return err
		}
	}
	all, err := s.measure([]byte{spaceScopes})
	if err != nil {
		return err
	}
	if all.Records != total {
		return fmt.Errorf("%w: %d records stand in scopes and the heads know of %d", ErrDamaged, all.Records, total)
	}
	return nil
}
