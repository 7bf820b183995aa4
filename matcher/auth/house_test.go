package auth

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// house is an Authority on a real store, with a clock that the test sets.
type house struct {
	*Authority
	t       *testing.T
	dir     string
	root    *keyring.Root
	ring    *keyring.Keyring
	store   *store.Store
	now     time.Time
	exists  map[scope.Ref]bool
	admin   Caller
	adminID CredentialID
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{
		t: t, dir: t.TempDir(), root: keyring.NewRoot(), now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC),
		exists: map[scope.Ref]bool{
			{Tenant: "fair", Scope: "hall-a"}: true, {Tenant: "fair", Scope: "hall-b"}: true, {Tenant: "gym", Scope: "north"}: true,
		},
	}
	h.open()
	t.Cleanup(h.close)
	cred, key, err := h.BootstrapAdmin(t.Context(), "root", "")
	h.ok(err)
	h.admin, h.adminID = h.login(key), cred.ID
	for _, id := range []scope.TenantID{"fair", "gym"} {
		_, err := h.CreateTenant(t.Context(), h.admin, id, "the "+string(id), idempotency.Request{})
		h.ok(err)
	}
	return h
}

func (h *house) open() {
	h.t.Helper()
	var err error
	h.ring, err = keyring.Open(filepath.Join(h.dir, "keyring"), h.root, keyring.Options{Create: true})
	h.ok(err)
	h.store, err = store.Open(h.t.Context(), store.Options{Dir: filepath.Join(h.dir, "db"), Keyring: h.ring, Logger: slog.New(slog.DiscardHandler)})
	h.ok(err)
	h.Authority, err = Open(h.t.Context(), Options{
		Store: h.store, Clock: func() time.Time { return h.now },
		ScopeExists: func(ref scope.Ref) bool { return h.exists[ref] },
	})
	h.ok(err)
}

func (h *house) close() {
	h.t.Helper()
	h.ok(h.store.Check())
	h.ok(h.store.Close())
	h.ok(h.ring.Close())
}

func (h *house) reopen() { h.t.Helper(); h.close(); h.open() }

func (h *house) ok(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) login(key string) Caller {
	h.t.Helper()
	c, err := h.Authenticate(key)
	h.ok(err)
	return c
}

// make makes a credential as the admin.
func (h *house) make(role Role, tenant scope.TenantID, scopes ...scope.ScopeID) (Credential, string) {
	h.t.Helper()
	spec := Spec{Role: role, Tenant: tenant}
	for _, id := range scopes {
		spec.Scopes = append(spec.Scopes, scope.Ref{Tenant: tenant, Scope: id})
	}
	cred, key, err := h.CreateCredential(h.t.Context(), h.admin, spec, idempotency.Request{})
	h.ok(err)
	return cred, key
}

func (h *house) caller(role Role, tenant scope.TenantID, scopes ...scope.ScopeID) Caller {
	h.t.Helper()
	_, key := h.make(role, tenant, scopes...)
	return h.login(key)
}
