package signing

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

type note struct {
	Who  string `json:"who"`
	Many int    `json:"many"`
	More *note  `json:"more,omitempty"`
}

const noteType = "menshen.note.v1"

func mustSign(t testing.TB, k *Key, typ string, statement any) []byte {
	t.Helper()
	doc, err := Sign(k, typ, statement)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestWhatWasSignedIsRead(t *testing.T) {
	old, key := NewKey(), NewKey()
	keys := NewPublicKeys(old.Public(), key.Public())
	rapid.Check(t, func(rt *rapid.T) {
		in := note{Who: strings.ToValidUTF8(rapid.String().Draw(rt, "who"), "?"), Many: rapid.Int().Draw(rt, "many"), More: &note{}}
		by := rapid.SampledFrom([]*Key{old, key}).Draw(rt, "key")
		doc, err := Sign(by, noteType, in)
		if err != nil {
			rt.Fatal(err)
		}
		var out note
		id, err := Parse(doc, noteType, keys, &out)
		if err != nil || id != by.Public().ID() || out.Who != in.Who || out.Many != in.Many || out.More == nil {
			rt.Fatalf("%+v by %s: %v\n%s", out, id, err, doc)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	key, other := NewKey(), NewKey()
	keys := NewPublicKeys(key.Public(), other.Public())
	doc := mustSign(t, key, noteType, note{Who: "anna", Many: 3})
	text := string(doc)
	replace := func(old, with string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("the document does not hold %q:\n%s", old, text)
		}
		return strings.Replace(text, old, with, 1)
	}
	bare, err := json.Marshal(json.RawMessage(doc))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		doc  string
		keys PublicKeys
		want error
	}{
		"another value":      {replace("anna", "anne"), keys, ErrSignature},
		"another number":     {replace("3", "4"), keys, ErrSignature},
		"another known key":  {replace(string(key.Public().ID()), string(other.Public().ID())), keys, ErrSignature},
		"a stranger's key":   {text, NewPublicKeys(other.Public()), ErrUnknownKey},
		"no keys":            {text, nil, ErrUnknownKey},
		"the zero key":       {text, PublicKeys{key.Public().ID(): {}}, ErrUnknownKey},
		"a key under a lie":  {text, PublicKeys{key.Public().ID(): other.Public()}, ErrSignature},
		"another version":    {replace("note.v1", "note.v2"), keys, ErrType},
		"unknown field":      {replace(`"many": 3`, `"many": 3,"extra": 1`), keys, ErrForm},
		"unknown outside":    {replace(`"type"`, `"extra": 1, "type"`), keys, ErrForm},
		"a field twice":      {replace(`"many": 3`, `"many": 9, "many": 3`), keys, ErrForm},
		"a field in capital": {replace(`"who"`, `"Who"`), keys, ErrForm},
		"a longer signature": {replace(`"value": "`, `"value": "A`), keys, ErrSignature},
		"more white space":   {replace("\n", "\n\n"), keys, ErrForm},
		"on one line":        {string(bare), keys, ErrForm},
		"cut":                {text[:len(text)/2], keys, ErrForm},
		"without its end":    {text[:len(text)-1], keys, ErrForm},
		"with a tail":        {text + "x", keys, ErrForm},
		"two of them":        {text + text, keys, ErrForm},
		"empty":              {"", keys, ErrForm},
		"null":               {"null", keys, ErrType},
		"too large":          {text + strings.Repeat(" ", MaxDocument), keys, ErrForm},
	} {
		if _, err := Parse([]byte(c.doc), noteType, c.keys, new(note)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	// A signature for one type is none for another, and none under another key's id.
	forged := mustSign(t, key, "menshen.note.v2", note{Who: "anna", Many: 3})
	forged = bytes.Replace(forged, []byte("note.v2"), []byte("note.v1"), 1)
	if _, err := Parse(forged, noteType, keys, new(note)); !errors.Is(err, ErrSignature) {
		t.Errorf("a signature of another type: %v", err)
	}
}

func TestEveryByteCounts(t *testing.T) {
	key := NewKey()
	keys := NewPublicKeys(key.Public())
	doc := mustSign(t, key, noteType, note{Who: "anna", Many: 3, More: &note{Who: "ben"}})
	for i := range doc {
		for bit := range 8 {
			bad := bytes.Clone(doc)
			bad[i] ^= 1 << bit
			if _, err := Parse(bad, noteType, keys, new(note)); err == nil {
				t.Fatalf("bit %d of byte %d flipped and accepted:\n%s", bit, i, bad)
			}
		}
		if _, err := Parse(append(bytes.Clone(doc[:i]), doc[i+1:]...), noteType, keys, new(note)); err == nil {
			t.Fatalf("accepted without byte %d", i)
		}
	}
}

func TestKeyForms(t *testing.T) {
	key := NewKey()
	secret, err := key.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var again Key
	if err := again.UnmarshalBinary(secret); err != nil || again.Public() != key.Public() {
		t.Fatalf("unmarshalled: %v", err)
	}
	doc := mustSign(t, &again, noteType, note{})
	if _, err := Parse(doc, noteType, NewPublicKeys(key.Public()), new(note)); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"empty": nil, "short": secret[:32], "long": append(bytes.Clone(secret), 0), "version": append([]byte{2}, secret[1:]...)} {
		if err := again.UnmarshalBinary(b); !errors.Is(err, ErrKeyForm) || again.Public() != key.Public() {
			t.Errorf("%s: %v", name, err)
		}
	}

	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("a key", "key", key)
	printed := log.String() + fmt.Sprintf("%v %+v %#v %s %x %q %d", key, key, key, key, key, key, key)
	if !strings.Contains(printed, string(key.Public().ID())) {
		t.Errorf("the key's id is not printed: %s", printed)
	}
	for _, form := range []string{string(secret[1:]), fmt.Sprintf("%x", secret[1:]), fmt.Sprint(secret[1:9]), base64.StdEncoding.EncodeToString(secret[1:])} {
		if strings.Contains(printed, strings.Trim(form, "[]=")) {
			t.Errorf("the secret is printed: %s", printed)
		}
	}

	held := key.private
	key.Wipe()
	if !bytes.Equal(held, make([]byte, len(held))) {
		t.Error("the wiped key is still in memory")
	}
	if _, err := Sign(key, noteType, note{}); !errors.Is(err, ErrWiped) {
		t.Errorf("a wiped key signs: %v", err)
	}
	if _, err := key.MarshalBinary(); !errors.Is(err, ErrWiped) {
		t.Errorf("a wiped key marshals: %v", err)
	}
	if _, err := Sign(new(Key), noteType, note{}); !errors.Is(err, ErrWiped) {
		t.Errorf("the zero key signs: %v", err)
	}
}

func TestPublicKeyText(t *testing.T) {
	a, b := NewKey().Public(), NewKey().Public()
	set, err := ParsePublicKeys("# the hall's keys\n\n" + a.String() + "\r\n  " + b.String() + "\n")
	if err != nil || len(set) != 2 || set[a.ID()] != a || set[b.ID()] != b {
		t.Fatalf("%v, %v", set, err)
	}
	if len(a.ID()) != 32 {
		t.Errorf("fingerprint %s", a.ID())
	}
	for _, bad := range []string{"", "#\n", "x", a.String() + "A", a.String()[1:], strings.TrimSuffix(a.String(), "="), PublicKey{}.String(), a.String() + " " + b.String()} {
		if _, err := ParsePublicKeys(bad); !errors.Is(err, ErrKeyForm) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSigningBesideWiping(t *testing.T) {
	key := NewKey()
	keys := NewPublicKeys(key.Public())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				doc, err := Sign(key, noteType, note{Who: "anna"})
				if errors.Is(err, ErrWiped) {
					return
				}
				if _, err := Parse(doc, noteType, keys, new(note)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	key.Wipe()
	wg.Wait()
}

func FuzzParse(f *testing.F) {
	key := NewKey()
	keys := NewPublicKeys(key.Public())
	doc := mustSign(f, key, noteType, note{Who: "anna"})
	f.Add(doc)
	f.Add([]byte(`{"type":"menshen.note.v1","statement":null,"signature":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Parse(b, noteType, keys, new(note)); err == nil && !bytes.Equal(b, doc) {
			t.Fatalf("accepted: %q", b)
		}
	})
}
