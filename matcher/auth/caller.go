package auth

import (
	"fmt"
	"slices"

	"github.com/menshen-io/menshen/index/scope"
)

// Caller is an authenticated credential. Only Authority.Authenticate makes one
// that may do anything: the zero Caller is nobody. Callers are values, safe to
// share. A Caller says who somebody was when they came in; Authority.Check says
// whether they still are.
type Caller struct {
	id     CredentialID
	role   Role
	tenant scope.TenantID
	scopes []scope.ScopeID // sorted; empty unless role.OfScopes()
}

// ID is the credential's id; empty for nobody.
func (c Caller) ID() CredentialID { return c.id }

// Role is the credential's role; zero for nobody.
func (c Caller) Role() Role { return c.role }

// Tenant is the credential's tenant; empty for nobody and for platform admins.
func (c Caller) Tenant() scope.TenantID { return c.tenant }

// Scopes returns a copy of the scopes that the credential names, sorted. It is
// empty for roles that cover their whole tenant.
func (c Caller) Scopes() []scope.ScopeID { return slices.Clone(c.scopes) }

// Grant mints the proof that the caller may use ref in this one way. A scope
// that the credential does not cover gives ErrDenied, whether or not it exists:
// nothing is looked up.
func (c Caller) Grant(ref scope.Ref, use scope.Use) (scope.Grant, error) {
	if use == 0 || c.role.Uses()&use != use {
		return scope.Grant{}, fmt.Errorf("%w: the role %s does not %s", ErrDenied, c.role, use)
	}
	if !c.covers(ref) {
		return scope.Grant{}, ErrDenied
	}
	return scope.Mint(ref, use, string(c.id)).As(c.role.String()), nil
}

// covers reports whether the credential reaches ref.
func (c Caller) covers(ref scope.Ref) bool {
	if !c.role.OfTenant() || c.tenant == "" || ref.Tenant != c.tenant || ref.Validate() != nil {
		return false
	}
	if !c.role.OfScopes() {
		return true
	}
	_, found := slices.BinarySearch(c.scopes, ref.Scope)
	return found
}

// TenantGrant mints the proof that the caller may list the scopes of a tenant:
// tenant operators and auditors, of their own.
func (c Caller) TenantGrant(tenant scope.TenantID) (scope.TenantGrant, error) {
	if c.role != TenantOperator && c.role != Auditor || tenant == "" || tenant != c.tenant {
		return scope.TenantGrant{}, ErrDenied
	}
	return scope.MintTenant(tenant, string(c.id)), nil
}

// OnlyScope is the scope that a call means which names none.
func (c Caller) OnlyScope() (scope.Ref, error) {
	if len(c.scopes) != 1 {
		return scope.Ref{}, ErrScopeNeeded
	}
	return scope.Ref{Tenant: c.tenant, Scope: c.scopes[0]}, nil
}

// OnlyTenant is the tenant that a call means which names none.
func (c Caller) OnlyTenant() (scope.TenantID, error) {
	if c.tenant == "" {
		return "", ErrTenantNeeded
	}
	return c.tenant, nil
}

// seesTenant reports whether the caller may know about a tenant.
func (c Caller) seesTenant(tenant scope.TenantID) bool {
	switch c.role {
	case PlatformAdmin:
		return true
	case TenantOperator, Auditor:
		return tenant != "" && tenant == c.tenant
	}
	return false
}

// managesCredentials reports whether the caller may make and revoke credentials
// of a tenant; the empty tenant stands for the platform's own.
func (c Caller) managesCredentials(tenant scope.TenantID) bool {
	return c.role == PlatformAdmin || c.role == TenantOperator && tenant != "" && tenant == c.tenant
}
