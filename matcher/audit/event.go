package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/menshen-io/menshen/index/scope"
)

// Event is an administrative act: something that a credential did or was
// refused to do.
type Event struct {
	// Tenant is whose log it belongs to; empty for the platform's own.
	Tenant scope.TenantID
	// Scope and Subject are set where the act concerns one. The subject is
	// written as a keyed pseudonym.
	Scope   scope.ScopeID
	Subject scope.SubjectID
	// Credential and Role say who.
	Credential string
	Role       string
	// Action is the call, such as RevokeScope.
	Action string
	// Resource is the resource name of what was acted on. A name that leads
	// through a subject is refused: the log would outlive the subject.
	Resource string
	// Outcome is OK or the stable reason of the refusal or failure.
	Outcome   string
	RequestID string
	// Suppressed counts acts like this one that were left out of the log before it:
	// a caller that is refused without end must not fill the disk.
	Suppressed uint64
	// Time is when it happened; zero: now.
	Time time.Time
}

// Decision is what a gate was told about one face.
type Decision struct {
	// ID names the decision, so that a gate's own record can be found again.
	ID    string
	Scope scope.Ref
	// Credential is the gate that asked, and Call how: Verify or Identify.
	Credential string
	Call       string
	// Outcome is MATCH, NO_MATCH or USE_ALTERNATIVE.
	Outcome string
	// Subject and Margin are set for a MATCH and for nothing else: what was
	// compared with somebody who is not the one says something about both.
	Subject scope.SubjectID
	Margin  Margin
	// Time is when it was made; zero: now.
	Time time.Time
	// Required: the answer must not leave without its record. See Log.Record.
	Required bool
}

// Margin says how good a match was, and no more than that. A score would be a
// measurement of a face: many scores of one person can be told from another's
// and help to forge a probe. An auditor needs to know only whether
// gates live on matches that barely pass.
type Margin string

// The margins. Where the line is drawn is the caller's choice.
const (
	Near  Margin = "NEAR"  // barely above the threshold
	Clear Margin = "CLEAR" // well above it
)

// Kind says what a record is about.
type Kind string

// The kinds. GAP and HEADS are the log's own.
const (
	KindAct      Kind = "ACT"
	KindDecision Kind = "DECISION"
	KindGap      Kind = "GAP"   // something is missing here, and why
	KindHeads    Kind = "HEADS" // the ends of the tenants' chains, in the platform's
)

// Record is an entry as it is stored. Its JSON form, in the order of the fields,
// is what the chain hashes: adding a field needs omitempty, changing one a new
// version of the segment.
type Record struct {
	Position uint64           `json:"n"` // from 1, in its chain
	Time     time.Time        `json:"time"`
	Kind     Kind             `json:"kind"`
	Scope    scope.ScopeID    `json:"scope,omitempty"`
	Act      *Act             `json:"act,omitempty"`
	Decision *DecisionSummary `json:"decision,omitempty"`
	Gap      *Gap             `json:"gap,omitempty"`
	Heads    []Head           `json:"heads,omitempty"`
}

// Act is what is stored of an Event.
type Act struct {
	Credential string    `json:"credential"`
	Role       string    `json:"role"`
	Action     string    `json:"action"`
	Resource   string    `json:"resource,omitempty"`
	Subject    Pseudonym `json:"subject,omitempty"`
	Outcome    string    `json:"outcome"`
	RequestID  string    `json:"request_id,omitempty"`
	Suppressed uint64    `json:"suppressed,omitempty"`
	// Late: the log could not be written when it happened. The record's time is when
	// it did, so that it stands after younger ones.
	Late bool `json:"late,omitempty"`
	// Epoch is that of the scope which the change made, where the act was made durable
	// together with it; receipts name it too.
	Epoch uint64 `json:"scope_epoch,omitempty"`
}

// DecisionSummary is what is stored of a Decision.
type DecisionSummary struct {
	ID         string    `json:"id"`
	Credential string    `json:"credential"`
	Call       string    `json:"call"`
	Outcome    string    `json:"outcome"`
	Subject    Pseudonym `json:"subject,omitempty"`
	Margin     Margin    `json:"margin,omitempty"`
}

