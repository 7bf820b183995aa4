package receipt

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/signing"
)

var requested = time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)

func ofScope() Receipt {
	return Receipt{
		ID: "tenants/fair/scopes/hall-a/receipts/1", Kind: Scope, Tenant: "fair", Scope: "hall-a", Cause: Revoked,
		RequestedBy: Requester{"abcdefghijklmnop", "TENANT_OPERATOR"},
		Times: Times{
			Requested: requested, Fenced: requested.Add(time.Millisecond), KeyDestroyed: requested.Add(20 * time.Millisecond),
			Erased: requested.Add(time.Second), Verified: requested.Add(2 * time.Second),
		},
		Epoch:         41,
		Destroyed:     Destroyed{Subjects: 2000, Templates: 2100, Records: 4100, Bytes: 3_000_000, Digest: strings.Repeat("0f", 32)},
		Scan:          &Scan{Files: 3, Bytes: 9_000_000},
		ServerVersion: "v0.3.0",
	}
}

func ofTemplate() Receipt {
	r := ofScope()
	r.Kind, r.Subject, r.Template, r.Cause = Template, "v-1", 2, Withdrawn
	r.Times.KeyDestroyed, r.Times.Verified, r.Scan = time.Time{}, time.Time{}, nil
	return r
}

func TestSignedReceiptsVerify(t *testing.T) {
	key := signing.NewKey()
	keys := signing.NewPublicKeys(signing.NewKey().Public(), key.Public())
	subject := ofTemplate()
	subject.Kind, subject.Template = Subject, 0
	searched := subject
	searched.Scan, searched.Times.Verified = &Scan{Files: 1}, searched.Times.Erased
	for name, r := range map[string]Receipt{"scope": ofScope(), "subject": subject, "subject, searched": searched, "template": ofTemplate()} {
		local := r
		local.Times.Requested = local.Times.Requested.In(time.FixedZone("CST", 8*3600))
		doc, err := Sign(key, local)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again, err := Sign(key, r)
		if err != nil || !bytes.Equal(doc, again) {
			t.Fatalf("%s: signed twice, two documents (%v)", name, err)
		}
		got, id, err := Parse(doc, keys)
		if err != nil || id != key.Public().ID() || !reflect.DeepEqual(got, r) {
			t.Fatalf("%s: %+v by %s, %v", name, got, id, err)
		}
		for i := range doc {
			bad := bytes.Clone(doc)
			bad[i] ^= 1 << (i % 8)
			if r, _, err := Parse(bad, keys); err == nil || r != (Receipt{}) {
				t.Fatalf("%s: byte %d flipped and accepted", name, i)
			}
		}
	}
}

func TestWhatIsNoReceipt(t *testing.T) {
	key := signing.NewKey()
	for name, c := range map[string]struct {
		spoil func(*Receipt)
		says  string
	}{
		"bytes left":          {func(r *Receipt) { r.Scan.Left = 1 }, "erase again"},
		"not searched":        {func(r *Receipt) { r.Scan, r.Times.Verified = nil, time.Time{} }, "searching the files"},
		"search without time": {func(r *Receipt) { r.Times.Verified = time.Time{} }, "belong together"},
		"key not destroyed":   {func(r *Receipt) { r.Times.KeyDestroyed = time.Time{} }, "destroying its key"},
		"not fenced":          {func(r *Receipt) { r.Times.Fenced = time.Time{} }, "times.fenced is missing"},
		"erased before asked": {func(r *Receipt) { r.Times.Erased = requested.Add(-time.Second) }, "lies before"},
		"year 10000":          {func(r *Receipt) { r.Times.Verified = requested.AddDate(8000, 0, 0) }, "years"},
		"subject of a scope":  {func(r *Receipt) { r.Subject = "v-1" }, "names no subject"},
		"subject without one": {func(r *Receipt) { *r = ofTemplate(); r.Subject = "" }, "subject must be"},
		"template 0":          {func(r *Receipt) { *r = ofTemplate(); r.Template = 0 }, "template:"},
		"template with key":   {func(r *Receipt) { *r = ofTemplate(); r.Times.KeyDestroyed = r.Times.Erased }, "only scopes"},
		"subject of many":     {func(r *Receipt) { *r = ofTemplate(); r.Kind, r.Template = Subjects, 0 }, "names none"},
		"kind":                {func(r *Receipt) { r.Kind = "TENANT" }, "kind:"},
		"cause":               {func(r *Receipt) { r.Cause = "" }, "cause:"},
		"id":                  {func(r *Receipt) { r.ID = "a\nb" }, "id:"},
		"scope id":            {func(r *Receipt) { r.Scope = "Hall A" }, "must be ids"},
		"credential":          {func(r *Receipt) { r.RequestedBy.Credential = "" }, "credential"},
		"role":                {func(r *Receipt) { r.RequestedBy.Role = strings.Repeat("x", 65) }, "role"},
		"version":             {func(r *Receipt) { r.ServerVersion = "门" }, "server_version"},
		"digest":              {func(r *Receipt) { r.Destroyed.Digest = strings.Repeat("0F", 32) }, "digest"},
	} {
		r := ofScope()
		c.spoil(&r)
		if _, err := Sign(key, r); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		// Even the right key cannot make it pass.
		doc, err := signing.Sign(key, Type, r)
		if err != nil {
			continue // years that JSON does not write
		}
		if _, _, err := Parse(doc, signing.NewPublicKeys(key.Public())); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestAnyReceipt signs receipts of every size of count and every order of ids.
func TestAnyReceipt(t *testing.T) {
	key := signing.NewKey()
	keys := signing.NewPublicKeys(key.Public())
	rapid.Check(t, func(rt *rapid.T) {
		r := ofScope()
		if rapid.Bool().Draw(rt, "template") {
			r = ofTemplate()
			r.Subject = scope.SubjectID(rapid.StringMatching(`[a-z0-9]{1,63}`).Draw(rt, "subject"))
			r.Template = scope.TemplateID(rapid.Uint32Min(1).Draw(rt, "number"))
		}
		r.Epoch = scope.Epoch(rapid.Uint64().Draw(rt, "epoch"))
		r.Destroyed.Bytes = rapid.Uint64().Draw(rt, "bytes")
		r.ID = rapid.StringMatching(`[ -~]{1,200}`).Draw(rt, "id")
		r.Times.Erased = r.Times.Erased.Add(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(rt, "later")))
		doc, err := Sign(key, r)
		if err != nil {
			rt.Fatal(err)
		}
		if got, _, err := Parse(doc, keys); err != nil || !reflect.DeepEqual(got, r) {
			rt.Fatalf("%+v, %v", got, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	key := signing.NewKey()
	doc, err := Sign(key, ofScope())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	keys := signing.NewPublicKeys(key.Public())
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := Parse(b, keys); err == nil && !bytes.Equal(b, doc) {
			t.Fatalf("accepted: %q", b)
		}
	})
}
