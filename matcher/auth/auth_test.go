package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
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
	root    keyring.RootKey
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
		t: t, dir: t.TempDir(), root: keyring.NewRootKey(), now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC),
		exists: map[scope.Ref]bool{
			{Tenant: "fair", Scope: "hall-a"}: true, {Tenant: "fair", Scope: "hall-b"}: true, {Tenant: "gym", Scope: "north"}: true,
		},
	}
	h.open()
	t.Cleanup(h.close)
	cred, key, err := h.BootstrapAdmin(t.Context(), "root")
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

func TestNobodyMayDoNothing(t *testing.T) {
	h := newHouse(t)
	var nobody Caller
	for use := scope.UseVerify; use <= scope.UseSettings; use <<= 1 {
		if g, err := nobody.Grant(scope.Ref{Tenant: "fair", Scope: "hall-a"}, use); !errors.Is(err, ErrDenied) || g != (scope.Grant{}) {
			t.Errorf("Grant(%s) = %v, %v", use, g, err)
		}
	}
	if _, err := nobody.TenantGrant("fair"); !errors.Is(err, ErrDenied) {
		t.Errorf("TenantGrant: %v", err)
	}
	if _, err := nobody.TenantGrant(""); !errors.Is(err, ErrDenied) {
		t.Errorf("TenantGrant of no tenant: %v", err)
	}
	if _, err := nobody.OnlyScope(); !errors.Is(err, ErrScopeNeeded) {
		t.Errorf("OnlyScope: %v", err)
	}
	if err := h.Check(nobody); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("Check: %v", err)
	}
	for name, call := range commands(h.Authority, nobody, "fair") {
		if err := call(); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v, want ErrDenied", name, err)
		}
	}
}

// commands are all calls that need a caller, aimed at a tenant.
func commands(a *Authority, c Caller, tenant scope.TenantID) map[string]func() error {
	ctx, none := context.Background(), idempotency.Request{}
	return map[string]func() error{
		"CreateTenant": func() error { _, err := a.CreateTenant(ctx, c, "new", "", none); return err },
		"Tenants":      func() error { _, err := a.Tenants(c, "", 0); return err },
		"Tenant":       func() error { _, err := a.Tenant(c, tenant); return err },
		"Credentials":  func() error { _, err := a.Credentials(c, tenant, "", 0); return err },
		"CreateCredential": func() error {
			_, _, err := a.CreateCredential(ctx, c, Spec{Role: Auditor, Tenant: tenant}, none)
			return err
		},
		"RevokeCredential": func() error {
			_, err := a.RevokeCredential(ctx, c, tenant, "aaaaaaaaaaaaaaaa", none)
			return err
		},
	}
}

func TestGrantsByRole(t *testing.T) {
	h := newHouse(t)
	own, other := scope.Ref{Tenant: "fair", Scope: "hall-a"}, scope.Ref{Tenant: "fair", Scope: "hall-b"}
	all := []scope.Use{scope.UseVerify, scope.UseIdentify, scope.UseEnroll, scope.UseErase, scope.UseRead, scope.UseManage, scope.UseSettings}
	for _, tc := range []struct {
		role   Role
		caller Caller
		uses   []scope.Use
		wide   bool // reaches every scope of the tenant
	}{
		{PlatformAdmin, h.admin, nil, false},
		{TenantOperator, h.caller(TenantOperator, "fair"), []scope.Use{scope.UseErase, scope.UseRead, scope.UseManage, scope.UseSettings}, true},
		{Enroller, h.caller(Enroller, "fair", "hall-a"), []scope.Use{scope.UseEnroll, scope.UseErase, scope.UseRead, scope.UseSettings}, false},
		{Gate, h.caller(Gate, "fair", "hall-a"), []scope.Use{scope.UseVerify, scope.UseIdentify, scope.UseSettings}, false},
		{Auditor, h.caller(Auditor, "fair"), []scope.Use{scope.UseRead, scope.UseSettings}, true},
	} {
		for _, use := range all {
			g, err := tc.caller.Grant(own, use)
			want := slices.Contains(tc.uses, use)
			if want != (err == nil) || want && g.Check(own, use) != nil {
				t.Errorf("%s: Grant(own, %s) = %v, want allowed=%v", tc.role, use, err, want)
			}
			for _, more := range all { // no more than was asked for
				if more != use && g.Check(own, more) == nil {
					t.Errorf("%s: the grant to %s permits to %s", tc.role, use, more)
				}
			}
			if _, err := tc.caller.Grant(other, use); (err == nil) != (want && tc.wide) {
				t.Errorf("%s: Grant(other scope of the tenant, %s) = %v", tc.role, use, err)
			}
		}
		_, err := tc.caller.TenantGrant("fair")
		if (err == nil) != tc.wide {
			t.Errorf("%s: TenantGrant = %v, want allowed=%v", tc.role, err, tc.wide)
		}
	}
}

