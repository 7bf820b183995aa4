package matcher

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/audit"
	"github.com/menshen-io/menshen/matcher/backup"
	"github.com/menshen-io/menshen/matcher/signing"
)

// killPoints are the steps at which a process dies, with how often at most it
// passes one before it does.
var killPoints = map[string]int{
	"store/commit/staged":    40,
	"store/commit/durable":   40,
	"store/commit/witnessed": 40,
	"store/erase/begun":      4,
	"store/erase/dropped":    4,
	"store/erase/scanned":    4,
	"store/purge/dropped":    4,
	"store/backup/space":     12,
	"matcher/backup/begun":   3,
	"matcher/backup/written": 3,
	"matcher/backup/sealed":  3,
	"backup/file/created":    3,
	"backup/file/written":    12,
	"backup/file/durable":    3,
	"backup/file/named":      3,
	"keyring/staged":         6,
	"keyring/written":        12,
	"keyring/settled":        12,
	// The replacement of the keyring and of the root file, step by step.
	"keyring/replace/written":     12,
	"keyring/replace/created":     12,
	"keyring/replace/linked":      12,
	"keyring/replace/renamed":     12,
	"keyring/replace/durable":     12,
	"keyring/replace/overwritten": 12,
	"keyring/replace/removed":     12,
	"root/replace/written":        6,
	"root/replace/created":        6,
	"root/replace/linked":         6,
	"root/replace/renamed":        6,
	"root/replace/durable":        6,
	"root/replace/overwritten":    6,
	"root/replace/removed":        6,
	"matcher/purge/scanned":       4,
	// On a full disk, see fullDisk.
	"matcher/revoke/journaled":  3,
	"keyring/reserve/given-up":  3,
	"keyring/reserve/made":      4,
	"matcher/receipt/written":   8,
	"matcher/revoke/fenced":     4,
	"matcher/revoke/durable":    4,
	"matcher/revoke/taken-over": 3,
	"matcher/revoke/key":        4,
	"matcher/revoke/erased":     4,
	"audit/outbox/taken":        8,
	"audit/outbox/written":      8,
	"audit/outbox/settled":      8,
}

// fullDisk are the points that a child comes by whose disk is full at each
// revocation but for what was reserved.
var fullDisk = map[string]bool{"matcher/revoke/journaled": true, "keyring/reserve/given-up": true, "keyring/reserve/made": true}

// The child of TestKill is this test binary, told by the environment what to do.
const (
	childDir   = "MENSHEN_MATCHER_CHILD_DIR"
	childRound = "MENSHEN_MATCHER_CHILD_ROUND"
	childPoint = "MENSHEN_MATCHER_CHILD_POINT"
	childHits  = "MENSHEN_MATCHER_CHILD_HITS"
	childDelay = "MENSHEN_MATCHER_CHILD_DELAY" // between the point and the death
)

