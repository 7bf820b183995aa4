package auth

import (
	"fmt"

	"github.com/menshen-io/menshen/index/scope"
)

// Role says what a credential may do.
type Role uint8

// The roles. The zero Role is none of them and permits nothing. The numbers are
// stored: they are never given another meaning.
const (
	// PlatformAdmin manages tenants and credentials. It sees no scope and no
	// subject and compares no face.
	PlatformAdmin Role = 1 + iota
	// TenantOperator manages the scopes, credentials and subjects of one
	// tenant. It compares no face and enrols nobody.
	TenantOperator
	// Enroller enrols and erases subjects of the credential's scopes.
	Enroller
	// Gate verifies and identifies in the credential's scopes.
	Gate
	// Auditor reads settings, subjects and credentials of one tenant and
	// changes nothing.
	Auditor
)

// Roles lists every role.
func Roles() []Role { return []Role{PlatformAdmin, TenantOperator, Enroller, Gate, Auditor} }

// String gives the role's name as the API writes it.
func (r Role) String() string {
	switch r {
	case PlatformAdmin:
		return "PLATFORM_ADMIN"
	case TenantOperator:
		return "TENANT_OPERATOR"
	case Enroller:
		return "ENROLLER"
	case Gate:
		return "GATE"
	case Auditor:
		return "AUDITOR"
	}
	return fmt.Sprintf("Role(%d)", uint8(r))
}

// Valid reports whether r is one of the roles.
func (r Role) Valid() bool { return r >= PlatformAdmin && r <= Auditor }

// Uses are all that the role may do in a scope that its credential covers.
func (r Role) Uses() scope.Use {
	switch r {
	case TenantOperator:
		return scope.UseManage | scope.UseErase | scope.UseRead | scope.UseSettings
	case Enroller:
		return scope.UseEnroll | scope.UseErase | scope.UseRead | scope.UseSettings
	case Gate:
		return scope.UseVerify | scope.UseIdentify | scope.UseSettings
	case Auditor:
		return scope.UseRead | scope.UseSettings
	}
	return 0
}

// OfScopes reports whether credentials of the role name the scopes that they
// cover. Those of the other tenant roles cover every scope of their tenant.
func (r Role) OfScopes() bool { return r == Enroller || r == Gate }

// OfTenant reports whether credentials of the role belong to a tenant.
func (r Role) OfTenant() bool { return r.Valid() && r != PlatformAdmin }
