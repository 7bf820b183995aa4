package auth

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

const (
	gateID     = "spiffe://acme.example/hall-a/gate-1"
	strangerID = "spiffe://acme.example/cleaner"
)

// bindGate makes a gate's credential that is bound to a certificate.
func (h *house) bindGate(tenant scope.TenantID, at scope.ScopeID, certificate string, expire time.Time) (Credential, string, error) {
	h.t.Helper()
	return h.CreateCredential(h.t.Context(), h.admin, Spec{
		Role: Gate, Tenant: tenant, Scopes: []scope.Ref{{Tenant: tenant, Scope: at}}, ClientCertificate: certificate, ExpireTime: expire,
	}, idempotency.Request{})
}

// Each way of showing oneself under each demand. Credentials: plain has a key
// alone, gate is bound to gateID and, where it was made under ByBoth, has a key;
// other is the same with another certificate, of another tenant.
func TestProofs(t *testing.T) {
	h := newHouse(t)
	_, plainKey := h.make(Gate, "fair", "hall-b")
	h.proof = ByBoth
	gate, gateKey, err := h.bindGate("fair", "hall-a", gateID, time.Time{})
	h.ok(err)
	other, otherKey, err := h.bindGate("gym", "north", "O=Gym, CN=gate", time.Time{})
	h.ok(err)
	if gateKey == "" || other.ClientCertificate != "O=Gym,CN=gate" {
		t.Fatalf("ByBoth made %+v with key %q", other, gateKey)
	}
	plain := h.login(plainKey).ID()
	if _, err := h.Authenticate(gateKey); err != ErrUnauthenticated {
		t.Errorf("a bound key alone: %v", err)
	}
	const none, otherID = Identity(""), Identity("O=Gym,CN=gate")
	for _, tc := range []struct {
		what      string
		shown     Shown
		want      map[Proof]CredentialID
		err       map[Proof]error
		otherwise error
	}{
		{"nothing", Shown{}, nil, map[Proof]error{ByCertificate: ErrCertificateNeeded, ByEither: ErrCertificateNeeded}, ErrKeyNeeded},
		{"a key", Shown{true, plainKey, none}, map[Proof]CredentialID{ByKey: plain, ByEither: plain, ByBoth: plain}, nil, ErrCertificateNeeded},
		{"a bad key", Shown{true, "mk_", none}, nil, map[Proof]error{ByCertificate: ErrCertificateNeeded}, ErrUnauthenticated},
		{"a bound certificate", Shown{Certificate: gateID}, map[Proof]CredentialID{ByCertificate: gate.ID, ByEither: gate.ID}, nil, ErrKeyNeeded},
		{"a stranger's certificate", Shown{Certificate: strangerID}, nil, map[Proof]error{ByKey: ErrKeyNeeded, ByBoth: ErrKeyNeeded}, ErrCertificateUnknown},
		{"a key and a stranger's certificate", Shown{true, plainKey, strangerID}, map[Proof]CredentialID{ByKey: plain, ByEither: plain, ByBoth: plain}, nil, ErrCertificateUnknown},
		{"a key and another's certificate", Shown{true, plainKey, gateID}, map[Proof]CredentialID{ByKey: plain}, nil, ErrOtherCredential},
		{"a bound key without its certificate", Shown{true, gateKey, none}, nil, map[Proof]error{ByCertificate: ErrCertificateNeeded}, ErrOtherCredential},
		{"a bound key and a stranger's certificate", Shown{true, gateKey, strangerID}, nil, map[Proof]error{ByCertificate: ErrCertificateUnknown}, ErrOtherCredential},
		{"a bound key and its certificate", Shown{true, gateKey, gateID}, map[Proof]CredentialID{ByCertificate: gate.ID, ByEither: gate.ID, ByBoth: gate.ID}, nil, ErrOtherCredential},
		{"a bound key and another tenant's certificate", Shown{true, gateKey, otherID}, nil, nil, ErrOtherCredential},
		{"another tenant's key and a bound certificate", Shown{true, otherKey, gateID}, nil, nil, ErrOtherCredential},
		{"a bad key and a bound certificate", Shown{true, gateKey + "A", gateID}, nil, nil, ErrUnauthenticated},
	} {
		for _, h.proof = range []Proof{ByKey, ByCertificate, ByEither, ByBoth} {
			got, err := h.Caller(tc.shown)
			want := tc.want[h.proof]
			wantErr := tc.err[h.proof]
			if wantErr == nil {
				wantErr = tc.otherwise
			}
			switch {
			case want != "" && (err != nil || got.ID() != want):
				t.Errorf("%s: %s: %s, %v; want %s", h.proof, tc.what, got.ID(), err, want)
			case want == "" && (!errors.Is(err, wantErr) || got.ID() != ""):
				t.Errorf("%s: %s: %s, %v; want %v", h.proof, tc.what, got.ID(), err, wantErr)
			}
		}
	}
}

