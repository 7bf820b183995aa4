package matcher

import (
	"fmt"
	"time"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// Settings are what an operator decides about a scope.
type Settings struct {
	Purpose             string         `json:"purpose"`
	Site                string         `json:"site"`
	Alternative         string         `json:"alternative"`
	LegalBasis          string         `json:"legal_basis"`
	AssessmentReference string         `json:"assessment_reference,omitempty"`
	NoticeVersion       string         `json:"notice_version,omitempty"`
	EndTime             time.Time      `json:"end_time"`
	Retention           time.Duration  `json:"retention,omitempty"` // 0: to the scope's end
	VerifyThreshold     code.Threshold `json:"verify_threshold"`
	IdentifyThreshold   code.Threshold `json:"identify_threshold"`
	MaxTemplates        int            `json:"max_templates"`
	// Preset is what the scope was created with.
	Preset Preset `json:"preset,omitempty"`
	// TransmissionRequired refuses enrolments without consent to transmission.
	TransmissionRequired bool `json:"transmission_required,omitempty"`
	// CurrentNoticeRequired refuses enrolments whose consent names another notice
	// than the present one.
	CurrentNoticeRequired bool `json:"current_notice_required,omitempty"`
	// SingleUse erases a subject with its first match; see use.
	SingleUse bool `json:"single_use,omitempty"`
	// Contact is how people reach who answers for the scope.
	Contact string `json:"contact,omitempty"`
	// DecisionAudit says whether decisions are recorded, AuditRetention for how long.
	DecisionAudit  DecisionAudit `json:"decision_audit,omitempty"`
	AuditRetention time.Duration `json:"audit_retention,omitempty"`
}

// Scope is a scope as callers see it.
type Scope struct {
	Ref scope.Ref
	Settings
	State      scope.State
	ModelID    string
	Epoch      scope.Epoch
	Subjects   int // expired ones that are not erased yet included
	Templates  int
	CreateTime time.Time
	UpdateTime time.Time
	RevokeTime time.Time // zero unless revoked
}

// Bounds of the settings.
const (
	// DefaultMaxTemplates is used where the operator sets none.
	DefaultMaxTemplates = 5
	// MaxTemplates bounds the templates of a subject: a search is exact and
	// linear in them, and more pictures of one face add little.
	MaxTemplates = 10
	// MaxPeriod bounds a scope's life. A purpose without an end is no purpose;
	// a longer one is renewed as a new scope.
	MaxPeriod = 10 * 366 * 24 * time.Hour
)

// withDefaults fills what the operator left open.
func (s Settings) withDefaults(threshold code.Threshold) Settings {
	s.EndTime = s.EndTime.Truncate(time.Second) // as people are told it
	if s.VerifyThreshold == 0 {
		s.VerifyThreshold = threshold
	}
	if s.IdentifyThreshold == 0 {
		s.IdentifyThreshold = threshold
	}
	if s.MaxTemplates == 0 {
		s.MaxTemplates = DefaultMaxTemplates
	}
	if s.AuditRetention == 0 {
		s.AuditRetention = DefaultAuditRetention
	}
	return s
}

// check reports every violation, fields named as in the API's Scope message.
func (s Settings) check(v *checks) {
	checkText(v, "scope.purpose", s.Purpose, MaxText, true)
	checkText(v, "scope.site", s.Site, MaxText, true)
	checkText(v, "scope.alternative", s.Alternative, MaxText, true)
	checkText(v, "scope.legal_basis", s.LegalBasis, MaxText, true)
	checkText(v, "scope.assessment_reference", s.AssessmentReference, MaxReference, false)
	checkText(v, "scope.notice_version", s.NoticeVersion, maxNoticeVersion, false)
	checkText(v, "scope.contact", s.Contact, MaxText, false)
	v.require(s.Retention == 0 || s.Retention >= time.Second, "scope.retention", "is shorter than a second")
	checkThreshold(v, "scope.verify_threshold", s.VerifyThreshold)
	checkThreshold(v, "scope.identify_threshold", s.IdentifyThreshold)
	v.require(s.MaxTemplates >= 1 && s.MaxTemplates <= MaxTemplates, "scope.max_templates_per_subject", "is %d; 1 to %d are allowed", s.MaxTemplates, MaxTemplates)
	v.require(s.DecisionAudit == "" || s.DecisionAudit == AuditBestEffort || s.DecisionAudit == AuditRequired, "scope.decision_audit", "is none of the known ways")
	v.require(s.AuditRetention == 0 || s.AuditRetention >= MinAuditRetention && s.AuditRetention <= MaxPeriod, "scope.audit_retention",
		"is %v; a day to ten years are allowed: the audit log drops whole days", s.AuditRetention)
}

// checkEnd checks an end that is newly set.
func (s Settings) checkEnd(v *checks, now time.Time) {
	if s.EndTime.IsZero() {
		v.require(false, "scope.end_time", "is required: say when the purpose ends")
		return
	}
	v.require(s.EndTime.After(now), "scope.end_time", "lies in the past")
	v.require(!s.EndTime.After(now.Add(MaxPeriod)), "scope.end_time", "lies more than ten years ahead")
}

// MinThreshold is the lowest score that may be a match. Below it strangers
// match under every model: of random directions in 512 dimensions one in a
// hundred scores 0.1, and faces are more alike than random directions.
const MinThreshold code.Threshold = 0.1

func checkThreshold(v *checks, field string, t code.Threshold) {
	v.require(t >= MinThreshold && t <= 1, field, "is %v; a cosine score from %v to 1 is allowed", float64(t), float64(MinThreshold))
}

// SettingsPatch changes the named fields of a scope's settings.
type SettingsPatch struct {
	Settings Settings
	// Fields are the API's names: "purpose", "end_time", ...
	Fields []string
}

// apply returns the changed settings. What people agreed to does not change:
// purpose, site, legal basis and single use stay, the end can only come nearer,
// the retention only shrink and the consent that is asked for only grow.
func (p SettingsPatch) apply(s Settings, now time.Time, v *checks) Settings {
	v.require(len(p.Fields) > 0, "update_mask", "is required: name the fields to change")
	for _, field := range p.Fields {
		switch field {
		case "purpose", "site", "legal_basis", "single_use":
			v.require(false, "update_mask", "names %q, which never changes: people agreed to it; create a new scope", field)
		case "alternative":
			s.Alternative = p.Settings.Alternative
		case "contact":
			s.Contact = p.Settings.Contact
		case "assessment_reference":
			s.AssessmentReference = p.Settings.AssessmentReference
		case "notice_version":
			s.NoticeVersion = p.Settings.NoticeVersion
		case "end_time":
			v.require(!p.Settings.EndTime.After(s.EndTime), "scope.end_time", "can only be brought forward: a longer period is a new purpose, create a new scope")
			s.EndTime = p.Settings.EndTime.Truncate(time.Second)
			s.checkEnd(v, now)
		case "retention":
			v.require(s.Retention == 0 && p.Settings.Retention > 0 || p.Settings.Retention > 0 && p.Settings.Retention <= s.Retention,
				"scope.retention", "can only be shortened: people agreed to the present one")
			s.Retention = p.Settings.Retention
		case "transmission_consent_required":
			v.require(p.Settings.TransmissionRequired || !s.TransmissionRequired, "scope.transmission_consent_required",
				"can only be turned on: people were told that nothing is sent without their separate consent")
			s.TransmissionRequired = p.Settings.TransmissionRequired
		case "current_notice_required":
			v.require(p.Settings.CurrentNoticeRequired || !s.CurrentNoticeRequired, "scope.current_notice_required",
				"can only be turned on: who is enrolled is to have been told what is true")
			s.CurrentNoticeRequired = p.Settings.CurrentNoticeRequired
		case "verify_threshold":
			s.VerifyThreshold = p.Settings.VerifyThreshold
		case "identify_threshold":
			s.IdentifyThreshold = p.Settings.IdentifyThreshold
		case "max_templates_per_subject":
			s.MaxTemplates = p.Settings.MaxTemplates
		case "decision_audit":
			s.DecisionAudit = p.Settings.DecisionAudit
		case "audit_retention":
			v.require(p.Settings.AuditRetention > 0 && (s.AuditRetention == 0 || p.Settings.AuditRetention <= s.AuditRetention),
				"scope.audit_retention", "can only be shortened: what was recorded was recorded for the present one")
			s.AuditRetention = p.Settings.AuditRetention
		default:
			v.require(false, "update_mask", "names %q, which cannot be changed", field)
		}
	}
	return s
}

// expiry decides until when a subject enrolled now may match.
func (s Settings) expiry(asked, now time.Time) (time.Time, error) {
	asked, latest := asked.Truncate(time.Second), s.EndTime
	if s.Retention > 0 && now.Add(s.Retention).Before(latest) {
		latest = now.Add(s.Retention)
	}
	switch {
	case asked.IsZero():
		return latest.UTC().Truncate(time.Second), nil
	case !asked.After(now):
		return time.Time{}, &InvalidError{Violations: []Violation{{Field: "expire_time", Text: "lies in the past"}}}
	case asked.After(latest):
		return time.Time{}, &InvalidError{Violations: []Violation{{Field: "expire_time",
			Text: fmt.Sprintf("lies after %s, the latest that the scope's retention and end allow", latest.UTC().Format(time.RFC3339))}}}
	}
	return asked.UTC(), nil
}
