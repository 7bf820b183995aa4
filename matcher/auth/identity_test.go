package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseIdentity(t *testing.T) {
	for text, want := range map[string]Identity{
		"spiffe://acme.example/hall-a/gate-1": "spiffe://acme.example/hall-a/gate-1",
		"spiffe://a_b-c.1/X.y_z-0":            "spiffe://a_b-c.1/X.y_z-0",
		"spiffe://acme.example/...":           "spiffe://acme.example/...",

		"CN=gate-1,O=Acme":         "CN=gate-1,O=Acme",
		"cn = gate-1 , o = Acme":   "CN=gate-1,O=Acme",
		"2.5.4.3=gate-1":           "CN=gate-1",
		"OU=b+CN=a,C=CN":           "CN=a+OU=b,C=CN",
		`CN=gate\, north,O=A\+B`:   `CN=gate\, north,O=A\+B`,
		`CN=gate\2C north`:         `CN=gate\, north`,
		`CN=\E9\97\A8\E7\A5\9E`:    "CN=门神",
		`CN=\ a\ `:                 `CN=\ a\ `,
		`CN=a\\ `:                  `CN=a\\`,
		`CN=\#1`:                   `CN=\#1`,
		"CN=#0c0467617465":         "CN=gate",
		"CN=a=b":                   "CN=a=b",
		"emailaddress=a@b.example": "EMAILADDRESS=a@b.example",
		"1.2.3.4=x,DC=example":     "1.2.3.4=x,DC=example",
		"CN=*.acme.example":        "CN=*.acme.example", // a letter like others
	} {
		if got, err := ParseIdentity(text); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "gate-1", "=", "CN=", "CN= ", "CN=a,", ",CN=a", "CN=a,,O=b", "CN=a+", "XX=a", "2=a", "2.05=a", "2.-5=a", `CN=a\`, `CN=a\4`, `CN=a\zz`,
		`CN="a"`, "CN=a;O=b", "CN=a\x00", "CN=a\nb", "CN=\u202ea", "CN=\xff", `CN=\FF`, "CN=#", "CN=#zz", "CN=#020105", "CN=#0c0467617465ff",
		"CN=" + strings.Repeat("a", 2050),
		"spiffe:", "spiffe://", "spiffe:///a", "spiffe://acme", "spiffe://acme/", "spiffe://acme/a/", "spiffe://acme//a", "spiffe://acme/a/../b", "spiffe://acme/.",
		"SPIFFE://acme/a", "spiffe://Acme/a", "spiffe://acme:443/a", "spiffe://user@acme/a", "spiffe://acme/a?b", "spiffe://acme/a#", "spiffe://acme/a%62",
		"spiffe://acme/*", "spiffe://*/a", "spiffe://acmé/a", "spiffe://acme/门", "spiffe://" + strings.Repeat("a", 256) + "/a", "spiffe://acme/" + strings.Repeat("a", 2048),
	} {
		if got, err := ParseIdentity(text); err == nil || got != "" {
			t.Errorf("%q was taken for %q", text, got)
		}
	}
}

// forge makes a certificate with exactly this subject and these URIs.
func forge(t testing.TB, subject []byte, uris []string, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), RawSubject: subject, NotAfter: time.Now().Add(time.Hour)}
	if len(uris) > 0 {
		var names []asn1.RawValue
		for _, u := range uris {
			names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tagURI, Bytes: []byte(u)})
		}
		der, err := asn1.Marshal(names)
		if err != nil {
			t.Fatal(err)
		}
		cert.ExtraExtensions = []pkix.Extension{{Id: oidSubjectAltName, Value: der}}
	}
	if change != nil {
		change(cert)
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return cert
}

// name encodes a subject, the country first as certificates have it.
func name(t testing.TB, rdns ...pkix.RelativeDistinguishedNameSET) []byte {
	t.Helper()
	der, err := asn1.Marshal(pkix.RDNSequence(rdns))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

var (
	oidCN = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidO  = asn1.ObjectIdentifier{2, 5, 4, 10}
)

func rdn(kind asn1.ObjectIdentifier, value any) pkix.RelativeDistinguishedNameSET {
	return pkix.RelativeDistinguishedNameSET{{Type: kind, Value: value}}
}

func TestIdentityOf(t *testing.T) {
	acmeGate := name(t, rdn(oidO, "Acme"), rdn(oidCN, "gate-1"))
	for what, tc := range map[string]struct {
		cert *x509.Certificate
		want Identity
	}{
		"subject":                  {forge(t, acmeGate, nil, nil), "CN=gate-1,O=Acme"},
		"SPIFFE before subject":    {forge(t, acmeGate, []string{"spiffe://acme/gate"}, nil), "spiffe://acme/gate"},
		"another URI":              {forge(t, acmeGate, []string{"urn:uuid:1"}, nil), "CN=gate-1,O=Acme"},
		"nobody":                   {forge(t, name(t), nil, nil), ""},
		"DNS name only":            {forge(t, name(t), nil, func(c *x509.Certificate) { c.DNSNames = []string{"gate.example", "*.example"} }), ""},
		"an ID in the CN":          {forge(t, name(t, rdn(oidCN, "spiffe://acme/gate")), nil, nil), "CN=spiffe://acme/gate"},
		"a whole subject in a CN":  {forge(t, name(t, rdn(oidCN, "gate-1,O=Acme")), nil, nil), `CN=gate-1\,O=Acme`},
		"a second CN":              {forge(t, name(t, rdn(oidCN, "gate-1"), rdn(oidCN, "x")), nil, nil), "CN=x,CN=gate-1"},
		"both in one part":         {forge(t, name(t, append(rdn(oidCN, "gate-1"), rdn(oidO, "Acme")...)), nil, nil), "CN=gate-1+O=Acme"},
		"other case":               {forge(t, name(t, rdn(oidO, "ACME"), rdn(oidCN, "Gate-1")), nil, nil), "CN=Gate-1,O=ACME"},
		"wildcard CN":              {forge(t, name(t, rdn(oidCN, "*")), nil, nil), "CN=*"},
		"spaces and a # at edges":  {forge(t, name(t, rdn(oidCN, "# x ")), nil, nil), `CN=\# x\ `},
		"other order of the parts": {forge(t, name(t, rdn(oidCN, "gate-1"), rdn(oidO, "Acme")), nil, nil), "O=Acme,CN=gate-1"},
	} {
		got, err := IdentityOf(tc.cert)
		if err != nil || got != tc.want {
			t.Errorf("%s: %q, %v; want %q", what, got, err, tc.want)
		}
		if again, err := ParseIdentity(string(got)); got != "" && (err != nil || again != got) {
			t.Errorf("%s: %q reads as %q, %v", what, got, again, err)
		}
	}
	for what, cert := range map[string]*x509.Certificate{
		"two IDs":           forge(t, acmeGate, []string{"spiffe://acme/gate", "spiffe://acme/admin"}, nil),
		"an ID and a URI":   forge(t, acmeGate, []string{"https://acme/", "spiffe://acme/admin"}, nil),
		"the same ID twice": forge(t, acmeGate, []string{"spiffe://acme/gate", "spiffe://acme/gate"}, nil),
		"trust domain":      forge(t, acmeGate, []string{"spiffe://acme"}, nil),
		"port":              forge(t, acmeGate, []string{"spiffe://acme:1/gate"}, nil),
		"empty fragment":    forge(t, acmeGate, []string{"spiffe://acme/gate#"}, nil),
		"upper-case scheme": forge(t, acmeGate, []string{"SPIFFE://acme/gate"}, nil),
		"opaque":            forge(t, acmeGate, []string{"spiffe:acme/gate"}, nil),
		"an authority":      forge(t, acmeGate, nil, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }),
		"signs lists":       forge(t, acmeGate, nil, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }),
		"line feed in CN":   forge(t, name(t, rdn(oidCN, "gate\n")), nil, nil),
		"zero byte in CN":   forge(t, name(t, rdn(oidCN, "gate\x00.evil")), nil, nil),
		"empty CN":          forge(t, name(t, rdn(oidCN, "")), nil, nil),
		"huge CN":           forge(t, name(t, rdn(oidCN, strings.Repeat("a", 4000))), nil, nil),
	} {
		if got, err := IdentityOf(cert); !errors.Is(err, ErrCertificateNames) || got != "" {
			t.Errorf("%s: %q, %v; want ErrCertificateNames", what, got, err)
		}
	}
}

