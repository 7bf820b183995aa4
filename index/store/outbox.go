package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// The outbox holds what mutations leave for another keeper, such as the act of a
// change for the audit log: Mutation.Post, durable in the mutation's own
// transaction, all posts of a transaction in one record of the system space. Who
// is to have them takes what EachPost shows, makes it durable elsewhere and says so with
// Settle; the record then goes with a later transaction. A crash in between shows
// a parcel again, so that the taker must know what it has.

// MaxPostBytes is the longest Mutation.Post.
const MaxPostBytes = 2 << 10

// tidyAfter is how long the records of settled parcels wait for a transaction that
// takes them along, before they get one of their own.
const tidyAfter = time.Second

// parcel is the posts of one transaction, in the order of its mutations.
type parcel struct {
	number uint64 // of the transaction
	posts  [][]byte
}

type outbox struct {
	mu      sync.Mutex
	parcels []parcel // that wait, oldest first
	settled []uint64 // whose records are to go
	tidying bool     // a timer runs
}

// postKey is where the posts of a transaction stand.
func postKey(number uint64) Key { return Key{Kind: KindPost, ID: fmt.Sprintf("%016x", number)} }

// EachPost calls fn with the posts of every transaction that were not settled, the
// oldest first; those of mutations whose done was called are among them. fn must
// not change them, nor call the store.
func (s *Store) EachPost(fn func(number uint64, posts [][]byte)) {
	s.outbox.mu.Lock()
	waiting := slices.Clone(s.outbox.parcels)
	s.outbox.mu.Unlock()
	for _, p := range waiting {
		fn(p.number, p.posts)
	}
}

// Settle says that the posts of these transactions are durable elsewhere. Their
// records go with a later transaction, or after a second by themselves.
func (s *Store) Settle(numbers []uint64) {
	if len(numbers) == 0 {
		return
	}
	o := &s.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	slices.Sort(numbers)
	o.parcels = slices.DeleteFunc(o.parcels, func(p parcel) bool {
		_, ok := slices.BinarySearch(numbers, p.number)
		if ok {
			o.settled = append(o.settled, p.number)
		}
		return ok
	})
	if !o.tidying {
		o.tidying = true
		time.AfterFunc(tidyAfter, s.tidy)
	}
}

// tidy has the committer remove settled parcels, if no transaction took them along.
// Where the queue is full there is one soon.
func (s *Store) tidy() {
	o := &s.outbox
	o.mu.Lock()
	o.tidying = false
	left := len(o.settled) > 0
	o.mu.Unlock()
	if !left {
		return
	}
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return // the committer does it at its end
	}
	select {
	case s.queue <- tidying():
	default:
	}
}

// tidyAll removes all settled parcels, as far as that can be done. The committer runs
// it.
func (s *Store) tidyAll() {
	for before := -1; ; {
		s.outbox.mu.Lock()
		left := len(s.outbox.settled)
		s.outbox.mu.Unlock()
		if left == 0 || left == before {
			return // or the disk is full: they are shown again when the store is opened
		}
		before = left
		s.commitGroup([]*op{tidying()})
	}
}

// tidying is an op that changes nothing but what every transaction does.
func tidying() *op { return &op{size: recordOverhead, done: func(error) {}} }

// due are the settled parcels whose records the next transaction deletes: so many
// that their deletion stays a small part of it.
func (o *outbox) due() []uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.settled[:min(len(o.settled), groupMutations)])
}

// committed notes what a transaction put into the outbox and what it deleted.
func (o *outbox) committed(p parcel, deleted int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(p.posts) > 0 {
		o.parcels = append(o.parcels, p)
	}
	o.settled = slices.Delete(o.settled, 0, deleted)
}

// parcel puts the posts of a transaction into it, and the deletions that are due.
func (st *staging) parcel(p parcel, due []uint64) error {
	o := &op{}
	for _, number := range due {
		key, err := postKey(number).encode()
		if err != nil {
			return err
		}
		o.deletes = append(o.deletes, del{key, KindPost})
	}
	if len(p.posts) > 0 {
		plain := joinPosts(p.posts)
		k := postKey(p.number)
		key, err := k.encode()
		if err != nil {
			return err
		}
		value, err := st.store.seal(k, key, plain)
		if err != nil {
			return err
		}
		var d Digest
		d, st.scratch = digestOf(st.scratch, key, value)
		o.sets = append(o.sets, set{key, value, d, KindPost})
	}
	if len(o.sets)+len(o.deletes) == 0 {
		return nil
	}
	return st.write(o)
}

// readOutbox finds what was not settled before the store was closed, or crashed.
func (s *Store) readOutbox() error {
	records, err := s.List(Key{Kind: KindPost}, "", 0)
	if err != nil {
		return err
	}
	for _, r := range records {
		p := parcel{}
		_, err := fmt.Sscanf(r.Key.ID, "%016x", &p.number)
		if err == nil {
			p.posts, err = splitPosts(r.Value)
		}
		if err != nil || postKey(p.number) != r.Key {
			return fmt.Errorf("%w: %s: %v", ErrDamaged, r.Key, err)
		}
		s.outbox.parcels = append(s.outbox.parcels, p)
	}
	return nil
}

// joinPosts puts posts one after another, each as the number of bytes that it begins
// with as the one before does, and its rest with its length: those of a
// transaction are alike.
func joinPosts(posts [][]byte) (b []byte) {
	var last []byte
	for _, p := range posts {
		n := shared(last, p)
		b = binary.AppendUvarint(b, uint64(n))
		b = append(binary.AppendUvarint(b, uint64(len(p)-n)), p[n:]...)
		last = p
	}
	return b
}

func splitPosts(b []byte) (posts [][]byte, err error) {
	var last []byte
	for len(b) > 0 {
		same, size := binary.Uvarint(b)
		rest, more := binary.Uvarint(b[max(size, 0):])
		if size <= 0 || more <= 0 || same > uint64(len(last)) || rest > uint64(len(b)-size-more) || same+rest > MaxPostBytes {
			return nil, errors.New("its posts do not parse")
		}
		b = b[size+more:]
		last = slices.Concat(last[:same], b[:rest])
		posts = append(posts, last)
		b = b[rest:]
	}
	return posts, nil
}
