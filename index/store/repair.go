package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
)

// Survey is what stands in a scope's space, whatever it should be.
type Survey struct {
	Ref scope.Ref
	// Head is what was acknowledged, Found what is there; Found.Epoch is 0.
	Head, Found Head
	// Sealed: the keyring holds no key of the scope, so that nothing opens.
	Sealed bool
	// Unreadable are the records that do not open in their place.
	Unreadable []Unreadable
	// Kinds counts the records by the kind that their keys tell, those that do
	// not open included.
	Kinds map[Kind]int
}

// Unreadable is a record that does not open.
type Unreadable struct {
	// Key is zero where the record's key itself cannot be read.
	Key    Key
	Reason error
	raw    []byte
}

// Sound reports whether the scope holds what was acknowledged.
func (v Survey) Sound() error {
	if v.Sealed {
		return fmt.Errorf("%w: %s", keyring.ErrNoKey, v.Ref)
	}
	if len(v.Unreadable) > 0 {
		return v.Unreadable[0].Reason
	}
	return v.Head.compare(v.Ref.String(), v.Found)
}

// Survey reads a scope's space to its end, past what is damaged, changes
// nothing, and calls fn, which may be nil, with every record that opens, in the
// order of the keys; fn owns what it gets, and its error ends the survey. Load is
// for serving; Survey is for finding out what is left. Errors: ErrBadKey,
// ErrClosed, ErrDamaged where the database itself cannot be read.
func (s *Store) Survey(ref scope.Ref, fn func(Record) error) (Survey, error) {
	v := Survey{Ref: ref, Kinds: make(map[Kind]int)}
	if err := ref.Validate(); err != nil {
		return v, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	keys, err := s.keys.Keys(ref)
	if v.Sealed = errors.Is(err, keyring.ErrNoKey); err != nil && !v.Sealed {
		return v, err
	}
	v.Head, _ = s.Head(ref)
	prefix := scopePrefix(ref)
	var scratch []byte
	err = s.scan(prefix, true, func(key, value []byte) error {
		var d Digest
		d, scratch = digestOf(scratch, key, value)
		v.Found.Records++
		v.Found.Digest = v.Found.Digest.add(d)
		k, err := parseKey(key)
		if err != nil {
			v.Unreadable = append(v.Unreadable, Unreadable{Reason: fmt.Errorf("%w: %w", ErrDamaged, err), raw: bytes.Clone(key)})
			return nil
		}
		v.Kinds[k.Kind]++
		if v.Sealed {
			return nil
		}
		plain, err := s.unseal(key, value, keys.Open)
		if errors.Is(err, ErrDamaged) {
			v.Unreadable = append(v.Unreadable, Unreadable{Key: k, Reason: err, raw: bytes.Clone(key)})
			return nil
		}
		if err != nil || fn == nil {
			return err
		}
		return fn(Record{k, plain})
	})
	return v, err
}

// recountBatch bounds the deletes of one transaction of Recount.
const recountBatch = 1000

// Recount deletes what the survey found unreadable, and the records of drop,
// and makes the head of the scope agree with what remains, at a later epoch. It
// is for a scope whose loss was looked at and accepted: from then on Load does not
// know of it. While it runs, nothing else may change the scope. A crash in
// between leaves a part of the deletes done; Survey and Recount go on from there.
// It may use the reserve. Errors: those of Commit.
func (s *Store) Recount(ctx context.Context, v Survey, drop []Key) (head Head, err error) {
	raw := make([][]byte, 0, len(v.Unreadable)+len(drop))
	for _, u := range v.Unreadable {
		raw = append(raw, u.raw)
	}
	for _, k := range drop {
		key, err := k.encode()
		if err != nil {
			return Head{}, err
		}
		if k.Ref != v.Ref || !k.Kind.inScope() {
			return Head{}, fmt.Errorf("%w: %s in a recount of %s", ErrBadMutation, k, v.Ref)
		}
		raw = append(raw, key)
	}
	err = s.wait(ctx, &op{run: func() error {
		if err := s.free.check(time.Now(), true); err != nil {
			return err
		}
		head, err = s.recount(v.Ref, raw)
		return err
	}})
	return head, err
}

// recount runs in the committer.
func (s *Store) recount(ref scope.Ref, drop [][]byte) (Head, error) {
	head, err := s.measure(scopePrefix(ref))
	if err != nil {
		return Head{}, err
	}
	head.Epoch = s.heads[ref].Epoch
	for first := true; first || len(drop) > 0; first = false {
		batch := drop[:min(recountBatch, len(drop))]
		drop = drop[len(batch):]
		head.Epoch++
		if err := s.recountOnce(ref, &head, batch); err != nil {
			return Head{}, s.stop(err)
		}
	}
	return head, nil
}

func (s *Store) recountOnce(ref scope.Ref, head *Head, drop [][]byte) error {
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	st := staging{store: s, txn: txn}
	for _, key := range drop {
		if found, err := st.forget(key, head); err != nil {
			return err
		} else if !found {
			continue
		}
		if err := txn.Delete(key); err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
			return err
		}
	}
	return s.finish(txn, map[scope.Ref]Head{ref: *head})
}
