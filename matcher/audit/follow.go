package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/menshen-io/menshen/matcher/signing"
)

// lookEvery is how often Follow looks for new records. Decisions are written every
// flushEvery.
const lookEvery = 200 * time.Millisecond

// End is the position of a chain's last record; 0 where there is none.
func (l *Log) End(name string) uint64 {
	l.Collect()
	l.mu.RLock()
	c := l.chains[name]
	l.mu.RUnlock()
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end.Position
}

// SignHead signs a checkpoint of one chain as it stands now, decisions that wait
// included, for the caller to keep: unlike Checkpoint it writes nothing.
func (l *Log) SignHead(name string) (Signed, error) {
	if !validChain(name) {
		return Signed{}, fmt.Errorf("sign a checkpoint: there is no chain %q", name)
	}
	if _, decisions := decisionsOf(name); decisions {
		if err := l.flush(); err != nil {
			return Signed{}, err
		}
	}
	l.Collect()
	l.mu.RLock()
	c := l.chains[name]
	l.mu.RUnlock()
	head := Head{Chain: name, Hash: genesis(name)}
	if c != nil {
		var err error
		if head, err = c.head(); err != nil {
			return Signed{}, err
		}
	}
	cp := Checkpoint{Head: head, Time: l.opt.Clock()}
	doc, err := cp.sign(l.opt.Key)
	return Signed{cp, doc}, err
}

// Follow is Read that goes on: at the end of the chain it waits for more, until
// ctx ends, whose cause is then its error. What was pruned before it was read is
// passed over.
func (l *Log) Follow(ctx context.Context, q Query) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if !validChain(q.Chain) {
			yield(Record{}, fmt.Errorf("read the audit log: there is no chain %q", q.Chain))
			return
		}
		f := follower{log: l, q: q, after: q.After}
		defer f.close()
		look := time.NewTicker(lookEvery)
		defer look.Stop()
		for f.catchUp(ctx, yield) {
			select {
			case <-look.C:
			case <-ctx.Done():
				yield(Record{}, context.Cause(ctx))
				return
			}
		}
	}
}

// follower is where a Follow stands: behind a position, in a segment that is kept
// open, so that a look costs no more than what is new.
type follower struct {
	log   *Log
	q     Query
	after uint64
	seg   *segment
}

func (f *follower) close() {
	if f.seg != nil {
		f.seg.close()
		f.seg = nil
	}
}

// catchUp gives what is there; false: no more is wanted.
func (f *follower) catchUp(ctx context.Context, yield func(Record, error) bool) bool {
	f.log.Collect()
	f.log.mu.RLock()
	c := f.log.chains[f.q.Chain]
	f.log.mu.RUnlock()
	if c == nil {
		return true
	}
	heads, size := c.snapshot()
	fail := func(err error) bool {
		yield(Record{}, fmt.Errorf("read the audit log %s: %w", c.name, err))
		return false
	}
	for i, h := range heads {
		last := i == len(heads)-1
		if f.seg != nil && f.seg.head.first > h.first || f.seg == nil && !last && heads[i+1].first <= f.after+1 {
			continue
		}
		bound := int64(-1)
		if last {
			bound = size
		}
		var err error
		if f.seg != nil && f.seg.head.first != h.first {
			f.close() // the one before this, read to its end below, or pruned
		}
		if f.seg == nil {
			f.seg, err = openSegment(filepath.Join(c.dir, h.name()), bound)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
		} else {
			err = f.seg.extend(bound)
		}
		if err != nil {
			return fail(err)
		}
		goOn := f.seg.read(ctx, f.after, f.q.wants, c.name, yield)
		f.after = max(f.after, f.seg.at-1)
		if !goOn {
			return false
		}
		if !last {
			f.close()
		}
	}
	return true
}

// PublicKeys are those that verify what the log signed, the present one first.
func (l *Log) PublicKeys() []signing.PublicKey {
	own := l.opt.Key.Public()
	keys := []signing.PublicKey{own}
	for _, id := range slices.Sorted(maps.Keys(l.opt.Keys)) {
		if id != own.ID() {
			keys = append(keys, l.opt.Keys[id])
		}
	}
	return keys
}
