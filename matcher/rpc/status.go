package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/admission"
	"github.com/menshen-io/menshen/matcher/audit"
	"github.com/menshen-io/menshen/matcher/auth"
	"github.com/menshen-io/menshen/matcher/backup"
	"github.com/menshen-io/menshen/matcher/idempotency"
	"github.com/menshen-io/menshen/matcher/notice"
	"github.com/menshen-io/menshen/matcher/receipt"
	"github.com/menshen-io/menshen/matcher/rpc/arrive"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
	"github.com/menshen-io/menshen/models/embed"
	"github.com/menshen-io/menshen/models/pipeline"
	"github.com/menshen-io/menshen/models/quality"
)

// domain is the ErrorInfo domain of every reason below.
const domain = "menshen.io"

// verdict is what callers are told of an error.
type verdict struct {
	err    error
	code   codes.Code
	reason string
	// text is what is said; own where the error's text is made for callers.
	text string
	// field is the request field at fault, for BadRequest.
	field string
	// retry is after how long a repetition may succeed; 0: it does not help.
	retry time.Duration
}

// own stands for the error's own text. Only errors whose text is made from the
// caller's own names, sizes and limits have it.
const own = ""

// Texts that several rows share.
const (
	saidInternal   = "internal error: the server's log tells more under this incident id"
	saidDenied     = "the credential does not cover this, or it does not exist"
	saidRevoked    = "the scope is revoked: its purpose has ended for ever"
	saidSetup      = "the server is not set up correctly: its operator finds more in its log"
	saidLedger     = "the ledger of receipts is damaged on disk: erasures go on and their receipts are kept, but none is shown and no scope is opened until the server's operator has restored it"
	saidStore      = "the server can not write at the moment: its operator finds more in its log"
	saidUnaudited  = "the audit log cannot be written, so nothing was done: its operator finds more in the server's log; matching, erasing and revoking go on"
	saidClosing    = "the server is shutting down"
	saidUnfinished = "nothing of the scope matches any more, but it is not wholly erased yet: the server goes on trying, repeating the call tells when it is"
	saidDamaged    = "records are damaged on disk: the server refuses to answer from what is left; its operator finds more in its log"
)

// fieldProbe is the field of a probe that stands alone; a *matcher.ProbeError
// makes it probes[i].
const fieldProbe = "probe"

const soon, later = time.Second, time.Minute

