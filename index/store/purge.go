package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	badger "github.com/dgraph-io/badger/v4"
)

// Trace says what there is of some records, so that it can be told what was
// destroyed, and searched for.
type Trace struct {
	// Head counts and digests the records; its Epoch is zero.
	Head Head
	// Bytes of keys and sealed values, older versions included.
	Bytes uint64
	// Needles are how their sealed values begin, older versions included.
	Needles []uint64
}

// purgePrefix is what the Badger keys of a record begin with, or of all the
// templates of a subject where the key gives no template. No other key begins so.
func purgePrefix(k Key) ([]byte, error) {
	if k.Kind == KindTemplate && k.Template == 0 {
		return k.encodePrefix()
	}
	if k.Kind != KindSubject && k.Kind != KindTemplate {
		return nil, fmt.Errorf("%w: %s is not purged on its own", ErrBadKey, k)
	}
	return k.encode()
}

func purgePrefixes(keys []Key) ([][]byte, error) {
	out := make([][]byte, len(keys))
	for i, k := range keys {
		var err error
		if out[i], err = purgePrefix(k); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Trace looks at subjects and templates; a template's key without a number
// means all of the subject's. Nobody may change them until the mutation that deletes
// them is done. Errors: ErrBadKey, ErrDamaged, ErrClosed.
func (s *Store) Trace(keys []Key) (Trace, error) {
	prefixes, err := purgePrefixes(keys)
	if err != nil {
		return Trace{}, err
	}
	var t Trace
	for _, p := range prefixes {
		list, size, err := s.survey(p)
		if err != nil {
			return Trace{}, err
		}
		h, err := s.measure(p)
		if err != nil {
			return Trace{}, err
		}
		t.Needles = append(t.Needles, list...)
		t.Bytes += size
		t.Head.Records += h.Records
		t.Head.Digest = t.Head.Digest.add(h.Digest)
	}
	return t, nil
}

// Await tells the store, after it was opened, of records that were deleted
// and whose bytes wait for Purge: nothing is put in their places before they are
// dropped. Mutation.Purge does the same for what it deletes.
func (s *Store) Await(keys []Key) error {
	prefixes, err := purgePrefixes(keys)
	if err != nil {
		return err
	}
	s.await(prefixes)
	return nil
}

func (s *Store) await(prefixes [][]byte) {
	if len(prefixes) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range prefixes {
		s.awaiting[string(p)] = struct{}{}
	}
}

// dropBatch is how many prefixes are dropped at a time, two of them a subject.
// Each that lies alone has a table rewritten, while all writes wait: on a scope of
// 100,000 subjects of 1.6 KB, 196 MB, one subject blocked them for 35 ms and 100 at
// random, which meet every table, for 1.5 s (4 cores, shared disk).
const dropBatch = 32

// Purge removes the bytes of deleted records from the files and makes sure of
// it: no file of the database holds a needle afterwards. Writes of all scopes wait
// while the records are dropped, not while the files are read. What stands in the
// place of a deleted record by now, put there after its bytes were dropped, stays.
// It may be repeated. Errors: as EraseScope's.
func (s *Store) Purge(ctx context.Context, keys []Key, list []uint64) (Scan, error) {
	prefixes, err := purgePrefixes(keys)
	if err != nil {
		return Scan{}, err
	}
	// Neighbours meet in one drop, and become one prefix.
	slices.SortFunc(prefixes, bytes.Compare)
	for at := 0; at < len(prefixes); at += dropBatch {
		some := prefixes[at:min(at+dropBatch, len(prefixes))]
		began := time.Now()
		if err := s.wait(ctx, &op{run: func() error { return s.dropDeleted(some) }}); err != nil {
			return Scan{}, err
		}
		select { // as long as others had to wait
		case <-ctx.Done():
			return Scan{}, ctx.Err()
		case <-time.After(time.Since(began)):
		}
	}
	s.opt.failpoint("store/purge/dropped")
	return s.absent(ctx, slices.Clone(list), nil)
}

// clearWay drops the bytes of deleted records in whose places the group puts new
// ones: a drop afterwards could not tell them apart. The committer runs it.
func (s *Store) clearWay(group []*op) {
	s.mu.RLock()
	waits := len(s.awaiting) > 0
	s.mu.RUnlock()
	if !waits {
		return
	}
	for _, o := range group {
		var hit [][]byte
		for _, p := range o.sets {
			for _, n := range []int{len(p.key), len(p.key) - 4} { // a record, or all templates of a subject
				if p.kind != KindSubject && p.kind != KindTemplate || n <= 0 {
					continue
				}
				s.mu.RLock()
				_, ok := s.awaiting[string(p.key[:n])]
				s.mu.RUnlock()
				if ok {
					hit = append(hit, p.key[:n])
				}
			}
		}
		if len(hit) == 0 || o.err != nil {
			continue
		}
		if err := s.alone(func() error { return s.dropDeleted(hit) }); err != nil {
			o.err = err
		}
	}
}

// dropDeleted removes what is left under prefixes without a live record; where
// there is one, what was deleted has been dropped before. The committer runs it
// alone.
func (s *Store) dropDeleted(prefixes [][]byte) error {
	// Rewriting the tables needs room; running out of it ends the process.
	if err := s.free.checkRewrite(time.Now()); err != nil {
		return err
	}
	wide, err := s.widen(prefixes)
	if err != nil {
		return err
	}
	for try := 0; len(wide) > 0; try++ {
		if err := s.putSentinels(wide); err != nil {
			return err
		}
		if err := s.dropPrefixes(wide...); err != nil {
			return err
		}
		var left uint64
		err = nil
		for _, p := range wide {
			_, n, serr := s.survey(p)
			left, err = left+n, errors.Join(err, serr)
		}
		if err == nil && left == 0 {
			break
		}
		if err == nil {
			err = fmt.Errorf("%d bytes of keys and values are left", left)
		}
		if try+1 == dropAttempts {
			return fmt.Errorf("%w: drop deleted records: %v; erase them again", ErrNotErased, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range prefixes {
		delete(s.awaiting, string(p))
	}
	return nil
}

// putSentinels puts one under each prefix: without a live key DropPrefix would
// pass it over.
func (s *Store) putSentinels(prefixes [][]byte) error {
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	for _, p := range prefixes {
		if err := txn.Set(append(bytes.Clone(p), 0xff), nil); err != nil {
			return s.stop(err)
		}
	}
	if err := s.finish(txn, nil); err != nil {
		return s.stop(err)
	}
	return nil
}

// widen leaves out the prefixes with a live record, and shortens the others as
// far as no live record of the scope is met, so that neighbours that go together
// become one: DropPrefix compares every key with every prefix.
func (s *Store) widen(prefixes [][]byte) (wide [][]byte, err error) {
	prefixes = slices.SortedFunc(slices.Values(prefixes), bytes.Compare)
	err = s.view(func(txn *badger.Txn) error {
		var above, below *badger.Iterator
		var space []byte
		end := func() {
			if above != nil {
				above.Close()
				below.Close()
			}
		}
		defer func() { end() }()
		for _, p := range prefixes {
			if own := p[:spaceLen(p)]; above == nil || !bytes.Equal(own, space) {
				end()
				o := badger.DefaultIteratorOptions
				o.Prefix, o.PrefetchValues = own, false
				above = txn.NewIterator(o)
				o.Reverse = true
				below = txn.NewIterator(o)
				space = own
			}
			next, last := neighbour(above, p), neighbour(below, p)
			if next != nil && bytes.HasPrefix(next, p) {
				continue
			}
			p = p[:max(len(space), min(len(p), 1+max(shared(next, p), shared(last, p))))]
			if n := len(wide); n == 0 || !bytes.HasPrefix(p, wide[n-1]) {
				wide = append(wide, bytes.Clone(p))
			}
		}
		return nil
	})
	return wide, err
}

// spaceLen is how much of a key in a scope stands before the first part: space,
// tenant, 00, scope, 00, kind.
func spaceLen(key []byte) int {
	tenant := bytes.IndexByte(key, 0) + 1
	return tenant + bytes.IndexByte(key[tenant:], 0) + 2
}

// neighbour is the live key nearest to p in the iterator's direction, p included;
// nil where there is none.
func neighbour(it *badger.Iterator, p []byte) []byte {
	for it.Seek(p); it.Valid(); it.Next() {
		if it.Item().ValueSize() > 0 {
			return it.Item().KeyCopy(nil)
		}
	}
	return nil
}

func shared(a, b []byte) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