func TestMain(m *testing.M) {
	if os.Getenv(childDir) == "" {
		os.Exit(m.Run())
	}
	if err := liveUntilKilled(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// life is a person of a scope, as the parent knows it.
type life struct {
	enrol   deed
	sure    bool  // the enrolment was acknowledged
	trim    *deed // one template was to go
	end     *deed // the erasure
	receipt string
}

// purpose is a scope, as the parent knows it.
type purpose struct {
	sure, revoking, revoked bool
	receipt                 string
}

// witness remembers what the children of one data directory said.
type witness struct {
	t          *testing.T
	dir        string
	lives      []*life
	scopes     map[scope.ScopeID]*purpose
	receipts   map[string]bool // of erasures that are settled
	audited    map[string]bool // acts that must be in the log, once, by request id
	nobodys    map[string]bool // acts of what never was
	backups    map[string]bool // that were made, by the names of their files
	generation uint64
	round      int
}

func newWitness(t *testing.T) *witness {
	w := &witness{t: t, dir: t.TempDir(), scopes: map[scope.ScopeID]*purpose{}, receipts: map[string]bool{}, audited: map[string]bool{}, nobodys: map[string]bool{}, backups: map[string]bool{}}
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(w.dir, "identity"), []byte(identity.String()+"\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(w.dir, "recipient"), []byte(identity.Recipient().String()), 0o600))
	must(t, os.Mkdir(filepath.Join(w.dir, "backups"), 0o700))
	return w
}

// hear takes over what a child said.
func (w *witness) hear(out []byte) {
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) == 0 || f[0] != "begin" && f[0] != "done" && f[0] != "audited" {
			w.t.Fatalf("the child said %q", lines.Text())
		}
		d, err := parseDeed(f[1:])
		must(w.t, err)
		if f[0] == "audited" {
			w.audited[d.actID()] = true
			continue
		}
		w.note(d, f[0] == "done")
	}
}

func (w *witness) note(d deed, done bool) {
	switch d.what {
	case "create":
		w.scopes[d.scope] = &purpose{sure: done}
	case "enrol":
		if done {
			w.last(d).sure = true
		} else {
			w.lives = append(w.lives, &life{enrol: d})
		}
	case "delete", "withdraw":
		l := w.last(d)
		l.end, l.receipt = &d, d.result
	case "template":
		w.last(d).trim = &d
		if done {
			w.receipts[d.result] = true
		}
	case "revoke":
		p := w.scopes[d.scope]
		p.revoking, p.revoked, p.receipt = true, done, d.result
	case "backup":
		if done {
			w.backups[string(d.subject)] = true
		}
	case "rotate":
		if done {
			n, err := strconv.ParseUint(d.result, 10, 64)
			must(w.t, err)
			w.generation = max(w.generation, n)
		}
	}
}

// last is the newest life of a subject.
func (w *witness) last(d deed) *life {
	for i := len(w.lives) - 1; i >= 0; i-- {
		if l := w.lives[i]; l.enrol.scope == d.scope && l.enrol.subject == d.subject {
			return l
		}
	}
	w.t.Fatalf("%s: of nobody", d)
	return nil
}

// kill runs a child that dies at a point, and reports whether it came there.
func (w *witness) kill(point string, hits int, delay time.Duration) bool {
	w.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+w.dir, childRound+"="+strconv.Itoa(w.round), childPoint+"="+point,
		childHits+"="+strconv.Itoa(hits), childDelay+"="+delay.String())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	w.round++
	w.hear(out)
	if err == nil {
		return false
	}
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		w.t.Fatalf("the child that was to die at %s: %v\n%s", point, err, stderr.String())
	}
	return true
}

// check opens the directory again and holds it against what was said. What was
// begun and not acknowledged is there as a whole or not at all.
func (w *witness) check() {
	w.t.Helper()
	ctx := context.Background()
	p, err := openPremises(w.dir, nil)
	must(w.t, err)
	if g := p.keyring.Generation(); g < w.generation {
		w.t.Errorf("the root key is of generation %d, %d was acknowledged", g, w.generation)
	}
	for id, s := range w.scopes {
		w.checkScope(ctx, p, id, s)
	}
	for _, l := range w.lives {
		w.checkLife(ctx, p, l)
	}
	for range 10 {
		n, err := p.purge(ctx)
		must(w.t, err)
		if n == 0 {
			break
		}
	}
	w.checkReceipts(ctx, p)
	p.index.Each(func(g *index.Gallery) bool { must(w.t, g.Check()); return true })
	must(w.t, p.store.Check())
	w.checkActs(ctx, p)
	_, keys, err := p.signer()
	must(w.t, err)
	must(w.t, p.close())
	w.checkAudit(keys)
	w.checkBackups()
}

// checkBackups wants every backup that was acknowledged, and none that has its name
// and is not whole.
func (w *witness) checkBackups() {
	w.t.Helper()
	folder := filepath.Join(w.dir, "backups")
	files, err := os.ReadDir(folder)
	must(w.t, err)
	for _, file := range files {
		path := filepath.Join(folder, file.Name())
		if !strings.HasSuffix(path, ".partial") {
			f, err := os.Open(path)
			must(w.t, err)
			plain, err := backup.Decrypt(f, filepath.Join(w.dir, "identity"))
			if err == nil {
				_, err = store.VerifyBackup(plain)
			}
			if err != nil {
				w.t.Errorf("the backup %s is not whole: %v", file.Name(), err)
			}
			must(w.t, f.Close())
			delete(w.backups, file.Name())
		}
		must(w.t, os.Remove(path))
	}
	for name := range w.backups {
		w.t.Errorf("the backup %s was made and is not there", name)
	}
	clear(w.backups)
}

