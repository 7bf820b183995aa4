package matcher

import (
	"crypto/rand"
	"fmt"
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
	ID          uuid.UUID   // random, for logs and questions
	ModelID     string
	Time        time.Time
	Face        *DetectedFace     // camera images only
	Findings    []quality.Finding // camera images and crops only
	Alternative string            // UseAlternative only

	mark uint64 // of the scope's erasures, before the comparison
	used bool   // the match used its subject up
	// For the audit log: how it wants decisions, who asked, and how.
	audit        DecisionAudit
	holder, call string
}

// newDecision begins a decision with what is known before any comparison.
func (m *Matcher) newDecision(g scope.Grant, sc *scopeEntry, call string, s sighting) Decision {
	settings := &sc.info.Load().settings
	d := Decision{
		Outcome: NoMatch, Threshold: settings.VerifyThreshold, Scope: sc.ref, ID: newDecisionID(),
		ModelID: sc.modelID, Time: m.now(), Face: s.face, Findings: s.findings, mark: sc.erasures.mark(),
		audit: settings.DecisionAudit, holder: g.Holder(), call: call,
	}
	if call == callIdentify {
		d.Threshold = settings.IdentifyThreshold
	}
	return d
}

// The calls that decide, as the audit log names them.
const callVerify, callIdentify = "Verify", "Identify"

// newDecisionID draws a UUID of version 4 (RFC 9562).
func newDecisionID() (id uuid.UUID) {
	rand.Read(id[:]) // never fails: crypto/rand
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
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

// fence is the last check before an answer leaves: the scope must still be
// usable, and no candidate may have been erased or have expired since the mark,
// or the error is ErrOvertaken. It is what makes a revocation, an erasure or an
// end that came meanwhile win over a search that began before it.
func (m *Matcher) fence(sc *scopeEntry, mark uint64, candidates ...index.Candidate) error {
	now := m.now()
	if err := sc.usable(now); err != nil {
		return err
	}
	for _, c := range candidates {
		if sc.erasures.touched(mark, c.Subject) || !sc.gallery.Contains(c.Subject, c.Template, now) {
			return fmt.Errorf("%w: %s/subjects/%s", ErrOvertaken, sc.ref, c.Subject)
		}
	}
	return nil
}

// Stands is the last step of a decision that was Deferred: it asks the fence once
// more for an answer that had to wait before it could be sent, as on a stream whose
// client reads slowly, and records it. A decision that matched must not leave after
// its scope or its subject ended. It begins the passage of a match; decisions of
// one answer may share it, and an error leaves it as it is. Errors are those of a
// scope that is not usable, ErrOvertaken and ErrUnrecorded.
func (m *Matcher) Stands(d Decision, p *Passage) error {
	if err := m.stillStands(d, p); err != nil {
		return err
	}
	return m.record(d)
}

func (m *Matcher) stillStands(d Decision, p *Passage) error {
	if d.Outcome != Match {
		return nil
	}
	sc, err := m.entry(d.Scope)
	if err != nil {
		return err
	}
	p.begin(sc)
	if d.used {
		return m.fence(sc, d.mark) // its subject is gone, by this very match
	}
	return m.fence(sc, d.mark, index.Candidate{Subject: d.Subject, Template: d.Template})
}
