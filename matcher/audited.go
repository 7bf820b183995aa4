package matcher

import (
	"fmt"
	"time"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/audit"
)

// Recorder keeps decisions, and makes acts ready to become durable with their
// changes; *audit.Log is the real one, whose methods say what is promised.
type Recorder interface {
	Draft(audit.Event) (audit.Draft, error)
	Record(audit.Decision) error
	Recordable(scope.Ref) error
	Collect()
}

// DecisionAudit says whether the decisions of a scope are recorded. Empty: not.
type DecisionAudit string

// The ways to record.
const (
	// AuditBestEffort records, and counts what could not be.
	AuditBestEffort DecisionAudit = "BEST_EFFORT"
	// AuditRequired lets no answer leave without its record.
	AuditRequired DecisionAudit = "REQUIRED"
)

// Bounds of how long decisions are kept in the audit log.
const (
	// DefaultAuditRetention is used where the operator sets none: long enough for a
	// complaint about last week, short enough to be no history of a person.
	DefaultAuditRetention = 30 * 24 * time.Hour
	// MinAuditRetention is a day: the log drops whole ones.
	MinAuditRetention = 24 * time.Hour
)

// nearMargin is how far above the threshold a match is called near. A choice and
// not a measurement: it is a tenth of the scores above the default threshold.
const nearMargin = 0.05

// AuditRetention is how long the decisions of a scope are kept in the audit log,
// whatever became of the scope; zero for a scope that nobody knows.
func (m *Matcher) AuditRetention(ref scope.Ref) time.Duration {
	m.mu.RLock()
	sc, ok := m.scopes[ref]
	m.mu.RUnlock()
	if !ok {
		return 0
	}
	return max(sc.info.Load().settings.AuditRetention, MinAuditRetention)
}

// recordable refuses a call whose answer could not be recorded, before any work is
// spent on it or a subject used up by it.
func (m *Matcher) recordable(sc *scopeEntry) error {
	if sc.info.Load().settings.DecisionAudit != AuditRequired {
		return nil
	}
	if m.audit == nil {
		return fmt.Errorf("%w: the server keeps no audit log", ErrUnrecorded)
	}
	if err := m.audit.Recordable(sc.ref); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnrecorded, sc.ref, err)
	}
	return nil
}

// record is the last step of a decision, after the fence: where the scope wants it,
// the decision goes to the audit log, and where it requires it, an answer that
// cannot be recorded does not leave.
func (m *Matcher) record(d Decision) error {
	if d.audit == "" || m.audit == nil && d.audit != AuditRequired {
		return nil
	}
	if m.audit == nil {
		return fmt.Errorf("%w: the server keeps no audit log", ErrUnrecorded)
	}
	r := audit.Decision{
		ID: d.ID.String(), Scope: d.Scope, Credential: d.holder, Call: d.call, Outcome: d.Outcome.String(),
		Time: d.Time, Required: d.audit == AuditRequired,
	}
	if d.Outcome == Match {
		r.Subject, r.Margin = d.Subject, audit.Clear
		if d.Score < code.Score(d.Threshold)+nearMargin {
			r.Margin = audit.Near
		}
	}
	if err := m.audit.Record(r); err != nil && r.Required {
		return fmt.Errorf("%w: %s: %w", ErrUnrecorded, d.Scope, err)
	}
	return nil // what was not required and not taken is counted by the log
}