// verdicts is the one table from errors to what callers are told. The first row
// that errors.Is matches counts, so that what wraps stands before what is
// wrapped. A test demands a row for each exported sentinel of the packages that
// a call passes.
var verdicts = []verdict{
	// Admission.
	{errNoMethod, codes.PermissionDenied, "METHOD_NOT_ALLOWED", own, "", 0},
	{auth.ErrKeyNeeded, codes.Unauthenticated, "CREDENTIAL_MISSING", "the call shows no API key: send it as \"authorization: Bearer KEY\"", "", 0},
	{auth.ErrCertificateNeeded, codes.Unauthenticated, "CERTIFICATE_MISSING", "the call shows no client certificate that names its holder: connect with one that holds a SPIFFE ID or a subject", "", 0},
	{auth.ErrCertificateUnknown, codes.Unauthenticated, "CERTIFICATE_UNKNOWN", own, "", 0},
	{auth.ErrCertificateNames, codes.Unauthenticated, "CERTIFICATE_AMBIGUOUS", own, "", 0},
	{auth.ErrCertificateEnded, codes.Unauthenticated, "CERTIFICATE_INVALID", "the client certificate has expired, or its authority is not accepted any more: connect with a new one", "", 0},
	{auth.ErrOtherCredential, codes.Unauthenticated, "CREDENTIAL_CONFLICT", "the API key and the client certificate do not belong together: send the key of the credential that the certificate is bound to, or leave one of them out", "", 0},
	{errManyCredentials, codes.Unauthenticated, "CREDENTIAL_AMBIGUOUS", own, "", 0},
	{errScheme, codes.Unauthenticated, "CREDENTIAL_MALFORMED", own, "", 0},
	{errRole, codes.PermissionDenied, "ROLE_NOT_ALLOWED", own, "", 0},
	{auth.ErrUnauthenticated, codes.Unauthenticated, "CREDENTIAL_INVALID", "the API key is not valid: it is unknown, expired or revoked", "", 0},
	{auth.ErrDenied, codes.PermissionDenied, "NOT_COVERED", saidDenied, "", 0},
	{scope.ErrNotGranted, codes.PermissionDenied, "NOT_COVERED", saidDenied, "", 0},
	{auth.ErrScopeNeeded, codes.InvalidArgument, "SCOPE_REQUIRED", own, "", 0},
	{auth.ErrTenantNeeded, codes.InvalidArgument, "TENANT_REQUIRED", own, "", 0},

	// Overload. RetryInfo tells what the error itself says.
	{admission.ErrOverloaded, codes.ResourceExhausted, "OVERLOADED", own, "", soon},
	{errWatchers, codes.ResourceExhausted, "TOO_MANY_WATCHERS", own, "", later},
	{arrive.ErrFull, codes.ResourceExhausted, "OVERLOADED", own, "", soon},
	{arrive.ErrStalled, codes.DeadlineExceeded, "STALLED", own, "", 0},

	// Reading the request.
	{errMissing, codes.InvalidArgument, "FIELD_MISSING", own, "", 0},
	{errName, codes.InvalidArgument, "BAD_NAME", own, "", 0},
	{errPageSize, codes.InvalidArgument, "BAD_PAGE_SIZE", own, "", 0},
	{errPageToken, codes.InvalidArgument, "BAD_PAGE_TOKEN", own, "", 0},
	{errFieldMask, codes.InvalidArgument, "BAD_FIELD_MASK", own, "", 0},
	{errRange, codes.InvalidArgument, "OUT_OF_RANGE", own, "", 0},
	{scope.ErrBadID, codes.InvalidArgument, "BAD_NAME", own, "name", 0},
	{idempotency.ErrBadRequestID, codes.InvalidArgument, "BAD_REQUEST_ID", own, "request_id", 0},
	{idempotency.ErrReused, codes.InvalidArgument, "REQUEST_ID_REUSED", own, "request_id", 0},
	{notice.ErrLanguage, codes.InvalidArgument, "BAD_LANGUAGE", own, "language", 0},
	{matcher.ErrInvalid, codes.InvalidArgument, "INVALID_FIELD", own, "", 0},
	{auth.ErrInvalid, codes.InvalidArgument, "INVALID_FIELD", own, "", 0},

	// Scopes.
	{matcher.ErrNoScope, codes.NotFound, "SCOPE_NOT_FOUND", own, "", 0},
	{matcher.ErrScopeExists, codes.AlreadyExists, "SCOPE_ID_USED", own, "", 0},
	{matcher.ErrTooManyScopes, codes.FailedPrecondition, "TOO_MANY_SCOPES", own, "", 0},
	{matcher.ErrRevocationNotDurable, codes.Unavailable, "NOT_DURABLE_YET", "the scope matches nothing from now on, but the server could not write that down: its operator must make room on the disk; repeat the call until it succeeds", "", soon},
	{matcher.ErrErasureUnfinished, codes.Unavailable, "NOT_ERASED_YET", saidUnfinished, "", soon},
	{matcher.ErrScopeSuspended, codes.FailedPrecondition, "SCOPE_SUSPENDED", own, "", 0},
	{matcher.ErrScopeEnded, codes.FailedPrecondition, "SCOPE_ENDED", own, "", 0},
	{matcher.ErrScopeRevoked, codes.FailedPrecondition, "SCOPE_REVOKED", own, "", 0},
	{matcher.ErrNotKeepable, codes.DataLoss, "SCOPE_DAMAGED", saidDamaged, "", 0}, // of repairs, which no call makes
	{matcher.ErrScopeDamaged, codes.DataLoss, "SCOPE_DAMAGED", saidDamaged, "", 0},
	{index.ErrDropped, codes.FailedPrecondition, "SCOPE_REVOKED", saidRevoked, "", 0}, // a revocation overtook the call
	{index.ErrNoGallery, codes.FailedPrecondition, "SCOPE_REVOKED", saidRevoked, "", 0},
	{keyring.ErrDestroyed, codes.FailedPrecondition, "SCOPE_REVOKED", saidRevoked, "", 0},
	{keyring.ErrNoKey, codes.FailedPrecondition, "SCOPE_REVOKED", saidRevoked, "", 0},

	// Probes.
	{matcher.ErrNoProbe, codes.InvalidArgument, "PROBE_MISSING", own, fieldProbe, 0},
	{matcher.ErrNoFace, codes.InvalidArgument, "NO_FACE", own, fieldProbe, 0},
	{matcher.ErrManyFaces, codes.InvalidArgument, "MANY_FACES", own, fieldProbe, 0},
	{matcher.ErrQuality, codes.InvalidArgument, "QUALITY_TOO_LOW", own, fieldProbe, 0},
	{matcher.ErrModelMismatch, codes.FailedPrecondition, "MODEL_MISMATCH", own, fieldProbe, 0},
	{matcher.ErrVectorLength, codes.InvalidArgument, "EMBEDDING_LENGTH", own, fieldProbe, 0},
	{code.ErrDimension, codes.InvalidArgument, "EMBEDDING_LENGTH", own, fieldProbe, 0},
	{code.ErrNotFinite, codes.InvalidArgument, "EMBEDDING_NOT_FINITE", own, fieldProbe, 0},
	{code.ErrZero, codes.InvalidArgument, "EMBEDDING_ZERO", own, fieldProbe, 0},
	{decode.ErrEmpty, codes.InvalidArgument, "IMAGE_EMPTY", own, fieldProbe, 0},
	{decode.ErrFormat, codes.InvalidArgument, "IMAGE_FORMAT", own, fieldProbe, 0},
	{decode.ErrTruncated, codes.InvalidArgument, "IMAGE_TRUNCATED", own, fieldProbe, 0},
	{decode.ErrCorrupt, codes.InvalidArgument, "IMAGE_CORRUPT", own, fieldProbe, 0},
	{decode.ErrTooLarge, codes.InvalidArgument, "IMAGE_TOO_LARGE", own, fieldProbe, 0},
	{decode.ErrTooSmall, codes.InvalidArgument, "IMAGE_TOO_SMALL", own, fieldProbe, 0},
	{align.ErrCropSize, codes.InvalidArgument, "CROP_SIZE", own, fieldProbe, 0},
	{align.ErrDegenerate, codes.InvalidArgument, "FACE_NOT_ALIGNABLE", own, fieldProbe, 0},
	{detect.ErrImage, codes.InvalidArgument, "IMAGE_CORRUPT", own, fieldProbe, 0},
	{pipeline.ErrNoDetector, codes.FailedPrecondition, "NO_DETECTOR", own, fieldProbe, 0},
	{index.ErrK, codes.InvalidArgument, "OUT_OF_RANGE", own, "max_candidates", 0},

	// Subjects.
	{matcher.ErrNoSubject, codes.NotFound, "SUBJECT_NOT_FOUND", own, "", 0},
	{matcher.ErrSubjectExists, codes.AlreadyExists, "SUBJECT_EXISTS", own, "", 0},
	{matcher.ErrNoTemplate, codes.NotFound, "TEMPLATE_NOT_FOUND", own, "", 0},
	{matcher.ErrTransmissionConsent, codes.FailedPrecondition, "TRANSMISSION_CONSENT_REQUIRED", own, "consent.transmission", 0},
	{matcher.ErrNoticeNotCurrent, codes.FailedPrecondition, "NOTICE_NOT_CURRENT", own, "consent.notice_version", 0},
	{matcher.ErrOvertaken, codes.Aborted, "OVERTAKEN", "the match was erased while the answer was on its way: ask again", "", soon},
	{matcher.ErrTooManyTemplates, codes.FailedPrecondition, "TOO_MANY_TEMPLATES", own, "", 0},

	// Receipts.
	{receipt.ErrNoReceipt, codes.NotFound, "RECEIPT_NOT_FOUND", own, "", 0},
	{receipt.ErrTorn, codes.DataLoss, "LEDGER_DAMAGED", saidLedger, "", 0},
	{receipt.ErrLedger, codes.DataLoss, "LEDGER_DAMAGED", saidLedger, "", 0},
	{receipt.ErrInvalid, codes.Internal, "INTERNAL", saidInternal, "", 0},

	// Tenants and credentials.
	{auth.ErrTenantExists, codes.AlreadyExists, "TENANT_EXISTS", own, "", 0},
	{auth.ErrTenantDeleted, codes.FailedPrecondition, "TENANT_DELETED", own, "", 0},
	{matcher.ErrLiveScopes, codes.FailedPrecondition, "TENANT_HAS_SCOPES", own, "", 0},
	{matcher.ErrTenantClosed, codes.FailedPrecondition, "TENANT_DELETED", own, "", 0},
	{auth.ErrNoTenant, codes.NotFound, "TENANT_NOT_FOUND", own, "", 0},
	{auth.ErrNoCredential, codes.NotFound, "CREDENTIAL_NOT_FOUND", own, "", 0},
	{auth.ErrTooManyCredentials, codes.FailedPrecondition, "TOO_MANY_CREDENTIALS", own, "", 0},
	{auth.ErrCertificateTaken, codes.AlreadyExists, "CERTIFICATE_TAKEN", own, "", 0},
	{auth.ErrCertificateBinding, codes.PermissionDenied, "CERTIFICATE_NEEDS_ADMIN", own, "", 0},
	{auth.ErrLastAdmin, codes.FailedPrecondition, "LAST_ADMIN", own, "", 0},

	// Backups.
	{backup.ErrRecipient, codes.InvalidArgument, "BAD_RECIPIENT", own, "recipients", 0},
	{matcher.ErrBackupRunning, codes.ResourceExhausted, "BACKUP_RUNNING", own, "", later},

	// The audit log.
	{matcher.ErrUnrecorded, codes.Unavailable, "AUDIT_UNAVAILABLE", "the scope demands that every decision is recorded, and the audit log cannot be written: use the alternative until the server's operator has seen to its disk", "", soon},
	{errAuditedLate, codes.Internal, "AUDIT_LATE", "the call was carried out, but could not be written to the audit log yet; it will be as soon as that can be written. Look at what there is before repeating it: the server's operator finds more in its log", "", 0},
	{audit.ErrNoSpace, codes.ResourceExhausted, "DISK_FULL", "the server's disk is nearly full: nothing is changed that the audit log could not keep, until its operator makes room; matching and revoking go on, erasing while its reserve lasts", "", later},
	{errUnaudited, codes.Unavailable, "AUDIT_UNAVAILABLE", saidUnaudited, "", later},
	{audit.ErrFailed, codes.Unavailable, "AUDIT_UNAVAILABLE", saidUnaudited, "", later},
	{audit.ErrBusy, codes.Unavailable, "AUDIT_UNAVAILABLE", saidUnaudited, "", later},
	{audit.ErrClosed, codes.Unavailable, "SERVER_CLOSING", saidClosing, "", soon},
	{audit.ErrDamaged, codes.DataLoss, "AUDIT_DAMAGED", "the audit log is not as it was written: its operator finds more in the server's log and with menshen audit verify", "", 0},
	{audit.ErrInvalid, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{audit.ErrLocked, codes.Internal, "SETUP", saidSetup, "", 0},
	{audit.ErrPseudonyms, codes.Internal, "SETUP", saidSetup, "", 0},
	{errEventWatchers, codes.ResourceExhausted, "TOO_MANY_WATCHERS", own, "", later},

	// The server is going away, or can not write.
	{errDraining, codes.Unavailable, "SERVER_CLOSING", own, "", soon},
	{matcher.ErrClosed, codes.Unavailable, "SERVER_CLOSING", own, "", soon},
	{store.ErrClosed, codes.Unavailable, "SERVER_CLOSING", saidClosing, "", soon},
	{models.ErrClosed, codes.Unavailable, "SERVER_CLOSING", saidClosing, "", soon},
	{keyring.ErrClosed, codes.Unavailable, "SERVER_CLOSING", saidClosing, "", soon},
	{store.ErrNoSpace, codes.ResourceExhausted, "DISK_FULL", "the server's disk is nearly full: nobody is enrolled until its operator makes room. Erasing goes on in a reserve; if it was refused, that is used up, and who was to be erased still matches: repeat the call once there is room. Matching and revoking go on", "", later},
	{store.ErrFault, codes.Unavailable, "STORE_FAILED", saidStore, "", later},
	{store.ErrFailed, codes.Unavailable, "STORE_FAILED", saidStore, "", later},
	{store.ErrNotErased, codes.Unavailable, "NOT_ERASED_YET", saidUnfinished, "", soon},
	{store.ErrTooBig, codes.InvalidArgument, "TOO_BIG", "the request holds more than one change can store: send less at once", "", 0},

	// Lost or altered records.
	{store.ErrDamaged, codes.DataLoss, "STORE_DAMAGED", saidDamaged, "", 0},
	{keyring.ErrDamaged, codes.DataLoss, "STORE_DAMAGED", saidDamaged, "", 0},
	{keyring.ErrSealed, codes.DataLoss, "STORE_DAMAGED", saidDamaged, "", 0},
	{auth.ErrRecord, codes.DataLoss, "STORE_DAMAGED", saidDamaged, "", 0},
	{idempotency.ErrRecord, codes.DataLoss, "STORE_DAMAGED", saidDamaged, "", 0},

	// Faults of the models.
	{models.ErrRun, codes.Internal, "INFERENCE_FAILED", "the model could not be run: its operator finds more in the server's log", "", 0},
	{models.ErrNotFinite, codes.Internal, "INFERENCE_FAILED", "the model gave no usable answer for this picture: send another one", "", 0},

	// Faults of the service itself: a caller can do nothing about them.
	{errPanic, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{code.ErrCode, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{code.ErrWiped, codes.Internal, "INTERNAL", saidInternal, "", 0}, // the matcher says that the scope is revoked
	{index.ErrInconsistent, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{index.ErrDuplicate, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{index.ErrEpoch, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{index.ErrQuery, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{index.ErrExists, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{store.ErrNotFound, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{store.ErrBadKey, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{store.ErrBadMutation, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{store.ErrEpoch, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{store.ErrPermanent, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{keyring.ErrExists, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{pipeline.ErrNoFace, codes.Internal, "INTERNAL", saidInternal, "", 0},

	// Faults of the set-up, found when the server starts; here for completeness.
	{store.ErrRestoring, codes.Internal, "SETUP", saidSetup, "", 0},
	{store.ErrBackup, codes.Internal, "SETUP", saidSetup, "", 0},
	{matcher.ErrOldLedger, codes.Internal, "SETUP", saidSetup, "", 0},
	{matcher.ErrOldKeyring, codes.Internal, "SETUP", saidSetup, "", 0},
	{matcher.ErrOldRecords, codes.Internal, "SETUP", saidSetup, "", 0},
	{store.ErrNotEmpty, codes.Internal, "SETUP", saidSetup, "", 0},
	{models.ErrManifest, codes.Internal, "SETUP", saidSetup, "", 0},
	{models.ErrUnknownModel, codes.Internal, "SETUP", saidSetup, "", 0},
	{models.ErrAbsent, codes.Internal, "SETUP", saidSetup, "", 0},
	{models.ErrHashMismatch, codes.Internal, "SETUP", saidSetup, "", 0},
	{models.ErrUnrecognised, codes.Internal, "SETUP", saidSetup, "", 0},
	{models.ErrModelName, codes.Internal, "SETUP", saidSetup, "", 0},
	{models.ErrModelExists, codes.Internal, "SETUP", saidSetup, "", 0},
	{models.ErrPull, codes.Internal, "SETUP", saidSetup, "", 0},
	{models.ErrRuntimeMissing, codes.Internal, "SETUP", saidSetup, "", 0},
	{models.ErrNotModel, codes.Internal, "SETUP", saidSetup, "", 0},
	{models.ErrModelShape, codes.Internal, "SETUP", saidSetup, "", 0},
	{models.ErrProvider, codes.Internal, "SETUP", saidSetup, "", 0},
	{detect.ErrOptions, codes.Internal, "SETUP", saidSetup, "", 0},
	{embed.ErrNotEmbedder, codes.Internal, "SETUP", saidSetup, "", 0},
	{quality.ErrLimits, codes.Internal, "SETUP", saidSetup, "", 0},
	{pipeline.ErrEvaluationModel, codes.Internal, "SETUP", saidSetup, "", 0},
	{pipeline.ErrWrongKind, codes.Internal, "SETUP", saidSetup, "", 0},
	{keyring.ErrRootKeyExists, codes.Internal, "SETUP", saidSetup, "", 0},
	{keyring.ErrRootKeyMode, codes.Internal, "SETUP", saidSetup, "", 0},
	{keyring.ErrRootKeyFormat, codes.Internal, "SETUP", saidSetup, "", 0},
	{keyring.ErrRootKeyFixed, codes.Internal, "SETUP", saidSetup, "", 0},
	{keyring.ErrKeeper, codes.Internal, "SETUP", saidSetup, "", 0},
	{keyring.ErrOldCopy, codes.Internal, "SETUP", saidSetup, "", 0},
	{keyring.ErrPseudonyms, codes.Internal, "INTERNAL", saidInternal, "", 0},
	{keyring.ErrMissing, codes.Internal, "SETUP", saidSetup, "", 0},
	{keyring.ErrWrongRoot, codes.Internal, "SETUP", saidSetup, "", 0},
	{keyring.ErrLocked, codes.Internal, "SETUP", saidSetup, "", 0},
	{store.ErrLocked, codes.Internal, "SETUP", saidSetup, "", 0},
	{store.ErrReadOnlyDir, codes.Internal, "SETUP", saidSetup, "", 0},
	{store.ErrFormat, codes.Internal, "SETUP", saidSetup, "", 0},
	{store.ErrKeyring, codes.Internal, "SETUP", saidSetup, "", 0},

	// The caller went away or gave too little time. Last: an error that says
	// more and wraps one of these is told by what it says.
	{context.Canceled, codes.Canceled, "CANCELED", "the caller gave the call up", "", 0},
	{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED", "the caller's deadline passed before the answer was ready", "", 0},
}

// unknown is told of an error that has no row.
var unknown = verdict{code: codes.Internal, reason: "INTERNAL", text: saidInternal}

// judge finds the row of an error.
func judge(err error) verdict {
	for _, v := range verdicts {
		if errors.Is(err, v.err) {
			return v
		}
	}
	return unknown
}

// toStatus is what a caller is told of an error; a status stays what it is.
func toStatus(err error) *status.Status {
	return toStatusWith(err, nil)
}

// toStatusWith is toStatus with more metadata for the ErrorInfo.
func toStatusWith(err error, metadata map[string]string) *status.Status {
	if s, ok := status.FromError(err); ok {
		return s
	}
	v := judge(err)
	info := &errdetails.ErrorInfo{Reason: v.reason, Domain: domain, Metadata: metadata}
	details := []protoadapt.MessageV1{info}
	if fields := v.fields(err); len(fields) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: fields})
	}
	var overload *admission.Overload
	if errors.As(err, &overload) {
		v.retry = overload.RetryAfter
	}
	if v.retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(v.retry)})
	}
	s := status.New(v.code, v.say(err))
	if full, err := s.WithDetails(details...); err == nil {
		return full
	}
	return s
}

// maxSaid bounds a text, since it travels in a header.
const maxSaid = 500

// say is the public text of an error: the row's, or the error's own without the
// names of packages, control characters and excess length.
func (v verdict) say(err error) string {
	if v.text != own {
		return v.text
	}
	var probe *matcher.ProbeError
	place := ""
	if errors.As(err, &probe) {
		place, err = fmt.Sprintf("probes[%d]: ", probe.Index), probe.Err
	}
	text := err.Error()
	for _, prefix := range []string{"decode: ", "align: ", "detect: ", "pipeline: ", "models: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return place + clip(text, maxSaid)
}

// clip makes a text fit to be sent and printed.
func clip(text string, most int) string {
	cut := ""
	if len(text) > most {
		text, cut = text[:most], "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return unicode.ReplacementChar
	}, strings.ToValidUTF8(text, "")) + cut
}

// maxFields bounds the violations that are told of one request.
const maxFields = 16

// fields are the violations of a request's fields.
func (v verdict) fields(err error) (out []*errdetails.BadRequest_FieldViolation) {
	add := func(field, text string) {
		if len(out) < maxFields {
			out = append(out, &errdetails.BadRequest_FieldViolation{Field: field, Description: clip(text, maxSaid/2), Reason: v.reason})
		}
	}
	var (
		invalid    *matcher.InvalidError
		credential *auth.InvalidError
		one        *fieldError
		probe      *matcher.ProbeError
	)
	switch {
	case errors.As(err, &invalid):
		for _, f := range invalid.Violations {
			add(f.Field, f.Text)
		}
	case errors.As(err, &credential):
		for _, f := range credential.Violations {
			add(f.Field, f.Text)
		}
	case errors.As(err, &one):
		add(one.field, one.text)
	case v.field == fieldProbe && errors.As(err, &probe):
		add(fmt.Sprintf("probes[%d]", probe.Index), v.say(probe.Err))
	case v.field != "":
		add(v.field, v.say(err))
	}
	return out
}

// unexpected reports whether an error is the service's own fault, to be logged
// with an incident id.
func (v verdict) unexpected() bool {
	switch v.code {
	case codes.Internal, codes.DataLoss, codes.Unknown:
		return true
	}
	return v.reason == "STORE_FAILED" || v.reason == "AUDIT_UNAVAILABLE" || v.reason == "AUDIT_LATE" || v.reason == "NOT_ERASED_YET"
}
