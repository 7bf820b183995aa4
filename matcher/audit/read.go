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
	// Chain is ActsOf or DecisionsOf a tenant.
	Chain string
	// After is the position to begin behind; 0: from the oldest.
	After uint64
	// From and To bound the time, From included, To not; zero: unbounded.
	From, To time.Time
	// Scope and Kinds choose; empty: all.
	Scope scope.ScopeID
	Kinds []Kind
}

func (q *Query) wants(r *Record) bool {
	return (q.Scope == "" || r.Scope == q.Scope) &&
		(len(q.Kinds) == 0 || slices.Contains(q.Kinds, r.Kind)) &&
		(q.From.IsZero() || !r.Time.Before(q.From)) && (q.To.IsZero() || r.Time.Before(q.To))
}

// Read gives the records that a query chooses, oldest first, up to the end of the
// chain as it stands at the call; decisions are there once they were written.
// Hashes are checked on the way. An error, ErrDamaged or that of ctx or of the disk, ends it.
func (l *Log) Read(ctx context.Context, q Query) iter.Seq2[Record, error] {
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
			if i+1 < len(heads) && heads[i+1].first <= q.After+1 {
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
			goOn := s.read(ctx, &q, c.name, yield)
			s.close()
			if !goOn {
				return
			}
		}
	}
}

// read gives a segment's records; false: the reader wants no more.
func (s *segment) read(ctx context.Context, q *Query, chain string, yield func(Record, error) bool) bool {
	for at := s.head.first; ; at++ {
		f, err := s.next()
		if errors.Is(err, io.EOF) {
			return true
		}
		if err == nil && !f.holds {
			err = errors.New("its hash does not hold")
		}
		var r Record
		if err == nil && at > q.After {
			r, err = decodeRecord(f.payload)
		}
		if err != nil {
			yield(Record{}, fmt.Errorf("%w: %s: record %d: %w", ErrDamaged, chain, at, err))
			return false
		}
		if cerr := ctx.Err(); cerr != nil {
			yield(Record{}, cerr)
			return false
		}
		if at > q.After && q.wants(&r) && !yield(r, nil) {
			return false
		}
	}
}

// List gives at most limit records, at least one, and the position to go on
// after; 0 when there are no more.
func (l *Log) List(ctx context.Context, q Query, limit int) (records []Record, next uint64, err error) {
	limit = max(limit, 1)
	for r, err := range l.Read(ctx, q) {
		if err != nil {
			return nil, 0, err
		}
		if len(records) == limit {
			return records, records[limit-1].Position, nil
		}
		records = append(records, r)
	}
	return records, 0, nil
}