// Gap says that the log is not whole here.
type Gap struct {
	Cause GapCause `json:"cause"`
	// Lost is how many decisions are missing, or bytes of a cut tail.
	Lost   uint64 `json:"lost,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// GapCause says why.
type GapCause string

// The causes.
const (
	GapQueue  GapCause = "QUEUE_FULL"   // decisions that were not required were dropped
	GapWrite  GapCause = "WRITE_FAILED" // decisions could not be written
	GapTail   GapCause = "CUT_TAIL"     // an incomplete last record was cut off on start
	GapDamage GapCause = "DAMAGE"       // a damaged chain was set aside and this one begun
)

// Head is the end of a chain at one moment.
type Head struct {
	Chain    string `json:"chain"`
	Position uint64 `json:"position"`
	Hash     Hash   `json:"hash"`
}

// encode gives the record's one spelling.
func (r *Record) encode() ([]byte, error) { return json.Marshal(r) }

// appendTo appends what encode gives. Acts and decisions, of which there are
// thousands a second, it spells itself; a test holds both against each other.
func (r *Record) appendTo(b []byte) ([]byte, error) {
	a, d := r.Act, r.Decision
	if (a == nil) == (d == nil) || r.Gap != nil || r.Heads != nil || r.Time.Location() != time.UTC || !plain(string(r.Scope), string(r.Kind)) ||
		a != nil && !plain(a.Credential, a.Role, a.Action, a.Resource, string(a.Subject), a.Outcome, a.RequestID) ||
		d != nil && !plain(d.ID, d.Credential, d.Call, d.Outcome, string(d.Subject), string(d.Margin)) {
		payload, err := r.encode()
		return append(b, payload...), err
	}
	b = strconv.AppendUint(append(b, `{"n":`...), r.Position, 10)
	b = r.Time.AppendFormat(append(b, `,"time":"`...), time.RFC3339Nano)
	b = append(append(b, `","kind":"`...), r.Kind...)
	b = optional(b, `","scope":"`, string(r.Scope))
	if a != nil {
		b = append(append(b, `","act":{"credential":"`...), a.Credential...)
		b = append(append(b, `","role":"`...), a.Role...)
		b = append(append(b, `","action":"`...), a.Action...)
		b = optional(b, `","resource":"`, a.Resource)
		b = optional(b, `","subject":"`, string(a.Subject))
		b = append(append(b, `","outcome":"`...), a.Outcome...)
		b = append(optional(b, `","request_id":"`, a.RequestID), '"')
		if a.Suppressed > 0 {
			b = strconv.AppendUint(append(b, `,"suppressed":`...), a.Suppressed, 10)
		}
		if a.Late {
			b = append(b, `,"late":true`...)
		}
		if a.Epoch > 0 {
			b = strconv.AppendUint(append(b, `,"scope_epoch":`...), a.Epoch, 10)
		}
		return append(b, `}}`...), nil
	}
	b = append(append(b, `","decision":{"id":"`...), d.ID...)
	b = append(append(b, `","credential":"`...), d.Credential...)
	b = append(append(b, `","call":"`...), d.Call...)
	b = append(append(b, `","outcome":"`...), d.Outcome...)
	b = optional(b, `","subject":"`, string(d.Subject))
	b = optional(b, `","margin":"`, string(d.Margin))
	return append(b, `"}}`...), nil
}

// optional appends a text and what stands before it, unless it is empty.
func optional(b []byte, before, text string) []byte {
	if text == "" {
		return b
	}
	return append(append(b, before...), text...)
}

// plain reports whether encoding/json writes texts as they are.
func plain(texts ...string) bool {
	for _, s := range texts {
		for i := range len(s) {
			if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
				return false
			}
		}
	}
	return true
}

// decodeRecord reads a record and refuses every other spelling than encode's.
func decodeRecord(b []byte) (Record, error) {
	var r Record
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Record{}, err
	}
	if again, err := r.encode(); err != nil || !bytes.Equal(again, b) {
		return Record{}, errors.New("the record is not spelled as it was written")
	}
	return r, nil
}

