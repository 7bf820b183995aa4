package matcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/audit"
	"github.com/menshen-io/menshen/matcher/backup"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// premises are a data directory with everything that is open on it.
type premises struct {
	*Matcher
	dir     string
	keyring *keyring.Keyring
	store   *store.Store
	log     *audit.Log
	step    func(string) // the failpoint; nil in the parent
	full    atomic.Bool  // the disk, but for what was reserved
}

// openPremises waits for locks: a child that another lane has forked and not yet
// executed shares those of the process.
func openPremises(dir string, failpoint func(string)) (*premises, error) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		p, err := openOnce(dir, failpoint)
		locked := errors.Is(err, keyring.ErrLocked) || errors.Is(err, store.ErrLocked) || errors.Is(err, audit.ErrLocked)
		if err == nil {
			return p, nil
		}
		if !locked || time.Now().After(end) {
			return nil, err
		}
	}
}

func openOnce(dir string, failpoint func(string)) (_ *premises, err error) {
	file := filepath.Join(dir, "root.key")
	root, err := keyring.LoadRoot(file, nil)
	if errors.Is(err, os.ErrNotExist) {
		root, err = keyring.CreateRoot(file, nil)
	}
	if err != nil {
		return nil, err
	}
	p := &premises{dir: dir, step: failpoint}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.keyring, err = keyring.Open(filepath.Join(dir, "keyring"), root, keyring.Options{Create: true, Failpoint: failpoint, Fault: p.fault}); err != nil {
		return nil, err
	}
	ctx := context.Background()
	if p.store, err = store.Open(ctx, store.Options{Dir: filepath.Join(dir, "data"), Keyring: p.keyring, MemTableBytes: 8 << 20, Failpoint: failpoint, FreeBytes: p.free}); err != nil {
		return nil, err
	}
	if err := p.openAudit(); err != nil {
		return nil, err
	}
	p.Matcher, err = New(ctx, Options{
		Store: p.store, Keyring: p.keyring, Index: index.New(), Perception: fakeModels{}, Logger: slog.New(slog.DiscardHandler),
		Receipts: filepath.Join(dir, "receipts"), Journal: filepath.Join(dir, "journal"), Failpoint: failpoint, Audit: p.log,
	})
	return p, err
}

// fault lets the keyring's disk be full until the reserve is given up.
func (p *premises) fault() error {
	if _, err := os.Stat(filepath.Join(p.dir, "keyring.reserve")); p.full.Load() && err == nil {
		return syscall.ENOSPC
	}
	return nil
}

// free is what the store is told of its disk.
func (p *premises) free(string) (uint64, error) {
	if p.full.Load() {
		return 1 << 20, nil
	}
	return roomy, nil
}

// fill lets the disk be full or not, and waits for longer than the store trusts what it
// was told before.
func (p *premises) fill(full bool) {
	p.full.Store(full)
	time.Sleep(300 * time.Millisecond)
}

func (p *premises) openAudit() error {
	state, err := p.keyring.Pseudonyms()
	if err != nil {
		return err
	}
	begun := len(state) > 0
	if !begun {
		state = audit.NewPseudonymState(time.Now())
	}
	pseudonyms, err := audit.NewPseudonyms(state, p.keyring.SavePseudonyms)
	if err != nil {
		return err
	}
	key, keys, err := signerOf(p.keyring)
	if err != nil {
		return err
	}
	p.log, err = audit.Open(audit.Options{Dir: filepath.Join(p.dir, "audit"), Key: key, Keys: keys, Pseudonyms: pseudonyms, Logger: slog.New(slog.DiscardHandler), Failpoint: p.step})
	if err == nil && !begun {
		err = p.keyring.SavePseudonyms(state)
	}
	if err == nil {
		err = p.log.Attach(context.Background(), p.store)
	}
	return err
}

// close closes what was opened.
func (p *premises) close() (err error) {
	if p.Matcher != nil {
		err = errors.Join(err, p.Matcher.Close())
	}
	if p.log != nil {
		err = errors.Join(err, p.log.Close())
	}
	if p.store != nil {
		err = errors.Join(err, p.store.Close())
	}
	if p.keyring != nil {
		err = errors.Join(err, p.keyring.Close())
	}
	return err
}

// deed is one thing that a child does, as it tells its parent: before it begins
// and once it was acknowledged.
type deed struct {
	what    string // create, enrol, delete, withdraw, template, revoke, rotate, sign, purge, backup
	scope   scope.ScopeID
	subject scope.SubjectID // or the name of a backup
	person  int             // enrol
	result  string          // of the acknowledgement: a receipt, a generation
}

