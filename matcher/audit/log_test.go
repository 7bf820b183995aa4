package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/signing"
)

func TestWhatWasWrittenIsReadAndVerifies(t *testing.T) {
	h := newHouse(t)
	h.fill(5)
	h.reopen()
	h.fill(3)
	signed, err := h.Checkpoint(t.Context())
	h.ok(err)
	if len(signed) != 5 || signed[4].Chain != platformChain {
		t.Fatalf("signed %d chains, the last %v", len(signed), signed[len(signed)-1].Head)
	}
	if again, err := h.Checkpoint(t.Context()); err != nil || len(again) != 0 {
		t.Fatalf("nothing has grown, yet %v, %v", again, err)
	}
	acts := h.read(ActsOf("fair"))
	if len(acts) != 8 || acts[7].Act.RequestID != "r-2" || acts[7].Position != 8 || !acts[0].Time.Equal(h.now) {
		t.Fatalf("%d acts: %+v", len(acts), acts)
	}
	decisions := h.read(DecisionsOf(scope.Ref{Tenant: "the-gym", Scope: "hall-a"}))
	if len(decisions) != 8 || decisions[0].Decision.ID != "d-0" || decisions[1].Decision.Subject != "" || decisions[0].Decision.Margin != Clear {
		t.Fatalf("%d decisions: %+v", len(decisions), decisions)
	}
	h.ok(h.Close())
	var docs [][]byte
	for _, s := range signed {
		docs = append(docs, s.Document)
	}
	report, err := Verify(h.opt.Dir, h.keys, docs...)
	h.ok(err)
	if len(report.Chains) != 5 || len(report.Findings) != 0 || len(report.Unchecked) != 0 {
		t.Fatalf("%+v", report)
	}
	for _, c := range report.Chains {
		if c.Signed != c.Position || c.Position == 0 || c.Oldest.IsZero() {
			t.Errorf("%+v", c)
		}
	}
	// A tenant that was handed its own part can check it alone.
	for _, chain := range []string{ActsOf("fair"), DecisionsOf(hallA)} {
		if r, err := VerifyChain(chainDir(h.opt.Dir, chain), chain, h.keys, docs...); err != nil || len(r.Chains) != 1 {
			t.Errorf("%s: %+v, %v", chain, r, err)
		}
	}
}

func TestTenantsStandApart(t *testing.T) {
	h := newHouse(t)
	h.fill(4)
	h.ok(h.Close())
	filepath.WalkDir(filepath.Join(h.opt.Dir, "tenants", "fair"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, _ := os.ReadFile(path)
			if bytes.Contains(b, []byte("the-gym")) {
				t.Errorf("%s of one tenant tells of another", path)
			}
		}
		return err
	})
}

func TestNothingOfASubjectStandsInTheFiles(t *testing.T) {
	h := newHouse(t)
	e := act("fair", 1)
	e.Scope, e.Subject = "hall-a", "ticket-of-ada-lovelace"
	h.ok(h.Append(t.Context(), e))
	d := decision(hallA, 0)
	d.Subject = "ticket-of-ada-lovelace"
	h.ok(h.Record(d))
	h.ok(h.flush())
	got := h.read(ActsOf("fair"))[0].Act.Subject
	if want := h.opt.Pseudonyms.Of(hallA, "ticket-of-ada-lovelace", h.now); got != want || got != h.read(DecisionsOf(hallA))[0].Decision.Subject {
		t.Fatalf("pseudonym %q, want %q", got, want)
	}
	h.ok(h.Close())
	filepath.WalkDir(h.opt.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, _ := os.ReadFile(path)
			for _, secret := range [][]byte{[]byte("ada-lovelace"), h.state[9:]} {
				if bytes.Contains(b, secret) {
					t.Errorf("%s holds what it must not", path)
				}
			}
		}
		return err
	})
}

// TestNoPlaceForFaces walks the types of a record: no bytes, no fractions, so no
// image, vector or score has a place.
func TestNoPlaceForFaces(t *testing.T) {
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer:
			walk(path, typ.Elem())
		case reflect.Slice:
			if typ.Elem() != reflect.TypeFor[Head]() {
				t.Errorf("%s is a list of %s", path, typ.Elem())
			}
		case reflect.Struct:
			if typ != reflect.TypeFor[time.Time]() {
				for i := range typ.NumField() {
					walk(path+"."+typ.Field(i).Name, typ.Field(i).Type)
				}
			}
		case reflect.String, reflect.Uint64, reflect.Bool:
		default:
			t.Errorf("%s is a %s", path, typ)
		}
	}
	walk("Record", reflect.TypeFor[Record]())
}