// A foreign scope, an unknown one and a name that is none are refused by the
// same words.
func TestRefusalTellsNothing(t *testing.T) {
	h := newHouse(t)
	gate, operator := h.caller(Gate, "fair", "hall-a"), h.caller(TenantOperator, "fair")
	for _, ref := range []scope.Ref{
		{Tenant: "gym", Scope: "north"}, {Tenant: "gym", Scope: "nowhere"}, {Tenant: "nobody", Scope: "nowhere"},
		{Tenant: "fair", Scope: "hall-b"}, {Tenant: "fair", Scope: "hall-z"}, {Tenant: "FAIR", Scope: "hall-a"},
		{Tenant: "fair", Scope: "hall-a/../hall-b"}, {}, {Tenant: "fair"}, {Scope: "hall-a"},
	} {
		if _, err := gate.Grant(ref, scope.UseVerify); err != ErrDenied {
			t.Errorf("gate, %s: %v", ref, err)
		}
		if ref.Tenant == "fair" && ref.Validate() == nil {
			continue // the operator's own
		}
		if _, err := operator.Grant(ref, scope.UseManage); err != ErrDenied {
			t.Errorf("operator, %s: %v", ref, err)
		}
	}
	for name, aim := range map[string]scope.TenantID{"foreign": "gym", "unknown": "nobody", "none": "", "malformed": "../fair"} {
		for call, f := range commands(h.Authority, operator, aim) {
			if err := f(); err == nil || err.Error() != ErrDenied.Error() {
				t.Errorf("%s at a %s tenant: %v, want exactly ErrDenied", call, name, err)
			}
		}
	}
}

func TestOnlyScope(t *testing.T) {
	h := newHouse(t)
	if ref, err := h.caller(Gate, "fair", "hall-b").OnlyScope(); err != nil || ref != (scope.Ref{Tenant: "fair", Scope: "hall-b"}) {
		t.Errorf("one scope: %v, %v", ref, err)
	}
	for _, c := range []Caller{h.caller(Gate, "fair", "hall-a", "hall-b"), h.caller(TenantOperator, "fair"), h.admin} {
		if _, err := c.OnlyScope(); !errors.Is(err, ErrScopeNeeded) {
			t.Errorf("%s with %d scopes: %v", c.Role(), len(c.Scopes()), err)
		}
	}
	c := h.caller(Gate, "fair", "hall-b", "hall-a")
	c.Scopes()[0] = "hall-z"
	if got := c.Scopes(); !slices.Equal(got, []scope.ScopeID{"hall-a", "hall-b"}) {
		t.Errorf("Scopes() gave away the caller's own slice: %v", got)
	}
}

