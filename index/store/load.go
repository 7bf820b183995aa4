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
	err = s.view(func(txn *badger.Txn) error {
		item, err := txn.Get(headKey(ref))
		if err == nil {
			var value []byte
			if value, err = item.ValueCopy(nil); err == nil {
				head, err = parseHead(value)
			}
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
	return head, err
}

// open digests and opens the records of a batch.
func (b *loaded) open(s *Store, keys *keyring.ScopeKeys) {
	b.records = make([]Record, len(b.keys))
	var scratch []byte
	defer func() { clear(scratch[:cap(scratch)]) }()
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
		clear(b.values[i])
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
