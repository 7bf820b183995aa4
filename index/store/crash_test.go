package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
)

// childMode makes the test binary a server that can be killed.
const childMode = "MENSHEN_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch mode := os.Getenv(childMode); mode {
	case "":
		flag.Parse()
		given := false
		flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
		if !given { // the default of 100 takes a minute here
			flag.Set("rapid.checks", "10")
		}
		os.Exit(m.Run())
	case "commit":
		childCommit(os.Args[1])
	case "read":
		childRead(os.Args[1])
	case "drop":
		childDrop(os.Args[1], os.Args[2])
	case "restore":
		childRestore(os.Args[1])
	default:
		log.Fatalf("unknown %s=%s", childMode, mode)
	}
}

// openFolder opens the store of a site's folder in a child process.
func openFolder(dir string) (*Store, error) {
	root, err := keyring.LoadRoot(filepath.Join(dir, "root.key"), nil)
	if err != nil {
		return nil, err
	}
	keys, err := keyring.Open(filepath.Join(dir, "keyring"), root, keyring.Options{})
	if err != nil {
		return nil, err
	}
	return Open(context.Background(), Options{Dir: filepath.Join(dir, "data"), Keyring: keys, MemTableBytes: 8 << 20})
}

func child(mode string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), childMode+"="+mode)
	return cmd
}

// childCommit enrols without end into two scopes and prints the epoch of every
// mutation that was acknowledged. Each makes one subject with two templates.
func childCommit(dir string) {
	s, err := openFolder(dir)
	if err != nil {
		log.Fatal(err)
	}
	var out sync.Mutex
	var writers sync.WaitGroup
	for _, ref := range []scope.Ref{hallA, hallB} {
		h, _ := s.Head(ref)
		slots := make(chan struct{}, 64)
		writers.Go(func() {
			for epoch := h.Epoch + 1; ; epoch++ {
				slots <- struct{}{}
				s.Submit(enrolment(ref, epoch), func(err error) {
					if err != nil {
						log.Fatal(err)
					}
					out.Lock()
					fmt.Printf("%s %d\n", ref.Scope, epoch)
					out.Unlock()
					<-slots
				})
			}
		})
	}
	writers.Wait()
}

func enrolment(ref scope.Ref, epoch scope.Epoch) Mutation {
	id := fmt.Sprintf("u%d", epoch)
	return Mutation{Ref: ref, Epoch: epoch, Puts: []Record{
		rec(subject(ref, id), id),
		rec(template(ref, id, 1), id+" code 1 "+strings.Repeat("x", 500)),
		rec(template(ref, id, 2), id+" code 2 "+strings.Repeat("y", 500)),
	}}
}

// TestKill kills the server with SIGKILL in the middle of an enrolment, again
// and again, and wants all that was acknowledged and nothing by halves.
func TestKill(t *testing.T) {
	s := newSite(t, Options{})
	rounds := 12
	if n, err := strconv.Atoi(os.Getenv("MENSHEN_STORE_KILLS")); err == nil {
		rounds = n
	} else if testing.Short() {
		rounds = 3
	}
	acked := map[scope.ScopeID]scope.Epoch{}
	total := 0
	for round := range rounds {
		s.close()
		total += killOne(t, s.dir, acked, time.Duration(rand.IntN(120))*time.Millisecond)
		s.open()
		for _, ref := range []scope.Ref{hallA, hallB} {
			got, h := s.load(ref)
			if h.Epoch < acked[ref.Scope] {
				t.Fatalf("round %d: %s is at epoch %d, and %d was acknowledged", round, ref, h.Epoch, acked[ref.Scope])
			}
			if len(got) != int(h.Epoch)*3 {
				t.Fatalf("round %d: %s holds %d records at epoch %d", round, ref, len(got), h.Epoch)
			}
			for epoch := scope.Epoch(1); epoch <= h.Epoch; epoch++ {
				for _, want := range enrolment(ref, epoch).Puts {
					if got[want.Key] != string(want.Value) {
						t.Fatalf("round %d: %s is missing or wrong", round, want.Key)
					}
				}
			}
		}
	}
	t.Logf("%d kills, %d acknowledged mutations, all there", rounds, total)
	if total == 0 {
		t.Error("nothing was acknowledged: the test shows nothing")
	}
}

// killOne runs a child until some time after its first acknowledgement, kills
// it, and notes the last epoch that it printed for each scope.
func killOne(t *testing.T, dir string, acked map[scope.ScopeID]scope.Epoch, after time.Duration) int {
	t.Helper()
	cmd := child("commit", dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	giveUp := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer giveUp.Stop()
	lines := bufio.NewScanner(stdout)
	count := 0
	for lines.Scan() {
		if count == 0 {
			time.AfterFunc(after, func() { cmd.Process.Kill() })
		}
		name, number, ok := strings.Cut(lines.Text(), " ")
		epoch, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil {
			continue // the line that the kill cut off
		}
		if last := acked[scope.ScopeID(name)]; scope.Epoch(epoch) > last {
			acked[scope.ScopeID(name)] = scope.Epoch(epoch)
			count++
		}
	}
	cmd.Wait()
	if count == 0 {
		t.Fatalf("the child acknowledged nothing: %s", stderr.String())
	}
	return count
}

// childRead opens the store, reads everything, and prints a summary of it, or
// the error and whether it is one of those that say what is wrong.
func childRead(dir string) {
	text, err := summary(dir)
	switch {
	case err == nil:
		fmt.Print("answer ", text)
	case errors.Is(err, ErrDamaged) || errors.Is(err, ErrFormat) || errors.Is(err, ErrKeyring):
		fmt.Print("told ", err)
	default:
		fmt.Print("error ", err)
	}
	os.Exit(0)
}

func summary(dir string) (string, error) {
	s, err := openFolder(dir)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, ref := range []scope.Ref{hallA, hallB} {
		n, sum := 0, 0
		h, err := s.Load(ref, func(r Record) error {
			n++
			for _, b := range r.Value {
				sum = sum*31 + int(b)
			}
			return nil
		})
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "%s: %d records %d, epoch %d; ", ref, n, sum, h.Epoch)
	}
	tenants, err := s.List(Key{Kind: KindTenant}, "", 0)
	fmt.Fprintf(&out, "%d tenants", len(tenants))
	return out.String(), err
}

