package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// CreateCredential makes a credential: platform admins make any, tenant operators
// those of their own tenant, nobody else any. key is its API key, returned this
// once; a repetition of req returns the credential and an empty key, and so does
// a credential that is known by its client certificate alone. Only platform
// admins bind a certificate: an operator could name one of another tenant's gate
// and so receive what that gate sends. ErrInvalid, ErrDenied,
// ErrCertificateBinding, ErrCertificateTaken, ErrNoTenant, ErrTenantDeleted,
// ErrTooManyCredentials.
func (a *Authority) CreateCredential(ctx context.Context, c Caller, spec Spec, req idempotency.Request) (_ Credential, key string, err error) {
	if !c.managesCredentials(spec.Tenant) || c.role != PlatformAdmin && spec.Role == PlatformAdmin {
		return Credential{}, "", ErrDenied
	}
	a.command.Lock()
	defer a.command.Unlock()
	if err := a.Check(c); err != nil {
		return Credential{}, "", err
	}
	if made, found, err := a.remembered(c, req); err != nil {
		return Credential{}, "", err
	} else if found {
		earlier, err := a.credential(c, spec.Tenant, CredentialID(made))
		return earlier, "", err
	}
	if err := a.tenantLives(spec.Tenant); err != nil {
		return Credential{}, "", err
	}
	var v checks
	spec.check(&v, a.now(), a.scopeExists)
	v.require(spec.ClientCertificate == "" || a.proof != ByKey, "credential.client_certificate",
		"this server goes by API keys alone: its operator changes that with tls.client_auth")
	if err := v.err(); err != nil {
		return Credential{}, "", err
	}
	if spec.ClientCertificate != "" && c.role != PlatformAdmin {
		return Credential{}, "", fmt.Errorf("%w: ask one, or leave client_certificate empty to make an API key", ErrCertificateBinding)
	}
	return a.create(ctx, c, spec, req)
}

// BootstrapAdmin makes a platform admin credential on nobody's behalf, bound to a
// client certificate unless that is empty. It is for whoever holds the data
// directory: cmd/menshen calls it when a server is set up, and no RPC leads to it.
func (a *Authority) BootstrapAdmin(ctx context.Context, displayName, clientCertificate string) (_ Credential, key string, err error) {
	a.command.Lock()
	defer a.command.Unlock()
	spec := Spec{Role: PlatformAdmin, DisplayName: displayName, ClientCertificate: clientCertificate}
	var v checks
	spec.check(&v, a.now(), a.scopeExists)
	if err := v.err(); err != nil {
		return Credential{}, "", err
	}
	return a.create(ctx, Caller{}, spec, idempotency.Request{})
}