func (d deed) String() string {
	or := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	return strings.Join([]string{d.what, or(string(d.scope)), or(string(d.subject)), strconv.Itoa(d.person), or(d.result)}, " ")
}

func parseDeed(f []string) (d deed, err error) {
	if len(f) != 5 {
		return d, fmt.Errorf("%d fields", len(f))
	}
	for i := range f {
		f[i] = strings.TrimPrefix(f[i], "-")
	}
	d = deed{what: f[0], scope: scope.ScopeID(f[1]), subject: scope.SubjectID(f[2]), result: f[4]}
	d.person, err = strconv.Atoi(f[3])
	return d, err
}

func (d deed) ref() scope.Ref { return scope.Ref{Tenant: "fair", Scope: d.scope} }

// request has an id of the deed's own, so that the parent can repeat it.
func (d deed) request() idempotency.Request {
	return idempotency.Request{ID: fmt.Sprintf("%s-%s-%s", d.what, d.scope, d.subject)}
}

// event is the deed's act, under a request id that no other deed has.
func (d deed) event() audit.Event {
	return audit.Event{Tenant: "fair", Scope: d.scope, Subject: d.subject, Credential: "abcdefghijklmnop",
		Role: "TENANT_OPERATOR", Action: "Act", Outcome: "OK", RequestID: d.actID()}
}

// together reports whether the act becomes durable with the change.
func (d deed) together() bool {
	return d.what == "enrol" || d.what == "delete" || d.what == "withdraw" || d.what == "template"
}

func (d deed) actID() string { return fmt.Sprintf("%s-%d", d.request().ID, d.person) }

// do carries the deed out and returns the result.
func (d deed) do(p *premises) (result string, err error) {
	result, _, err = d.recorded(p)
	return result, err
}

// recorded is do that tells whether the deed's act became durable with it.
func (d deed) recorded(p *premises) (result string, kept bool, err error) {
	act := Act{Event: d.event()}
	result, err = d.carryOut(WithAct(context.Background(), &act), p)
	return result, act.Kept(), err
}

func (d deed) carryOut(ctx context.Context, p *premises) (result string, err error) {
	g := grant(d.ref())
	var gone Erasure
	switch d.what {
	case "create":
		_, err = p.CreateScope(ctx, g, Settings{Purpose: "entry", Site: "hall", Alternative: "the staffed lane", LegalBasis: "separate consent",
			EndTime: time.Now().Add(72 * time.Hour)}, d.request())
	case "enrol":
		_, err = p.Enroll(ctx, g, Enrollment{Subject: d.subject, Probes: []Probe{vectorOf(uint16(d.person), 0), vectorOf(uint16(d.person), 1)},
			Consent: Consent{Reference: "form", GiveTime: time.Now().Add(-time.Minute), NoticeVersion: "1"}})
	case "delete":
		gone, err = p.DeleteSubject(ctx, g, d.subject, d.request())
	case "withdraw":
		gone, err = p.WithdrawConsent(ctx, g, d.subject, d.request())
	case "template":
		gone, err = p.DeleteTemplate(ctx, g, d.subject, 1, d.request())
	case "revoke":
		var done Revocation
		if fullDisk[os.Getenv(childPoint)] {
			p.fill(true)
			defer p.fill(false)
			done, err = p.RevokeScope(ctx, g, d.request())
			if err == nil && done.Receipt.State != ReceiptPending {
				err = fmt.Errorf("the receipt on a full disk: %+v", done.Receipt)
			}
			return done.Receipt.ID, err
		}
		done, err = p.RevokeScope(ctx, g, d.request())
		if err == nil && done.Receipt.State != ReceiptComplete {
			err = fmt.Errorf("the receipt is not complete: %+v", done.Receipt)
		}
		return done.Receipt.ID, err
	case "rotate":
		err = p.keyring.Rotate()
		return strconv.FormatUint(p.keyring.Generation(), 10), err
	case "sign":
		err = p.keyring.RotateSigning()
	case "purge":
		_, err = p.purge(ctx)
	case "backup":
		err = p.backUp(ctx, string(d.subject))
	}
	return gone.Receipt, err
}

