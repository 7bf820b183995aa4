// Package scope names scopes and says who may touch them.
//
// It holds the ids of tenants, scopes and subjects, the state of a scope, and
// Grant, the proof of authorisation that every read of a gallery takes. The
// package promises that a Grant cannot be forged by a struct literal outside
// it, that the zero Grant permits nothing, and that a Grant speaks of exactly
// one scope. It does not authenticate anybody: matcher/auth does, and an
// architecture test allows Mint to be called from there alone.
package scope

import (
	"errors"
	"fmt"
)

// ErrNotGranted: the grant does not cover this scope or this use.
var ErrNotGranted = errors.New("not granted")

// Use is one thing that a grant permits in its scope. Uses combine as bits.
type Use uint32

// The uses. Each RPC needs exactly one of them.
const (
	// UseVerify permits 1:1 comparison against a claimed subject.
	UseVerify Use = 1 << iota
	// UseIdentify permits 1:N search of the gallery.
	UseIdentify
	// UseEnroll permits adding subjects and templates.
	UseEnroll
	// UseErase permits deleting templates and subjects and recording a
	// withdrawal of consent.
	UseErase
	// UseRead permits reading subjects, never templates' codes.
	UseRead
	// UseManage permits changing, suspending, resuming and revoking the scope.
	UseManage
	// UseSettings permits reading the scope's settings and counts. It is apart
	// from UseRead because a gate needs the settings and must see no subject.
	UseSettings
)

var useNames = []struct {
	use  Use
	name string
}{
	{UseVerify, "verify"}, {UseIdentify, "identify"}, {UseEnroll, "enroll"},
	{UseErase, "erase"}, {UseRead, "read"}, {UseManage, "manage"},
	{UseSettings, "settings"},
}

// String lists the uses, joined by '+'.
func (u Use) String() string {
	out := ""
	for _, n := range useNames {
		if u&n.use != 0 {
			if out != "" {
				out += "+"
			}
			out += n.name
		}
	}
	if out == "" {
		return "nothing"
	}
	return out
}

// Grant is proof that its holder may use one scope in certain ways. Its fields
// are unexported and the zero Grant permits nothing, so that code which forgot
// to authorise cannot search. Grants are values: copy them freely, keep them
// no longer than the call that they were minted for.
type Grant struct {
	ref    Ref
	uses   Use
	holder string
	role   string
}

// Mint makes a Grant. Only matcher/auth may call it: an architecture test
// fails the build otherwise. holder is the id of the credential, for the log.
func Mint(ref Ref, uses Use, holder string) Grant {
	if ref.Validate() != nil || uses == 0 || holder == "" {
		return Grant{}
	}
	return Grant{ref: ref, uses: uses, holder: holder}
}

// Ref is the one scope that the grant speaks of; zero for the zero Grant.
func (g Grant) Ref() Ref { return g.ref }

// Holder is the id of the credential that the grant was minted for.
func (g Grant) Holder() string { return g.holder }

// As returns the grant with the holder's role, for receipts. It permits nothing
// more.
func (g Grant) As(role string) Grant {
	g.role = role
	return g
}

// Role is the holder's role as the API writes it; empty where nobody said.
func (g Grant) Role() string { return g.role }

// Check returns nil when the grant permits use of ref, and an error wrapping
// ErrNotGranted otherwise. The error does not tell whether ref exists.
func (g Grant) Check(ref Ref, use Use) error {
	if g.uses == 0 || use == 0 || g.ref != ref || g.uses&use != use {
		return fmt.Errorf("%w: %s in %s", ErrNotGranted, use, ref)
	}
	return nil
}

// TenantGrant is proof that its holder may list and read the settings of every
// scope of one tenant. It gives no access to galleries. The zero TenantGrant
// permits nothing.
type TenantGrant struct {
	tenant TenantID
	holder string
}

// MintTenant makes a TenantGrant. Only matcher/auth may call it.
func MintTenant(tenant TenantID, holder string) TenantGrant {
	if tenant.Validate() != nil || holder == "" {
		return TenantGrant{}
	}
	return TenantGrant{tenant: tenant, holder: holder}
}

// Tenant is the tenant that the grant speaks of; empty for the zero grant.
func (g TenantGrant) Tenant() TenantID { return g.tenant }

// Holder is the id of the credential that the grant was minted for.
func (g TenantGrant) Holder() string { return g.holder }

// Check returns nil when the grant speaks of tenant.
func (g TenantGrant) Check(tenant TenantID) error {
	if g.holder == "" || tenant == "" || g.tenant != tenant {
		return fmt.Errorf("%w: tenants/%s", ErrNotGranted, tenant)
	}
	return nil
}
