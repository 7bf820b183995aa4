package matcher

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/audit"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// TestActGoesWithItsChange: the act of a change is durable with it, and in the log when
// somebody looks; what changes nothing keeps none. A log that was closed before the
// server finds what was done since when it is opened again.
func TestActGoesWithItsChange(t *testing.T) {
	p, err := openPremises(t.TempDir(), nil)
	must(t, err)
	defer func() { must(t, p.close()) }()
	hall := deed{what: "create", scope: "hall-a"}
	_, kept, err := hall.recorded(p)
	must(t, err)
	if kept {
		t.Error("the act of CreateScope is the caller's")
	}
	do := func(d deed, wantKept bool) {
		t.Helper()
		_, kept, err := d.recorded(p)
		must(t, err)
		if kept != wantKept {
			t.Errorf("%s: kept is %v", d, kept)
		}
	}
	count := func(d deed, want int) {
		t.Helper()
		n := 0
		for r, err := range p.log.Read(context.Background(), audit.Query{Chain: audit.ActsOf("fair"), Kinds: []audit.Kind{audit.KindAct}}) {
			must(t, err)
			if r.Act.RequestID == d.actID() {
				n++
				if r.Act.Epoch == 0 || r.Scope != "hall-a" {
					t.Errorf("%+v", r)
				}
			}
		}
		if n != want {
			t.Errorf("%s stands in the log %d times, want %d", d, n, want)
		}
	}
	enrol := deed{what: "enrol", scope: "hall-a", subject: "v-1", person: 1}
	do(enrol, true)
	count(enrol, 1)
	if _, kept, err := enrol.recorded(p); !errors.Is(err, ErrSubjectExists) || kept {
		t.Errorf("enrolled again: %v, kept is %v", err, kept)
	}
	trim := deed{what: "template", scope: "hall-a", subject: "v-1"}
	do(trim, true)
	do(trim, false) // the same request
	withdraw := deed{what: "withdraw", scope: "hall-a", subject: "v-1"}
	must(t, p.log.Close())
	do(withdraw, true)
	do(withdraw, false)
	must(t, p.openAudit())
	for _, d := range []deed{enrol, trim, withdraw} {
		count(d, 1)
	}
	p.store.EachPost(func(n uint64, posts [][]byte) { t.Errorf("%d posts of transaction %d still wait", len(posts), n) })
}

// An act of another tenant's credential, or without a scope, takes its own way.
func TestActOfAnotherScope(t *testing.T) {
	p, err := openPremises(t.TempDir(), nil)
	must(t, err)
	defer func() { must(t, p.close()) }()
	_, err = deed{what: "create", scope: "hall-a"}.do(p)
	must(t, err)
	for _, e := range []audit.Event{{}, {Tenant: "gym", Scope: "hall-a"}, {Tenant: "fair", Scope: "hall-b"}, {Tenant: "fair", Scope: "hall-a", Action: "\n"}} {
		act := Act{Event: e}
		_, err := p.Enroll(WithAct(context.Background(), &act), grant(hallA), Enrollment{Probes: []Probe{vectorOf(1, 0)},
			Consent: Consent{Reference: "form", GiveTime: time.Now().Add(-time.Minute), NoticeVersion: "1"}})
		must(t, err)
		if act.Kept() {
			t.Errorf("%+v was kept", e)
		}
	}
}

// Acts that waited when a backup was made do not come back with it: the log is not
// restored, and has them.
func TestRestoreLeavesActsToTheLog(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	r := idempotency.Request{ID: "r-1"}
	must(t, w.store.Commit(context.Background(), store.Mutation{Puts: w.remember(tenantRequestKey("fair", r), r, ""), Post: []byte("an act")}))
	waiting := func() (n int) {
		w.store.EachPost(func(_ uint64, posts [][]byte) { n += len(posts) })
		return n
	}
	saved := w.backUp()
	if waiting() != 1 {
		t.Fatal("nothing waits")
	}
	w.loseRecords()
	_, err := w.restore(saved)
	must(t, err)
	w.reopen()
	if n := waiting(); n != 0 {
		t.Errorf("%d acts wait for the log again", n)
	}
	if !w.Exists(scope.Ref{Tenant: "fair", Scope: "hall-a"}) {
		t.Error("the scope is gone")
	}
}

// collector notes when the acts that wait are asked for.
type collector struct {
	Recorder
	collect func()
}

func (c collector) Collect() { c.collect() }

// The log has the acts of the snapshot before the backup can be opened.
func TestBackupCollectsActs(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	var steps []string
	w.Matcher.failpoint = func(step string) { steps = append(steps, step) }
	w.Matcher.audit = collector{collect: func() { steps = append(steps, "collected") }}
	w.backUp()
	w.Matcher.audit = nil
	var at []string
	for _, s := range steps {
		if s == "collected" || s == "matcher/backup/written" || s == "matcher/backup/sealed" {
			at = append(at, s)
		}
	}
	if want := []string{"matcher/backup/written", "collected", "matcher/backup/sealed"}; !slices.Equal(at, want) {
		t.Errorf("%v, want %v", at, want)
	}
}
