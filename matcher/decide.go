package matcher

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/models/quality"
)

// Outcome is what the gate does next. The zero Outcome is none and opens
// nothing.
type Outcome uint8

// The outcomes.
const (
	Match Outcome = 1 + iota
	NoMatch
	UseAlternative
)

// String gives the outcome's name as the API writes it.
func (o Outcome) String() string {
	switch o {
	case Match:
		return "MATCH"
	case NoMatch:
		return "NO_MATCH"
	case UseAlternative:
		return "USE_ALTERNATIVE"
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// Decision is the answer to one face.
type Decision struct {
	Outcome     Outcome
	Score       code.Score // of the match, or of the best comparison
	HasScore    bool       // the score is known; see index.Result.Best
	Threshold   code.Threshold
	Subject     scope.SubjectID  // Match only
	Template    scope.TemplateID // Match only
	Scope       scope.Ref
	Epoch       scope.Epoch // of the snapshot that was searched
	ID          string      // a random UUID, for logs and questions
	ModelID     string
	Time        time.Time
	Face        *DetectedFace     // camera images only
	Findings    []quality.Finding // camera images and crops only
	Alternative string            // UseAlternative only
}

// newDecision begins a decision with what is known before any comparison.
func (m *Matcher) newDecision(sc *scopeEntry, s sighting, threshold code.Threshold) Decision {
	return Decision{
		Outcome: NoMatch, Threshold: threshold, Scope: sc.ref, ID: uuid.NewString(),
		ModelID: sc.modelID, Time: m.now(), Face: s.face, Findings: s.findings,
	}
}

// useAlternative answers a picture that shows too little.
func (d Decision) useAlternative(sc *scopeEntry) Decision {
	d.Outcome = UseAlternative
	d.Alternative = sc.info.Load().settings.Alternative
	d.Epoch = sc.gallery.Epoch()
	return d
}

// scored records the best comparison.
func (d Decision) scored(s code.Score, epoch scope.Epoch) Decision {
	d.Score, d.HasScore, d.Epoch = s, true, epoch
	return d
}

// matched turns the decision into a match.
func (d Decision) matched(c index.Candidate) Decision {
	d.Outcome, d.Score, d.HasScore = Match, c.Score, true
	d.Subject, d.Template = c.Subject, c.Template
	return d
}

// unmatched takes a match back.
func (d Decision) unmatched() Decision {
	d.Outcome, d.Score, d.HasScore = NoMatch, 0, false
	d.Subject, d.Template = "", 0
	return d
}

// fence is the last check before an answer leaves: the scope must still be
// usable, and of the candidates only those that are still enrolled are
// returned, in a slice that shares theirs. It is what makes a revocation or an
// erasure that was acknowledged meanwhile win over a search that began before
// it.
func (m *Matcher) fence(sc *scopeEntry, candidates []index.Candidate) ([]index.Candidate, error) {
	now := m.now()
	if err := sc.usable(now); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(candidates, func(c index.Candidate) bool {
		return !sc.gallery.Contains(c.Subject, c.Template, now)
	}), nil
}
