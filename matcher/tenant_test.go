package matcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/menshen-io/menshen/index/scope"
)

func TestCloseTenant(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	a, b, other := scope.Ref{Tenant: "acme", Scope: "a"}, scope.Ref{Tenant: "acme", Scope: "b"}, scope.Ref{Tenant: "gym", Scope: "a"}
	for _, ref := range []scope.Ref{a, b, other} {
		w.create(ref)
	}
	ended := 0
	end := func() error { ended++; return nil }
	refused := func(what string) {
		t.Helper()
		if err := w.CloseTenant(ctx, "acme", end); !errors.Is(err, ErrLiveScopes) || ended != 0 {
			t.Errorf("%s: %v, ended %d times", what, err, ended)
		}
	}
	refused("two scopes")
	_, err := w.RevokeScope(ctx, grant(a), request())
	must(t, err)
	_, err = w.SuspendScope(ctx, grant(b), request())
	must(t, err)
	refused("one suspended scope")
	_, err = w.RevokeScope(ctx, grant(b), request())
	must(t, err)

	broken := errors.New("broken")
	if err := w.CloseTenant(ctx, "acme", func() error { return broken }); err != broken {
		t.Errorf("the end failed: %v", err)
	}
	w.create(scope.Ref{Tenant: "acme", Scope: "c"}) // so it is not closed
	_, err = w.RevokeScope(ctx, grant(scope.Ref{Tenant: "acme", Scope: "c"}), request())
	must(t, err)

	must(t, w.CloseTenant(ctx, "acme", end))
	if _, err := w.CreateScope(ctx, grant(scope.Ref{Tenant: "acme", Scope: "d"}), w.settings(), request()); !errors.Is(err, ErrTenantClosed) {
		t.Errorf("a scope in a closed tenant: %v", err)
	}
	w.create(scope.Ref{Tenant: "gym", Scope: "b"})
}

// Scopes that are being made while their tenant is closed are made before, and
// keep it open, or not at all.
func TestCloseTenantAmidCreations(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	for round := range 20 {
		tenant := scope.TenantID(fmt.Sprint("t-", round))
		var group sync.WaitGroup
		var made, closed error
		group.Go(func() {
			_, made = w.CreateScope(ctx, grant(scope.Ref{Tenant: tenant, Scope: "a"}), w.settings(), request())
		})
		group.Go(func() { closed = w.CloseTenant(ctx, tenant, func() error { return nil }) })
		group.Wait()
		if won := made == nil; won != errors.Is(closed, ErrLiveScopes) || won == errors.Is(made, ErrTenantClosed) {
			t.Fatalf("round %d: made: %v; closed: %v", round, made, closed)
		}
	}
}
