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
	Best       code.Score  // of any live template, below the threshold too; NoScore without one
	Epoch      scope.Epoch // of the snapshot that was searched
	Scanned    int         // templates compared, expired ones included
}

// Identify compares the probe with every template of the gallery (1:N). It
// needs a grant of scope.UseIdentify for the gallery's scope; nothing else is
// looked at before that. Errors wrap scope.ErrNotGranted, ErrDropped, ErrK,
// ErrQuery, code.ErrDimension, code.ErrCode, or ctx.Err(): the context is asked
// between shards, and an interrupted search returns no result.
func (g *Gallery) Identify(ctx context.Context, grant scope.Grant, q Query) (Result, error) {
	if err := grant.Check(g.ref, scope.UseIdentify); err != nil {
		return Result{}, err
	}
	if err := g.checkQuery(&q); err != nil {
		return Result{}, err
	}
	if q.K < 1 || q.K > MaxK {
		return Result{}, fmt.Errorf("%w: %d; ask for 1 to %d", ErrK, q.K, MaxK)
	}
	snap, err := g.acquire()
	if err != nil {
		return Result{}, err
	}
	defer snap.release()

	s := newScan(&q)
	for i := range snap.shards {
		if err := g.interrupted(ctx); err != nil {
			return Result{}, fmt.Errorf("search of %s stopped before shard %d of %d: %w", g.ref, i+1, len(snap.shards), err)
		}
		s.shard(&snap.shards[i])
	}
	// Asked last, so that what was dropped meanwhile gives no result.
	if err := g.interrupted(ctx); err != nil {
		return Result{}, fmt.Errorf("search of %s stopped: %w", g.ref, err)
	}
	return s.result(snap.epoch, q.Threshold), nil
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
	g.table.RLock()
	snap, err := g.acquire()
	if err != nil {
		g.table.RUnlock()
		return none, false, 0, err
	}
	refs := few[:0]
	if s := g.subjects[id]; s != nil && !expired(s.notAfter, instant(q.Now)) {
		refs = append(refs, s.rows...)
	}
	g.table.RUnlock()
	defer snap.release()

	best = none
	for _, ref := range refs {
		row := snap.shards[ref.slot].code(int(ref.row))
		c := Candidate{
			Subject:  id,
			Template: ref.template,
			Score:    code.Compare(kernel.Dot(q.Code.Q, row.Q), q.Code.Norm2, row.Norm2),
		}
		if c.before(best) {
			best = c
		}
	}
	if err := g.interrupted(ctx); err != nil {
		return none, false, 0, fmt.Errorf("verification in %s stopped: %w", g.ref, err)
	}
	return best, len(refs) > 0, snap.epoch, nil
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

// blockRows is how many rows go to the kernel at once. 256 rows of 512 values
// are 128 KB, which stays in a core's second-level cache, and 1 KB of sums.
const blockRows = 256

// scan is one search on its way through the shards. Several scans of one query
// may walk different shards and their lists be merged.
type scan struct {
	probe   []int8
	norm2   int32
	now     int64
	top     topK
	scanned int
	dots    [blockRows]int32
}

func newScan(q *Query) *scan {
	s := &scan{probe: q.Code.Q, norm2: q.Code.Norm2, now: instant(q.Now)}
	s.top.init(q.K)
	s.updateBar()
	return s
}

// shard compares the probe with the live rows of one shard. Expiry and subject
// are looked at only for rows whose score could enter the list.
func (s *scan) shard(v *shardView) {
	dim := len(s.probe)
	for start, end := v.nextRun(0, blockRows); start < end; start, end = v.nextRun(end, blockRows) {
		dots := s.dots[:end-start]
		kernel.DotRows(dots, s.probe, v.codes[start*dim:end*dim])
		norms := v.norms[start:end]
		for i, dot := range dots {
			if s.top.passes(dot, norms[i]) {
				s.offer(v, start+i, dot)
			}
		}
		s.scanned += end - start
	}
}

// offer looks closer at a row that passed the bar.
func (s *scan) offer(v *shardView, row int, dot int32) {
	if expired(v.notAfter[row], s.now) {
		return
	}
	c := Candidate{
		Subject:  v.subjects[row].id,
		Template: v.templates[row],
		Score:    code.Compare(dot, s.norm2, v.norms[row]),
	}
	if s.top.offer(c) {
		s.updateBar()
	}
}

// updateBar sets the bar from the last score of a full list.
func (s *scan) updateBar() { s.top.raise(s.norm2) }

// result ends the scan. The list is not cut at the threshold before, so that
// Best is known and the result is the same whatever the order of shards.
func (s *scan) result(epoch scope.Epoch, t code.Threshold) Result {
	r := Result{Best: NoScore, Epoch: epoch, Scanned: s.scanned}
	list := s.top.list
	if len(list) > 0 {
		r.Best = list[0].Score
	}
	n := 0
	for n < len(list) && t.Admits(list[n].Score) {
		n++
	}
	r.Candidates = list[:n:n]
	return r
}