// Different subjects have different identities, whatever stands in them, and an
// identity reads as itself.
func TestSubjectsAreToldApart(t *testing.T) {
	letters := rapid.StringOfN(rapid.RuneFrom([]rune(`ab ,+="\#<>;门*`)), 1, 6, -1)
	part := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) attribute {
		return attribute{rapid.SampledFrom([]string{"CN", "O", "1.2.3"}).Draw(t, "kind"), letters.Draw(t, "value")}
	}), 1, 2)
	whole := rapid.SliceOfN(part, 1, 3)
	rapid.Check(t, func(t *rapid.T) {
		a, b := subject(whole.Draw(t, "a")), subject(whole.Draw(t, "b"))
		ida, err := a.identity()
		if err != nil {
			t.Fatal(err)
		}
		idb, err := b.identity()
		if err != nil {
			t.Fatal(err)
		}
		same := slices.EqualFunc(a, b, func(x, y []attribute) bool { return slices.Equal(x, y) }) // sorted by identity
		if same != (ida == idb) {
			t.Fatalf("%v and %v: %q, %q", a, b, ida, idb)
		}
		if again, err := ParseIdentity(string(ida)); err != nil || again != ida {
			t.Fatalf("%q reads as %q, %v", ida, again, err)
		}
	})
}

func FuzzParseIdentity(f *testing.F) {
	for _, text := range []string{"spiffe://acme/gate", "CN=a,O=b+C=c", `CN=\2C\,#=`, "2.5.4.3=#0c0161"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseIdentity(text)
		if (err == nil) != (id != "") {
			t.Fatalf("%q: %q, %v", text, id, err)
		}
		if again, err := ParseIdentity(string(id)); id != "" && (err != nil || again != id) {
			t.Fatalf("%q reads as %q, %v", id, again, err)
		}
	})
}

func FuzzReadSubject(f *testing.F) {
	f.Add(name(f, rdn(oidO, "Acme"), rdn(oidCN, "gate-1")))
	f.Fuzz(func(t *testing.T, der []byte) {
		s, err := readSubject(der)
		if err != nil || len(s) == 0 {
			return
		}
		id, err := s.identity()
		if again, e := ParseIdentity(string(id)); err == nil && (e != nil || again != id) {
			t.Fatalf("%q reads as %q, %v", id, again, e)
		}
	})
}

func TestSubjectsThatAreNoText(t *testing.T) {
	good := name(t, rdn(oidCN, "gate-1"))
	for what, der := range map[string][]byte{
		"a number": name(t, rdn(oidCN, 5)), "cut": good[:len(good)-1], "bytes behind it": append(slices.Clone(good), 0), "nothing": nil,
		"an empty part": name(t, pkix.RelativeDistinguishedNameSET{}),
	} {
		if s, err := readSubject(der); err == nil {
			t.Errorf("%s: %v", what, s)
		}
	}
}