func TestAuthenticateRefusesAlike(t *testing.T) {
	h := newHouse(t)
	gate, good := h.make(Gate, "fair", "hall-a")
	revoked, revokedKey := h.make(Gate, "fair", "hall-a")
	if _, err := h.RevokeCredential(t.Context(), h.admin, "fair", revoked.ID, idempotency.Request{}); err != nil {
		t.Fatal(err)
	}
	expiring, expiredKey, err := h.CreateCredential(t.Context(), h.admin, Spec{
		Role: Gate, Tenant: "fair", Scopes: []scope.Ref{{Tenant: "fair", Scope: "hall-a"}}, ExpireTime: h.now.Add(time.Hour),
	}, idempotency.Request{})
	h.ok(err)
	early := h.login(expiredKey)
	h.now = h.now.Add(time.Hour) // the instant itself is too late
	if err := h.Check(early); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("Check at the expiry of %s: %v", expiring.ID, err)
	}
	_, other := h.make(Gate, "gym", "north")
	secretOfOther := other[len(other)-textLen:]
	for name, key := range map[string]string{
		"revoked": revokedKey, "expired": expiredKey,
		"empty": "", "prefix only": "mk_", "no secret": good[:len(good)-textLen], "one short": good[:len(good)-1], "one long": good + "A",
		"upper-case id": "mk_" + strings.ToUpper(string(gate.ID)) + good[len("mk_")+idLen:],
		"other secret":  good[:len(good)-textLen] + secretOfOther,
		"unknown id":    "mk_" + strings.Repeat("a", idLen) + good[len("mk_")+idLen:],
		"other prefix":  "Mk_" + good[3:],
		"leading space": " " + good[1:],
		"newline in it": good[:len(good)-1] + "\n",
		"padded":        good[:len(good)-1] + "=",
		"zero bytes":    strings.Repeat("\x00", keyLen), "huge": strings.Repeat("mk_", 1<<20),
		"last bits": good[:len(good)-1] + nextLetter(good[len(good)-1]),
	} {
		c, err := h.Authenticate(key)
		if err != ErrUnauthenticated || c.Role() != 0 || c.ID() != "" {
			t.Errorf("%s: %v, %v; want nobody and exactly ErrUnauthenticated", name, c, err)
		}
	}
	if c := h.login(good); c.ID() != gate.ID || c.Role() != Gate || c.Tenant() != "fair" {
		t.Errorf("the good key: %+v", c)
	}
}

// nextLetter gives a base64url letter that differs only in bits which do not
// belong to the 256 of the secret: 43 letters carry 258.
func nextLetter(b byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, b)^1])
}

func TestRevocationHoldsFromTheAnswerOn(t *testing.T) {
	h := newHouse(t)
	cred, key := h.make(Gate, "fair", "hall-a")
	c := h.login(key)
	operator := h.caller(TenantOperator, "fair")
	got, err := h.RevokeCredential(t.Context(), operator, "fair", cred.ID, idempotency.Request{})
	if err != nil || !got.RevokeTime.Equal(h.now) {
		t.Fatalf("RevokeCredential = %+v, %v", got, err)
	}
	refused := func(when string) {
		t.Helper()
		if _, err := h.Authenticate(key); err != ErrUnauthenticated {
			t.Errorf("%s: Authenticate = %v", when, err)
		}
		if err := h.Check(c); err != ErrUnauthenticated {
			t.Errorf("%s: Check = %v", when, err)
		}
	}
	refused("at once")
	h.now = h.now.Add(time.Minute)
	if again, err := h.RevokeCredential(t.Context(), operator, "fair", cred.ID, idempotency.Request{}); err != nil || !again.RevokeTime.Equal(got.RevokeTime) {
		t.Errorf("revoked twice: %+v, %v", again, err)
	}
	h.reopen()
	refused("after a restart")
	h.now = h.now.Add(-24 * time.Hour)
	refused("with the clock set back")
}

// Somebody whose credential is revoked cannot make another one with a caller
// from before.
func TestRevokedOperatorMakesNoCredential(t *testing.T) {
	h := newHouse(t)
	cred, key := h.make(TenantOperator, "fair")
	c := h.login(key)
	if _, err := h.RevokeCredential(t.Context(), c, "fair", cred.ID, idempotency.Request{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.CreateCredential(t.Context(), c, Spec{Role: TenantOperator, Tenant: "fair"}, idempotency.Request{}); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("CreateCredential: %v", err)
	}
	if _, err := h.RevokeCredential(t.Context(), c, "fair", cred.ID, idempotency.Request{}); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("RevokeCredential: %v", err)
	}
}

func TestPrivilegesCannotGrow(t *testing.T) {
	h := newHouse(t)
	for _, maker := range Roles() {
		var c Caller
		switch {
		case maker == PlatformAdmin:
			c = h.admin
		case maker.OfScopes():
			c = h.caller(maker, "fair", "hall-a")
		default:
			c = h.caller(maker, "fair")
		}
		for _, made := range Roles() {
			for _, tenant := range []scope.TenantID{"", "fair", "gym"} {
				spec := Spec{Role: made, Tenant: tenant}
				if made.OfScopes() {
					spec.Scopes = []scope.Ref{{Tenant: tenant, Scope: map[scope.TenantID]scope.ScopeID{"fair": "hall-a", "gym": "north"}[tenant]}}
				}
				_, _, err := h.CreateCredential(t.Context(), c, spec, idempotency.Request{})
				wellFormed := made.OfTenant() == (tenant != "")
				allowed := maker == PlatformAdmin || maker == TenantOperator && tenant == "fair" && made != PlatformAdmin
				switch {
				case allowed && wellFormed && err != nil:
					t.Errorf("%s makes %s of %q: %v", maker, made, tenant, err)
				case allowed && !wellFormed && !errors.Is(err, ErrInvalid):
					t.Errorf("%s makes %s of %q: %v, want ErrInvalid", maker, made, tenant, err)
				case !allowed && err != ErrDenied:
					t.Errorf("%s makes %s of %q: %v, want exactly ErrDenied", maker, made, tenant, err)
				}
			}
		}
	}
}

