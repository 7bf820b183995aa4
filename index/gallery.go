// Package index keeps galleries in memory and searches them.
//
// A Gallery holds the templates of one scope and nothing else: searching means
// walking one gallery, and the grant is checked here, where the rows are read.
// The package promises that
//
//   - a search sees one snapshot: all of every Apply before it, nothing of a
//     later one, and it sees all of it or returns an error;
//   - an expired subject neither matches nor takes a live one's place, from the
//     instant of its expiry on;
//   - the result is that of comparing every live template: distinct subjects,
//     best template each, ties in a fixed order;
//   - a removed code is overwritten as soon as no search can see it any more,
//     and Drop returns when all codes are;
//   - no search begun before Drop gives a result after it.
//
// It does not authenticate, does not decide, keeps nothing on disk and does not
// sweep expired subjects away: the matcher does, through Apply.
package index

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-io/menshen/index/scope"
)

// Errors of changes. Callers match them with errors.Is.
var (
	// ErrDuplicate: an Insert of a template number that the subject has.
	ErrDuplicate = errors.New("template exists already")
	// ErrEpoch: a Change older than what the gallery has applied.
	ErrEpoch = errors.New("change out of order")
)

// Errors of searches.
var (
	// ErrDropped: the scope was revoked and its gallery destroyed.
	ErrDropped = errors.New("gallery is gone")
	// ErrK: a search for fewer than 1 or more than MaxK candidates.
	ErrK = errors.New("number of candidates out of range")
	// ErrQuery: a query without a time, or with a threshold that is not a number.
	ErrQuery = errors.New("incomplete query")
)

// Gallery is the searchable templates of one scope. All methods may be called
// at any time from any goroutine. Changes are applied one after the other under
// a lock that searches do not take.
//
// A gallery of an Index is scanned by the index's workers, unless it is small
// (SmallGallery); one that stands alone, by the goroutine that searches.
type Gallery struct {
	ref        scope.Ref
	dim        int
	shardRows  int // shardRows but in tests
	filterRows int // the least capacity of a shard with prefilter; likewise
	small      int // SmallGallery; likewise
	stepRows   int // stepRows; likewise

	current atomic.Pointer[snapshot]
	dropped atomic.Bool
	crew    atomic.Pointer[crew] // see scanner
	lane    lane                 // of the scanner
	filter  *filter

	// writer is held by Apply, Drop, Check and the compactor. It is taken before lock.
	writer sync.Mutex
	tail   int    // slot of the shard that rows are appended to, or -1
	edits  uint64 // how many there were
	sparse []int  // slots of shards that the compactor is to empty
	queued bool   // it knows

	// lock guards the table and the step from one snapshot to the next, so that
	// holding it shows table and snapshot in step.
	lock     sync.RWMutex
	table    table
	subjects int
}

// NewGallery makes an empty gallery for codes of dim values, at epoch 0. A dim
// that code.CheckDim refuses gives a gallery that refuses every code.
func NewGallery(ref scope.Ref, dim int) *Gallery {
	g := &Gallery{ref: ref, dim: dim, shardRows: shardRows, filterRows: shardRows, small: SmallGallery, stepRows: stepRows, tail: -1, table: newTable(), filter: newFilter(max(dim, 2))}
	g.lane.gallery = g
	s := newSnapshot(0, nil, 0, 0)
	s.settled.Store(true)
	s.holds.Store(1) // there is no older one
	g.current.Store(s)
	return g
}

// scanner is what searches the gallery: that of the index, or one without
// workers.
func (g *Gallery) scanner() *scanner {
	if g.crew.Load() == nil {
		g.crew.CompareAndSwap(nil, newCrew(0))
	}
	return g.crew.Load().scanner
}

// Ref is the scope that the gallery belongs to.
func (g *Gallery) Ref() scope.Ref { return g.ref }

// Dim is the number of values of every code in the gallery.
func (g *Gallery) Dim() int { return g.dim }

// Apply does the changes in order and publishes them as one snapshot: a search
// sees all of them or none. After an error the gallery is as it was. Errors wrap
// ErrEpoch (a Change may repeat the last epoch, so that a large scope can be
// loaded in parts), ErrDuplicate, scope.ErrBadID, code.ErrDimension,
// code.ErrCode or ErrDropped.
func (g *Gallery) Apply(changes ...Change) error {
	g.writer.Lock()
	defer g.writer.Unlock()
	if g.dropped.Load() {
		return fmt.Errorf("%w: changes to %s come too late", ErrDropped, g.ref)
	}
	if len(changes) == 0 {
		return nil
	}
	e := g.newEdit(changes)
	for i, c := range changes {
		if err := e.apply(c); err != nil {
			e.abandon()
			e.end()
			return fmt.Errorf("change %d of %d to %s, none applied: %w", i+1, len(changes), g.ref, err)
		}
	}
	e.compact()
	e.publish()
	e.end()
	g.askCompactor()
	return nil
}

