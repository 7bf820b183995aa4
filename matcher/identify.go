package matcher

import (
	"context"
	"errors"
	"fmt"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/admission"
)

// IdentifyQuery asks who of the gallery the probe shows.
type IdentifyQuery struct {
	Probe Probe
	// K is how many candidates to return at most for a face, 1 to
	// index.MaxK; 0 means 1.
	K int
	// EachFace searches for every face of a camera image instead of the
	// dominant one.
	EachFace bool
	// Deferred: as for Verify.
	Deferred bool
	// Passage of answers that are not Deferred; see there.
	Passage *Passage
}

// FaceResult is the outcome for one face.
type FaceResult struct {
	Decision Decision
	// Candidates are the subjects at or above the threshold, best first. Where
	// templates are for one use, the one that was used alone.
	Candidates []index.Candidate
}

// Identify searches the gallery of the granted scope (1:N). It returns one
// result, or with EachFace one a face from the largest to the smallest. Where
// templates are for one use, each match erases its subject; see use. An error of
// one face then keeps back the answers of all.
func (m *Matcher) Identify(ctx context.Context, g scope.Grant, q IdentifyQuery) (_ []FaceResult, err error) {
	sc, err := m.granted(g, scope.UseIdentify)
	if err != nil {
		return nil, err
	}
	if err := sc.usable(m.now()); err != nil {
		return nil, err
	}
	if err := m.recordable(sc); err != nil {
		return nil, err
	}
	policy, k := dominantFace, q.K
	if q.EachFace {
		policy = eachFace
	}
	if k == 0 {
		k = 1
	}
	ticket, err := m.admit(ctx, sc, admission.Ask{Work: admission.Work{Op: admission.Identify}, Streamed: q.Deferred}, q.Probe)
	if err != nil {
		return nil, err
	}
	defer func() { ticket.Done(err) }()
	matched := false
	defer func() {
		if !matched || err != nil {
			q.Passage.End()
		}
	}()
	w := m.workspace(sc.dim)
	defer m.giveBack(w)
	sightings, err := m.perceive(ctx, w, sc, q.Probe, policy)
	if err != nil {
		return nil, err
	}
	if sc.gallery.Templates() > index.SmallGallery {
		ticket.Lighten()
	}
	results := make([]FaceResult, len(sightings))
	for i, s := range sightings {
		if results[i], err = m.identifyOne(ctx, g, sc, s, k); err != nil {
			return nil, err
		}
	}
	q.Passage.begin(sc)
	for i, r := range results {
		if results[i], err = m.settle(ctx, g, &ticket, sc, sightings[i], r, k); err != nil {
			return nil, err
		}
		matched = matched || results[i].Decision.Outcome == Match
	}
	if q.Deferred {
		return results, nil
	}
	for _, r := range results {
		if err := m.record(r.Decision); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// identifyOne searches for one face: rotate and quantise, search, decide.
func (m *Matcher) identifyOne(ctx context.Context, g scope.Grant, sc *scopeEntry, s sighting, k int) (FaceResult, error) {
	d := m.newDecision(g, sc, callIdentify, s)
	if !s.usable() {
		return FaceResult{Decision: d.useAlternative(sc)}, nil
	}
	probe, err := code.Encode(sc.rotation, s.embedding)
	if err != nil {
		return FaceResult{}, sc.afterRevocation(err)
	}
	defer clear(probe.Q) // nobody searches for it any more
	found, err := m.index.Identify(ctx, g, index.Query{Code: probe, K: k, Threshold: d.Threshold, Now: d.Time})
	if err != nil {
		return FaceResult{}, sc.afterRevocation(err)
	}
	d.Epoch = found.Epoch
	if found.Best != index.NoScore {
		d = d.scored(found.Best, found.Epoch)
	}
	if len(found.Candidates) > 0 {
		d = d.matched(found.Candidates[0])
	}
	return FaceResult{Decision: d, Candidates: found.Candidates}, nil
}

// overtakenTries is how often a search is done again because what it found was
// erased meanwhile. Each try would have to be overtaken anew.
const overtakenTries = 5

// settle is the fence for one face. A search whose candidates were erased
// meanwhile is done again, since somebody else may be the best match now.
func (m *Matcher) settle(ctx context.Context, g scope.Grant, ticket *admission.Ticket, sc *scopeEntry, s sighting, r FaceResult, k int) (FaceResult, error) {
	for range overtakenTries {
		err := m.fence(sc, r.Decision.mark, r.Candidates...)
		if err == nil {
			r.Decision, err = m.use(ctx, ticket, sc, r.Decision)
		}
		if r.Decision.used {
			r.Candidates = r.Candidates[:1] // another could be let in unused
		}
		if !errors.Is(err, ErrOvertaken) {
			return r, err
		}
		if r, err = m.identifyOne(ctx, g, sc, s, k); err != nil {
			return FaceResult{}, err
		}
	}
	return FaceResult{}, fmt.Errorf("%w, again and again: repeat the call", ErrOvertaken)
}