func TestSpecViolations(t *testing.T) {
	h := newHouse(t)
	many := make([]scope.Ref, MaxScopes+1)
	for i := range many {
		many[i] = scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprintf("s%d", i))}
	}
	a, foreign, missing := scope.Ref{Tenant: "fair", Scope: "hall-a"}, scope.Ref{Tenant: "gym", Scope: "north"}, scope.Ref{Tenant: "fair", Scope: "hall-z"}
	for _, tc := range []struct {
		name  string
		spec  Spec
		field string
		text  string
	}{
		{"no role", Spec{Tenant: "fair"}, "credential.role", "is required"},
		{"role out of range", Spec{Role: 77, Tenant: "fair"}, "credential.role", "is required"},
		{"gate without scopes", Spec{Role: Gate, Tenant: "fair"}, "credential.scopes", "is required"},
		{"auditor with scopes", Spec{Role: Auditor, Tenant: "fair", Scopes: []scope.Ref{a}}, "credential.scopes", "must be empty"},
		{"foreign scope", Spec{Role: Gate, Tenant: "fair", Scopes: []scope.Ref{a, foreign}}, "credential.scopes[1]", "outside the credential's tenant"},
		{"missing scope", Spec{Role: Gate, Tenant: "fair", Scopes: []scope.Ref{missing}}, "credential.scopes[0]", "tenants/fair/scopes/hall-z"},
		{"scope twice", Spec{Role: Gate, Tenant: "fair", Scopes: []scope.Ref{a, a}}, "credential.scopes[1]", "twice"},
		{"malformed scope", Spec{Role: Gate, Tenant: "fair", Scopes: []scope.Ref{{Tenant: "fair", Scope: "../x"}}}, "credential.scopes[0]", "not a scope name"},
		{"too many scopes", Spec{Role: Gate, Tenant: "fair", Scopes: many}, "credential.scopes", "at most 100"},
		{"expired", Spec{Role: Auditor, Tenant: "fair", ExpireTime: h.now}, "credential.expire_time", "past"},
		{"too late", Spec{Role: Auditor, Tenant: "fair", ExpireTime: lastTime.Add(time.Second)}, "credential.expire_time", "9999"},
		{"long name", Spec{Role: Auditor, Tenant: "fair", DisplayName: strings.Repeat("门", 201)}, "credential.display_name", "201 characters"},
		{"control character", Spec{Role: Auditor, Tenant: "fair", DisplayName: "lane\x1b[31m3"}, "credential.display_name", "U+001B"},
		{"direction override", Spec{Role: Auditor, Tenant: "fair", DisplayName: "lane\u202e3"}, "credential.display_name", "U+202E"},
		{"not UTF-8", Spec{Role: Auditor, Tenant: "fair", DisplayName: "\xff"}, "credential.display_name", "UTF-8"},
	} {
		_, key, err := h.CreateCredential(t.Context(), h.admin, tc.spec, idempotency.Request{})
		var invalid *InvalidError
		if !errors.As(err, &invalid) || key != "" || len(invalid.Violations) != 1 ||
			invalid.Violations[0].Field != tc.field || !strings.Contains(invalid.Violations[0].Text, tc.text) {
			t.Errorf("%s: %v, want %s: ...%s...", tc.name, err, tc.field, tc.text)
		}
	}
	_, _, err := h.CreateCredential(t.Context(), h.admin, Spec{Role: Gate, Tenant: "fair", DisplayName: "\n", ExpireTime: h.now}, idempotency.Request{})
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(invalid.Violations) != 3 {
		t.Errorf("three faults: %v", err)
	}
	if _, _, err := h.CreateCredential(t.Context(), h.admin, Spec{Role: Auditor, Tenant: "nobody"}, idempotency.Request{}); !errors.Is(err, ErrNoTenant) {
		t.Errorf("unknown tenant: %v", err)
	}
	name := strings.Repeat("门", 200)
	if c, _, err := h.CreateCredential(t.Context(), h.admin, Spec{Role: Auditor, Tenant: "fair", DisplayName: name}, idempotency.Request{}); err != nil || c.DisplayName != name {
		t.Errorf("the longest name: %v", err)
	}
}

