package scope

import (
	"errors"
	"fmt"
)

// Errors of names. Callers match them with errors.Is.
var (
	// ErrBadID: a tenant, scope or subject id that breaks the naming rule.
	ErrBadID = errors.New("malformed id")
)

// TenantID names the legal entity that runs gates.
type TenantID string

// ScopeID names a scope inside its tenant. It is never used twice.
type ScopeID string

// SubjectID is the pseudonym of a person inside one scope. It must not be a
// name, an ID number or an address; the service cannot tell, the operator can.
type SubjectID string

// TemplateID numbers the templates of one subject from 1. A number is not
// given again while the subject exists.
type TemplateID uint32

// Ref names one scope across tenants. The zero Ref names nothing.
type Ref struct {
	Tenant TenantID
	Scope  ScopeID
}

// String gives the resource name of the scope, tenants/T/scopes/S.
func (r Ref) String() string {
	return "tenants/" + string(r.Tenant) + "/scopes/" + string(r.Scope)
}

// MaxIDLen is the longest id in bytes, the length that RFC 1034 labels and the
// AIP resource ids allow.
const MaxIDLen = 63

// Validate checks both ids.
func (r Ref) Validate() error {
	return errors.Join(r.Tenant.Validate(), r.Scope.Validate())
}

// Validate reports whether the id follows the naming rule: 1 to MaxIDLen of
// a-z, 0-9 and '-', beginning and ending with a letter or a digit.
func (id TenantID) Validate() error { return validate("tenant", string(id)) }

// Validate reports whether the id follows the naming rule of TenantID.
func (id ScopeID) Validate() error { return validate("scope", string(id)) }

// Validate reports whether the id follows the naming rule of TenantID.
func (id SubjectID) Validate() error { return validate("subject", string(id)) }

func validate(what, id string) error {
	if id == "" {
		return fmt.Errorf("%w: the %s id is empty", ErrBadID, what)
	}
	if len(id) > MaxIDLen {
		return fmt.Errorf("%w: the %s id has %d bytes; at most %d are allowed", ErrBadID, what, len(id), MaxIDLen)
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		inner := i > 0 && i < len(id)-1
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' && inner {
			continue
		}
		if c >= 0x80 {
			return fmt.Errorf("%w: the %s id may hold a-z, 0-9 and inner '-' only; byte %d is beyond ASCII", ErrBadID, what, i)
		}
		return fmt.Errorf("%w: the %s id may hold a-z, 0-9 and inner '-' only; byte %d is %q", ErrBadID, what, i, c)
	}
	return nil
}
