package matcher

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
)

// damageChild makes the test binary a server that reads the names of data
// directories, opens each, and prints what it answers.
const damageChild = "MENSHEN_DAMAGE_CHILD"

// damageAll asks for every byte of the small files and 10,000 bits of the large
// ones, which takes some minutes, instead of a sample. "3/8" does the third of
// eight parts of them.
const damageAll = "MENSHEN_DAMAGE_ALL"

var (
	gym     = scope.Ref{Tenant: "gym", Scope: "north"}
	closed  = scope.Ref{Tenant: "fair", Scope: "closed"}
	theTime = time.Date(2027, 3, 1, 9, 0, 0, 0, time.UTC)
)

// house makes a data directory that has everything in it, and returns it as a
// kill leaves it: tables, a log of what came after them, a revoked scope with
// its receipt, an erased subject.
func house(t *testing.T) files {
	w := newWorld(t)
	ctx := context.Background()
	root, err := keyring.CreateRoot(filepath.Join(w.dir, "root.key"), nil)
	must(t, err)
	w.close()
	must(t, os.RemoveAll(filepath.Join(w.dir, "keyring")))
	must(t, os.RemoveAll(filepath.Join(w.dir, "data")))
	w.root = root
	w.open()
	for _, ref := range []scope.Ref{hallA, gym, closed} {
		w.create(ref)
		for i := range 8 {
			w.enroll(ref, subjectID(i), vectorOf(uint16(i), 0), vectorOf(uint16(i), 1))
		}
	}
	_, err = w.RevokeScope(ctx, grant(closed), request())
	must(t, err)
	w.close()
	w.root, err = keyring.LoadRoot(filepath.Join(w.dir, "root.key"), nil)
	must(t, err)
	w.open()
	for i := 8; i < 12; i++ {
		w.enroll(hallA, subjectID(i), vectorOf(uint16(i), 0))
	}
	w.purging.pass.Lock() // so that no purge rewrites the files while they are taken
	defer w.purging.pass.Unlock()
	_, err = w.DeleteSubject(ctx, grant(hallA), subjectID(2), request())
	must(t, err)
	return takeFiles(t, w.dir)
}

// answers is what a data directory says when it is opened: a line for each
// scope, and one for the receipts.
func answers(dir string) (lines []string, err error) {
	ctx := context.Background()
	root, err := keyring.LoadRoot(filepath.Join(dir, "root.key"), nil)
	if err != nil {
		return nil, err
	}
	ring, err := keyring.Open(filepath.Join(dir, "keyring"), root, keyring.Options{})
	if err != nil {
		return nil, err
	}
	defer ring.Close()
	st, err := store.Open(ctx, store.Options{Dir: filepath.Join(dir, "data"), Keyring: ring, MemTableBytes: 8 << 20,
		FreeBytes: func(string) (uint64, error) { return roomy, nil }})
	if err != nil {
		return nil, err
	}
	defer st.Close()
	m, err := New(ctx, Options{Store: st, Keyring: ring, Index: index.New(), Perception: fakeModels{},
		Logger: slog.New(slog.DiscardHandler), Clock: func() time.Time { return theTime }, Receipts: filepath.Join(dir, "receipts"), Journal: filepath.Join(dir, "journal")})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	for _, ref := range []scope.Ref{hallA, gym, closed} {
		line, err := answersOf(ctx, m, ref)
		if err != nil {
			line = "refused: " + err.Error()
		}
		lines = append(lines, ref.String()+": "+line)
	}
	line, err := receiptsIn(ctx, m)
	if err != nil {
		line = "refused: " + err.Error()
	}
	return append(lines, "receipts: "+line), nil
}

// answersOf asks a scope about everybody, and enrols one more.
func answersOf(ctx context.Context, m *Matcher, ref scope.Ref) (string, error) {
	sc, err := m.Scope(ctx, grant(ref))
	if err != nil {
		return "", err
	}
	said := fmt.Sprintf("%s epoch %d subjects %d templates %d", sc.State, sc.Epoch, sc.Subjects, sc.Templates)
	for i := range 12 {
		v, err := m.Verify(ctx, grant(ref), VerifyQuery{Subject: subjectID(i), Probe: vectorOf(uint16(i), 7)})
		if errors.Is(err, ErrScopeRevoked) {
			return said + ", revoked", nil
		} else if err != nil {
			return "", err
		}
		n, err := m.Identify(ctx, grant(ref), IdentifyQuery{Probe: vectorOf(uint16(i), 8)})
		if err != nil {
			return "", err
		}
		said += fmt.Sprintf("; %s %.6f %s", v.Outcome, float64(v.Score), n[0].Decision.Subject)
		s, err := m.Subject(ctx, grant(ref), subjectID(i))
		if err != nil && !errors.Is(err, ErrNoSubject) {
			return "", err
		}
		said += " " + s.Consent.Reference
	}
	_, err = m.Enroll(ctx, grant(ref), Enrollment{Subject: "newcomer", Probes: []Probe{vectorOf(99, 0)},
		Consent: Consent{Reference: "form-18", GiveTime: theTime.Add(-time.Minute), NoticeVersion: "2"}})
	if err != nil {
		return "", err
	}
	v, err := m.Verify(ctx, grant(ref), VerifyQuery{Subject: "newcomer", Probe: vectorOf(99, 1)})
	return said + "; newcomer " + v.Outcome.String(), err
}