// create makes a checked credential durable and known; command is held.
func (a *Authority) create(ctx context.Context, c Caller, spec Spec, req idempotency.Request) (Credential, string, error) {
	id, err := a.freeID(spec.Tenant)
	if err != nil {
		return Credential{}, "", err
	}
	e := &entry{Credential: Credential{
		ID: id, Role: spec.Role, Tenant: spec.Tenant, DisplayName: spec.DisplayName,
		CreateTime: a.stamp(), ExpireTime: spec.ExpireTime.UTC().Truncate(time.Microsecond),
	}}
	if spec.ClientCertificate != "" {
		if e.ClientCertificate, err = ParseIdentity(spec.ClientCertificate); err != nil {
			return Credential{}, "", err // checked before
		}
		if a.holder(e.ClientCertificate) != nil {
			return Credential{}, "", fmt.Errorf("%w: revoke that one first", ErrCertificateTaken)
		}
	}
	key := ""
	if e.hasKey = e.ClientCertificate == "" || a.proof == ByBoth; e.hasKey {
		key, e.secret = newKey(id)
	}
	for _, ref := range spec.Scopes {
		e.Scopes = append(e.Scopes, ref.Scope)
	}
	slices.Sort(e.Scopes)
	record, err := encodeCredential(e)
	if err == nil {
		err = a.commit(ctx, c, req, string(id), false, record)
	}
	if err != nil {
		return Credential{}, "", fmt.Errorf("create a credential: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addCredential(e)
	return e.clone(), key, nil
}

// freeID draws an id that no credential has had, if the tenant may have one
// more.
func (a *Authority) freeID(tenant scope.TenantID) (CredentialID, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if n := len(a.byTenant[tenant]); n >= MaxCredentials {
		return "", fmt.Errorf("%w: %d, revoked ones included, is the most that a tenant can have", ErrTooManyCredentials, n)
	}
	for {
		if id := newID(); a.credentials[id] == nil {
			return id, nil
		}
	}
}

// Credentials lists up to limit credentials of a tenant (of the platform, for
// the empty tenant) whose ids come after the given one, ordered by id and
// without secrets: to platform admins, and to the operators and auditors of the
// tenant. A limit below 1 means all.
func (a *Authority) Credentials(c Caller, tenant scope.TenantID, after CredentialID, limit int) ([]Credential, error) {
	if !c.seesTenant(tenant) {
		return nil, ErrDenied
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if _, known := a.tenants[tenant]; !known && tenant != "" {
		return nil, fmt.Errorf("%w: tenants/%s", ErrNoTenant, tenant)
	}
	ids := pageAfter(a.byTenant[tenant], after, limit)
	out := make([]Credential, len(ids))
	for i, id := range ids {
		out[i] = a.credentials[id].clone()
	}
	return out, nil
}

// RevokeCredential makes a credential useless: when it has returned, Authenticate,
// Caller and Check refuse it, and its client certificate can be bound anew. Revoking twice changes nothing and is no error. A credential
// of another tenant than the named one is ErrNoCredential, like one that never
// was. ErrLastAdmin protects the platform's last way in.
func (a *Authority) RevokeCredential(ctx context.Context, c Caller, tenant scope.TenantID, id CredentialID, req idempotency.Request) (Credential, error) {
	if !c.managesCredentials(tenant) {
		return Credential{}, ErrDenied
	}
	a.command.Lock()
	defer a.command.Unlock()
	if err := a.Check(c); err != nil {
		return Credential{}, err
	}
	if made, found, err := a.remembered(c, req); err != nil {
		return Credential{}, err
	} else if found {
		return a.credential(c, tenant, CredentialID(made))
	}
	now, err := a.credential(c, tenant, id)
	if err != nil || !now.RevokeTime.IsZero() {
		return now, err
	}
	if now.Role == PlatformAdmin && !a.otherAdminThan(id) {
		return Credential{}, fmt.Errorf("%w: make another one first", ErrLastAdmin)
	}
	next := &entry{Credential: now}
	was := a.entry(id)
	next.hasKey, next.secret = was.hasKey, was.secret
	next.RevokeTime = a.stamp()
	record, err := encodeCredential(next)
	if err == nil {
		err = a.commit(ctx, c, req, string(id), true, record)
	}
	if err != nil {
		return Credential{}, fmt.Errorf("revoke credential %s: %w", id, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addCredential(next)
	return next.clone(), nil
}

// credential returns a credential of the named tenant.
func (a *Authority) credential(c Caller, tenant scope.TenantID, id CredentialID) (Credential, error) {
	if !c.managesCredentials(tenant) {
		return Credential{}, ErrDenied
	}
	e := a.entry(id)
	if e == nil || e.Tenant != tenant {
		return Credential{}, fmt.Errorf("%w: %s", ErrNoCredential, id)
	}
	return e.clone(), nil
}

func (a *Authority) otherAdminThan(id CredentialID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.anotherAdmin(id)
}

// stamp is the time of a change, in the microseconds that every client can
// express.
func (a *Authority) stamp() time.Time { return a.now().UTC().Truncate(time.Microsecond) }

// pageAfter cuts a page out of sorted ids.
func pageAfter[T ~string](ids []T, after T, limit int) []T {
	from, found := slices.BinarySearchFunc(ids, after, func(id, after T) int { return strings.Compare(string(id), string(after)) })
	if found {
		from++
	}
	if limit < 1 || limit > len(ids)-from {
		return ids[from:]
	}
	return ids[from : from+limit]
}

var _ Storage = (*store.Store)(nil)
