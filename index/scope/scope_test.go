package scope

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestIDs(t *testing.T) {
	for _, c := range []struct {
		id string
		ok bool
	}{
		{"a", true}, {"0", true}, {"hall-a", true}, {"a--b", true}, {"2026-spring-fair", true},
		{strings.Repeat("a", MaxIDLen), true},
		{"", false}, {strings.Repeat("a", MaxIDLen+1), false},
		{"-", false}, {"-a", false}, {"a-", false},
		{"A", false}, {"a b", false}, {"a_b", false}, {"a/b", false}, {"a.b", false}, {"..", false},
		{"a\x00b", false}, {"a\n", false}, {"门", false}, {"é", false}, {"a\xff", false},
	} {
		ref := Ref{TenantID(c.id), "s"}
		for what, err := range map[string]error{
			"tenant": TenantID(c.id).Validate(), "scope": ScopeID(c.id).Validate(), "subject": SubjectID(c.id).Validate(),
			"ref's tenant": ref.Validate(), "ref's scope": Ref{"t", ScopeID(c.id)}.Validate(),
		} {
			if (err == nil) != c.ok {
				t.Errorf("%s %q: %v", what, c.id, err)
			}
			if err != nil && !errors.Is(err, ErrBadID) {
				t.Errorf("%s %q: %v does not wrap ErrBadID", what, c.id, err)
			}
		}
	}
}

// TestIDErrorsAreShort: an error must not carry a hostile id into the log.
func TestIDErrorsAreShort(t *testing.T) {
	err := SubjectID(strings.Repeat("\x1b[31m", 1<<16)).Validate()
	if err == nil || len(err.Error()) > 200 || strings.ContainsRune(err.Error(), '\x1b') {
		t.Errorf("error of %d bytes: %.100q", len(err.Error()), err)
	}
}

// TestRefStringIsUnambiguous: two valid refs have one name only if they are
// equal, so that a name can stand for a scope in keys and logs.
func TestRefStringIsUnambiguous(t *testing.T) {
	id := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		a := Ref{TenantID(id.Draw(t, "t1")), ScopeID(id.Draw(t, "s1"))}
		b := Ref{TenantID(id.Draw(t, "t2")), ScopeID(id.Draw(t, "s2"))}
		if a.Validate() != nil || b.Validate() != nil {
			t.Fatalf("%v or %v is refused", a, b)
		}
		if (a == b) != (a.String() == b.String()) {
			t.Fatalf("%#v and %#v are both named %s", a, b, a)
		}
	})
}

var uses = []Use{UseVerify, UseIdentify, UseEnroll, UseErase, UseRead, UseManage, UseSettings}

func TestUsesAreDistinct(t *testing.T) {
	var all Use
	names := make(map[string]bool)
	for _, u := range uses {
		if u == 0 || u&(u-1) != 0 || all&u != 0 {
			t.Errorf("%v is not a bit of its own", u)
		}
		all |= u
		names[u.String()] = true
	}
	if len(names) != len(uses) {
		t.Errorf("the names are %v", names)
	}
	if got := (UseVerify | UseErase).String(); got != "verify+erase" {
		t.Errorf("two uses print as %q", got)
	}
	if got := Use(0).String(); got != "nothing" {
		t.Errorf("no use prints as %q", got)
	}
}

func TestZeroGrantPermitsNothing(t *testing.T) {
	ref := Ref{"hall", "fair"}
	for name, g := range map[string]Grant{
		"zero":        {},
		"no uses":     Mint(ref, 0, "cred-1"),
		"no holder":   Mint(ref, UseVerify, ""),
		"zero ref":    Mint(Ref{}, UseVerify, "cred-1"),
		"no tenant":   Mint(Ref{Scope: "fair"}, UseVerify, "cred-1"),
		"no scope":    Mint(Ref{Tenant: "hall"}, UseVerify, "cred-1"),
		"bad tenant":  Mint(Ref{"HALL", "fair"}, UseVerify, "cred-1"),
		"a wild card": Mint(Ref{"hall", "*"}, UseVerify, "cred-1"),
	} {
		if g != (Grant{}) {
			t.Errorf("%s: minted a grant for %v", name, g.Ref())
		}
		for _, r := range []Ref{ref, {}, {Tenant: "hall"}} {
			for _, u := range append(uses, 0) {
				if err := g.Check(r, u); !errors.Is(err, ErrNotGranted) {
					t.Errorf("%s: %v in %v: %v", name, u, r, err)
				}
			}
		}
	}
}

