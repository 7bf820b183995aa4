package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"time"

	"github.com/menshen-io/menshen/index/scope"
)

// Query chooses records of one chain. Who may read which chain is the caller's
// matter: there is no query over several, so none can reach into another
// tenant's.
type Query struct {
	// Chain is ActsOf a tenant or DecisionsOf a scope.
	Chain string
	// After is the position to begin behind; 0: from the oldest.
	After uint64
	// From and To bound the time, From included, To not; zero: unbounded.
	From, To time.Time
	// Scope and Kinds choose; empty: all.
	Scope scope.ScopeID
	Kinds []Kind
}

func (q Query) wants(r *Record) bool {
	return (q.Scope == "" || r.Scope == q.Scope) &&
		(len(q.Kinds) == 0 || slices.Contains(q.Kinds, r.Kind)) &&
		(q.From.IsZero() || !r.Time.Before(q.From)) && (q.To.IsZero() || r.Time.Before(q.To))
}

// Read gives the records that a query chooses, oldest first, up to the end of the
// chain as it stands at the call, acts that wait in the outbox included; decisions are
// there once they were written.
// Hashes are checked on the way. An error, ErrDamaged or that of ctx or of the disk, ends it.
func (l *Log) Read(ctx context.Context, q Query) iter.Seq2[Record, error] {
	l.Collect()
	return l.scan(ctx, q, q.wants)
}

// scan is Read with its filter apart.
func (l *Log) scan(ctx context.Context, q Query, wants func(*Record) bool) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if !validChain(q.Chain) {
			yield(Record{}, fmt.Errorf("read the audit log: there is no chain %q", q.Chain))
			return
		}
		l.mu.RLock()
		c := l.chains[q.Chain]
		l.mu.RUnlock()
		if c == nil {
			return
		}
		heads, size := c.snapshot()
		for i, h := range heads {
			if i+1 < len(heads) && (heads[i+1].first <= q.After+1 || q.before(heads[i+1])) {
				continue
			}
			bound := int64(-1)
			if i+1 == len(heads) {
				bound = size
			}
			s, err := openSegment(filepath.Join(c.dir, h.name()), bound)
			if errors.Is(err, fs.ErrNotExist) {
				continue // pruned meanwhile
			}
			if err != nil {
				yield(Record{}, fmt.Errorf("read the audit log %s: %s: %w", c.name, h.name(), err))
				return
			}
			goOn := s.read(ctx, q.After, wants, c.name, yield)
			s.close()
			if !goOn {
				return
			}
		}
	}
}

// backwards is how far a clock may have been set back without records being passed
// over by a query for a time.
const backwards = time.Hour

// before reports whether everything before a segment is older than the query asks.
func (q Query) before(next header) bool {
	return !q.From.IsZero() && time.Unix(next.opened, 0).Add(backwards).Before(q.From)
}

// read gives a segment's records; false: the reader wants no more.
func (s *segment) read(ctx context.Context, after uint64, wants func(*Record) bool, chain string, yield func(Record, error) bool) bool {
	for {
		f, err := s.next()
		if errors.Is(err, io.EOF) {
			return true
		}
		if err == nil && !f.holds {
			err = errors.New("its hash does not hold")
		}
		at := s.at
		var r Record
		if err == nil && at > after {
			r, err = decodeRecord(f.payload)
		}
		if err != nil {
			yield(Record{}, fmt.Errorf("%w: %s: record %d: %w", ErrDamaged, chain, at, err))
			return false
		}
		if ctx.Err() != nil {
			yield(Record{}, context.Cause(ctx))
			return false
		}
		s.at++
		if at > after && wants(&r) && !yield(r, nil) {
			return false
		}
	}
}

// maxScan bounds the records that one List looks at: about 0.3 s.
const maxScan = 50_000

// List gives at most limit records, at least one, and the position to go on
// after; 0 when there are no more. Where few records are wanted of many there may be
// fewer than limit, or none, although there are more: it looks at maxScan at a time.
func (l *Log) List(ctx context.Context, q Query, limit int) (records []Record, next uint64, err error) {
	l.Collect()
	limit = max(limit, 1)
	looked := 0
	for r, err := range l.scan(ctx, q, func(*Record) bool { return true }) {
		if err != nil {
			return nil, 0, err
		}
		if len(records) == limit || looked == maxScan {
			return records, next, nil
		}
		looked++
		if next = r.Position; q.wants(&r) {
			records = append(records, r)
		}
	}
	return records, 0, nil
}