func TestCertificateBelongsToOneLiveCredential(t *testing.T) {
	h := newHouse(t)
	h.proof = ByEither
	first, key, err := h.bindGate("fair", "hall-a", gateID, h.now.Add(time.Hour))
	h.ok(err)
	if key != "" {
		t.Error("a certificate that is enough came with a key")
	}
	holder := func() CredentialID {
		c, err := h.Caller(Shown{Certificate: gateID})
		if err != nil && !errors.Is(err, ErrCertificateUnknown) {
			t.Error(err)
		}
		return c.ID()
	}
	if _, _, err := h.bindGate("gym", "north", gateID, time.Time{}); !errors.Is(err, ErrCertificateTaken) {
		t.Errorf("bound twice: %v", err)
	}
	if got := holder(); got != first.ID {
		t.Errorf("held by %q", got)
	}
	h.now = h.now.Add(time.Hour) // the first expires
	if got := holder(); got != "" {
		t.Errorf("after the end held by %q", got)
	}
	second, _, err := h.bindGate("gym", "north", gateID, time.Time{})
	h.ok(err)
	for _, when := range []string{"at once", "after a restart"} {
		if got := holder(); got != second.ID {
			t.Errorf("%s held by %q, want the second", when, got)
		}
		h.reopen()
		h.proof = ByEither
	}
	c, err := h.Caller(Shown{Certificate: gateID})
	h.ok(err)
	_, err = h.RevokeCredential(t.Context(), h.admin, "fair", first.ID, idempotency.Request{}) // the expired one: changes nothing
	h.ok(err)
	if got := holder(); got != second.ID {
		t.Errorf("revoking the expired one gave %q", got)
	}
	_, err = h.RevokeCredential(t.Context(), h.admin, "gym", second.ID, idempotency.Request{})
	h.ok(err)
	if err := h.Check(c); err != ErrUnauthenticated || holder() != "" {
		t.Errorf("after revocation: %v, held by %q", err, holder())
	}
	h.reopen()
	h.proof = ByEither
	if got := holder(); got != "" {
		t.Errorf("after a restart held by %q", got)
	}
	if _, _, err := h.bindGate("fair", "hall-a", gateID, time.Time{}); err != nil {
		t.Errorf("after revocation it can be bound anew: %v", err)
	}
}

// Many ask for one identity at the same time; one gets it.
func TestFightForAnIdentity(t *testing.T) {
	h := newHouse(t)
	h.proof = ByCertificate
	var won, lost atomic.Int64
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			tenant, at := scope.TenantID("fair"), scope.ScopeID("hall-a")
			if i%2 == 1 {
				tenant, at = "gym", "north"
			}
			switch _, _, err := h.bindGate(tenant, at, gateID, time.Time{}); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, ErrCertificateTaken):
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || lost.Load() != 15 {
		t.Errorf("%d won, %d lost", won.Load(), lost.Load())
	}
}

// An operator who could bind any name could take the place of another tenant's
// gate, and be sent the faces that are meant for it.
func TestOnlyPlatformAdminsBindCertificates(t *testing.T) {
	h := newHouse(t)
	h.proof = ByEither
	spec := Spec{Role: Auditor, Tenant: "fair", ClientCertificate: gateID}
	operator := h.caller(TenantOperator, "fair")
	if _, _, err := h.CreateCredential(t.Context(), operator, spec, idempotency.Request{}); !errors.Is(err, ErrCertificateBinding) {
		t.Errorf("an operator: %v", err)
	}
	made, _, err := h.CreateCredential(t.Context(), h.admin, spec, idempotency.Request{})
	h.ok(err)
	if _, err := h.RevokeCredential(t.Context(), operator, "fair", made.ID, idempotency.Request{}); err != nil {
		t.Errorf("an operator revokes what is the tenant's: %v", err)
	}
	h.proof = ByKey
	if _, _, err := h.CreateCredential(t.Context(), h.admin, spec, idempotency.Request{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("on a server without client certificates: %v", err)
	}
}

func TestLastAdminIsOneWhoGetsIn(t *testing.T) {
	h := newHouse(t)
	h.proof = ByCertificate
	if h.HasAdmin() {
		t.Error("a key counts where keys do not")
	}
	first, key, err := h.BootstrapAdmin(t.Context(), "by certificate", "CN=root")
	h.ok(err)
	if key != "" || !h.HasAdmin() {
		t.Errorf("key %q, admin %v", key, h.HasAdmin())
	}
	if _, err := h.RevokeCredential(t.Context(), h.admin, "", first.ID, idempotency.Request{}); !errors.Is(err, ErrLastAdmin) {
		t.Errorf("the last that gets in: %v", err)
	}
}
