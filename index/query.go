package index

import (
	"context"
	"fmt"
	"time"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/kernel"
	"github.com/menshen-io/menshen/index/scope"
)

// MaxK is the most candidates that one search returns.
const MaxK = 100

// NoScore is the score where nothing was compared; it lies below every score.
const NoScore code.Score = -2

// Query is one probe. Its Code must have been encoded with the rotation of the
// gallery's scope: under another it matches nobody.
type Query struct {
	Code      code.Code
	K         int            // most candidates, 1..MaxK; Verify ignores it
	Threshold code.Threshold // least score of a candidate; Verify ignores it
	Now       time.Time      // at which expiry is judged; must be set
	// WantBest asks for Result.Best below the threshold too. A search that need
	// not know passes most templates by on a glance; this one compares all.
	WantBest bool
}

// Candidate is one subject and the template of it that is most like the probe.
type Candidate struct {
	Subject  scope.SubjectID
	Template scope.TemplateID
	Score    code.Score
}

// Result is the answer to an Identify.
type Result struct {
	// Candidates holds distinct subjects whose score reaches the threshold, at
	// most K, best first; equal scores in the order of the subjects' ids.
	// Template is the best one of the subject, the lowest number among equals.
	Candidates []Candidate
	// Best is the best score of any live template. Where it lies below the
	// threshold it is known with Query.WantBest, and in galleries of at most
	// SmallGallery templates; otherwise it is NoScore, as it is when there is
	// no live template.
	Best    code.Score
	Epoch   scope.Epoch // of the snapshot that was searched
	Scanned int         // templates searched, expired ones included
	Work    Work        // what it took; differs from one search to the next
}

// Work says what a search did, for measurements. Rows are counted by shards, dead
// ones included.
type Work struct {
	Glanced  int // rows whose coarse copy was looked at
	Passed   int // of these, whom the prefilter could not rule out
	Compared int // rows compared in full, those that passed included
	Shards   int
	Tasks    int // pieces that workers took; 0 where the caller scanned by itself
}

// Add adds up several searches.
func (w *Work) Add(v Work) {
	w.Glanced += v.Glanced
	w.Passed += v.Passed
	w.Compared += v.Compared
	w.Shards += v.Shards
	w.Tasks += v.Tasks
}

// Identify compares the probe with every template of the gallery (1:N). It
// needs a grant of scope.UseIdentify for the gallery's scope; nothing else is
// looked at before that. Errors wrap scope.ErrNotGranted, ErrDropped, ErrK,
// ErrQuery, code.ErrDimension, code.ErrCode, or ctx.Err(): the context is asked
// between shards, and an interrupted search returns no result.
func (g *Gallery) Identify(ctx context.Context, grant scope.Grant, q Query) (Result, error) {
	return g.IdentifyInto(ctx, grant, q, nil)
}

// IdentifyInto is Identify with the candidates in the memory of buf, from its
// beginning on: with a capacity of K it allocates nothing. Result.Candidates is
// the caller's, as buf is.
func (g *Gallery) IdentifyInto(ctx context.Context, grant scope.Grant, q Query, buf []Candidate) (Result, error) {
	if err := grant.Check(g.ref, scope.UseIdentify); err != nil {
		return Result{}, err
	}
	if err := g.checkIdentify(&q); err != nil {
		return Result{}, err
	}
	x := g.scanner()
	s := x.newSearch(&q)
	defer x.done(s)
	err := x.run(ctx, g, s)
	if err != nil {
		return Result{}, fmt.Errorf("search of %s stopped: %w", g.ref, err)
	}
	return s.result(buf), nil
}