// backUp makes a backup as server and client together do.
func (p *premises) backUp(ctx context.Context, name string) error {
	recipient, err := os.ReadFile(filepath.Join(p.dir, "recipient"))
	if err != nil {
		return err
	}
	f, err := backup.Create(filepath.Join(p.dir, "backups", name), p.step)
	if err != nil {
		return err
	}
	if _, err := p.Backup(ctx, f, []string{string(recipient)}); err != nil {
		return errors.Join(err, f.Discard())
	}
	return f.Keep()
}

// liveUntilKilled works at a desk, in an office and in an archive at the same time:
// enrolments and erasures in a scope that stays, scopes that begin and end, backups.
func liveUntilKilled() error {
	round, err := strconv.Atoi(os.Getenv(childRound))
	if err != nil {
		return err
	}
	hits, err := strconv.ParseInt(os.Getenv(childHits), 10, 64)
	if err != nil {
		return err
	}
	delay, err := time.ParseDuration(os.Getenv(childDelay))
	if err != nil {
		return err
	}
	die := func() { syscall.Kill(os.Getpid(), syscall.SIGKILL) }
	var seen atomic.Int64
	p, err := openPremises(os.Getenv(childDir), func(step string) {
		if step != os.Getenv(childPoint) || seen.Add(1) != hits {
			return
		}
		if delay > 0 {
			time.AfterFunc(delay, die)
			return
		}
		die()
		select {}
	})
	if err != nil {
		return err
	}
	var out sync.Mutex
	say := func(when string, d deed) {
		out.Lock()
		defer out.Unlock()
		fmt.Println(when, d)
	}
	act := func(d deed) error {
		say("begin", d)
		result, kept, err := d.recorded(p)
		if err != nil {
			return fmt.Errorf("%s: %w", d, err)
		}
		d.result = result
		say("done", d)
		if d.scope == "" {
			return nil
		}
		if !kept {
			if d.together() {
				return fmt.Errorf("%s: its act was not kept", d)
			}
			err = p.log.Append(context.Background(), d.event())
		}
		if err == nil {
			say("audited", d)
		}
		return err
	}
	person := round * 60
	desk := func() (script []deed) {
		for i := range 4 {
			id := func(k int) scope.SubjectID { return scope.SubjectID(fmt.Sprintf("v-%d-%d-%d", round, i, k)) }
			who := person + 8*i
			script = append(script,
				deed{what: "enrol", scope: "hall-a", subject: id(0), person: who}, deed{what: "enrol", scope: "hall-a", subject: id(1), person: who + 1},
				deed{what: "enrol", scope: "hall-a", subject: id(2), person: who + 2}, deed{what: "enrol", scope: "hall-a", subject: id(3), person: who + 3},
				deed{what: "delete", scope: "hall-a", subject: id(0)}, deed{what: "withdraw", scope: "hall-a", subject: id(1)},
				deed{what: "enrol", scope: "hall-a", subject: id(0), person: who + 4}, // somebody else gets the id
				deed{what: "template", scope: "hall-a", subject: id(2)}, deed{what: "purge"}, deed{what: "withdraw", scope: "hall-a", subject: id(0)})
		}
		return script
	}
	office := func() (script []deed) {
		for i := range 4 {
			s, who := scope.ScopeID(fmt.Sprintf("e-%d-%d", round, i)), person+32+4*i
			id := func(k int) scope.SubjectID { return scope.SubjectID(fmt.Sprintf("w-%d", k)) }
			script = append(script, deed{what: "create", scope: s},
				deed{what: "enrol", scope: s, subject: id(0), person: who}, deed{what: "enrol", scope: s, subject: id(1), person: who + 1},
				deed{what: "delete", scope: s, subject: id(0)}, deed{what: "revoke", scope: s}, deed{what: "rotate"})
			if i == 2 {
				script = append(script, deed{what: "sign"})
			}
		}
		return script
	}
	archive := func() (script []deed) {
		for i := range 3 {
			script = append(script, deed{what: "backup", subject: scope.SubjectID(fmt.Sprintf("b-%d-%d", round, i))})
		}
		return script
	}
	if !p.Exists(hallA) {
		if err := act(deed{what: "create", scope: "hall-a"}); err != nil {
			return err
		}
	}
	scripts := [][]deed{desk(), office(), archive()}
	if fullDisk[os.Getenv(childPoint)] {
		scripts = [][]deed{office()} // on whose disk nobody else could work
	}
	errs := make([]error, len(scripts))
	var wg sync.WaitGroup
	for i, script := range scripts {
		wg.Go(func() {
			for _, d := range script {
				if errs[i] = act(d); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, p.close())...)
}
