package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/menshen-io/menshen/index/scope"
)

// Erased says what EraseScope removed.
type Erased struct {
	// Head of the scope at its end: how many records there were, and their digest.
	Head Head
	// Bytes of their keys and sealed values, with those of older versions that
	// were still there.
	Bytes uint64
	// Scan of the files afterwards; the records were out of the database before.
	Scan Scan
}

// EraseScope removes every record of a scope from the database and its bytes
// from the files, and makes sure of both: no key of any version is left, and no
// file of the database holds any of the sealed records that it removed. Call it
// after the scope's key was destroyed, which alone keeps late mutations out. Writes of
// all scopes wait while the records are dropped, not while they are counted and
// the files are read.
//
// settle, if not nil, gives records of the system space that become durable in
// the transaction that ends the erasure. Until then the store remembers what it
// removed, so that repeating the call after a crash or an error goes on and says
// the same. After the end a repetition finds no records, searches the files for the
// scope's keys, and settles again.
//
// Badger's DropPrefix skips a prefix that has no live key, leaving deleted
// records in the files and returning nil; so a sentinel is put under the prefix
// first, and nothing is deleted before. It also returns nil when its compaction
// fails; so the result is looked at.
//
// Errors: ErrNotErased (call it again), ErrNoSpace, ErrFailed, ErrClosed, or that of ctx,
// after which the erasure may still go on.
func (s *Store) EraseScope(ctx context.Context, ref scope.Ref, settle func(Erased) []Record) (Erased, error) {
	if err := ref.Validate(); err != nil {
		return Erased{}, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	var note erasing
	if err := s.wait(ctx, &op{run: func() (err error) {
		// Rewriting the tables needs room; running out of it ends the process.
		if err = s.free.checkRewrite(time.Now()); err == nil {
			note, err = s.beginErasure(ref)
		}
		return err
	}}); err != nil {
		return Erased{}, err
	}
	var list []uint64
	if note.begun {
		s.opt.failpoint("store/erase/begun")
		var size uint64
		var err error
		if list, size, err = s.survey(scopePrefix(ref)); err != nil {
			return Erased{}, err
		}
		list = s.remember(ref, list)
		if note.bytes == 0 {
			note.bytes = size
		}
		if err := s.wait(ctx, &op{run: func() error { return s.drop(ref, note) }}); err != nil {
			return Erased{}, err
		}
		s.opt.failpoint("store/erase/dropped")
	}
	done := Erased{Head: note.head, Bytes: note.bytes}
	// The files are read outside the committer, so that writes go on. The scope's
	// prefix stands in logs and in most blocks of tables: it is searched for because
	// an erasure that goes on after a crash does not know all needles.
	var err error
	if done.Scan, err = s.absent(ctx, list, scopePrefix(ref)); err != nil {
		return Erased{}, err
	}
	s.opt.failpoint("store/erase/scanned")
	var o *op
	if settle != nil {
		if puts := settle(done); len(puts) > 0 {
			o = s.prepare(Mutation{Puts: puts, Reserve: true})
			if o.err != nil {
				return Erased{}, o.err
			}
		}
	}
	if err := s.wait(ctx, &op{run: func() error { return s.endErasure(ref, o) }}); err != nil {
		return Erased{}, err
	}
	return done, nil
}

// erasing is the note of an erasure in progress: what there was when it began.
type erasing struct {
	begun bool
	head  Head
	bytes uint64 // 0: not counted yet
}

func (e erasing) encode() []byte { return binary.BigEndian.AppendUint64(e.head.encode(), e.bytes) }

func parseErasing(b []byte) (erasing, error) {
	if len(b) != headLen+8 {
		return erasing{}, fmt.Errorf("%w: the note of an erasure has %d bytes", ErrDamaged, len(b))
	}
	head, err := parseHead(b[:headLen])
	return erasing{true, head, binary.BigEndian.Uint64(b[headLen:])}, err
}

// dropAttempts is how often DropPrefix is tried before the caller hears of it.
const dropAttempts = 3

// remember adds to what was seen of a scope whose erasure has not ended, and
// returns all of it.
func (s *Store) remember(ref scope.Ref, list []uint64) []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.unproven[ref]; len(old) > 0 {
		list = append(list, old...)
		sortPaced(list)
		list = slices.Compact(list)
	}
	s.unproven[ref] = list
	return slices.Clone(list)
}

