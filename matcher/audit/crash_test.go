package audit

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-io/menshen/matcher/signing"
)

// The child of TestKill is this test binary, told by the environment what to do.
const (
	childDir   = "MENSHEN_AUDIT_CHILD_DIR"
	childKey   = "MENSHEN_AUDIT_CHILD_KEY"
	childRound = "MENSHEN_AUDIT_CHILD_ROUND"
	killRounds = "MENSHEN_AUDIT_KILLS" // how often TestKill kills; 10 where unset
)

func TestMain(m *testing.M) {
	if os.Getenv(childDir) == "" {
		os.Exit(m.Run())
	}
	if err := writeUntilKilled(); err != nil {
		fmt.Println("error", err)
	}
}

// lifetime ends a child that nobody kills.
const lifetime = time.Minute

// writeUntilKilled appends acts from several goroutines and says which were
// acknowledged. Its clock runs fast, so that segments change and are pruned.
func writeUntilKilled() error {
	secret, err := hex.DecodeString(os.Getenv(childKey))
	if err != nil {
		return err
	}
	key := &signing.Key{}
	if err := key.UnmarshalBinary(secret); err != nil {
		return err
	}
	start := time.Now()
	round, err := strconv.Atoi(os.Getenv(childRound))
	if err != nil {
		return err
	}
	clock := func() time.Time { return start.Add(time.Duration(round)*24*time.Hour + time.Since(start)*200_000) }
	p, err := NewPseudonyms(NewPseudonymState(start), func([]byte) error { return nil })
	if err != nil {
		return err
	}
	l, err := Open(Options{
		Dir: os.Getenv(childDir), Key: key, Pseudonyms: p,
		Logger: slog.New(slog.DiscardHandler), Clock: clock,
	})
	if err != nil {
		return err
	}
	fmt.Println("open")
	var out sync.Mutex
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := 0; time.Since(start) < lifetime; i++ {
				e := act("fair", 0)
				e.RequestID = fmt.Sprintf("%d-%d-%d", round, g, i)
				err := l.Append(context.Background(), e)
				out.Lock()
				fmt.Println("did", e.RequestID, err)
				out.Unlock()
				for range 20 {
					l.Record(decision(hallA, i))
				}
			}
		})
	}
	for time.Since(start) < lifetime {
		if _, err := l.Tend(context.Background(), keepFor(48*time.Hour)); err != nil {
			return err
		}
	}
	wg.Wait()
	return nil
}

// TestKill kills a writing process at random moments. Whatever it had
// acknowledged is there afterwards, once and in the order of each writer, and the log
// opens and verifies every time.
func TestKill(t *testing.T) {
	rounds := 10
	if testing.Short() || raceEnabled {
		rounds = 3
	}
	if n, err := strconv.Atoi(os.Getenv(killRounds)); err == nil {
		rounds = n
	}
	h := newHouse(t)
	h.ok(h.Close())
	h.opt.Clock = nil
	secret, err := h.key.MarshalBinary()
	h.ok(err)
	acknowledged := map[string]bool{}
	for round := range rounds {
		for _, id := range killOne(t, h.opt.Dir, hex.EncodeToString(secret), round) {
			acknowledged[id] = true
		}
		h.open() // refuses anything but a torn tail
		left := map[string]bool{}
		order := map[string]int{}
		for _, r := range h.read(ActsOf("fair")) {
			if r.Kind == KindGap {
				continue
			}
			id := r.Act.RequestID
			writer, number, _ := cutLast(id)
			if last, ok := order[writer]; left[id] || ok && number <= last {
				t.Fatalf("%s stands twice or out of order", id)
			}
			left[id], order[writer] = true, number
		}
		for id := range acknowledged {
			if !left[id] {
				t.Fatalf("round %d: %s was acknowledged and is not there", round, id)
			}
		}
		h.ok(h.Close())
		if _, err := Verify(h.opt.Dir, h.keys); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	if len(acknowledged) == 0 {
		t.Fatal("no act was acknowledged in any round")
	}
	t.Logf("%d acknowledged acts in %d rounds", len(acknowledged), rounds)
}

// cutLast splits writer and number.
func cutLast(id string) (string, int, error) {
	i := strings.LastIndexByte(id, '-')
	n, err := strconv.Atoi(id[i+1:])
	return id[:i], n, err
}

// killOne runs the child, kills it and gives what it said was acknowledged. The time
// until the kill begins when the log is open or, in the even rounds, with the first act:
// on a slow disk one of these may take longer than a child lives otherwise.
func killOne(t *testing.T, dir, key string, round int) (ids []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childKey+"="+key, childRound+"="+strconv.Itoa(round))
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() {
		after := time.Duration(rand.Int64N(int64(120 * time.Millisecond)))
		time.AfterFunc(after, func() { cmd.Process.Kill() })
	})
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		field := strings.Fields(lines.Text())
		if round%2 == 1 || field[0] == "did" {
			kill()
		}
		switch {
		case field[0] == "open":
		case field[0] == "did" && len(field) == 3 && field[2] == "<nil>":
			ids = append(ids, field[1])
		case field[0] == "did" && (len(field) < 3 || len(field[2]) < len("<nil>")): // the line was cut by the kill
		default:
			t.Errorf("round %d: the child said: %s", round, lines.Text())
		}
	}
	cmd.Wait() // killed
	return ids
}
