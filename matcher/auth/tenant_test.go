package auth

import (
	"errors"
	"testing"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// A deleted tenant lets nobody in, before and after a restart, and another
// tenant notices nothing.
func TestDeletedTenant(t *testing.T) {
	h := newHouse(t)
	h.proof = ByEither
	cred, key := h.make(TenantOperator, "fair")
	operator, other := h.login(key), h.caller(TenantOperator, "gym")
	const bound = "CN=gate-1,O=Fair"
	spec := Spec{Role: Gate, Tenant: "fair", Scopes: []scope.Ref{{Tenant: "fair", Scope: "hall-a"}}, ClientCertificate: bound}
	_, _, err := h.CreateCredential(t.Context(), h.admin, spec, idempotency.Request{})
	h.ok(err)

	done, err := h.DeleteTenant(t.Context(), h.admin, "fair", idempotency.Request{})
	h.ok(err)
	if done.ID != "fair" || !done.DeleteTime.Equal(h.now) {
		t.Fatalf("DeleteTenant = %+v", done)
	}
	look := func(when string) {
		t.Helper()
		if _, err := h.Authenticate(key); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: Authenticate: %v", when, err)
		}
		if err := h.Check(operator); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: Check: %v", when, err)
		}
		if h.holder(bound) != nil {
			t.Errorf("%s: its certificate lets somebody in", when)
		}
		if err := h.Check(other); err != nil {
			t.Errorf("%s: another tenant's: %v", when, err)
		}
		_, _, err := h.CreateCredential(t.Context(), h.admin, Spec{Role: Auditor, Tenant: "fair"}, idempotency.Request{})
		if !errors.Is(err, ErrTenantDeleted) {
			t.Errorf("%s: CreateCredential: %v", when, err)
		}
		if _, err := h.CreateTenant(t.Context(), h.admin, "fair", "", idempotency.Request{}); !errors.Is(err, ErrTenantExists) {
			t.Errorf("%s: CreateTenant under its id: %v", when, err)
		}
		if got, err := h.Tenant(h.admin, "fair"); err != nil || got != done {
			t.Errorf("%s: Tenant = %+v, %v", when, got, err)
		}
		if again, err := h.DeleteTenant(t.Context(), h.admin, "fair", idempotency.Request{}); err != nil || again != done {
			t.Errorf("%s: deleted again: %+v, %v", when, again, err)
		}
		for _, c := range must(h.Credentials(h.admin, "fair", "", 0)) {
			if !c.RevokeTime.Equal(done.DeleteTime) {
				t.Errorf("%s: credential %s: revoked at %v", when, c.ID, c.RevokeTime)
			}
		}
		if revoked, err := h.RevokeCredential(t.Context(), h.admin, "fair", cred.ID, idempotency.Request{}); err != nil || !revoked.RevokeTime.Equal(done.DeleteTime) {
			t.Errorf("%s: revoked: %+v, %v", when, revoked, err)
		}
		if alive := must(h.Tenants(h.admin, "", 0, false)); len(alive) != 1 || alive[0].ID != "gym" {
			t.Errorf("%s: listed: %v", when, alive)
		}
		if page := must(h.Tenants(h.admin, "", 1, false)); len(page) != 1 || page[0].ID != "gym" {
			t.Errorf("%s: a page of one: %v", when, page)
		}
		if all := must(h.Tenants(h.admin, "", 0, true)); len(all) != 2 || all[0] != done {
			t.Errorf("%s: all: %v", when, all)
		}
	}
	look("at once")
	h.reopen()
	h.proof = ByEither
	look("after a restart")

	spec.Tenant, spec.Scopes = "gym", []scope.Ref{{Tenant: "gym", Scope: "north"}}
	if _, _, err := h.CreateCredential(t.Context(), h.admin, spec, idempotency.Request{}); err != nil {
		t.Errorf("its certificate bound anew: %v", err)
	}
}

func TestDeleteTenantRefused(t *testing.T) {
	h := newHouse(t)
	none := idempotency.Request{}
	if _, err := h.DeleteTenant(t.Context(), h.caller(TenantOperator, "fair"), "fair", none); err != ErrDenied {
		t.Errorf("by its operator: %v", err)
	}
	if _, err := h.DeleteTenant(t.Context(), h.admin, "nobody", none); !errors.Is(err, ErrNoTenant) {
		t.Errorf("unknown: %v", err)
	}
	_, key := h.make(Auditor, "fair")
	sound := h.Authority.store
	h.Authority.store = brokenStore{sound}
	if _, err := h.DeleteTenant(t.Context(), h.admin, "fair", none); !errors.Is(err, store.ErrFailed) {
		t.Errorf("on a broken disk: %v", err)
	}
	h.Authority.store = sound
	if _, err := h.Authenticate(key); err != nil {
		t.Errorf("what was not written was seen: %v", err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
