package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// Tenant is a legal entity that runs gates.
type Tenant struct {
	ID          scope.TenantID
	DisplayName string
	CreateTime  time.Time
	// DeleteTime is zero unless the tenant was deleted.
	DeleteTime time.Time
}

func (t Tenant) deleted() bool { return !t.DeleteTime.IsZero() }

// CreateTenant adds a tenant: platform admins only. A repetition of req
// returns the tenant of the first call. ErrTenantExists, ErrInvalid, ErrDenied.
func (a *Authority) CreateTenant(ctx context.Context, c Caller, id scope.TenantID, displayName string, req idempotency.Request) (Tenant, error) {
	if c.role != PlatformAdmin {
		return Tenant{}, ErrDenied
	}
	a.command.Lock()
	defer a.command.Unlock()
	if err := a.Check(c); err != nil {
		return Tenant{}, err
	}
	if made, found, err := a.remembered(c, req); err != nil {
		return Tenant{}, err
	} else if found {
		return a.Tenant(c, scope.TenantID(made))
	}
	var v checks
	v.require(id.Validate() == nil, "tenant_id", "must be 1 to %d of a-z, 0-9 and inner '-'", scope.MaxIDLen)
	checkDisplayName(&v, "tenant.display_name", displayName)
	if err := v.err(); err != nil {
		return Tenant{}, err
	}
	if err := a.tenantLives(id); errors.Is(err, ErrTenantDeleted) {
		return Tenant{}, fmt.Errorf("%w: tenants/%s was deleted, and ids are never used twice; choose another", ErrTenantExists, id)
	} else if err == nil {
		return Tenant{}, fmt.Errorf("%w: tenants/%s; choose another id", ErrTenantExists, id)
	}
	t := Tenant{ID: id, DisplayName: displayName, CreateTime: a.stamp()}
	record, err := encodeTenant(t)
	if err == nil {
		err = a.commit(ctx, c, req, string(id), false, record)
	}
	if err != nil {
		return Tenant{}, fmt.Errorf("create tenants/%s: %w", id, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addTenant(t)
	return t, nil
}

// Tenant returns one tenant, to platform admins and to the operators and
// auditors of that tenant. Others get ErrDenied whether or not it exists.
func (a *Authority) Tenant(c Caller, id scope.TenantID) (Tenant, error) {
	if !c.seesTenant(id) {
		return Tenant{}, ErrDenied
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	t, ok := a.tenants[id]
	if !ok {
		return Tenant{}, fmt.Errorf("%w: tenants/%s", ErrNoTenant, id)
	}
	return t, nil
}

// DisplayName is how people know the tenant, for what is shown to them; its id
// where it has no other name. It is no secret and needs no caller.
func (a *Authority) DisplayName(id scope.TenantID) string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return cmp.Or(a.tenants[id].DisplayName, string(id))
}

// Tenants lists up to limit tenants whose ids come after the given one, ordered
// by id and without deleted ones unless they are asked for: platform admins only.
// A limit below 1 means all.
func (a *Authority) Tenants(c Caller, after scope.TenantID, limit int, showDeleted bool) (out []Tenant, err error) {
	if c.role != PlatformAdmin {
		return nil, ErrDenied
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, id := range pageAfter(a.tenantIDs, after, 0) {
		if len(out) == limit && limit > 0 {
			break
		}
		if t := a.tenants[id]; showDeleted || !t.deleted() {
			out = append(out, t)
		}
	}
	return out, nil
}

// DeleteTenant ends a tenant for ever: platform admins only. When it has returned,
// Authenticate, Caller and Check refuse its credentials, and none can be made for
// it; the client certificates that they were bound to can be bound anew. One record
// says all of that, so that a crash leaves the whole of it or nothing. Its id is
// never used again. Deleting twice changes nothing and is no error.
//
// That the tenant has no scope is for the caller to see to, in a way that lets
// none be made meanwhile. ErrDenied, ErrNoTenant.
func (a *Authority) DeleteTenant(ctx context.Context, c Caller, id scope.TenantID, req idempotency.Request) (Tenant, error) {
	if c.role != PlatformAdmin {
		return Tenant{}, ErrDenied
	}
	a.command.Lock()
	defer a.command.Unlock()
	if err := a.Check(c); err != nil {
		return Tenant{}, err
	}
	if made, found, err := a.remembered(c, req); err != nil {
		return Tenant{}, err
	} else if found {
		return a.Tenant(c, scope.TenantID(made))
	}
	t, err := a.Tenant(c, id)
	if err != nil || t.deleted() {
		return t, err
	}
	t.DeleteTime = a.stamp()
	record, err := encodeTenant(t)
	if err == nil {
		err = a.commit(ctx, c, req, string(id), true, record)
	}
	if err != nil {
		return Tenant{}, fmt.Errorf("delete tenants/%s: %w", id, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addTenant(t)
	for _, id := range a.byTenant[id] {
		a.addCredential(a.credentials[id].endedWith(t))
	}
	return t, nil
}

// endedWith is the credential as its tenant leaves it: revoked, once that is
// deleted.
func (e *entry) endedWith(t Tenant) *entry {
	if !t.deleted() || !e.RevokeTime.IsZero() {
		return e
	}
	next := &entry{Credential: e.clone(), hasKey: e.hasKey, secret: e.secret}
	next.RevokeTime = t.DeleteTime
	return next
}

// tenantLives returns nil for the platform, which is no tenant, and for a tenant
// that credentials can be made for. ErrNoTenant, ErrTenantDeleted.
func (a *Authority) tenantLives(id scope.TenantID) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	t, known := a.tenants[id]
	switch {
	case id == "":
		return nil
	case !known:
		return fmt.Errorf("%w: tenants/%s; create it first", ErrNoTenant, id)
	case t.deleted():
		return fmt.Errorf("%w: tenants/%s since %s; ids are never used twice, so make another tenant", ErrTenantDeleted, id, t.DeleteTime.Format(time.RFC3339))
	}
	return nil
}
