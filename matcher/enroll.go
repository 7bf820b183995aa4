package matcher

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/admission"
	"github.com/menshen-io/menshen/matcher/idempotency"
	"github.com/menshen-io/menshen/models/quality"
)

// Enrollment adds one subject, or templates to one.
type Enrollment struct {
	Subject      scope.SubjectID // empty: a random one is drawn
	Consent      Consent
	Probes       []Probe   // 1 to MaxTemplates, all of the one person
	ExpireTime   time.Time // zero: the latest that the scope allows
	AddTemplates bool      // the subject exists and gets further templates
	Patient      bool      // waits for a busy machine rather than being refused
	Request      idempotency.Request
}

// ProbeReport tells what was seen in one enrolment probe.
type ProbeReport struct {
	Face *DetectedFace
	// Findings say what could be better; none prevented the enrolment.
	Findings []quality.Finding
}

// Enrolled is the result of an enrolment.
type Enrolled struct {
	Subject  Subject
	Reports  []ProbeReport // one a probe; none when Repeated
	Epoch    scope.Epoch   // from which on the subject can match
	Repeated bool          // the call repeated an earlier one
}

// Enroll makes templates from the probes and adds them to the granted scope:
// all of them or none, and with them the context's Act. When it returns without an error the subject is durable
// and the next search sees it.
func (m *Matcher) Enroll(ctx context.Context, g scope.Grant, e Enrollment) (Enrolled, error) {
	sc, err := m.granted(g, scope.UseEnroll)
	if err != nil {
		return Enrolled{}, err
	}
	now := m.now()
	if err := sc.usable(now); err != nil {
		return Enrolled{}, err
	}
	if err := e.check(now); err != nil {
		return Enrolled{}, err
	}
	if e.Subject == "" {
		e.Subject = drawSubjectID()
	}
	unlock, err := sc.lockChange(ctx, e.Request, e.Subject)
	if err != nil {
		return Enrolled{}, err
	}
	defer unlock()
	if first, again, err := m.repeatedEnrollment(sc, e); again || err != nil {
		return first, err
	}
	rec, replaced, err := m.planEnrollment(sc, e, now)
	if err != nil {
		return Enrolled{}, err
	}
	codes, reports, err := m.makeTemplates(ctx, sc, e)
	defer func() { // the store has sealed and the gallery copied them
		for _, c := range codes {
			clear(c.Q)
		}
	}()
	if err != nil {
		return Enrolled{}, err
	}
	epoch, err := m.addTemplates(sc, m.draft(ctx, sc.ref), e, rec, replaced, codes, now)
	if err != nil {
		return Enrolled{}, err
	}
	return Enrolled{Subject: sc.subject(e.Subject, *rec), Reports: reports, Epoch: epoch}, nil
}

// check reports every violation, fields named as in the API's EnrollRequest.
func (e Enrollment) check(now time.Time) error {
	var v checks
	if e.Subject != "" {
		err := e.Subject.Validate()
		v.require(err == nil, "subject_id", "%v", err)
	}
	v.require(e.Subject != "" || !e.AddTemplates, "subject_id", "is required with add_templates")
	v.require(len(e.Probes) > 0, "probes", "is required: send at least one picture or embedding of the person")
	v.require(len(e.Probes) <= MaxTemplates, "probes", "has %d entries; at most %d are allowed", len(e.Probes), MaxTemplates)
	e.Consent.check(&v, now)
	if err := e.Request.Validate(); err != nil {
		return err
	}
	return v.err()
}

// lockChange makes sure that nobody else changes the subject, or carries out
// the same request, meanwhile. Order: request, then subject.
func (sc *scopeEntry) lockChange(ctx context.Context, r idempotency.Request, id scope.SubjectID) (unlock func(), err error) {
	unlockRequest := func() {}
	if r.Given() {
		if unlockRequest, err = sc.subjects.acquire(ctx, "request "+r.ID); err != nil {
			return nil, err
		}
	}
	unlockSubject, err := sc.subjects.acquire(ctx, "subject "+string(id))
	if err != nil {
		unlockRequest()
		return nil, err
	}
	return func() { unlockSubject(); unlockRequest() }, nil
}

// drawSubjectID draws 100 random bits, in the alphabet of ids.
func drawSubjectID() scope.SubjectID {
	var b [13]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand
	return scope.SubjectID(strings.ToLower(base32.StdEncoding.EncodeToString(b[:])[:20]))
}

// repeatedEnrollment answers a repeated request with the subject as it is now.
func (m *Matcher) repeatedEnrollment(sc *scopeEntry, e Enrollment) (Enrolled, bool, error) {
	id, again, err := m.repeated(scopeRequestKey(sc.ref, e.Request), e.Request)
	if err != nil || !again {
		return Enrolled{}, false, err
	}
	rec, err := m.subjectRecord(sc, scope.SubjectID(id))
	if err != nil {
		return Enrolled{}, true, err
	}
	return Enrolled{Subject: sc.subject(scope.SubjectID(id), rec), Epoch: sc.gallery.Epoch(), Repeated: true}, true, nil
}

