package audit

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/signing"
)

var hallA = scope.Ref{Tenant: "fair", Scope: "hall-a"}

// house is a log in a folder of its own, with a clock that the test sets. It flushes
// when the test says so, and not beside it.
type house struct {
	*Log
	t     testing.TB
	opt   Options
	now   time.Time
	key   *signing.Key
	keys  signing.PublicKeys
	state []byte        // of the pseudonyms, as saved last
	keep  time.Duration // how long decisions are kept
}

// keepFor keeps the decisions of every scope as long.
func keepFor(d time.Duration) func(scope.Ref) time.Duration {
	return func(scope.Ref) time.Duration { return d }
}

func newHouse(t testing.TB) *house {
	h := &house{t: t, now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), key: signing.NewKey()}
	h.keys = signing.NewPublicKeys(h.key.Public())
	h.state = NewPseudonymState(h.now)
	h.opt = Options{
		Dir: filepath.Join(t.TempDir(), "audit"), Key: h.key, Pseudonyms: h.pseudonyms(),
		Logger: slog.New(slog.DiscardHandler), Clock: func() time.Time { return h.now }, flushEvery: time.Hour,
	}
	h.open()
	t.Cleanup(func() { h.Close() })
	return h
}

func (h *house) pseudonyms() *Pseudonyms {
	p, err := NewPseudonyms(h.state, func(b []byte) error { h.state = slices.Clone(b); return nil })
	h.ok(err)
	return p
}

func (h *house) open() {
	h.t.Helper()
	var err error
	h.Log, err = Open(h.opt)
	h.ok(err)
}

func (h *house) reopen() { h.t.Helper(); h.ok(h.Close()); h.open() }

func (h *house) ok(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// fill writes acts and decisions of two tenants and of the platform.
func (h *house) fill(n int) {
	h.t.Helper()
	for i := range n {
		for _, tenant := range []scope.TenantID{"", "fair", "the-gym"} {
			h.ok(h.Append(h.t.Context(), act(tenant, i)))
		}
		for _, tenant := range []scope.TenantID{"fair", "the-gym"} {
			h.ok(h.Record(decision(scope.Ref{Tenant: tenant, Scope: "hall-a"}, i)))
		}
	}
	h.ok(h.flush())
}

func act(tenant scope.TenantID, i int) Event {
	return Event{
		Tenant: tenant, Credential: "abcdefghijklmnop", Role: "TENANT_OPERATOR", Action: "UpdateScope",
		Resource: "tenants/" + string(tenant), Outcome: "OK", RequestID: fmt.Sprintf("r-%d", i),
	}
}

func decision(ref scope.Ref, i int) Decision {
	d := Decision{ID: fmt.Sprintf("d-%d", i), Scope: ref, Credential: "ponmlkjihgfedcba", Call: "Identify", Outcome: "NO_MATCH"}
	if i%2 == 0 {
		d.Outcome, d.Subject, d.Margin = "MATCH", scope.SubjectID(fmt.Sprintf("v-%d", i)), Clear
	}
	return d
}

// read gives all records of a chain.
func (h *house) read(chain string) []Record {
	h.t.Helper()
	var out []Record
	for r, err := range h.Read(h.t.Context(), Query{Chain: chain}) {
		h.ok(err)
		out = append(out, r)
	}
	return out
}

// copyTree copies a folder, so that a test can spoil the copy.
func copyTree(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func chainDir(dir, chain string) string { return filepath.Join(dir, filepath.FromSlash(chain)) }

// onlySegment names the one segment file of a chain.
func onlySegment(t testing.TB, dir, chain string) string {
	t.Helper()
	files, err := segmentFiles(chainDir(dir, chain))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	return filepath.Join(chainDir(dir, chain), segmentName(files[0]))
}

func kinds(r Report) []FindingKind {
	var out []FindingKind
	for _, f := range r.Findings {
		out = append(out, f.Kind)
	}
	return out
}
