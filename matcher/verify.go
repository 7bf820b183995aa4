package matcher

import (
	"context"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/kernel"
	"github.com/menshen-io/menshen/index/scope"
)

// VerifyQuery asks whether the probe shows the claimed subject.
type VerifyQuery struct {
	Subject scope.SubjectID
	Probe   Probe
}

// Verify compares a probe with the templates of one claimed subject (1:1).
//
// A subject that is not enrolled, was withdrawn or has expired is answered as a
// stranger is, after the same work: the probe is compared with a decoy that is
// drawn from the scope's key and the claimed id.
func (m *Matcher) Verify(ctx context.Context, g scope.Grant, q VerifyQuery) (Decision, error) {
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
	sightings, err := m.perceive(ctx, sc, q.Probe, dominantFace)
	if err != nil {
		return Decision{}, err
	}
	s := sightings[0]
	d := m.newDecision(sc, s, sc.info.Load().settings.VerifyThreshold)
	if !s.usable() {
		return d.useAlternative(sc), nil
	}
	probe, err := code.Encode(sc.rotation, s.embedding)
	if err != nil {
		return Decision{}, err
	}
	decoy := code.Decoy(sc.decoy, string(q.Subject), sc.dim)
	stranger := code.Compare(kernel.Dot(probe.Q, decoy.Q), probe.Norm2, decoy.Norm2)
	best, found, epoch, err := m.index.Verify(ctx, g, q.Subject, index.Query{Code: probe, Threshold: d.Threshold, Now: d.Time})
	if err != nil {
		return Decision{}, err
	}
	enrolled, err := m.fence(sc, []index.Candidate{best})
	if err != nil {
		return Decision{}, err
	}
	switch {
	case !found || len(enrolled) == 0:
		return d.scored(stranger, epoch), nil
	case best.Score < code.Score(d.Threshold):
		return d.scored(best.Score, epoch), nil
	}
	return d.scored(best.Score, epoch).matched(best), nil
}
