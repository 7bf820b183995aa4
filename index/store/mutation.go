package store

import (
	"fmt"

	"github.com/menshen-io/menshen/index/scope"
)

// Record is a key and its value in clear.
type Record struct {
	Key   Key
	Value []byte
}

// Mutation is one change, durable whole or not at all.
type Mutation struct {
	// Ref is the scope that changes, or zero for the system space. The mutation
	// of a scope may put and delete records of the system space beside its own (the
	// scope's settings, a request), but none of another scope.
	Ref scope.Ref
	// Epoch of the scope after the mutation; above that of its last one. Not
	// used for the system space, which counts its own.
	Epoch scope.Epoch
	// Deletes come first. What is not there is passed over.
	Deletes []Key
	// Purge names what of the deleted records is to be removed by Store.Purge
	// soon, as Await does, once the mutation is durable. What is put in their place is
	// to be submitted after that.
	Purge []Key
	// Puts replace what is there. The values are sealed before Submit returns
	// and not kept.
	Puts []Record
	// Post, if it is not empty, is put into the outbox in the mutation's own
	// transaction: see EachPost. At most MaxPostBytes; the store keeps the slice.
	Post []byte
	// Reserve lets the mutation use the space that is kept free for it. For
	// revocation and erasure only.
	Reserve bool
}

// Limits of a mutation and of a group. A group is what one synced transaction
// holds; beyond a few hundred mutations its sync no longer dominates, and
// the first of them waits for the last.
const (
	// MaxValueBytes is the longest value of a record.
	MaxValueBytes     = 256 << 10
	groupMutations    = 512
	groupBytes        = 1 << 20
	groupPosts        = MaxValueBytes - groupMutations*4 // with their lengths one value
	recordOverhead    = 64                               // of a record in a transaction, beside key and value
	maxMutationPuts   = 4096
	maxMutationDelete = 16384
)

// op is a mutation made ready, or work that has the committer for itself.
type op struct {
	ref     scope.Ref
	epoch   scope.Epoch
	reserve bool
	sets    []set
	deletes []del
	post    []byte
	purge   [][]byte     // prefixes that wait for Purge afterwards
	size    int          // bytes in the transaction, roughly
	run     func() error // instead of a mutation
	err     error
	done    func(error)
}

// forget overwrites the sealed values, of which Badger has made copies by now.
func (o *op) forget() {
	for _, p := range o.sets {
		clear(p.value)
	}
}

type set struct {
	key, value []byte
	digest     Digest
	kind       Kind
}

type del struct {
	key  []byte
	kind Kind
}

// prepare checks and seals a mutation in the caller's goroutine, so that the
// work is spread over the processors and the committer has little to do. An
// error goes along with the op, to be reported in its turn.
func (s *Store) prepare(m Mutation) *op {
	o := &op{ref: m.Ref, epoch: m.Epoch, reserve: m.Reserve, post: m.Post}
	o.err = s.fill(o, m)
	return o
}

func (s *Store) fill(o *op, m Mutation) error {
	if m.Ref != (scope.Ref{}) {
		if err := m.Ref.Validate(); err != nil {
			return fmt.Errorf("%w: %w", ErrBadMutation, err)
		}
	} else if len(m.Puts)+len(m.Deletes) == 0 {
		return fmt.Errorf("%w: it changes nothing", ErrBadMutation)
	}
	if len(m.Puts) > maxMutationPuts || len(m.Deletes) > maxMutationDelete {
		return fmt.Errorf("%w: %d puts and %d deletes; at most %d and %d go into one mutation",
			ErrTooBig, len(m.Puts), len(m.Deletes), maxMutationPuts, maxMutationDelete)
	}
	if len(m.Post) > MaxPostBytes {
		return fmt.Errorf("%w: a post of %d bytes; at most %d are allowed", ErrTooBig, len(m.Post), MaxPostBytes)
	}
	o.size = 256 + len(m.Post) // heads and tip
	var err error
	if o.purge, err = purgePrefixes(m.Purge); err != nil {
		return err
	}
	place := func(k Key) ([]byte, error) {
		if k.Kind.inScope() && k.Ref != m.Ref {
			return nil, fmt.Errorf("%w: %s in a mutation of %s", ErrBadMutation, k, m.Ref)
		}
		return k.encode()
	}
	o.deletes = make([]del, 0, len(m.Deletes))
	for _, k := range m.Deletes {
		if k.Kind == KindRevocation {
			return fmt.Errorf("%w: %s", ErrPermanent, k)
		}
		key, err := place(k)
		if err != nil {
			return err
		}
		o.deletes = append(o.deletes, del{key, k.Kind})
		o.size += len(key) + recordOverhead
	}
	o.sets = make([]set, 0, len(m.Puts))
	var scratch []byte
	defer func() { clear(scratch[:cap(scratch)]) }()
	for _, r := range m.Puts {
		if len(r.Value) > MaxValueBytes {
			return fmt.Errorf("%w: %s has %d bytes; at most %d are allowed", ErrTooBig, r.Key, len(r.Value), MaxValueBytes)
		}
		key, err := place(r.Key)
		if err != nil {
			return err
		}
		value, err := s.seal(r.Key, key, r.Value)
		if err != nil {
			return err
		}
		var d Digest
		d, scratch = digestOf(scratch, key, value)
		o.sets = append(o.sets, set{key, value, d, r.Key.Kind})
		o.size += len(key) + len(value) + recordOverhead
	}
	if limit := int(s.db.MaxBatchSize() / 2); o.size > limit {
		return fmt.Errorf("%w: a mutation of %d bytes; at most %d go into one transaction", ErrTooBig, o.size, limit)
	}
	return nil
}

// aad is the associated data of a value: format version and place.
func aad(key []byte) []byte {
	return append([]byte{formatVersion}, key...)
}

func (s *Store) seal(k Key, key, plain []byte) ([]byte, error) {
	var sealed []byte
	var err error
	if k.Kind.inScope() {
		keys, kerr := s.keys.Keys(k.Ref)
		if kerr != nil {
			return nil, fmt.Errorf("seal %s: %w", k.Kind, kerr)
		}
		sealed, err = keys.Seal(plain, aad(key))
	} else {
		sealed, err = s.keys.System().Seal(plain, aad(key))
	}
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", k.Kind, err)
	}
	defer clear(sealed)
	return append([]byte{formatVersion}, sealed...), nil
}