// Drop destroys the gallery. Once it has returned, no search starts or finishes
// with a result, every code that the gallery ever held is overwritten with
// zeros, and its memory is free to be collected. It waits for searches in
// flight, which notice within one shard's scan and fail with ErrDropped. It is
// idempotent; a second call waits for the first.
func (g *Gallery) Drop() {
	g.writer.Lock()
	current := g.current.Load()
	if !g.dropped.Load() {
		g.dropped.Store(true)
		last := newSnapshot(current.epoch, nil, 0, 0)
		last.left = make(chan struct{})
		current.next = last
		for _, v := range current.shards {
			if v.shard != nil {
				current.retired = append(current.retired, v.shard)
			}
		}
		g.lock.Lock()
		g.table, g.subjects = newTable(), 0
		g.current.Store(last)
		g.lock.Unlock()
		g.tail, g.sparse = -1, nil
		current.release()
		current = last
	}
	g.writer.Unlock()
	<-current.left
}

// Dropped reports whether Drop has begun.
func (g *Gallery) Dropped() bool { return g.dropped.Load() }

// Epoch is that of the latest change.
func (g *Gallery) Epoch() scope.Epoch { return g.current.Load().epoch }

// Templates counts the templates, expired ones included until they are removed.
func (g *Gallery) Templates() int { return g.current.Load().live }

// Subjects counts the subjects, expired ones included until they are removed.
func (g *Gallery) Subjects() int {
	g.lock.RLock()
	defer g.lock.RUnlock()
	return g.subjects
}

// rowsOf appends the rows of a subject to refs. lock is held, and snap is the
// current snapshot.
func (g *Gallery) rowsOf(refs []rowRef, snap *snapshot, id scope.SubjectID) []rowRef {
	found := g.table.find(g.table.hash(id))
	for ref, ok := found.next(); ok; ref, ok = found.next() {
		if snap.shards[ref.slot()].name(ref.row()) == id {
			refs = append(refs, ref)
		}
	}
	return refs
}

// Live reports whether the subject is in the gallery and has not expired at
// now. It is the check to repeat just before an answer leaves. A zero now finds
// nobody.
func (g *Gallery) Live(id scope.SubjectID, now time.Time) bool {
	return g.Contains(id, 0, now)
}

// Contains reports whether one template of a live subject is in the gallery;
// template 0 asks for the subject as such.
func (g *Gallery) Contains(id scope.SubjectID, template scope.TemplateID, now time.Time) bool {
	if now.IsZero() {
		return false
	}
	var few [8]rowRef
	g.lock.RLock()
	defer g.lock.RUnlock()
	snap := g.current.Load() // which nobody wipes while it is current
	for _, ref := range g.rowsOf(few[:0], snap, id) {
		v, row := snap.shards[ref.slot()], ref.row()
		if expired(v.notAfter[row], instant(now)) {
			return false
		}
		if template == 0 || v.templates[row] == template {
			return true
		}
	}
	return false
}

// Subject returns the subject's template numbers in ascending order and its
// expiry (zero for never), whether or not it has passed. The slice is the
// caller's.
func (g *Gallery) Subject(id scope.SubjectID) (templates []scope.TemplateID, notAfter time.Time, ok bool) {
	g.lock.RLock()
	defer g.lock.RUnlock()
	snap := g.current.Load()
	for _, ref := range g.rowsOf(nil, snap, id) {
		v, row := snap.shards[ref.slot()], ref.row()
		templates = append(templates, v.templates[row])
		if until := v.notAfter[row]; until != never {
			notAfter = time.Unix(0, until).UTC()
		}
	}
	slices.Sort(templates)
	return templates, notAfter, len(templates) > 0
}

// Expired returns up to limit subjects that have expired at now, for a sweeper
// to remove, in no particular order.
func (g *Gallery) Expired(now time.Time, limit int) []scope.SubjectID {
	at := instant(now)
	snap, err := g.acquire()
	if err != nil {
		return nil
	}
	defer snap.release()
	var out []scope.SubjectID
	seen := make(map[scope.SubjectID]bool)
	for _, v := range snap.shards {
		for row := range v.rows {
			if len(out) >= limit {
				return out
			}
			if !v.alive(row) || !expired(v.notAfter[row], at) || seen[v.name(row)] {
				continue
			}
			// The caller may keep it for long: not a part of the shard's memory.
			id := scope.SubjectID(strings.Clone(string(v.name(row))))
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}

// Stats describes the memory of a gallery.
type Stats struct {
	Rows  int // rows in use, removed ones included until their shard is rewritten
	Live  int // rows that searches compare
	Bytes int // codes, prefilter and columns at their capacity
	Names int // bytes of the subjects' ids, and of the table that finds them
}

// Stats returns the figures of the current snapshot.
func (g *Gallery) Stats() Stats {
	g.lock.RLock()
	defer g.lock.RUnlock()
	s := g.current.Load()
	out := Stats{Live: s.live, Names: g.table.bytes()}
	for _, v := range s.shards {
		if v.shard != nil {
			out.Rows += v.rows
			out.Bytes += v.bytes() + 8*len(v.dead)
			out.Names += cap(v.arena)
		}
	}
	return out
}

// acquire leases the current snapshot; release it.
func (g *Gallery) acquire() (*snapshot, error) {
	for {
		if g.dropped.Load() {
			return nil, g.droppedError()
		}
		if s := g.current.Load(); s.lease() {
			return s, nil
		}
	}
}

func (g *Gallery) droppedError() error {
	return fmt.Errorf("%w: %s was revoked", ErrDropped, g.ref)
}
