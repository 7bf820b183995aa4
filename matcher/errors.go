package matcher

import (
	"errors"
	"fmt"
	"strings"

	"github.com/menshen-io/menshen/models/quality"
)

// Errors of the stage that checks a request.
var (
	// ErrInvalid: a field is missing or malformed; the error is an
	// *InvalidError that names each one.
	ErrInvalid = errors.New("invalid request")
	// ErrClosed: the matcher is shutting down.
	ErrClosed = errors.New("the server is shutting down")
)

// Errors of the stage that finds the scope.
var (
	// ErrNoScope: there is no such scope.
	ErrNoScope = errors.New("no such scope")
	// ErrScopeExists: the scope id is or was in use in the tenant.
	ErrScopeExists = errors.New("scope id is or was in use")
	// ErrTooManyScopes: the tenant has as many scopes as it may.
	ErrTooManyScopes = errors.New("too many scopes")
	// ErrLiveScopes: the tenant has scopes that are not revoked.
	ErrLiveScopes = errors.New("the tenant has scopes that are not revoked")
	// ErrTenantClosed: the tenant was deleted while a scope was about to be made.
	ErrTenantClosed = errors.New("the tenant is deleted")
	// ErrRevocationNotDurable: the scope matches nothing from now on, but that
	// could not be written down; repeating the call tries again.
	ErrRevocationNotDurable = errors.New("the revocation is not durable yet")
	// ErrErasureUnfinished: the scope is revoked and matches nothing, but
	// something of it is not destroyed yet; repeating the call goes on.
	ErrErasureUnfinished = errors.New("the scope is revoked, but not wholly erased yet")
	// ErrScopeSuspended: the scope is suspended.
	ErrScopeSuspended = errors.New("scope is suspended")
	// ErrScopeEnded: the scope's end time has passed.
	ErrScopeEnded = errors.New("scope has ended")
	// ErrScopeRevoked: the scope was revoked.
	ErrScopeRevoked = errors.New("scope is revoked")
	// ErrScopeDamaged: records of the scope are lost or altered on disk.
	ErrScopeDamaged = errors.New("scope is damaged on disk")
)

// Errors of the stage that looks at the probe.
var (
	// ErrNoProbe: the probe holds neither an image nor a crop nor an embedding.
	ErrNoProbe = errors.New("the probe is empty")
	// ErrNoFace: no face was found in an enrolment image.
	ErrNoFace = errors.New("no face found")
	// ErrManyFaces: an enrolment image shows more than one face.
	ErrManyFaces = errors.New("more than one face found")
	// ErrQuality: an enrolment picture is not good enough; the error is a
	// *QualityError that lists the findings.
	ErrQuality = errors.New("picture quality too low")
	// ErrModelMismatch: the embedding was made by another model than the
	// scope's templates, or the server runs another model than the scope's.
	ErrModelMismatch = errors.New("model mismatch")
	// ErrVectorLength: the bytes of an embedding are not dimension * 4.
	ErrVectorLength = errors.New("embedding has the wrong length")
)

// Errors of the stage that changes subjects.
var (
	// ErrNoSubject: there is no such subject in the scope.
	ErrNoSubject = errors.New("no such subject")
	// ErrSubjectExists: the subject is enrolled already.
	ErrSubjectExists = errors.New("subject is enrolled already")
	// ErrNoTemplate: the subject has no such template.
	ErrNoTemplate = errors.New("no such template")
	// ErrTransmissionConsent: the scope takes nobody without separate consent to
	// transmission.
	ErrTransmissionConsent = errors.New("consent to transmission is missing")
	// ErrNoticeNotCurrent: the person was shown another notice than the present one.
	ErrNoticeNotCurrent = errors.New("the consent is not to the present notice")
	// ErrUnrecorded: the scope demands that decisions are recorded, and this one
	// could not be.
	ErrUnrecorded = errors.New("the decision cannot be recorded")
	// ErrOvertaken: the subject was erased while the answer was on its way.
	ErrOvertaken = errors.New("overtaken by an erasure")
	// ErrTooManyTemplates: the subject would have more templates than the scope
	// allows.
	ErrTooManyTemplates = errors.New("too many templates")
)

// Violation is one thing that is wrong with a request.
type Violation struct {
	// Field is the path of the field as the API names it, for example
	// "consent.reference".
	Field string
	// Text says what is wrong and what would be right. It never repeats
	// biometric data.
	Text string
}

// InvalidError lists every violation of one request.
type InvalidError struct{ Violations []Violation }

func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Violations))
	for i, v := range e.Violations {
		parts[i] = v.Field + ": " + v.Text
	}
	return ErrInvalid.Error() + ": " + strings.Join(parts, "; ")
}

// Is makes errors.Is(err, ErrInvalid) true.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

// QualityError lists what is wrong with an enrolment picture.
type QualityError struct{ Findings []quality.Finding }

func (e *QualityError) Error() string {
	parts := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		parts[i] = f.Text()
	}
	return ErrQuality.Error() + ": " + strings.Join(parts, "; ")
}

// Is makes errors.Is(err, ErrQuality) true.
func (e *QualityError) Is(target error) bool { return target == ErrQuality }

// ProbeError says which probe of a request failed.
type ProbeError struct {
	// Index counts the request's probes from 0.
	Index int
	Err   error
}

func (e *ProbeError) Error() string { return fmt.Sprintf("probe %d: %v", e.Index, e.Err) }

func (e *ProbeError) Unwrap() error { return e.Err }

// checks collects violations.
type checks []Violation

func (c *checks) require(ok bool, field, format string, args ...any) {
	if !ok {
		*c = append(*c, Violation{Field: field, Text: fmt.Sprintf(format, args...)})
	}
}

func (c *checks) err() error {
	if len(*c) == 0 {
		return nil
	}
	return &InvalidError{Violations: *c}
}

// Errors of backups, and of copies that are too old.
var (
	// ErrBackupRunning: one backup at a time is made.
	ErrBackupRunning = errors.New("a backup is being made")
	// ErrOldLedger: the ledger of receipts is missing, or is older than the backup
	// or the keyring, so that nobody knows what was erased since.
	ErrOldLedger = errors.New("the ledger of receipts is not the newest")
	// ErrOldKeyring: the keyring holds a key that a receipt says was destroyed.
	ErrOldKeyring = errors.New("the keyring is older than the ledger of receipts")
	// ErrOldRecords: the ledger tells of an erasure that the records know nothing
	// of, so that who was erased would match again.
	ErrOldRecords = errors.New("the records are older than the ledger of receipts")
)
