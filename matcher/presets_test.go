package matcher

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/notice"
)

// Every preset makes a scope of purpose and site alone, but for the end of a
// purpose that only its operator knows; and what the operator says stays.
func TestPresets(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	endless := map[Preset]bool{Exhibition: true, Campus: true}
	for _, a := range Presets() {
		ref := scope.Ref{Tenant: "fair", Scope: scope.ScopeID(a.Preset)}
		bare := Settings{Preset: a.Preset, Purpose: "entry", Site: "the house"}
		s, err := w.CreateScope(ctx, grant(ref), bare, request())
		var invalid *InvalidError
		if errors.As(err, &invalid) != endless[a.Preset] {
			t.Fatalf("%s without an end: %v", a.Preset, err)
		}
		if endless[a.Preset] {
			if len(invalid.Violations) != 1 || invalid.Violations[0].Field != "scope.end_time" {
				t.Errorf("%s: %v, want the end alone to be missing", a.Preset, err)
			}
			bare.EndTime = w.now().Add(100 * day)
			s, err = w.CreateScope(ctx, grant(ref), bare, request())
			must(t, err)
		} else if !s.EndTime.Equal(w.now().Add(a.Period)) {
			t.Errorf("%s ends at %v", a.Preset, s.EndTime)
		}
		if s.Preset != a.Preset || s.Alternative != a.Alternative.String() || s.LegalBasis != a.LegalBasis.String() || s.Retention != a.Retention ||
			s.TransmissionRequired != a.Transmission || s.SingleUse != a.SingleUse || !s.CurrentNoticeRequired || s.VerifyThreshold != 0.6 {
			t.Errorf("%s gave %+v", a.Preset, s.Settings)
		}
		if a.For == "" || a.Why == "" || a.Retention == 0 {
			t.Errorf("%s does not say enough: %+v", a.Preset, a)
		}

		own := w.settings()
		own.Preset, own.Retention, own.MaxTemplates, own.Contact = a.Preset, time.Hour, 3, "desk 3"
		ref.Scope += "-own"
		s, err = w.CreateScope(ctx, grant(ref), own, request())
		must(t, err)
		if s.Alternative != own.Alternative || s.LegalBasis != own.LegalBasis || s.Retention != time.Hour || s.MaxTemplates != 3 || !s.EndTime.Equal(own.EndTime) || s.Contact != "desk 3" {
			t.Errorf("%s overruled its operator: %+v", a.Preset, s.Settings)
		}
	}
	w.restart()
	s, err := w.Scope(ctx, grant(scope.Ref{Tenant: "fair", Scope: "locker"}))
	must(t, err)
	if s.Preset != Locker || !s.SingleUse || !s.TransmissionRequired || s.MaxTemplates != 1 {
		t.Errorf("after a restart: %+v", s.Settings)
	}
	bad := w.settings()
	bad.Preset = "casino"
	if _, err := w.CreateScope(ctx, grant(hallA), bad, request()); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unknown preset: %v", err)
	}
}

// The table is the package's: nobody else changes it.
func TestPresetsAreACopy(t *testing.T) {
	Presets()[0].Retention = 0
	if Presets()[0].Retention == 0 {
		t.Error("the table of presets was changed from outside")
	}
}

