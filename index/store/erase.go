package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/menshen-io/menshen/index/scope"
)

// Erased says what EraseScope removed. A call that found the scope erased
// already counts nothing.
type Erased struct {
	// Records that were live: subjects, templates, requests.
	Records uint64
	// Bytes of their keys and sealed values, with those of older versions that were still there.
	Bytes uint64
}

// EraseScope removes every record of a scope from the database and its bytes
// from the files, and makes sure of both: no key of any version is left, and no
// file of the database holds any of the sealed records that it removed. Call it after the scope's key
// was destroyed, which alone keeps late mutations out. Writes of all scopes wait
// while it runs. It may be repeated, and goes on where a crash or an error
// interrupted it; so does Open.
//
// Badger's DropPrefix skips a prefix that has no live key, leaving deleted
// records in the files and returning nil; so a sentinel is put under the prefix
// first, and nothing is deleted before. It also returns nil when its compaction
// fails; so the result is looked at.
//
// Errors: ErrNotErased (call it again), ErrNoSpace, ErrFailed, ErrClosed, or that of ctx,
// after which the erasure may still go on.
func (s *Store) EraseScope(ctx context.Context, ref scope.Ref) (Erased, error) {
	if err := ref.Validate(); err != nil {
		return Erased{}, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	var e erasure
	if err := s.wait(ctx, &op{run: func() (err error) {
		// Rewriting the tables needs room; running out of it ends the process.
		if err = s.free.check(time.Now(), true); err == nil {
			e, err = s.drop(ref)
		}
		return err
	}}); err != nil {
		return Erased{}, err
	}
	if e.nothing {
		return Erased{}, nil
	}
	// The files are read outside the committer, so that writes go on.
	if err := s.absent(ctx, e.needles); err != nil {
		return Erased{}, err
	}
	if err := s.wait(ctx, &op{run: func() error { return s.endErasure(ref) }}); err != nil {
		return Erased{}, err
	}
	return e.Erased, nil
}

// erasure is what drop did.
type erasure struct {
	Erased
	nothing bool // there was nothing to do
	needles needles
}

// dropAttempts is how often DropPrefix is tried before the caller hears of it.
const dropAttempts = 3

// drop removes the keys of a scope. The committer, or Open, runs it alone.
func (s *Store) drop(ref scope.Ref) (erasure, error) {
	prefix := scopePrefix(ref)
	e := erasure{needles: newNeedles()}
	if unproven, ok := s.unproven[ref]; ok {
		// A copy: the call that gathered them may still be reading files.
		e.needles = needles{maps.Clone(unproven.set), slices.Clone(unproven.bitmap)}
	}
	if err := s.survey(prefix, &e); err != nil {
		return e, err
	}
	s.unproven[ref] = e.needles
	_, err := s.raw(refKey(spaceErasing, ref))
	begun := err == nil
	_, hasHead := s.heads[ref]
	if !begun && !hasHead && e.Bytes == 0 {
		e.nothing = true
		delete(s.unproven, ref)
		return e, nil
	}
	for range dropAttempts {
		if err := s.beginErasure(ref); err != nil {
			return e, s.stop(err)
		}
		if err = s.db.DropPrefix(prefix); err != nil {
			err = fmt.Errorf("drop the records: %v", err)
			continue
		}
		var left erasure
		if err = s.survey(prefix, &left); err != nil {
			continue
		}
		if left.Bytes == 0 {
			return e, nil
		}
		err = fmt.Errorf("%d bytes of keys and values are left", left.Bytes)
	}
	return e, fmt.Errorf("%w: %s: %w; erase it again", ErrNotErased, ref, err)
}

// beginErasure notes the erasure and deletes the scope's head, in the
// transaction that puts the sentinel: from here on, a crash is followed by the rest.
func (s *Store) beginErasure(ref scope.Ref) error {
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	if err := txn.Set(scopePrefix(ref), nil); err != nil {
		return err
	}
	if err := txn.Set(refKey(spaceErasing, ref), nil); err != nil {
		return err
	}
	return s.finish(txn, map[scope.Ref]Head{ref: {}})
}

// endErasure forgets the note, once the bytes are known to be gone.
func (s *Store) endErasure(ref scope.Ref) error {
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	if err := txn.Delete(refKey(spaceErasing, ref)); err != nil {
		return err
	}
	if err := s.finish(txn, nil); err != nil {
		return s.stop(err)
	}
	delete(s.unproven, ref)
	return nil
}

// finishErasures goes on with what a crash interrupted, as part of Open.
func (s *Store) finishErasures() error {
	var refs []scope.Ref
	err := s.scan([]byte{spaceErasing}, false, func(key, _ []byte) error {
		ref, err := parseRefKey(key)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		refs = append(refs, ref)
		return nil
	})
	if err != nil {
		return err
	}
	if len(refs) == 0 {
		return nil
	}
	if err := s.free.check(time.Now(), true); err != nil {
		s.log.Error("erasures that were interrupted wait for disk space", "scopes", len(refs), "error", err)
		return nil
	}
	for _, ref := range refs {
		e, err := s.drop(ref)
		if err == nil {
			err = s.absent(context.Background(), e.needles)
		}
		if err == nil {
			err = s.endErasure(ref)
		}
		if err != nil {
			return err
		}
		s.log.Warn("finished an erasure that was interrupted", "scope", ref.String(), "records", e.Records)
	}
	return nil
}

// survey counts what stands under a prefix, deleted and replaced versions
// included, and remembers how the values begin.
func (s *Store) survey(prefix []byte, e *erasure) error {
	return s.view(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = prefix
		o.PrefetchValues = false
		o.AllVersions = true
		it := txn.NewIterator(o)
		defer it.Close()
		var last []byte
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			newest := string(last) != string(item.Key())
			last = append(last[:0], item.Key()...)
			if newest && !item.IsDeletedOrExpired() && len(last) > len(prefix) {
				e.Records++
			}
			err := item.Value(func(v []byte) error {
				e.Bytes += uint64(len(last) + len(v))
				e.needles.add(v)
				return nil
			})
			if err != nil {
				return fromBadger(err)
			}
		}
		return nil
	})
}