// Naming a foreign scope in a credential is refused without looking it up.
func TestForeignScopesAreNotLookedUp(t *testing.T) {
	h := newHouse(t)
	operator := h.caller(TenantOperator, "fair")
	asked := 0
	h.scopeExists = func(scope.Ref) bool { asked++; return true }
	var texts []string
	for _, id := range []scope.ScopeID{"north", "nowhere"} {
		_, _, err := h.CreateCredential(t.Context(), operator, Spec{Role: Gate, Tenant: "fair", Scopes: []scope.Ref{{Tenant: "gym", Scope: id}}}, idempotency.Request{})
		if !errors.Is(err, ErrInvalid) {
			t.Fatalf("%s: %v", id, err)
		}
		texts = append(texts, err.Error())
	}
	if asked != 0 || texts[0] != texts[1] {
		t.Errorf("asked %d times; texts %q", asked, texts)
	}
}

func TestCredentialsOfAnotherTenant(t *testing.T) {
	h := newHouse(t)
	gym, _ := h.make(Gate, "gym", "north")
	operator := h.caller(TenantOperator, "fair")
	none := idempotency.Request{}
	_, there := h.RevokeCredential(t.Context(), operator, "gym", gym.ID, none)
	_, notThere := h.RevokeCredential(t.Context(), operator, "gym", "aaaaaaaaaaaaaaaa", none)
	if there != ErrDenied || notThere != ErrDenied {
		t.Errorf("by the foreign name: %v and %v", there, notThere)
	}
	for _, id := range []CredentialID{gym.ID, "aaaaaaaaaaaaaaaa", h.adminID, ""} {
		if _, err := h.RevokeCredential(t.Context(), operator, "fair", id, none); !errors.Is(err, ErrNoCredential) {
			t.Errorf("under the own name, %q: %v", id, err)
		}
	}
	if err := h.Check(h.admin); err != nil {
		t.Errorf("the admin is gone: %v", err)
	}
}

func TestLastAdminStays(t *testing.T) {
	h := newHouse(t)
	none := idempotency.Request{}
	if _, err := h.RevokeCredential(t.Context(), h.admin, "", h.adminID, none); !errors.Is(err, ErrLastAdmin) {
		t.Fatalf("the only admin: %v", err)
	}
	second, _, err := h.CreateCredential(t.Context(), h.admin, Spec{Role: PlatformAdmin, ExpireTime: h.now.Add(time.Hour)}, none)
	h.ok(err)
	h.now = h.now.Add(2 * time.Hour) // the second has expired and counts no more
	if _, err := h.RevokeCredential(t.Context(), h.admin, "", h.adminID, none); !errors.Is(err, ErrLastAdmin) {
		t.Errorf("beside an expired one: %v", err)
	}
	if _, err := h.RevokeCredential(t.Context(), h.admin, "", second.ID, none); err != nil {
		t.Errorf("the expired one: %v", err)
	}
	if !h.HasAdmin() {
		t.Error("HasAdmin = false")
	}
}