// checkActs wants the act of everything that was done in the log, once, and of nothing
// else, whether it was acknowledged or not.
func (w *witness) checkActs(ctx context.Context, p *premises) {
	w.t.Helper()
	written := map[string]int{}
	for r, err := range p.log.Read(ctx, audit.Query{Chain: audit.ActsOf("fair"), Kinds: []audit.Kind{audit.KindAct}}) {
		must(w.t, err)
		written[r.Act.RequestID]++
	}
	for id := range w.audited {
		if written[id] != 1 {
			w.t.Errorf("%s stands in the audit log %d times", id, written[id])
		}
	}
	for id := range w.nobodys {
		if written[id] != 0 {
			w.t.Errorf("the audit log tells of %s, which never was", id)
		}
	}
}

func (w *witness) checkAudit(keys signing.PublicKeys) {
	w.t.Helper()
	if _, err := audit.Verify(filepath.Join(w.dir, "audit"), keys); err != nil {
		w.t.Error(err)
	}
}

func (w *witness) checkScope(ctx context.Context, p *premises, id scope.ScopeID, s *purpose) {
	w.t.Helper()
	ref := scope.Ref{Tenant: "fair", Scope: id}
	_, err := p.Identify(ctx, grant(ref), IdentifyQuery{Probe: vectorOf(60000, 0)})
	switch {
	case err == nil:
		s.sure = true
		if s.revoked {
			w.t.Fatalf("%s is back after its revocation", id)
		}
		s.revoking = false
	case errors.Is(err, ErrNoScope) && !s.sure:
		delete(w.scopes, id)
	case errors.Is(err, ErrScopeRevoked) && (s.revoking || s.revoked):
		done, err := p.RevokeScope(ctx, grant(ref), request())
		must(w.t, err)
		if done.Receipt.State != ReceiptComplete || s.receipt != "" && s.receipt != done.Receipt.ID {
			w.t.Errorf("%s has the receipt %+v, was told %s", id, done.Receipt, s.receipt)
		}
		if _, err := p.keyring.Keys(ref); !errors.Is(err, keyring.ErrDestroyed) {
			w.t.Errorf("the key of %s: %v", id, err)
		}
		if h, ok := p.store.Head(ref); ok {
			w.t.Errorf("the store still has %d records of %s", h.Records, id)
		}
		s.revoked, s.receipt = true, done.Receipt.ID
		w.receipts[s.receipt] = true
	default:
		w.t.Fatalf("%s (%+v): %v", id, *s, err)
	}
}

// checkLife settles what was begun, and looks whether the person matches.
func (w *witness) checkLife(ctx context.Context, p *premises, l *life) {
	w.t.Helper()
	ref := l.enrol.ref()
	s := w.scopes[l.enrol.scope]
	if s == nil || s.revoked {
		if l.receipt != "" { // it was acknowledged
			w.receipts[l.receipt] = true
		}
		return
	}
	found, err := p.Identify(ctx, grant(ref), IdentifyQuery{Probe: vectorOf(uint16(l.enrol.person), 7)})
	must(w.t, err)
	matches := found[0].Decision.Outcome == Match && found[0].Decision.Subject == l.enrol.subject
	if found[0].Decision.Outcome == Match && !matches {
		w.t.Fatalf("%s matches as %s", l.enrol, found[0].Decision.Subject)
	}
	if l.end == nil {
		if matches {
			l.sure = true
			w.audited[l.enrol.actID()] = true
		} else if w.nobodys[l.enrol.actID()] = true; l.sure {
			w.t.Fatalf("%s was acknowledged and does not match", l.enrol)
		}
		w.checkTemplates(ctx, p, l, matches)
		return
	}
	if matches && l.receipt != "" {
		w.t.Fatalf("%s was acknowledged, and the person matches again", *l.end)
	}
	again, err := l.end.do(p) // the same request
	must(w.t, err)
	w.audited[l.end.actID()] = true
	if l.receipt != "" && again != l.receipt {
		w.t.Errorf("%s: the receipt is %s, was %s", *l.end, again, l.receipt)
	}
	l.receipt = again
	w.receipts[again] = true
}

