package receipt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/signing"
)

// book is a ledger on disk with the keys that write and read it.
type book struct {
	*Ledger
	t    *testing.T
	dir  string
	key  *signing.Key
	keys signing.PublicKeys
}

func newBook(t *testing.T) *book {
	key := signing.NewKey()
	b := &book{t: t, dir: t.TempDir(), key: key, keys: signing.NewPublicKeys(signing.NewKey().Public(), key.Public())}
	b.open(Mark{})
	t.Cleanup(func() { b.Close() })
	return b
}

func (b *book) open(least Mark) {
	b.t.Helper()
	var err error
	if b.Ledger, err = OpenLedger(b.dir, b.keys, least); err != nil {
		b.t.Fatal(err)
	}
}

// entry is the i-th of a tenant, of scope hall-0 or hall-1.
func (b *book) entry(tenant scope.TenantID, i int) Entry {
	b.t.Helper()
	r := ofScope()
	r.Tenant, r.Scope = tenant, scope.ScopeID(fmt.Sprintf("hall-%d", i%2))
	r.ID = fmt.Sprintf("tenants/%s/receipts/%d", tenant, i)
	doc, err := Sign(b.key, r)
	if err != nil {
		b.t.Fatal(err)
	}
	line, err := Compact(doc)
	if err != nil {
		b.t.Fatal(err)
	}
	return Entry{ID: fmt.Sprint(i), Kind: r.Kind, Tenant: tenant, Scope: r.Scope, Cause: r.Cause, Epoch: r.Epoch,
		Completed: requested.Add(time.Duration(i) * time.Second), Document: line, Sum: SumOf(doc)}
}