func TestIdempotency(t *testing.T) {
	h := newHouse(t)
	ctx, operator := t.Context(), h.caller(TenantOperator, "fair")
	req := idempotency.Request{ID: "r-1", Fingerprint: [32]byte{1}}
	spec := Spec{Role: Auditor, Tenant: "fair", DisplayName: "first"}
	first, key, err := h.CreateCredential(ctx, operator, spec, req)
	if err != nil || key == "" {
		t.Fatalf("first: %q, %v", key, err)
	}
	h.reopen()
	again, key, err := h.CreateCredential(ctx, operator, spec, req)
	if err != nil || key != "" || !reflect.DeepEqual(again, first) {
		t.Errorf("repeated: %+v, %q, %v; want %+v and no key", again, key, err, first)
	}
	changed := idempotency.Request{ID: "r-1", Fingerprint: [32]byte{2}}
	if _, _, err := h.CreateCredential(ctx, operator, spec, changed); !errors.Is(err, idempotency.ErrReused) {
		t.Errorf("other content: %v", err)
	}
	if _, err := h.RevokeCredential(ctx, operator, "fair", first.ID, changed); !errors.Is(err, idempotency.ErrReused) {
		t.Errorf("other method: %v", err)
	}
	if got, _, err := h.CreateCredential(ctx, h.caller(TenantOperator, "gym"), Spec{Role: Auditor, Tenant: "gym"}, changed); err != nil || got.Tenant != "gym" {
		t.Errorf("the same id in another tenant: %+v, %v", got, err)
	}
	if _, _, err := h.CreateCredential(ctx, operator, spec, idempotency.Request{ID: "with space"}); !errors.Is(err, idempotency.ErrBadRequestID) {
		t.Errorf("bad id: %v", err)
	}
	h.now = h.now.Add(idempotency.Retention + time.Second)
	fresh, key, err := h.CreateCredential(ctx, operator, spec, changed)
	if err != nil || key == "" || fresh.ID == first.ID {
		t.Errorf("after the retention: %+v, %v", fresh, err)
	}
	tenant := idempotency.Request{ID: "t-1", Fingerprint: [32]byte{9}}
	for range 2 {
		if got, err := h.CreateTenant(ctx, h.admin, "school", "a school", tenant); err != nil || got.ID != "school" {
			t.Errorf("CreateTenant: %+v, %v", got, err)
		}
	}
	if _, err := h.CreateTenant(ctx, h.admin, "school", "a school", idempotency.Request{}); !errors.Is(err, ErrTenantExists) {
		t.Errorf("without a request id: %v", err)
	}
}

func TestEverythingSurvivesARestart(t *testing.T) {
	h := newHouse(t)
	type pair struct {
		cred Credential
		key  string
	}
	var made []pair
	for _, role := range Roles()[1:] {
		var scopes []scope.ScopeID
		if role.OfScopes() {
			scopes = []scope.ScopeID{"hall-b", "hall-a"}
		}
		c, key := h.make(role, "fair", scopes...)
		made = append(made, pair{c, key})
	}
	tenants, err := h.Tenants(h.admin, "", 0)
	h.ok(err)
	h.reopen()
	if got, err := h.Tenants(h.admin, "", 0); err != nil || !reflect.DeepEqual(got, tenants) {
		t.Errorf("tenants: %+v, %v; want %+v", got, err, tenants)
	}
	for _, p := range made {
		c := h.login(p.key)
		if c.ID() != p.cred.ID || c.Role() != p.cred.Role || c.Tenant() != "fair" || !slices.Equal(c.Scopes(), p.cred.Scopes) {
			t.Errorf("%s: %+v", p.cred.Role, c)
		}
	}
	if !h.HasAdmin() {
		t.Error("the admin is lost")
	}
}

func TestPaging(t *testing.T) {
	h := newHouse(t)
	for i := range 25 {
		h.make(Auditor, "fair")
		_, err := h.CreateTenant(t.Context(), h.admin, scope.TenantID(fmt.Sprintf("t-%02d", i)), "", idempotency.Request{})
		h.ok(err)
	}
	auditor := h.caller(Auditor, "fair")
	var ids []CredentialID
	for after := CredentialID(""); ; after = ids[len(ids)-1] {
		page, err := h.Credentials(auditor, "fair", after, 10)
		h.ok(err)
		for _, c := range page {
			if c.Tenant != "fair" {
				t.Errorf("%s of tenant %s is listed", c.ID, c.Tenant)
			}
			ids = append(ids, c.ID)
		}
		if len(page) < 10 {
			break
		}
	}
	if len(ids) != 26 || !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != 26 {
		t.Errorf("%d ids, sorted %v", len(ids), slices.IsSorted(ids))
	}
	if page, err := h.Tenants(h.admin, "t-20", 3); err != nil || len(page) != 3 || page[0].ID != "t-21" {
		t.Errorf("Tenants after t-20: %+v, %v", page, err)
	}
	if page, err := h.Tenants(h.admin, "zzz", 3); err != nil || len(page) != 0 {
		t.Errorf("Tenants after the last: %+v, %v", page, err)
	}
	if page, err := h.Tenants(h.admin, "", -1); err != nil || len(page) != 27 {
		t.Errorf("Tenants with a negative limit: %d, %v", len(page), err)
	}
	if page, err := h.Credentials(h.admin, "", "", 10); err != nil || len(page) != 1 || page[0].Role != PlatformAdmin {
		t.Errorf("platform credentials: %+v, %v", page, err)
	}
}

