package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

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
		"DeleteTenant": func() error { _, err := a.DeleteTenant(ctx, c, tenant, none); return err },
		"Tenants":      func() error { _, err := a.Tenants(c, "", 0, true); return err },
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

func BenchmarkAuthenticate(b *testing.B) {
	a := &Authority{now: time.Now, nobody: &entry{}, credentials: map[CredentialID]*entry{}, byTenant: map[scope.TenantID][]CredentialID{}}
	id := newID()
	key, d := newKey(id)
	a.addCredential(&entry{hasKey: true, secret: d, Credential: Credential{ID: id, Role: Gate, Tenant: "fair", Scopes: []scope.ScopeID{"hall-a"}}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Authenticate(key); err != nil {
			b.Fatal(err)
		}
	}
}