// TestDamage flips bits, zeroes pages and cuts files of copies of a store, one
// that was killed and one that was closed, and wants either the whole answer or
// an error, and never a smaller answer. Badger ends the process on some damage,
// which is an error too, if an unfriendly one: those are counted.
func TestDamage(t *testing.T) {
	trials := 20
	if n, err := strconv.Atoi(os.Getenv("MENSHEN_STORE_TRIALS")); err == nil {
		trials = n
	} else if testing.Short() || raceEnabled {
		trials = 4
	}
	s := newSite(t, Options{})
	s.commit(Mutation{Puts: []Record{rec(Key{Kind: KindTenant, Ref: scope.Ref{Tenant: "fair"}}, "the fair")}})
	for epoch := range scope.Epoch(60) {
		s.commit(enrolment(hallA, epoch+1))
		s.commit(enrolment(hallB, epoch+1))
	}
	killed := takeImage(t, s.dir)
	s.close()
	closed := takeImage(t, s.dir)
	s.open()
	for name, img := range map[string]image{"killed": killed, "closed": closed} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			img.restore(t, dir)
			want := read(t, dir)
			if !strings.HasPrefix(want, "answer ") || !strings.Contains(want, "180 records") {
				t.Fatalf("undamaged: %s", want)
			}
			rng := rand.New(rand.NewPCG(1, 2))
			outcome := map[string]int{}
			for trial := range trials {
				os.RemoveAll(dir)
				img.restore(t, dir)
				what := img.damage(t, rng, dir)
				got := read(t, dir)
				kind, _, _ := strings.Cut(got, " ")
				outcome[kind]++
				if kind == "answer" && got != want {
					t.Errorf("trial %d, %s: %s instead of %s", trial, what, got, want)
				}
				if kind == "error" || kind == "died" {
					t.Logf("trial %d, %s: %s", trial, what, got)
				}
			}
			t.Logf("%d trials: %v", trials, outcome)
			if trials >= 20 && outcome["told"] == 0 {
				t.Error("no damage was noticed: the test shows nothing")
			}
		})
	}
}

func read(t *testing.T, dir string) string {
	t.Helper()
	cmd := child("read", dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	timer := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.Output()
	if err != nil {
		line, _, _ := strings.Cut(stderr.String(), "\n")
		return "died " + err.Error() + ": " + line
	}
	return string(out)
}

// image is a folder in memory: what a crash, or closing, left of it.
type image struct {
	names []string
	files map[string]content
}

// content is a file without the zeros at its end, and its size with them: the
// logs of Badger are mostly hole.
type content struct {
	used []byte
	size int64
}

func takeImage(t *testing.T, dir string) image {
	t.Helper()
	img := image{files: map[string]content{}}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		img.names = append(img.names, name)
		img.files[name] = content{bytes.Clone(bytes.TrimRight(b, "\x00")), int64(len(b))}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (img image) restore(t *testing.T, dir string) {
	t.Helper()
	for _, name := range img.names {
		if err := img.files[name].write(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func (c content) write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path, c.used, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, c.size)
}

// damage spoils one file of the data directory somewhere in its used part.
func (img image) damage(t *testing.T, rng *rand.Rand, dir string) string {
	t.Helper()
	var candidates []string
	for _, name := range img.names {
		if strings.HasPrefix(name, "data") && len(img.files[name].used) > 0 {
			candidates = append(candidates, name)
		}
	}
	name := candidates[rng.IntN(len(candidates))]
	c := img.files[name]
	used := len(c.used)
	c.used = bytes.Clone(c.used)
	at := rng.IntN(used)
	what := ""
	switch rng.IntN(4) {
	case 0, 1:
		bit := rng.IntN(8)
		c.used[at] ^= 1 << bit
		what = fmt.Sprintf("bit %d of byte %d of %d flipped", bit, at, used)
	case 2:
		end := min(at+512, used)
		clear(c.used[at:end])
		what = fmt.Sprintf("bytes %d to %d of %d zeroed", at, end, used)
	case 3:
		c = content{c.used[:at], int64(at)}
		what = fmt.Sprintf("cut from %d to %d", used, at)
	}
	if err := c.write(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	return name + ": " + what
}

// childRestore restores the backup of a site's folder and kills itself at a step.
func childRestore(dir string) {
	root, err := keyring.LoadRoot(filepath.Join(dir, "root.key"), nil)
	if err != nil {
		log.Fatal(err)
	}
	keys, err := keyring.Open(filepath.Join(dir, "keyring"), root, keyring.Options{})
	if err != nil {
		log.Fatal(err)
	}
	in, err := os.Open(filepath.Join(dir, "backup"))
	if err != nil {
		log.Fatal(err)
	}
	opt := everything(&site{dir: dir, keys: keys, opt: Options{Dir: filepath.Join(dir, "data"), MemTableBytes: 8 << 20}})
	opt.Failpoint = func(step string) {
		if step == os.Getenv("MENSHEN_STORE_TEST_STEP") {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	_, err = Restore(context.Background(), opt, in)
	log.Fatalf("nobody killed the restore: %v", err)
}
