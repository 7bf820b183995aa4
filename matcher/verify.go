package matcher

import (
	"context"
	"errors"
	"fmt"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/kernel"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/admission"
)

// VerifyQuery asks whether the probe shows the claimed subject.
type VerifyQuery struct {
	Subject scope.SubjectID
	Probe   Probe
	// Deferred: the answer does not leave at once, and the caller asks Stands before
	// it does.
	Deferred bool
	// Passage of an answer that is not Deferred; see there.
	Passage *Passage
}

// Verify compares a probe with the templates of one claimed subject (1:1).
//
// A subject that is not enrolled, was withdrawn or has expired is answered as a
// stranger is, after the same work: the probe is compared with a decoy that is
// drawn from the scope's key and the claimed id. Where templates are for one use,
// a match erases the subject; see use.
func (m *Matcher) Verify(ctx context.Context, g scope.Grant, q VerifyQuery) (_ Decision, err error) {
	sc, err := m.granted(g, scope.UseVerify)
	if err != nil {
		return Decision{}, err
	}
	if err := q.Subject.Validate(); err != nil {
		return Decision{}, err
	}
	if err := sc.usable(m.now()); err != nil {
		return Decision{}, err
	}
	if err := m.recordable(sc); err != nil {
		return Decision{}, err
	}
	ticket, err := m.admit(ctx, sc, admission.Ask{Work: admission.Work{Op: admission.Verify}, Streamed: q.Deferred}, q.Probe)
	if err != nil {
		return Decision{}, err
	}
	defer func() { ticket.Done(err) }()
	matched := false
	defer func() {
		if !matched {
			q.Passage.End()
		}
	}()
	w := m.workspace(sc.dim)
	defer m.giveBack(w)
	sightings, err := m.perceive(ctx, w, sc, q.Probe, dominantFace)
	if err != nil {
		return Decision{}, err
	}
	q.Passage.begin(sc)
	for range overtakenTries {
		d, err := m.verifyOne(ctx, w, g, sc, sightings[0], q.Subject)
		if err == nil {
			d, err = m.use(ctx, &ticket, sc, d)
		}
		if err == nil && !q.Deferred {
			err = m.record(d)
		}
		if err == nil {
			matched = d.Outcome == Match
			return d, nil
		}
		if !errors.Is(err, ErrOvertaken) {
			return Decision{}, err
		}
	}
	return Decision{}, fmt.Errorf("%w, again and again: repeat the call", ErrOvertaken)
}

// verifyOne compares one face with one subject: rotate and quantise, compare,
// decide, fence.
func (m *Matcher) verifyOne(ctx context.Context, w *workspace, g scope.Grant, sc *scopeEntry, s sighting, id scope.SubjectID) (Decision, error) {
	d := m.newDecision(g, sc, callVerify, s)
	if !s.usable() {
		return d.useAlternative(sc), nil
	}
	probe, err := code.EncodeInto(w.probe(), w.values, sc.rotation, s.embedding)
	if err != nil {
		return Decision{}, sc.afterRevocation(err)
	}
	decoy, err := sc.decoys.into(w, id)
	if err != nil {
		return Decision{}, sc.afterRevocation(err)
	}
	stranger := code.Compare(kernel.Dot(probe.Q, decoy.Q), probe.Norm2, decoy.Norm2)
	best, found, epoch, err := m.index.Verify(ctx, g, id, index.Query{Code: probe, Threshold: d.Threshold, Now: d.Time})
	if err != nil {
		return Decision{}, sc.afterRevocation(err)
	}
	if !found {
		return d.scored(stranger, epoch), m.fence(sc, d.mark)
	}
	d = d.scored(best.Score, epoch)
	if best.Score >= code.Score(d.Threshold) {
		d = d.matched(best)
	}
	return d, m.fence(sc, d.mark, best)
}
