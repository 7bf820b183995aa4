package auth

import (
	"errors"
	"fmt"
	"strings"
)

// Errors of the stage that identifies the caller.
var (
	// ErrUnauthenticated: the key is malformed, unknown, expired or revoked.
	// Which of them is never told.
	ErrUnauthenticated = errors.New("the API key is not valid")
	// ErrKeyNeeded: the call shows no API key, and the server goes by them.
	ErrKeyNeeded = errors.New("the call shows no API key")
	// ErrCertificateNeeded: the call shows no API key, or the server does not go
	// by them, and no client certificate, or one that names nobody.
	ErrCertificateNeeded = errors.New("the call shows no client certificate that names its holder")
	// ErrCertificateUnknown: no live credential is bound to the certificate.
	ErrCertificateUnknown = errors.New("the client certificate belongs to no credential")
	// ErrCertificateNames: it cannot be told whom the certificate names.
	ErrCertificateNames = errors.New("the client certificate names nobody clearly")
	// ErrCertificateEnded: the certificate of the connection was good and is not
	// any more: it expired, or its authority was removed.
	ErrCertificateEnded = errors.New("the client certificate has expired, or its authority is not accepted any more")
	// ErrOtherCredential: the API key and the client certificate of the call are
	// not of one credential, and at least one of them is bound to the other kind.
	ErrOtherCredential = errors.New("the API key and the client certificate do not belong together")
)

// Errors of the stage that authorises the caller.
var (
	// ErrDenied: the credential does not cover what was asked for. The text is
	// the same whether or not the thing exists.
	ErrDenied = errors.New("the credential does not cover this, or it does not exist")
	// ErrScopeNeeded: the call named no scope and the credential does not cover
	// exactly one.
	ErrScopeNeeded = errors.New("name the scope: the credential does not cover exactly one")
	// ErrTenantNeeded: the call named no tenant and the credential belongs to
	// none.
	ErrTenantNeeded = errors.New("name the tenant: the credential belongs to none")
)

// Errors of the stage that changes tenants and credentials.
var (
	// ErrInvalid: a field is missing or malformed; the error is an
	// *InvalidError that names each one.
	ErrInvalid = errors.New("invalid tenant or credential")
	// ErrTenantExists: the tenant id is in use.
	ErrTenantExists = errors.New("the tenant exists already")
	// ErrTenantDeleted: the tenant was deleted; nothing can be made for it.
	ErrTenantDeleted = errors.New("the tenant is deleted")
	// ErrNoTenant: there is no such tenant.
	ErrNoTenant = errors.New("no such tenant")
	// ErrNoCredential: there is no such credential.
	ErrNoCredential = errors.New("no such credential")
	// ErrTooManyCredentials: the tenant has MaxCredentials already.
	ErrTooManyCredentials = errors.New("too many credentials")
	// ErrCertificateTaken: another live credential is bound to the certificate.
	ErrCertificateTaken = errors.New("the client certificate belongs to another credential already")
	// ErrCertificateBinding: who may make a credential may not bind it to a
	// client certificate.
	ErrCertificateBinding = errors.New("only a platform admin binds credentials to client certificates")
	// ErrLastAdmin: without this credential nobody could manage the platform.
	ErrLastAdmin = errors.New("the last platform admin credential cannot be revoked")
	// ErrRecord: a stored tenant or credential cannot be read.
	ErrRecord = errors.New("a stored tenant or credential is damaged")
)

// Violation is one thing that is wrong with a request.
type Violation struct {
	// Field is the path of the field as the API names it, for example
	// "credential.scopes[1]".
	Field string
	// Text says what is wrong and what would be right.
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