// record checks an act and makes its record.
func (e Event) record(now time.Time, p *Pseudonyms) (*Record, error) {
	var errs []error
	want := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	want(e.Tenant == "" || e.Tenant.Validate() == nil, "tenant: an id, or empty for the platform")
	want(e.Scope == "" || e.Tenant != "" && e.Scope.Validate() == nil, "scope: an id inside a tenant")
	want(e.Subject == "" || e.Scope != "" && e.Subject.Validate() == nil, "subject: an id inside a scope")
	want(printable(e.Credential, 1, 64), "credential: 1 to 64 characters of printable ASCII")
	want(printable(e.Role, 1, 64), "role: 1 to 64 characters of printable ASCII")
	want(printable(e.Action, 1, 64), "action: 1 to 64 characters of printable ASCII")
	want(printable(e.Resource, 0, 300), "resource: at most 300 characters of printable ASCII")
	want(!strings.Contains(e.Resource, "subjects/"), "resource: name the scope here and the subject in its own field, where it becomes a pseudonym")
	want(printable(e.Outcome, 1, 64), "outcome: 1 to 64 characters of printable ASCII")
	want(printable(e.RequestID, 0, 64), "request_id: at most 64 characters of printable ASCII")
	at, ok := when(e.Time, now)
	want(ok, "time: outside the years that can be written")
	if len(errs) > 0 {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, errors.Join(errs...))
	}
	a := &Act{Credential: e.Credential, Role: e.Role, Action: e.Action, Resource: e.Resource, Outcome: e.Outcome, RequestID: e.RequestID, Suppressed: e.Suppressed}
	if e.Subject != "" {
		a.Subject = p.Of(scope.Ref{Tenant: e.Tenant, Scope: e.Scope}, e.Subject, at)
	}
	return &Record{Time: at, Kind: KindAct, Scope: e.Scope, Act: a}, nil
}

// check refuses a decision that must not be written.
func (d *Decision) check(now time.Time) error {
	matched := d.Outcome == "MATCH"
	var ok bool
	d.Time, ok = when(d.Time, now)
	switch {
	case d.Scope.Validate() != nil:
		return fmt.Errorf("%w: scope: two ids", ErrInvalid)
	case !printable(d.ID, 1, 64), !printable(d.Credential, 1, 64), !printable(d.Call, 1, 64):
		return fmt.Errorf("%w: id, credential and call: 1 to 64 characters of printable ASCII", ErrInvalid)
	case !matched && d.Outcome != "NO_MATCH" && d.Outcome != "USE_ALTERNATIVE":
		return fmt.Errorf("%w: outcome: MATCH, NO_MATCH or USE_ALTERNATIVE", ErrInvalid)
	case matched != (d.Subject != "") || matched && d.Subject.Validate() != nil:
		return fmt.Errorf("%w: subject: an id for a MATCH, and for nothing else", ErrInvalid)
	case d.Margin != "" && (!matched || d.Margin != Near && d.Margin != Clear):
		return fmt.Errorf("%w: margin: NEAR or CLEAR for a MATCH, and for nothing else", ErrInvalid)
	case !ok:
		return fmt.Errorf("%w: time: outside the years that can be written", ErrInvalid)
	}
	return nil
}

// fill makes the record of a checked decision.
func (d *Decision) fill(r *Record, s *DecisionSummary, p *Pseudonyms) {
	*s = DecisionSummary{ID: d.ID, Credential: d.Credential, Call: d.Call, Outcome: d.Outcome, Margin: d.Margin}
	if d.Subject != "" {
		s.Subject = p.Of(d.Scope, d.Subject, d.Time)
	}
	*r = Record{Time: d.Time, Kind: KindDecision, Scope: d.Scope.Scope, Decision: s}
}

// when gives the time of an event as it is written.
func when(t, now time.Time) (time.Time, bool) {
	if t.IsZero() {
		t = now
	}
	t = t.Round(0).UTC()
	return t, t.Year() > 0 && t.Year() <= 9999
}

// printable reports whether s has least to most characters of printable ASCII.
func printable(s string, least, most int) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return least <= len(s) && len(s) <= most
}
