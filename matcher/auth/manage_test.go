package auth

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

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
	tenants, err := h.Tenants(h.admin, "", 0, false)
	h.ok(err)
	h.reopen()
	if got, err := h.Tenants(h.admin, "", 0, false); err != nil || !reflect.DeepEqual(got, tenants) {
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
	if page, err := h.Tenants(h.admin, "t-20", 3, false); err != nil || len(page) != 3 || page[0].ID != "t-21" {
		t.Errorf("Tenants after t-20: %+v, %v", page, err)
	}
	if page, err := h.Tenants(h.admin, "zzz", 3, false); err != nil || len(page) != 0 {
		t.Errorf("Tenants after the last: %+v, %v", page, err)
	}
	if page, err := h.Tenants(h.admin, "", -1, false); err != nil || len(page) != 27 {
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
	good, err := encodeCredential(&entry{hasKey: true, Credential: Credential{ID: "aaaaaaaaaaaaaaaa", Role: Gate, Tenant: "fair", Scopes: []scope.ScopeID{"hall-a"}, ClientCertificate: "CN=gate"}})
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
		"empty digest":    {`"sha256":"` + strings.Repeat("A", 43), `"sha256":"`},
		"certificate":     {`CN=gate`, `CN = gate`},
		"no certificate":  {`CN=gate`, `gate`},
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