func (b *book) append(entries ...Entry) Mark {
	b.t.Helper()
	m, err := b.Append(b.key, entries...)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

func TestLedger(t *testing.T) {
	b := newBook(t)
	for i := range 6 {
		b.append(b.entry("fair", i), b.entry("gym", i))
	}
	before := b.Mark()
	if again := b.append(b.entry("fair", 3)); again != before || before.Number != 12 {
		t.Errorf("a receipt written twice: %+v, before %+v", again, before)
	}
	for range 2 {
		got, err := b.List("fair", "", 2, 3, b.keys)
		if err != nil || len(got) != 3 || got[0].ID != "1" || got[2].Number != 7 {
			t.Errorf("List: %+v, %v", got, err)
		}
		if got, err = b.List("gym", "hall-1", 0, 9, b.keys); err != nil || len(got) != 3 || got[1].ID != "3" {
			t.Errorf("List of a scope: %+v, %v", got, err)
		}
		e, err := b.Get("gym", "5", b.keys)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := Spell(e.Document)
		if err != nil || SumOf(doc) != e.Sum {
			t.Errorf("the document is not the one that was signed: %v", err)
		}
		if r, _, err := Parse(doc, b.keys); err != nil || r.Tenant != "gym" {
			t.Errorf("%+v, %v", r, err)
		}
		if _, err := b.Get("gym", "6", b.keys); !errors.Is(err, ErrNoReceipt) || b.Has("school", "5") {
			t.Errorf("what is not there: %v", err)
		}
		b.Close()
		if _, err := b.Append(b.key, b.entry("fair", 7)); err == nil {
			t.Error("appended to a closed ledger")
		}
		b.open(before)
	}
}

// A new file is begun when one is full, and the chain goes on.
func TestLedgerOfSeveralFiles(t *testing.T) {
	b := newBook(t)
	b.append(b.entry("fair", 0))
	b.size = segmentBytes
	b.append(b.entry("fair", 1))
	b.size = segmentBytes
	b.Close()
	// A crash after the file was made and before anything stood in it.
	if err := os.WriteFile(filepath.Join(b.dir, fileName(3)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.open(Mark{})
	b.append(b.entry("fair", 2))
	b.Close()
	b.open(b.Mark())
	if got, err := b.List("fair", "", 0, 9, b.keys); err != nil || len(got) != 3 {
		t.Errorf("%d entries, %v", len(got), err)
	}
	b.Close()
	if err := os.Remove(filepath.Join(b.dir, fileName(2))); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLedger(b.dir, b.keys, Mark{}); !errors.Is(err, ErrLedger) {
		t.Errorf("without the second file: %v", err)
	}
}

// Whatever is changed, cut off or put in is noticed; only an end that nobody was
// told of may go.
func TestLedgerNoticesDamage(t *testing.T) {
	b := newBook(t)
	var marks []Mark
	for i := range 3 {
		marks = append(marks, b.append(b.entry("fair", i)))
	}
	b.Close()
	path := filepath.Join(b.dir, fileName(1))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	open := func(content []byte, least Mark) (*Ledger, error) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenLedger(b.dir, b.keys, least)
		if err == nil {
			defer l.Close()
		}
		return l, err
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if _, err := open(bad, marks[2]); !errors.Is(err, ErrLedger) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	for i := range good {
		l, err := open(good[:i], marks[1])
		whole := len(lines[0]) + len(lines[1])
		if i < whole {
			if !errors.Is(err, ErrLedger) {
				t.Fatalf("cut to %d bytes: %v", i, err)
			}
		} else if err != nil || l.Mark() != marks[1] {
			t.Fatalf("cut to %d bytes, of which nobody was told: %v", i, err)
		}
	}
	for name, content := range map[string][]byte{
		"line left out": bytes.Join([][]byte{lines[0], lines[2]}, nil),
		"first gone":    bytes.Join([][]byte{lines[1], lines[2]}, nil),
		"exchanged":     bytes.Join([][]byte{lines[0], lines[2], lines[1]}, nil),
		"twice":         bytes.Join([][]byte{lines[0], lines[1], lines[1], lines[2]}, nil),
		"garbage line":  append(bytes.Clone(good), "x\n"...),
	} {
		if _, err := open(content, Mark{}); !errors.Is(err, ErrLedger) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Another ledger of the same length, signed with the right key.
	other := newBook(t)
	other.key, other.keys = b.key, b.keys
	for i := range 3 {
		other.append(other.entry("fair", i+1))
	}
	foreign, err := os.ReadFile(filepath.Join(other.dir, fileName(1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(foreign, marks[2]); !errors.Is(err, ErrLedger) {
		t.Errorf("another ledger: %v", err)
	}
	if _, err := OpenLedger(b.dir, signing.NewPublicKeys(signing.NewKey().Public()), Mark{}); !errors.Is(err, ErrLedger) {
		t.Errorf("signed by nobody known: %v", err)
	}
}

// OpenWhole refuses every incomplete end and leaves it as it is.
func TestOpenWhole(t *testing.T) {
	b := newBook(t)
	first := b.append(b.entry("fair", 0))
	b.append(b.entry("fair", 1))
	b.Close()
	path := filepath.Join(b.dir, fileName(1))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.IndexByte(good, '\n') + 1
	for size := 0; size <= len(good); size++ {
		if err := os.WriteFile(path, good[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenWhole(b.dir, b.keys, Mark{})
		if size == line || size == len(good) {
			if err != nil {
				t.Fatalf("whole, with %d bytes: %v", size, err)
			}
			l.Close()
		} else if !errors.Is(err, ErrTorn) {
			t.Fatalf("cut to %d bytes: %v", size, err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != int64(size) {
			t.Fatalf("cut to %d bytes, and it has changed: %v", size, err)
		}
		if size < line {
			if _, err := OpenWhole(b.dir, b.keys, first); !errors.Is(err, ErrLedger) || errors.Is(err, ErrTorn) {
				t.Fatalf("cut to %d bytes, within what was written: %v", size, err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(b.dir, fileName(3)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWhole(b.dir, b.keys, Mark{}); !errors.Is(err, ErrTorn) {
		t.Errorf("with an empty last file: %v", err)
	}
}