// IdentifyAll searches for many probes at once, with one result for each query
// in their order. It is faster than one after the other, since what is read of
// the gallery serves all; they may be searched in parts, and then not all see
// the same snapshot: Result.Epoch tells. Errors are those of Identify, and the
// first one fails all.
func (g *Gallery) IdentifyAll(ctx context.Context, grant scope.Grant, queries []Query) ([]Result, error) {
	if err := grant.Check(g.ref, scope.UseIdentify); err != nil {
		return nil, err
	}
	for i := range queries {
		if err := g.checkIdentify(&queries[i]); err != nil {
			return nil, fmt.Errorf("query %d of %d: %w", i+1, len(queries), err)
		}
	}
	x := g.scanner()
	all := make([]*search, len(queries))
	for i := range all {
		all[i] = x.newSearch(&queries[i])
	}
	defer func() {
		for _, s := range all {
			x.done(s)
		}
	}()
	if err := x.run(ctx, g, all...); err != nil {
		return nil, fmt.Errorf("search of %s for %d probes stopped: %w", g.ref, len(queries), err)
	}
	results := make([]Result, len(all))
	for i, s := range all {
		results[i] = s.result(nil)
	}
	return results, nil
}

// Verify compares the probe with the templates of one subject (1:1) and returns
// the best, whatever its score: the caller holds it against its threshold.
// found is false, and Score NoScore, when the subject is not in the gallery or
// has expired; that is no error, and it costs less than a comparison: callers
// that must not tell by time compare a code.Decoy then. It needs a grant of
// scope.UseVerify; errors are those of Identify less ErrK.
func (g *Gallery) Verify(ctx context.Context, grant scope.Grant, id scope.SubjectID, q Query) (best Candidate, found bool, epoch scope.Epoch, err error) {
	none := Candidate{Subject: id, Score: NoScore}
	if err := grant.Check(g.ref, scope.UseVerify); err != nil {
		return none, false, 0, err
	}
	if err := g.checkQuery(&q); err != nil {
		return none, false, 0, err
	}
	if err := g.interrupted(ctx); err != nil {
		return none, false, 0, fmt.Errorf("verification in %s not begun: %w", g.ref, err)
	}

	// Table and snapshot are in step under the lock; the lease keeps the rows
	// after it.
	var few [8]rowRef
	g.lock.RLock()
	snap, err := g.acquire()
	if err != nil {
		g.lock.RUnlock()
		return none, false, 0, err
	}
	refs := g.rowsOf(few[:0], snap, id)
	g.lock.RUnlock()
	defer snap.release()

	best = none
	for _, ref := range refs {
		v, row := snap.shards[ref.slot()], ref.row()
		if expired(v.notAfter[row], instant(q.Now)) {
			continue
		}
		c := Candidate{
			Subject:  id,
			Template: v.templates[row],
			Score:    code.Compare(kernel.Dot(q.Code.Q, v.values(row)), q.Code.Norm2, v.norms[row]),
		}
		found = true
		if c.before(best) {
			best = c
		}
	}
	if err := g.interrupted(ctx); err != nil {
		return none, false, 0, fmt.Errorf("verification in %s stopped: %w", g.ref, err)
	}
	return best, found, snap.epoch, nil
}

// interrupted says why a search must stop, if it must.
func (g *Gallery) interrupted(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if g.dropped.Load() { // after the context, which may have taken its time
		return g.droppedError()
	}
	return nil
}

// checkIdentify refuses a query that could not be answered rightly.
func (g *Gallery) checkIdentify(q *Query) error {
	if err := g.checkQuery(q); err != nil {
		return err
	}
	if q.K < 1 || q.K > MaxK {
		return fmt.Errorf("%w: %d; ask for 1 to %d", ErrK, q.K, MaxK)
	}
	return nil
}

func (g *Gallery) checkQuery(q *Query) error {
	if err := q.Code.Validate(g.dim); err != nil {
		return fmt.Errorf("probe for %s: %w", g.ref, err)
	}
	if q.Now.IsZero() {
		return fmt.Errorf("%w: no time, so nobody's expiry can be judged; set Query.Now", ErrQuery)
	}
	if q.Threshold != q.Threshold {
		return fmt.Errorf("%w: the threshold is not a number", ErrQuery)
	}
	return nil
}