func TestGrantCheck(t *testing.T) {
	ref := Ref{"hall", "fair"}
	g := Mint(ref, UseVerify|UseRead, "cred-1")
	if g.Ref() != ref || g.Holder() != "cred-1" {
		t.Errorf("the grant speaks of %v, held by %q", g.Ref(), g.Holder())
	}
	for _, c := range []struct {
		ref Ref
		use Use
		ok  bool
	}{
		{ref, UseVerify, true}, {ref, UseRead, true}, {ref, UseVerify | UseRead, true},
		{ref, UseIdentify, false}, {ref, UseVerify | UseIdentify, false}, {ref, 0, false}, {ref, 1 << 30, false},
		{Ref{"hall", "fair2"}, UseVerify, false}, {Ref{"hall", "fai"}, UseVerify, false}, {Ref{"hal", "fair"}, UseVerify, false},
		{Ref{"fair", "hall"}, UseVerify, false}, {Ref{}, UseVerify, false},
	} {
		err := g.Check(c.ref, c.use)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrNotGranted) {
			t.Errorf("%v in %v: %v", c.use, c.ref, err)
		}
	}
}

// TestGrantSpeaksOfOneScope: no grant ever covers a second ref.
func TestGrantSpeaksOfOneScope(t *testing.T) {
	id := rapid.StringMatching(`[ab]{1,2}`)
	use := rapid.SampledFrom(uses)
	rapid.Check(t, func(t *rapid.T) {
		mine := Ref{TenantID(id.Draw(t, "t1")), ScopeID(id.Draw(t, "s1"))}
		other := Ref{TenantID(id.Draw(t, "t2")), ScopeID(id.Draw(t, "s2"))}
		held, asked := use.Draw(t, "held")|use.Draw(t, "held too"), use.Draw(t, "asked")
		err := Mint(mine, held, "cred-1").Check(other, asked)
		if want := mine == other && held&asked != 0; (err == nil) != want {
			t.Fatalf("a grant of %v in %v answers %v for %v in %v", held, mine, err, asked, other)
		}
	})
}

func TestTenantGrant(t *testing.T) {
	for name, g := range map[string]TenantGrant{
		"zero": {}, "no holder": MintTenant("hall", ""), "no tenant": MintTenant("", "cred-1"), "bad tenant": MintTenant("hall/scopes/a", "cred-1"),
	} {
		if g != (TenantGrant{}) {
			t.Errorf("%s: minted a grant for %q", name, g.Tenant())
		}
		for _, tenant := range []TenantID{"hall", "", "hall/scopes/a"} {
			if err := g.Check(tenant); !errors.Is(err, ErrNotGranted) {
				t.Errorf("%s: answers %v for %q", name, err, tenant)
			}
		}
	}
	g := MintTenant("hall", "cred-1")
	if g.Tenant() != "hall" || g.Holder() != "cred-1" || g.Check("hall") != nil {
		t.Errorf("a grant for hall speaks of %q, held by %q: %v", g.Tenant(), g.Holder(), g.Check("hall"))
	}
	for _, tenant := range []TenantID{"hal", "hall2", "HALL", "", "*"} {
		if err := g.Check(tenant); !errors.Is(err, ErrNotGranted) {
			t.Errorf("a grant for hall answers %v for %q", err, tenant)
		}
	}
}

func TestStateString(t *testing.T) {
	for s, want := range map[State]string{Active: "ACTIVE", Suspended: "SUSPENDED", Revoked: "REVOKED", 0: "State(0)", 9: "State(9)"} {
		if got := s.String(); got != want {
			t.Errorf("state %d prints as %q, want %q", uint8(s), got, want)
		}
	}
}
