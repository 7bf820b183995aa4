package matcher

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/menshen-io/menshen/matcher/idempotency"
)

// A subject matches up to the instant of its expiry and not at it, in calls and
// in answers that wait, while its record is still there: nobody has swept.
func TestExpiryToTheInstant(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	end := w.now().Add(time.Hour)
	_, err := w.Enroll(ctx, grant(hallA), Enrollment{Subject: "anna", Consent: w.consent(), Probes: []Probe{vectorOf(1, 0)}, ExpireTime: end})
	must(t, err)
	w.enroll(hallA, "ben", vectorOf(2, 0))

	w.pass(time.Hour - time.Nanosecond)
	early := w.verify(hallA, "anna", vectorOf(1, 1))
	expect(t, early, Match, "anna")
	expect(t, w.identify(hallA, vectorOf(1, 1)), Match, "anna")
	must(t, w.Stands(early, nil))
	w.restart()
	expect(t, w.verify(hallA, "anna", vectorOf(1, 1)), Match, "anna")
	for _, after := range []time.Duration{time.Nanosecond, time.Second, time.Minute} {
		w.pass(after)
		expect(t, w.verify(hallA, "anna", vectorOf(1, 1)), NoMatch, "")
		expect(t, w.identify(hallA, vectorOf(1, 1)), NoMatch, "")
		if err := w.Stands(early, nil); !errors.Is(err, ErrOvertaken) {
			t.Errorf("an answer that waited beyond the expiry: %v, want ErrOvertaken", err)
		}
		if _, err := w.Subject(ctx, grant(hallA), "anna"); err != nil {
			t.Fatalf("somebody swept, so the test shows nothing: %v", err)
		}
		expect(t, w.verify(hallA, "ben", vectorOf(2, 1)), Match, "ben")
	}
	w.restart()
	expect(t, w.identify(hallA, vectorOf(1, 1)), NoMatch, "")
}

// The same for the scope's end, which a command can bring forward.
func TestEndToTheInstant(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "anna", vectorOf(1, 0))
	end := w.now().Add(time.Hour)
	_, err := w.UpdateScope(ctx, grant(hallA), SettingsPatch{Settings: Settings{EndTime: end}, Fields: []string{"end_time"}}, request())
	must(t, err)
	w.pass(time.Hour - time.Nanosecond)
	early := w.verify(hallA, "anna", vectorOf(1, 1))
	expect(t, early, Match, "anna")
	w.pass(time.Nanosecond)
	for range 2 {
		for what, err := range map[string]error{
			"verify":         second(w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "anna", Probe: vectorOf(1, 1)})),
			"verify nobody":  second(w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "nobody", Probe: vectorOf(1, 1)})),
			"identify":       second(w.Identify(ctx, grant(hallA), IdentifyQuery{Probe: vectorOf(1, 1)})),
			"enroll":         second(w.Enroll(ctx, grant(hallA), Enrollment{Consent: w.consent(), Probes: []Probe{vectorOf(3, 0)}})),
			"waiting answer": w.Stands(early, nil),
		} {
			if !errors.Is(err, ErrScopeEnded) {
				t.Errorf("%s at the end: %v, want ErrScopeEnded", what, err)
			}
		}
		w.restart()
	}
	if s, err := w.Scope(ctx, grant(hallA)); err != nil || s.Subjects != 1 {
		t.Fatalf("somebody swept, so the test shows nothing: %d subjects, %v", s.Subjects, err)
	}
}

// Whoever comes back after a withdrawal is somebody new, even under the same id:
// nothing of before matches, is shown, or reaches the new subject.
func TestEnrolledAgainIsSomebodyNew(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	before := Enrollment{Subject: "pupil-7", Consent: w.consent(), Probes: []Probe{vectorOf(1, 0), vectorOf(1, 2)}, Request: idempotency.Request{ID: "first"}}
	_, err := w.Enroll(ctx, grant(hallA), before)
	must(t, err)
	leave := idempotency.Request{ID: "leave"}
	_, err = w.WithdrawConsent(ctx, grant(hallA), "pupil-7", leave)
	must(t, err)
	if _, err := w.Enroll(ctx, grant(hallA), before); !errors.Is(err, ErrNoSubject) {
		t.Errorf("the old request repeated: %v, want ErrNoSubject", err)
	}
	expect(t, w.identify(hallA, vectorOf(1, 1)), NoMatch, "")

	w.pass(time.Hour)
	consent := w.consent()
	consent.Reference = "form-99"
	again, err := w.Enroll(ctx, grant(hallA), Enrollment{Subject: "pupil-7", Consent: consent, Probes: []Probe{vectorOf(2, 0)}})
	must(t, err)
	if s := again.Subject; len(s.Templates) != 1 || s.Templates[0].ID != 1 || !s.CreateTime.Equal(w.now()) || s.Consent.Reference != "form-99" {
		t.Errorf("enrolled again: %+v", s)
	}
	for range 2 {
		expect(t, w.verify(hallA, "pupil-7", vectorOf(1, 1)), NoMatch, "") // the old face
		expect(t, w.identify(hallA, vectorOf(1, 1)), NoMatch, "")
		expect(t, w.identify(hallA, vectorOf(1, 2)), NoMatch, "")
		expect(t, w.verify(hallA, "pupil-7", vectorOf(2, 1)), Match, "pupil-7")
		// A client that repeats the old withdrawal does not erase the new subject.
		_, err = w.WithdrawConsent(ctx, grant(hallA), "pupil-7", leave)
		must(t, err)
		if s, err := w.Subject(ctx, grant(hallA), "pupil-7"); err != nil || s.Consent.Reference != "form-99" {
			t.Errorf("after the old withdrawal is repeated: %+v, %v", s, err)
		}
		w.restart()
	}
}
