package auth

import (
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/menshen-io/menshen/index/scope"
)

// Bounds of tenants and credentials.
const (
	// MaxDisplayName is the longest display name in characters.
	MaxDisplayName = 200
	// MaxScopes is the most scopes that one credential names.
	MaxScopes = 100
	// MaxCredentials is the most credentials of one tenant, revoked ones
	// included: they are kept in memory, about 300 bytes each.
	MaxCredentials = 10_000
)

// Credential is what a caller is known by, an API key or a client certificate or
// both, without a secret. The slice of a returned Credential belongs to the
// receiver.
type Credential struct {
	ID   CredentialID
	Role Role
	// Tenant is empty for platform admins.
	Tenant scope.TenantID
	// Scopes are sorted; empty unless Role.OfScopes.
	Scopes      []scope.ScopeID
	DisplayName string
	CreateTime  time.Time
	// ExpireTime is zero for a credential that lasts until it is revoked.
	ExpireTime time.Time
	// RevokeTime is zero unless the credential was revoked.
	RevokeTime time.Time
	// ClientCertificate names the certificate without which the credential is not
	// accepted; empty for one that is an API key alone.
	ClientCertificate Identity
}

// Spec is what the maker of a credential decides.
type Spec struct {
	Role        Role
	Tenant      scope.TenantID // empty for platform admins
	Scopes      []scope.Ref    // all of Tenant
	DisplayName string
	ExpireTime  time.Time // zero: until it is revoked
	// ClientCertificate binds the credential to a client certificate, as
	// ParseIdentity reads it. Empty: an API key alone.
	ClientCertificate string
}

// live reports whether the credential is good at the time now.
func (c *Credential) live(now time.Time) bool {
	return c.RevokeTime.IsZero() && (c.ExpireTime.IsZero() || now.Before(c.ExpireTime))
}

func (c *Credential) caller() Caller {
	return Caller{id: c.ID, role: c.Role, tenant: c.Tenant, scopes: c.Scopes}
}

// clone returns a copy that the receiver may change.
func (c *Credential) clone() Credential {
	out := *c
	out.Scopes = slices.Clone(c.Scopes)
	return out
}

// lastTime is the last instant that the API's timestamps can express.
var lastTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// check reports every violation of a spec, fields named as in the API's
// Credential message. exists is asked only about scopes of the spec's own
// tenant, so that a refusal tells nothing about another's.
func (s Spec) check(v *checks, now time.Time, exists func(scope.Ref) bool) {
	if s.ClientCertificate != "" {
		_, err := ParseIdentity(s.ClientCertificate)
		v.require(err == nil, "credential.client_certificate", "%v", err)
	}
	v.require(s.Role.Valid(), "credential.role", "is required: one of PLATFORM_ADMIN, TENANT_OPERATOR, ENROLLER, GATE, AUDITOR")
	v.require(s.Role != PlatformAdmin || s.Tenant == "", "parent", "must be empty: a platform admin belongs to no tenant")
	v.require(!s.Role.OfTenant() || s.Tenant != "", "parent", "is required: a %s belongs to a tenant", s.Role)
	checkDisplayName(v, "credential.display_name", s.DisplayName)
	if !s.ExpireTime.IsZero() {
		v.require(s.ExpireTime.After(now), "credential.expire_time", "lies in the past")
		v.require(!s.ExpireTime.After(lastTime), "credential.expire_time", "lies after the year 9999; leave it empty for no expiry")
	}
	s.checkScopes(v, exists)
}

func (s Spec) checkScopes(v *checks, exists func(scope.Ref) bool) {
	if !s.Role.OfScopes() {
		v.require(len(s.Scopes) == 0, "credential.scopes", "must be empty: a %s covers no single scopes", s.Role)
		return
	}
	v.require(len(s.Scopes) > 0, "credential.scopes", "is required: name the scopes that the %s covers", s.Role)
	if len(s.Scopes) > MaxScopes {
		v.require(false, "credential.scopes", "names %d scopes; at most %d are allowed", len(s.Scopes), MaxScopes)
		return
	}
	seen := make(map[scope.Ref]bool, len(s.Scopes))
	for i, ref := range s.Scopes {
		field := fmt.Sprintf("credential.scopes[%d]", i)
		switch {
		case ref.Validate() != nil:
			v.require(false, field, "is not a scope name: write tenants/T/scopes/S")
		case ref.Tenant != s.Tenant:
			v.require(false, field, "lies outside the credential's tenant")
		case seen[ref]:
			v.require(false, field, "names %s twice", ref)
		case !exists(ref):
			v.require(false, field, "names %s, which does not exist or is revoked: create the scope first", ref)
		}
		seen[ref] = true
	}
}

// checkDisplayName checks a name for people: it is printed on terminals, so
// that control and direction characters are refused.
func checkDisplayName(v *checks, field, name string) {
	if !utf8.ValidString(name) {
		v.require(false, field, "is not valid UTF-8")
		return
	}
	n := utf8.RuneCountInString(name)
	v.require(n <= MaxDisplayName, field, "has %d characters; at most %d are allowed", n, MaxDisplayName)
	for _, r := range name {
		if !unicode.IsGraphic(r) {
			v.require(false, field, "holds the unprintable character %U", r)
			return
		}
	}
}