// needles are the beginnings of sealed values: the first 8 bytes of each nonce,
// random and so found by chance in no other place. A bitmap over their last 24
// bits, 2 MiB, settles most positions of a file without the map.
type needles struct {
	set    map[uint64]struct{}
	bitmap []uint64
}

func newNeedles() needles {
	return needles{set: map[uint64]struct{}{}, bitmap: make([]uint64, 1<<18)}
}

// add remembers a stored value. One that is too short to be sealed has nothing to hide.
func (n needles) add(value []byte) {
	if len(value) < 1+24 || n.set == nil {
		return
	}
	w := binary.BigEndian.Uint64(value[1:])
	n.set[w] = struct{}{}
	n.bitmap[w>>6&(1<<18-1)] |= 1 << (w & 63)
}

// absentPatience is how long a file that should be gone may still be there: a
// reader that began before the erasure keeps the tables that it reads.
const absentPatience = 10 * time.Second

// absent makes sure that no file of the database holds a needle.
func (s *Store) absent(ctx context.Context, n needles) error {
	if len(n.set) == 0 {
		return nil
	}
	deadline := time.Now().Add(absentPatience)
	for {
		found, err := n.inFiles(s.dir)
		if err != nil {
			return fmt.Errorf("%w: read the files: %w", ErrNotErased, err)
		}
		if found == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %s still holds a removed record; erase the scope again", ErrNotErased, found)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// inFiles names the first file of a folder that holds a needle.
func (n needles) inFiles(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	buf := make([]byte, 1<<20)
	for _, entry := range entries {
		f, err := os.Open(filepath.Join(dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // compacted away meanwhile
		} else if err != nil {
			return "", err
		}
		found, err := n.inReader(f, buf)
		f.Close()
		if err != nil {
			return "", err
		}
		if found {
			return entry.Name(), nil
		}
	}
	return "", nil
}

// inReader reports whether a needle stands at any position.
func (n needles) inReader(r io.Reader, buf []byte) (bool, error) {
	var w uint64
	for {
		got, err := r.Read(buf)
		for _, b := range buf[:got] {
			w = w<<8 | uint64(b)
			if n.bitmap[w>>6&(1<<18-1)]&(1<<(w&63)) == 0 {
				continue
			}
			if _, ok := n.set[w]; ok {
				return true, nil
			}
		}
		if err == io.EOF {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
}