// Where the present notice is demanded, a consent to another one enrols nobody:
// not one that was never given out, and not the one of before a change.
func TestCurrentNotice(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	s := w.settings()
	s.Preset, s.NoticeVersion = Workplace, "spring"
	_, err := w.CreateScope(ctx, grant(hallA), s, request())
	must(t, err)
	enroll := func(id scope.SubjectID, c Consent, add bool) error {
		_, err := w.Enroll(ctx, grant(hallA), Enrollment{Subject: id, Consent: c, Probes: []Probe{vectorOf(1, 0)}, AddTemplates: add})
		return err
	}
	first := w.told(hallA)
	if !strings.HasPrefix(first.NoticeVersion, "spring-") {
		t.Errorf("the notice has the version %q", first.NoticeVersion)
	}
	for lang, want := range map[notice.Language]string{notice.English: "Version: ", notice.Chinese: "版本："} {
		_, n, err := w.Notice(ctx, grant(hallA), "Acme", lang)
		must(t, err)
		if !strings.Contains(n.Text, want+first.NoticeVersion+"\n") {
			t.Errorf("%s: no %s in the notice", lang, first.NoticeVersion)
		}
	}
	must(t, enroll("anna", first, false))
	must(t, enroll("anna", first, true))
	for _, other := range []string{"spring", "2", strings.TrimPrefix(first.NoticeVersion, "spring-"), first.NoticeVersion + "0"} {
		c := first
		c.NoticeVersion = other
		if err := enroll("ben", c, false); !errors.Is(err, ErrNoticeNotCurrent) || strings.Contains(err.Error(), first.NoticeVersion) {
			t.Errorf("a consent to %q: %v", other, err)
		}
	}
	update := func(s Settings, field string) bool {
		u, err := w.UpdateScope(ctx, grant(hallA), SettingsPatch{Settings: s, Fields: []string{field}}, request())
		must(t, err)
		return u.NoticeChanged
	}
	if update(Settings{AssessmentReference: "dpia-2"}, "assessment_reference") {
		t.Error("what nobody is told changed the notice")
	}
	must(t, enroll("cleo", first, false))
	if !update(Settings{DecisionAudit: AuditRequired}, "decision_audit") {
		t.Error("that decisions are recorded is not told")
	}
	if err := enroll("dora", first, false); !errors.Is(err, ErrNoticeNotCurrent) {
		t.Errorf("a consent to the notice of before: %v", err)
	}
	if err := enroll("anna", first, true); !errors.Is(err, ErrNoticeNotCurrent) {
		t.Errorf("a further template under the notice of before: %v", err)
	}
	w.restart()
	must(t, enroll("dora", w.told(hallA), false))
	if c, err := w.Subject(ctx, grant(hallA), "cleo"); err != nil || c.Consent.NoticeVersion != first.NoticeVersion {
		t.Errorf("who was told the former notice: %+v, %v", c, err)
	}
}

// What people agreed to can only become stricter.
func TestStricterOnly(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	update := func(s Settings, fields ...string) error {
		_, err := w.UpdateScope(ctx, grant(hallA), SettingsPatch{Settings: s, Fields: fields}, request())
		return err
	}
	must(t, update(Settings{Contact: "desk 4", TransmissionRequired: true}, "contact", "transmission_consent_required"))
	must(t, update(Settings{TransmissionRequired: true}, "transmission_consent_required"))
	must(t, update(Settings{CurrentNoticeRequired: true}, "current_notice_required"))
	for field, s := range map[string]Settings{"transmission_consent_required": {}, "current_notice_required": {}, "single_use": {SingleUse: true}, "preset": {Preset: Gym}, "contact": {Contact: "a\u202eb"}} {
		if err := update(s, field); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", field, err)
		}
	}
}

func TestTransmissionConsent(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	s := w.settings()
	s.Preset = Campus
	_, err := w.CreateScope(ctx, grant(hallA), s, request())
	must(t, err)
	enroll := func(id scope.SubjectID, change func(*Consent), add bool) error {
		c := w.told(hallA)
		change(&c)
		_, err := w.Enroll(ctx, grant(hallA), Enrollment{Subject: id, Consent: c, Probes: []Probe{cropOf(1, 0)}, AddTemplates: add})
		return err
	}
	err = enroll("pupil", func(*Consent) {}, false)
	if !errors.Is(err, ErrTransmissionConsent) || !strings.Contains(err.Error(), "alternative") {
		t.Errorf("without consent to transmission: %v", err)
	}
	err = enroll("pupil", func(c *Consent) { c.Transmission, c.Minor = true, true }, false)
	var invalid *InvalidError
	if !errors.As(err, &invalid) || !slices.ContainsFunc(invalid.Violations, func(v Violation) bool { return v.Field == "consent.guardian_reference" }) {
		t.Errorf("a minor without a guardian: %v", err)
	}
	child := func(c *Consent) { c.Transmission, c.Minor, c.GuardianReference = true, true, "g-1" }
	must(t, enroll("pupil", child, false))
	if err := enroll("pupil", func(*Consent) {}, true); !errors.Is(err, ErrTransmissionConsent) {
		t.Errorf("a further template without consent to transmission: %v", err)
	}
	must(t, enroll("pupil", child, true))
	expect(t, w.identify(hallA, cropOf(1, 1)), Match, "pupil")
}
