package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

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
		return nil, fmt.Errorf("get %s: %w", k, err)
	}
	defer clear(value)
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
	err = s.view(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return ErrNotFound
		}
		if err == nil {
			value, err = item.ValueCopy(nil)
		}
		return fromBadger(err)
	})
	return value, err
}

// fromBadger makes an error of reading ours: Badger's own can not be told apart.
func fromBadger(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: the database can not be read: %v; restore the data directory from its copy", ErrDamaged, err)
}

// view runs f in a reading transaction, one snapshot. Close waits for it. When
// dropping records has failed, it reads nothing any more (ErrFailed).
func (s *Store) view(f func(*badger.Txn) error) error {
	if !s.readers.enter() {
		return ErrClosed
	}
	defer s.readers.leave()
	if s.torn.Load() {
		return s.stopped()
	}
	return guard(func() error { return s.db.View(f) })
}

// scan calls f with all keys under the prefix, in order, in one snapshot, and
// with the values when they are wanted. Both slices are good for the call only.
func (s *Store) scan(prefix []byte, values bool, f func(key, value []byte) error) error {
	return s.view(func(txn *badger.Txn) error { return scanTxn(txn, prefix, prefix, values, f) })
}

// scanTxn is scan in a transaction, from a first key on. It passes sentinels over.
func scanTxn(txn *badger.Txn, prefix, from []byte, values bool, f func(key, value []byte) error) error {
	o := badger.DefaultIteratorOptions
	o.Prefix = prefix
	o.PrefetchValues = false // values stand beside their keys: prefetching would only copy
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Seek(from); it.Valid(); it.Next() {
		item := it.Item()
		if item.ValueSize() == 0 && item.Key()[0] == spaceScopes {
			continue
		}
		var err error
		if !values {
			err = f(item.Key(), nil)
		} else if verr := item.Value(func(v []byte) error { err = f(item.Key(), v); return nil }); verr != nil {
			err = fromBadger(verr)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// measure counts and digests what stands under a prefix.
func (s *Store) measure(prefix []byte) (Head, error) {
	var h Head
	var scratch []byte
	defer func() { clear(scratch[:cap(scratch)]) }()
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
// after ("": from the first). A prefix is a key whose last parts are empty: the
// templates of one subject, the scopes of one tenant, all tenants. The values
// are the caller's. Errors: ErrBadKey, ErrDamaged, ErrClosed, keyring.ErrNoKey.
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
		// Above the key and below every other: no part holds a byte below 2.
		from = append(bytes.Clone(begin), after...)
		from = append(from, 1)
	}
	var out []Record
	full := errors.New("full")
	err = s.view(func(txn *badger.Txn) error {
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
	if err != nil && err != full {
		return nil, err
	}
	return out, nil
}

// Cursor gives the place of a listed key under the prefix k, for List's after.
// It is the listed key's id where one id is all that the prefix leaves open, and
// opaque otherwise; it may hold any byte. Empty when the key is not under the prefix.
func (k Key) Cursor(listed Key) string {
	begin, err := k.encodePrefix()
	if err != nil {
		return ""
	}
	key, err := listed.encode()
	if err != nil || !bytes.HasPrefix(key, begin) {
		return ""
	}
	if rules[listed.Kind].ended {
		key = key[:len(key)-1]
	}
	return string(key[len(begin):])
}

// Check compares the records of every scope, and of the system space, with
// their heads, without opening them, and looks for records outside every head. Mutations
// wait meanwhile. Errors: ErrDamaged, ErrFailed, ErrClosed.
func (s *Store) Check() error {
	return s.wait(context.Background(), &op{run: s.check})
}

func (s *Store) check() error {
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