// planEnrollment decides what the subject's record will be, before any
// inference is spent on it: a new one, or the existing one with room for more.
// A subject that has expired and was not erased yet is replaced.
func (m *Matcher) planEnrollment(sc *scopeEntry, e Enrollment, now time.Time) (rec, replaced *subjectRecord, err error) {
	settings := sc.info.Load().settings
	if err := settings.checkNotice(sc.ref, e.Consent); err != nil {
		return nil, nil, err
	}
	if settings.TransmissionRequired && !e.Consent.Transmission {
		return nil, nil, fmt.Errorf("%w: in %s templates are sent over a network, to which the person, or the guardian, must agree separately (consent.transmission); who does not uses the alternative",
			ErrTransmissionConsent, sc.ref)
	}
	expires, err := settings.expiry(e.ExpireTime, now)
	if err != nil {
		return nil, nil, err
	}
	old, err := m.subjectRecord(sc, e.Subject)
	live := err == nil && now.Before(old.Expires)
	switch {
	case err != nil && !errors.Is(err, ErrNoSubject):
		return nil, nil, err
	case live && !e.AddTemplates:
		return nil, nil, fmt.Errorf("%w: %s/subjects/%s; set add_templates to add to it, or delete it first", ErrSubjectExists, sc.ref, e.Subject)
	case !live && e.AddTemplates:
		return nil, nil, fmt.Errorf("%w: %s/subjects/%s; leave add_templates out to enrol a new one", ErrNoSubject, sc.ref, e.Subject)
	case live:
		rec = &old
		if e.ExpireTime.IsZero() || rec.Expires.Before(expires) {
			expires = rec.Expires // a retention is never prolonged
		}
	default:
		rec = &subjectRecord{Created: now.UTC(), Next: 1}
		if err == nil {
			replaced = &old
			rec.Next = old.Next
		}
	}
	rec.Consent, rec.Expires = e.Consent, expires
	if n := len(rec.Templates) + len(e.Probes); n > settings.MaxTemplates {
		return nil, nil, fmt.Errorf("%w: the subject would have %d; the scope allows %d", ErrTooManyTemplates, n, settings.MaxTemplates)
	}
	return rec, replaced, nil
}

// makeTemplates runs every probe through the models and turns it into a code.
func (m *Matcher) makeTemplates(ctx context.Context, sc *scopeEntry, e Enrollment) (codes []code.Code, reports []ProbeReport, err error) {
	ticket, err := m.admit(ctx, sc, admission.Ask{Work: admission.Work{Op: admission.Enroll}, Patient: e.Patient}, e.Probes...)
	if err != nil {
		return nil, nil, err
	}
	defer func() { ticket.Done(err) }()
	codes = make([]code.Code, len(e.Probes))
	reports = make([]ProbeReport, len(e.Probes))
	w := m.workspace(sc.dim)
	defer m.giveBack(w)
	for i, p := range e.Probes {
		sightings, err := m.perceive(ctx, w, sc, p, onlyFace)
		if err == nil && !sightings[0].usable() {
			err = &QualityError{Findings: sightings[0].findings}
		}
		if err == nil {
			codes[i], err = code.Encode(sc.rotation, sightings[0].embedding)
			err = sc.afterRevocation(err)
		}
		if err != nil {
			return codes, nil, &ProbeError{Index: i, Err: err}
		}
		reports[i] = ProbeReport{Face: sightings[0].face, Findings: sightings[0].advice}
	}
	return codes, reports, nil
}

// addTemplates makes the enrolment durable and visible, and completes rec.
func (m *Matcher) addTemplates(sc *scopeEntry, act *drafted, e Enrollment, rec, replaced *subjectRecord, codes []code.Code, now time.Time) (scope.Epoch, error) {
	var change index.Change
	var deletes []store.Key
	if replaced != nil {
		change.Removes = []index.Remove{{Subject: e.Subject}}
		for _, t := range replaced.Templates {
			deletes = append(deletes, templateKey(sc.ref, e.Subject, t.ID))
		}
	}
	puts := make([]store.Record, 0, len(codes)+2)
	defer func() {
		for _, put := range puts {
			clear(put.Value)
		}
	}()
	for _, c := range codes {
		value, err := c.AppendBinary(nil)
		if err != nil {
			return 0, err
		}
		n := rec.Next
		rec.Next++
		rec.Templates = append(rec.Templates, templateEntry{ID: n, Created: now.UTC()})
		puts = append(puts, store.Record{Key: templateKey(sc.ref, e.Subject, n), Value: value})
		change.Inserts = append(change.Inserts, index.Insert{Subject: e.Subject, Template: n, Code: c, NotAfter: rec.Expires})
	}
	puts = append(puts, store.Record{Key: subjectKey(sc.ref, e.Subject), Value: encode(rec)})
	puts = append(puts, m.remember(scopeRequestKey(sc.ref, e.Request), e.Request, string(e.Subject))...)
	return m.mutate(sc, act, func() error { return sc.usable(m.now()) }, puts, deletes, change)
}