func receiptsIn(ctx context.Context, m *Matcher) (string, error) {
	all, err := m.Receipts(ctx, scope.MintTenant("fair", "test"), 0, 100)
	said := fmt.Sprintf("%d of the fair:", len(all))
	for _, r := range all {
		said += " " + r.ID + " " + r.Sum
	}
	return said, err
}

// TestDamageChild is the child's side of TestDamage.
func TestDamageChild(t *testing.T) {
	if os.Getenv(damageChild) == "" {
		t.Skip("the child's side of TestDamage")
	}
	dirs := bufio.NewScanner(os.Stdin)
	for dirs.Scan() {
		lines, err := answers(dirs.Text())
		if err != nil {
			fmt.Printf("error %q\n", err.Error())
		} else {
			fmt.Printf("answer %q\n", strings.Join(lines, "\n"))
		}
	}
}

// server is a child that is asked about one directory after the other, and
// replaced when damage ends it.
type damagedServer struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

func (d *damagedServer) start() {
	d.cmd = exec.Command(os.Args[0], "-test.run=^TestDamageChild$")
	d.cmd.Env = append(os.Environ(), damageChild+"=1")
	d.stderr.Reset()
	d.cmd.Stderr = &d.stderr
	var err error
	d.in, err = d.cmd.StdinPipe()
	must(d.t, err)
	out, err := d.cmd.StdoutPipe()
	must(d.t, err)
	d.out = bufio.NewReader(out)
	must(d.t, d.cmd.Start())
}

func (d *damagedServer) stop() {
	if d.cmd != nil {
		d.in.Close()
		d.cmd.Wait()
	}
	d.cmd = nil
}

// ask says what the server answers from a directory: kind and text.
func (d *damagedServer) ask(dir string) (kind, text string) {
	if d.cmd == nil {
		d.start()
	}
	process := d.cmd.Process
	var hung atomic.Bool
	giveUp := time.AfterFunc(3*time.Minute, func() {
		hung.Store(true)
		process.Signal(syscall.SIGQUIT) // which prints where everybody stands
	})
	defer giveUp.Stop()
	fmt.Fprintln(d.in, dir)
	for {
		line, err := d.out.ReadString('\n')
		if err != nil {
			d.cmd.Wait()
			state, said := d.cmd.ProcessState, d.stderr.String()
			d.cmd = nil
			if hung.Load() {
				return "hung", said
			}
			return "died", fmt.Sprintf("%v: %.500s", state, said)
		}
		kind, quoted, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind == "answer" || kind == "error" {
			text, err := strconv.Unquote(quoted)
			must(d.t, err)
			return kind, text
		}
	}
}

// TestDamage damages one file after the other of a data directory and wants the
// right answer, or a refusal: of the start, with an error, or of a scope, while
// the others answer as ever. A process that Badger ends over the damage has
// refused too; those are counted. MENSHEN_DAMAGE_ALL=1 takes no samples.
func TestDamage(t *testing.T) {
	all := house(t)
	bits, most, part, parts := 50, 50, 1, 1
	if all := os.Getenv(damageAll); all != "" {
		bits, most = 10_000, 0
		if _, err := fmt.Sscanf(all, "%d/%d", &part, &parts); err != nil || part < 1 || part > parts {
			part, parts = 1, 1
		}
	} else if testing.Short() {
		bits, most = 15, 15
	}
	dice := rand.New(rand.NewPCG(20261121, 5))
	dir := filepath.Join(t.TempDir(), "copy")
	all.write(t, dir)
	server := &damagedServer{t: t}
	defer server.stop()
	kind, want := server.ask(dir)
	if kind != "answer" || strings.Contains(want, "refused") || strings.Count(want, "; MATCH") != 11+8 || !strings.Contains(want, "closed: REVOKED") {
		t.Fatalf("undamaged: %s %s", kind, want)
	}
	outcomes := map[string]int{}
	for i, in := range injuries(all, dice, bits, most) {
		if i%parts != part-1 {
			continue
		}
		all.write(t, dir)
		must(t, in.hurt(all[in.name]).write(filepath.Join(dir, in.name)))
		kind, got := server.ask(dir)
		switch {
		case kind == "answer" && got == want:
			kind = "right answer"
		case kind == "answer" && refusedInPart(got, want):
			kind = "refused in part"
		case kind == "error" && len(got) > 20:
			kind = "start refused"
		case kind == "died":
			t.Logf("%s: %s: the process ended: %s", in.name, in.what, got)
		default:
			t.Errorf("%s: %s: %s\n%s\ninstead of\n%s", in.name, in.what, kind, got, want)
		}
		where := filepath.Ext(in.name)
		if !large(in.name) {
			where = filepath.Base(in.name)
		}
		outcomes[fmt.Sprintf("%s, %s", where, kind)]++
	}
	for _, what := range slices.Sorted(maps.Keys(outcomes)) {
		t.Logf("%5d %s", outcomes[what], what)
	}
}

// refusedInPart reports whether every line is as it should be or says that it is
// refused.
func refusedInPart(got, want string) bool {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if name, _, _ := strings.Cut(w[i], ": "); g[i] != w[i] && !strings.HasPrefix(g[i], name+": refused: ") {
			return false
		}
	}
	return len(g) == len(w)
}