// beginErasure notes the erasure and deletes the scope's head, unless that was
// done before: from here on, a crash is followed by the rest. It does nothing
// where there is nothing.
func (s *Store) beginErasure(ref scope.Ref) (erasing, error) {
	value, err := s.raw(refKey(spaceErasing, ref))
	if err == nil {
		return parseErasing(value)
	} else if !errors.Is(err, ErrNotFound) {
		return erasing{}, err
	}
	head, ok := s.heads[ref]
	if !ok {
		return erasing{}, nil
	}
	note := erasing{begun: true, head: head}
	return note, s.noteErasure(ref, note)
}

// noteErasure writes the note and the sentinel.
func (s *Store) noteErasure(ref scope.Ref, note erasing) error {
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	err := txn.Set(scopePrefix(ref), nil)
	if err == nil {
		err = txn.Set(refKey(spaceErasing, ref), note.encode())
	}
	if err == nil {
		err = s.finish(txn, map[scope.Ref]Head{ref: {}})
	}
	if err != nil {
		return s.stop(err)
	}
	return nil
}

// drop removes the keys of a scope. The committer runs it alone.
func (s *Store) drop(ref scope.Ref, note erasing) error {
	prefix := scopePrefix(ref)
	var err error
	for range dropAttempts {
		if err = s.noteErasure(ref, note); err != nil {
			return err
		}
		if err = s.dropPrefixes(prefix); err != nil {
			return err
		}
		var left uint64
		if _, left, err = s.survey(prefix); err == nil && left == 0 {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%d bytes of keys and values are left", left)
		}
	}
	return fmt.Errorf("%w: %s: %w; erase it again", ErrNotErased, ref, err)
}

// dropPrefixes is Badger's DropPrefix; the committer runs it alone. When that
// fails, it may have freed memory tables that it still reads and writes, or have
// none at all: whatever touched the database next would end the process. So
// nothing does, and the next start finishes what was begun.
func (s *Store) dropPrefixes(prefixes ...[]byte) error {
	if err := s.canOpen(filesOfDrop); err != nil {
		return fmt.Errorf("%w: %w; raise the limit of open files", ErrNotErased, err)
	}
	s.opt.failpoint("store/drop")
	s.drops.Add(1)
	if err := guard(func() error { return s.db.DropPrefix(prefixes...) }); err != nil {
		s.torn.Store(true)
		return s.stop(fmt.Errorf("drop records: %w", err))
	}
	return nil
}

// filesOfDrop is more than DropPrefix opens at once: a table for each memory table
// and each of a compaction's writers, and a new log.
const filesOfDrop = 16

// canOpen says whether the process may open n more files.
func (s *Store) canOpen(n int) error {
	for range n {
		f, err := os.Open(s.opt.Dir)
		if err != nil {
			return err
		}
		defer f.Close()
	}
	return nil
}

// endErasure forgets the note, once the bytes are known to be gone, and writes o.
func (s *Store) endErasure(ref scope.Ref, o *op) error {
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	st := staging{store: s, txn: txn, heads: map[scope.Ref]Head{}}
	err := txn.Delete(refKey(spaceErasing, ref))
	if err == nil && o != nil {
		err = st.write(o)
	}
	if err == nil {
		err = s.finish(txn, st.heads)
	}
	if err != nil {
		return s.stop(err)
	}
	s.mu.Lock()
	delete(s.unproven, ref)
	s.mu.Unlock()
	return nil
}

// survey lists how the values under a prefix begin, those of deleted and replaced
// versions included, and adds up the bytes of keys and values.
func (s *Store) survey(prefix []byte) (list []uint64, size uint64, err error) {
	err = s.view(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = prefix
		o.PrefetchValues = false
		o.AllVersions = true
		it := txn.NewIterator(o)
		defer it.Close()
		var p pace
		for it.Rewind(); it.Valid(); it.Next() {
			p.step()
			item := it.Item()
			err := item.Value(func(v []byte) error {
				if w, ok := needleOf(v); ok {
					list = append(list, w)
				}
				size += uint64(len(item.Key()) + len(v))
				return nil
			})
			if err != nil {
				return fromBadger(err)
			}
		}
		return nil
	})
	return list, size, err
}
