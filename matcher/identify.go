package matcher

import (
	"context"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
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
}

// FaceResult is the outcome for one face.
type FaceResult struct {
	Decision Decision
	// Candidates are the subjects at or above the threshold, best first.
	Candidates []index.Candidate
}

// Identify searches the gallery of the granted scope (1:N). It returns one
// result, or with EachFace one a face from the largest to the smallest.
func (m *Matcher) Identify(ctx context.Context, g scope.Grant, q IdentifyQuery) ([]FaceResult, error) {
	sc, err := m.granted(g, scope.UseIdentify)
	if err != nil {
		return nil, err
	}
	if err := sc.usable(m.now()); err != nil {
		return nil, err
	}
	policy, k := dominantFace, q.K
	if q.EachFace {
		policy = eachFace
	}
	if k == 0 {
		k = 1
	}
	sightings, err := m.perceive(ctx, sc, q.Probe, policy)
	if err != nil {
		return nil, err
	}
	results := make([]FaceResult, len(sightings))
	for i, s := range sightings {
		if results[i], err = m.identifyOne(ctx, g, sc, s, k); err != nil {
			return nil, err
		}
	}
	for i, r := range results {
		if results[i], err = m.confirm(sc, r); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// identifyOne searches for one face: rotate and quantise, search, decide.
func (m *Matcher) identifyOne(ctx context.Context, g scope.Grant, sc *scopeEntry, s sighting, k int) (FaceResult, error) {
	d := m.newDecision(sc, s, sc.info.Load().settings.IdentifyThreshold)
	if !s.usable() {
		return FaceResult{Decision: d.useAlternative(sc)}, nil
	}
	probe, err := code.Encode(sc.rotation, s.embedding)
	if err != nil {
		return FaceResult{}, err
	}
	found, err := m.index.Identify(ctx, g, index.Query{Code: probe, K: k, Threshold: d.Threshold, Now: d.Time})
	if err != nil {
		return FaceResult{}, err
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

// confirm is the fence for one face: candidates that were erased since the
// search are taken out of the answer.
func (m *Matcher) confirm(sc *scopeEntry, r FaceResult) (FaceResult, error) {
	searched := len(r.Candidates)
	enrolled, err := m.fence(sc, r.Candidates)
	if err != nil {
		return FaceResult{}, err
	}
	if r.Candidates = enrolled; len(enrolled) == searched {
		return r, nil
	}
	if len(enrolled) > 0 {
		r.Decision = r.Decision.matched(enrolled[0])
	} else {
		r.Decision = r.Decision.unmatched()
	}
	return r, nil
}