func TestEventsThatAreRefused(t *testing.T) {
	h := newHouse(t)
	for name, spoil := range map[string]func(*Event){
		"subject in the resource": func(e *Event) { e.Resource = "tenants/fair/scopes/hall-a/subjects/v-1" },
		"control characters":      func(e *Event) { e.Resource = "a\nb" },
		"no credential":           func(e *Event) { e.Credential = "" },
		"no role":                 func(e *Event) { e.Role = "" },
		"no action":               func(e *Event) { e.Action = "" },
		"no outcome":              func(e *Event) { e.Outcome = "" },
		"long request id":         func(e *Event) { e.RequestID = strings.Repeat("x", 65) },
		"tenant":                  func(e *Event) { e.Tenant = "../gym" },
		"scope of nobody":         func(e *Event) { e.Tenant, e.Scope = "", "hall-a" },
		"subject of no scope":     func(e *Event) { e.Subject = "v-1" },
		"year 10000":              func(e *Event) { e.Time = h.now.AddDate(8000, 0, 0) },
	} {
		e := act("fair", 1)
		spoil(&e)
		if err := h.Append(t.Context(), e); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, spoil := range map[string]func(*Decision){
		"match of nobody":       func(d *Decision) { d.Subject = "" },
		"nobody's match":        func(d *Decision) { d.Outcome = "NO_MATCH" },
		"margin of no match":    func(d *Decision) { d.Outcome, d.Subject = "NO_MATCH", "" },
		"margin as a number":    func(d *Decision) { d.Margin = "0.731" },
		"outcome":               func(d *Decision) { d.Outcome = "PERHAPS" },
		"id":                    func(d *Decision) { d.ID = "" },
		"scope":                 func(d *Decision) { d.Scope = scope.Ref{} },
		"time before year 1":    func(d *Decision) { d.Time = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) },
		"control in credential": func(d *Decision) { d.Credential = "\x00" },
	} {
		d := decision(hallA, 0)
		spoil(&d)
		if err := h.Record(d); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(h.read(ActsOf("fair"))); n != 0 {
		t.Errorf("%d refused acts were written", n)
	}
}

func TestQueries(t *testing.T) {
	h := newHouse(t)
	for i := range 20 {
		e := act("fair", i)
		e.Scope = scope.ScopeID([]string{"hall-a", "hall-b"}[i%2])
		h.ok(h.Append(t.Context(), e))
		h.now = h.now.Add(6 * time.Hour) // over several segments
	}
	count := func(q Query) (n int) {
		for r, err := range h.Read(t.Context(), q) {
			h.ok(err)
			if !q.wants(&r) || r.Position <= q.After {
				t.Errorf("%+v was not asked for by %+v", r, q)
			}
			n++
		}
		return n
	}
	start := h.read(ActsOf("fair"))[0].Time
	for name, c := range map[string]struct {
		q    Query
		want int
	}{
		"all":         {Query{}, 20},
		"scope":       {Query{Scope: "hall-b"}, 10},
		"from":        {Query{From: start.Add(6 * time.Hour)}, 19},
		"to":          {Query{To: start.Add(12 * time.Hour)}, 2},
		"kind":        {Query{Kinds: []Kind{KindGap, KindAct}}, 20},
		"other kind":  {Query{Kinds: []Kind{KindDecision}}, 0},
		"after":       {Query{After: 13}, 7},
		"after all":   {Query{After: 20}, 0},
		"other chain": {Query{Chain: ActsOf("nobody")}, 0},
	} {
		if c.q.Chain == "" {
			c.q.Chain = ActsOf("fair")
		}
		if got := count(c.q); got != c.want {
			t.Errorf("%s: %d records, want %d", name, got, c.want)
		}
	}
	var pages, seen int
	for after := uint64(0); ; pages++ {
		records, next, err := h.List(t.Context(), Query{Chain: ActsOf("fair"), After: after, Scope: "hall-a"}, 3)
		h.ok(err)
		seen += len(records)
		if after = next; next == 0 {
			break
		}
	}
	if pages != 3 || seen != 10 {
		t.Errorf("%d full pages, %d records", pages, seen)
	}
	for _, err := range h.Read(t.Context(), Query{Chain: "tenants/../platform"}) {
		if err == nil {
			t.Error("a chain that is none was read")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := h.List(ctx, Query{Chain: ActsOf("fair")}, 5); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	h := newHouse(t)
	if _, err := Open(h.opt); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	h.ok(h.Close())
	h.ok(h.Close())
	if err := h.Append(t.Context(), act("", 1)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := h.Record(decision(hallA, 1)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestManyWriters(t *testing.T) {
	h := newHouse(t)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 20 {
				tenant := scope.TenantID(fmt.Sprintf("t%d", i%3))
				if err := h.Append(t.Context(), act(tenant, g)); err != nil {
					t.Error(err)
				}
				if err := h.Record(decision(scope.Ref{Tenant: tenant, Scope: "s"}, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		_, err := h.Tend(t.Context(), keepFor(h.keep))
		h.ok(err)
	}
	wg.Wait()
	h.ok(h.Close())
	report, err := Verify(h.opt.Dir, h.keys)
	h.ok(err)
	var n uint64
	for _, c := range report.Chains {
		if c.Chain != platformChain {
			n += c.Position
		}
	}
	if n != 2*16*20 {
		t.Errorf("%d records", n)
	}
}

func TestRetention(t *testing.T) {
	h := newHouse(t)
	h.keep, h.opt.KeepActs, h.opt.LinkableFor = 48*time.Hour, 240*time.Hour, 24*time.Hour
	h.reopen()
	var kept [][]byte
	first := h.opt.Pseudonyms.Of(hallA, "v-0", h.now)
	for range 6 {
		h.fill(2)
		signed, err := h.Tend(t.Context(), keepFor(h.keep))
		h.ok(err)
		for _, s := range signed {
			kept = append(kept, s.Document)
		}
		h.now = h.now.Add(24 * time.Hour)
	}
	if got := h.read(DecisionsOf(hallA)); len(got) != 6 || got[0].Position != 7 {
		t.Errorf("%d decisions are left, from %d", len(got), got[0].Position)
	}
	if got := h.read(ActsOf("fair")); len(got) != 12 {
		t.Errorf("%d acts are left", len(got))
	}
	if again := h.opt.Pseudonyms.Of(hallA, "v-0", h.now.AddDate(0, 0, -6)); again == first {
		t.Error("an old pseudonym can still be made")
	}
	h.ok(h.Close())
	report, err := Verify(h.opt.Dir, h.keys, kept...)
	h.ok(err)
	if len(report.Unchecked) == 0 {
		t.Error("no checkpoint fell into the pruned part")
	}

	// Everything goes in the end, and the chain goes on from where it was.
	h.open()
	h.now = h.now.AddDate(1, 0, 0)
	_, err = h.Tend(t.Context(), keepFor(h.keep))
	h.ok(err)
	if got := h.read(DecisionsOf(hallA)); len(got) != 0 {
		t.Errorf("%d decisions are left after a year", len(got))
	}
	h.reopen()
	h.fill(1)
	if got := h.read(DecisionsOf(hallA)); len(got) != 1 || got[0].Position != 13 {
		t.Errorf("%+v", got)
	}
	h.ok(h.Close())
	_, err = Verify(h.opt.Dir, h.keys, kept...)
	h.ok(err)

	// Without the signed statement, a pruned beginning is a missing one.
	h.ok(os.Remove(filepath.Join(chainDir(h.opt.Dir, DecisionsOf(hallA)), prunedFile)))
	if report, err := Verify(h.opt.Dir, h.keys); !errors.Is(err, ErrDamaged) || report.Findings[0].Kind != Missing {
		t.Errorf("%+v, %v", report.Findings, err)
	}
	if _, err := Open(h.opt); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened without it: %v", err)
	}
}

// TestInterruptedPruning leaves the dropped segments as a crash would.
func TestInterruptedPruning(t *testing.T) {
	h := newHouse(t)
	h.keep = 48 * time.Hour
	h.reopen()
	h.fill(2)
	before := copyTree(t, chainDir(h.opt.Dir, DecisionsOf(hallA)))
	h.now = h.now.AddDate(0, 0, 5)
	h.fill(2)
	_, err := h.Tend(t.Context(), keepFor(h.keep))
	h.ok(err)
	h.ok(h.Close())
	h.ok(os.CopyFS(chainDir(h.opt.Dir, DecisionsOf(hallA)), os.DirFS(before)))
	_, err = Verify(h.opt.Dir, h.keys)
	h.ok(err)
	h.open()
	if got := h.read(DecisionsOf(hallA)); len(got) != 2 || got[0].Position != 3 {
		t.Errorf("%+v", got)
	}
	if files, err := segmentFiles(chainDir(h.opt.Dir, DecisionsOf(hallA))); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

func TestKeysCanChange(t *testing.T) {
	h := newHouse(t)
	h.fill(2)
	h.ok(h.Close())
	h.opt.Key = signing.NewKey()
	if _, err := Open(h.opt); !errors.Is(err, ErrDamaged) || !errors.Is(err, signing.ErrUnknownKey) {
		t.Fatalf("a new key alone: %v", err)
	}
	h.opt.Keys = h.keys
	h.open()
	h.fill(1)
	h.ok(h.Close())
	_, err := Verify(h.opt.Dir, signing.NewPublicKeys(h.key.Public(), h.opt.Key.Public()))
	h.ok(err)
}

// TestAnyHistory drives the log with random work, restarts and prunes it, and
// wants every chain to hold what was put in and not yet expired.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newHouse(t)
		h.opt.KeepActs = 72 * time.Hour
		h.reopen()
		type entry struct {
			id string
			at time.Time
		}
		wrote := map[scope.TenantID][]entry{}
		for i := range rapid.IntRange(1, 25).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"act", "act", "act", "later", "tend", "restart"}).Draw(rt, "step") {
			case "act":
				tenant := scope.TenantID(rapid.SampledFrom([]string{"", "fair", "the-gym"}).Draw(rt, "tenant"))
				h.ok(h.Append(t.Context(), act(tenant, i)))
				wrote[tenant] = append(wrote[tenant], entry{fmt.Sprintf("r-%d", i), h.now})
			case "later":
				h.now = h.now.Add(time.Duration(rapid.IntRange(1, 80).Draw(rt, "hours")) * time.Hour)
			case "tend":
				_, err := h.Tend(t.Context(), keepFor(h.keep))
				h.ok(err)
				for tenant, entries := range wrote {
					for len(entries) > 0 && h.now.Add(-h.opt.KeepActs).Unix() >= (day(entries[0].at.Unix())+1)*secondsPerDay {
						entries = entries[1:]
					}
					wrote[tenant] = entries
				}
			case "restart":
				h.reopen()
			}
		}
		for tenant, entries := range wrote {
			var got []entry
			for _, r := range h.read(ActsOf(tenant)) {
				if r.Kind == KindAct {
					got = append(got, entry{r.Act.RequestID, r.Time})
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(entries) {
				rt.Fatalf("%q: %v, want %v", tenant, got, entries)
			}
		}
		h.ok(h.Close())
		if _, err := Verify(h.opt.Dir, h.keys); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestRecordsHaveOneSpelling(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := Record{
			Position: rapid.Uint64().Draw(rt, "n"), Kind: KindAct, Time: time.Unix(rapid.Int64Range(0, 1<<33).Draw(rt, "s"), 7).UTC(),
			Act: &Act{Credential: rapid.StringMatching(`[ -~]{1,20}`).Draw(rt, "credential"), Resource: rapid.StringMatching(`[ -~]{0,20}`).Draw(rt, "resource")},
		}
		b, err := r.encode()
		if err != nil {
			rt.Fatal(err)
		}
		got, err := decodeRecord(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			rt.Fatalf("%+v, %v", got, err)
		}
		var loose bytes.Buffer
		if err := json.Indent(&loose, b, "", " "); err != nil {
			rt.Fatal(err)
		}
		if _, err := decodeRecord(loose.Bytes()); err == nil {
			rt.Fatal("another spelling was read")
		}
	})
}
