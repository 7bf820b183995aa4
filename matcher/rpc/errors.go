package rpc

import "errors"

// Errors of admitting a call.
var (
	errNoMethod        = errors.New("there is no such method, or it may not be called")
	errManyCredentials = errors.New("more than one authorization header: send exactly one")
	errScheme          = errors.New("the authorization header is not of the form \"Bearer KEY\"")
	errRole            = errors.New("the credential's role does not allow this method")
)

// Errors of writing an act down; they wrap that of matcher/audit.
var (
	errUnaudited   = errors.New("the audit log cannot be written, so the call was not carried out")
	errAuditedLate = errors.New("the call was carried out, but the audit log could not be written")
)

// Errors of reading a request; a *fieldError wraps them.
var (
	errMissing   = errors.New("a required field is not set")
	errName      = errors.New("malformed resource name")
	errPageSize  = errors.New("malformed page size")
	errPageToken = errors.New("malformed page token")
	errFieldMask = errors.New("malformed field mask")
	errRange     = errors.New("a field is out of range")
)

// Errors of streams.
var (
	errDraining = errors.New("the server is shutting down: open a new stream, unanswered items included")
	errPanic    = errors.New("a handler panicked")
)