func TestEachVisitsEveryPage(t *testing.T) {
	h := newHouse(t)
	var m store.Mutation
	for i := range 2*pageLen + 7 {
		m.Puts = append(m.Puts, store.Record{Key: store.Key{
			Kind: store.KindRequest, Ref: scope.Ref{Tenant: []scope.TenantID{"", "fair", "gym"}[i%3]}, ID: fmt.Sprint("r-", i),
		}, Value: []byte{1}})
	}
	h.ok(h.store.Commit(t.Context(), m))
	seen := make(map[store.Key]int)
	h.ok(h.each(t.Context(), store.KindRequest, func(r store.Record) error { seen[r.Key]++; return nil }))
	for _, r := range m.Puts {
		if seen[r.Key] != 1 {
			t.Fatalf("%s was visited %d times", r.Key, seen[r.Key])
		}
	}
	if len(seen) != len(m.Puts) {
		t.Errorf("%d visited, want %d", len(seen), len(m.Puts))
	}
}

func TestTooManyCredentials(t *testing.T) {
	h := newHouse(t)
	for range MaxCredentials { // in memory only: the limit is counted there
		h.addCredential(&entry{Credential: Credential{ID: newID(), Role: Auditor, Tenant: "gym"}})
	}
	if _, _, err := h.CreateCredential(t.Context(), h.admin, Spec{Role: Auditor, Tenant: "gym"}, idempotency.Request{}); !errors.Is(err, ErrTooManyCredentials) {
		t.Errorf("one more: %v", err)
	}
	if _, _, err := h.CreateCredential(t.Context(), h.admin, Spec{Role: Auditor, Tenant: "fair"}, idempotency.Request{}); err != nil {
		t.Errorf("another tenant: %v", err)
	}
}

// The secret stands in no file, and nothing of it in what is printed.
func TestSecretsStayOut(t *testing.T) {
	h := newHouse(t)
	cred, key := h.make(Gate, "fair", "hall-a")
	secret := key[len(key)-textLen:]
	c := h.login(key)
	if out := fmt.Sprintf("%+v %#v %v", cred, c, c); strings.Contains(out, secret) {
		t.Error("printing a credential or a caller shows the secret")
	}
	h.close()
	defer h.open()
	err := filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("the secret stands in %s", filepath.Base(path))
		}
		return err
	})
	h.ok(err)
}

// brokenStore fails every commit.
type brokenStore struct{ Storage }

func (brokenStore) Commit(context.Context, store.Mutation) error { return store.ErrFailed }

func TestNothingIsSeenThatIsNotDurable(t *testing.T) {
	h := newHouse(t)
	cred, key := h.make(Gate, "fair", "hall-a")
	sound := h.Authority.store
	h.Authority.store = brokenStore{sound}
	if _, err := h.CreateTenant(t.Context(), h.admin, "school", "", idempotency.Request{}); !errors.Is(err, store.ErrFailed) {
		t.Errorf("CreateTenant: %v", err)
	}
	if _, made, err := h.CreateCredential(t.Context(), h.admin, Spec{Role: Auditor, Tenant: "fair"}, idempotency.Request{}); !errors.Is(err, store.ErrFailed) || made != "" {
		t.Errorf("CreateCredential: %q, %v", made, err)
	}
	if _, err := h.RevokeCredential(t.Context(), h.admin, "fair", cred.ID, idempotency.Request{}); !errors.Is(err, store.ErrFailed) {
		t.Errorf("RevokeCredential: %v", err)
	}
	h.Authority.store = sound
	if _, err := h.Tenant(h.admin, "school"); !errors.Is(err, ErrNoTenant) {
		t.Errorf("a tenant that is not durable: %v", err)
	}
	if page, err := h.Credentials(h.admin, "fair", "", 0); err != nil || len(page) != 1 {
		t.Errorf("credentials: %d, %v", len(page), err)
	}
	h.login(key)
}