// checkTemplates looks whether a subject that lives is whole.
func (w *witness) checkTemplates(ctx context.Context, p *premises, l *life, lives bool) {
	w.t.Helper()
	if !lives {
		return
	}
	want := 2
	if l.trim != nil {
		id, err := l.trim.do(p) // the same request
		must(w.t, err)
		w.audited[l.trim.actID()] = true
		if l.trim.result != "" && l.trim.result != id {
			w.t.Errorf("%s: the receipt is %s", *l.trim, id)
		}
		w.receipts[id] = true
		want = 1
	}
	got, err := p.Subject(ctx, grant(l.enrol.ref()), l.enrol.subject)
	must(w.t, err)
	if len(got.Templates) != want {
		w.t.Errorf("%s has %d templates, want %d", l.enrol, len(got.Templates), want)
	}
}

// checkReceipts wants one receipt for each erasure, and no other.
func (w *witness) checkReceipts(ctx context.Context, p *premises) {
	w.t.Helper()
	listed := map[string]bool{}
	for after := uint64(0); ; {
		some, err := p.Receipts(ctx, scope.MintTenant("fair", "test"), after, 1000)
		must(w.t, err)
		if len(some) == 0 {
			break
		}
		for _, r := range some {
			if listed[r.ID] || !w.receipts[r.ID] {
				w.t.Errorf("the receipt %s is there twice, or for nothing", r.ID)
			}
			listed[r.ID] = true
			after = r.Number
		}
	}
	for id := range w.receipts {
		if !listed[id] {
			w.t.Errorf("the receipt %s is missing", id)
		}
	}
}

// TestKill ends a process with SIGKILL at every step of enrolments, erasures,
// revocations, rotations and backups, on data directories that go through many
// deaths; some fall during the repair of what an earlier one interrupted. Half of
// them fall a little behind the step. MENSHEN_KILL_ALL=1 does each step 32 times.
// Otherwise a disk on which they would take longer than four minutes sees fewer deaths.
func TestKill(t *testing.T) {
	const lanes, deaths = 4, 12 // deaths of one directory
	times := 3
	if testing.Short() {
		times = 1
	}
	if os.Getenv("MENSHEN_KILL_ALL") != "" {
		times = 32
	}
	var todo []string
	for point := range killPoints {
		for range times {
			todo = append(todo, point)
		}
	}
	dice := rand.New(rand.NewPCG(20261122, 1))
	dice.Shuffle(len(todo), func(i, k int) { todo[i], todo[k] = todo[k], todo[i] })
	began := time.Now()
	enough := func() bool { return times <= 3 && time.Since(began) > 4*time.Minute }
	var kills atomic.Int64
	t.Run("lanes", func(t *testing.T) {
		for lane := range lanes {
			t.Run(strconv.Itoa(lane), func(t *testing.T) {
				t.Parallel()
				dice := rand.New(rand.NewPCG(20261122, uint64(2+lane)))
				w := newWitness(t)
				for i := lane; i < len(todo) && !t.Failed() && !enough(); i += lanes {
					if w.round >= deaths {
						os.RemoveAll(w.dir)
						w = newWitness(t)
					}
					hits, delay := 1+dice.IntN(killPoints[todo[i]]), time.Duration(0)
					if dice.IntN(2) == 0 {
						delay = time.Duration(dice.IntN(3000)) * time.Microsecond
					}
					died := w.kill(todo[i], hits, delay)
					w.check()
					if !died {
						if died = w.kill(todo[i], 1, 0); !died {
							t.Fatalf("nothing comes by %s", todo[i])
						}
						w.check()
					}
					kills.Add(1)
				}
			})
		}
	})
	t.Logf("%d kills", kills.Load())
}