func TestCancelledCallerLosesNothing(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cred, _, err := h.CreateCredential(ctx, h.admin, Spec{Role: Auditor, Tenant: "fair"}, idempotency.Request{})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	page, err2 := h.Credentials(h.admin, "fair", "", 0)
	h.ok(err2)
	h.reopen()
	after, err2 := h.Credentials(h.admin, "fair", "", 0)
	h.ok(err2)
	if !reflect.DeepEqual(page, after) {
		t.Errorf("seen %+v, stored %+v", page, after)
	}
	if err == nil && (len(page) != 1 || page[0].ID != cred.ID) {
		t.Errorf("answered %s, listed %+v", cred.ID, page)
	}
}

func TestDamagedRecordsAreRefused(t *testing.T) {
	good, err := encodeCredential(&entry{Credential: Credential{ID: "aaaaaaaaaaaaaaaa", Role: Gate, Tenant: "fair", Scopes: []scope.ScopeID{"hall-a"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeCredential(good.Key, good.Value); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"unknown role":    {`"role":4`, `"role":9`},
		"no role":         {`"role":4`, `"role":0`},
		"admin":           {`"role":4`, `"role":1`},
		"operator":        {`"role":4`, `"role":2`},
		"no scopes":       {`["hall-a"]`, `[]`},
		"unsorted":        {`["hall-a"]`, `["b","a"]`},
		"other tenant":    {`"tenant":"fair"`, `"tenant":"gym"`},
		"other id":        {`aaaaaaaaaaaaaaaa`, `bbbbbbbbbbbbbbbb`},
		"version":         {`"v":1`, `"v":2`},
		"unknown field":   {`"v":1`, `"v":1,"super":true`},
		"short digest":    {`"sha256":"AAAA`, `"sha256":"`},
		"bytes behind it": {`"}`, `"}{}`},
		"cut":             {`"}`, ``},
	} {
		bad := strings.Replace(string(good.Value), change[0], change[1], 1)
		if bad == string(good.Value) {
			t.Errorf("%s: the record does not hold %s", name, change[0])
		}
		if _, err := decodeCredential(good.Key, []byte(bad)); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v, want ErrRecord", name, err)
		}
	}
	if _, err := decodeTenant(tenantKey("fair"), []byte(`{"v":1,"id":"gym","create_time":"2026-11-21T00:00:00Z"}`)); !errors.Is(err, ErrRecord) {
		t.Errorf("a moved tenant: %v", err)
	}
}

func FuzzParseKey(f *testing.F) {
	key, _ := newKey(newID())
	f.Add(key)
	f.Add("mk__")
	f.Fuzz(func(t *testing.T, key string) {
		id, d, ok := parseKey(key)
		if ok && (!id.Valid() || d == digest{} || !strings.HasPrefix(key, keyPrefix+string(id)+"_")) {
			t.Errorf("parseKey(%q) = %q", key, id)
		}
		if !ok && (id != "" || d != digest{}) {
			t.Errorf("a refused key gave %q", id)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	h := newHouse(t)
	operator := h.caller(TenantOperator, "fair")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				cred, key, err := h.CreateCredential(t.Context(), operator, Spec{Role: Auditor, Tenant: "fair"}, idempotency.Request{})
				if err != nil {
					t.Error(err)
					return
				}
				c, err := h.Authenticate(key)
				if err != nil {
					t.Error(err)
				}
				if _, err := h.RevokeCredential(t.Context(), operator, "fair", cred.ID, idempotency.Request{}); err != nil {
					t.Error(err)
				}
				if h.Check(c) == nil {
					t.Error("a revoked credential is accepted")
				}
				if _, err := h.Credentials(operator, "fair", "", 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAuthenticate(b *testing.B) {
	a := &Authority{now: time.Now, nobody: &entry{}, credentials: map[CredentialID]*entry{}, byTenant: map[scope.TenantID][]CredentialID{}}
	id := newID()
	key, d := newKey(id)
	a.addCredential(&entry{secret: d, Credential: Credential{ID: id, Role: Gate, Tenant: "fair", Scopes: []scope.ScopeID{"hall-a"}}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Authenticate(key); err != nil {
			b.Fatal(err)
		}
	}
}
