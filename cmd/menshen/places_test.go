package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/menshen-io/menshen/cmd/menshen/internal/transport/transporttest"
	"github.com/menshen-io/menshen/models"
)

// TestPlaces tells the stories of the places where faces are used, on a real
// server with TLS: each shows what may be collected and what is refused, the
// notice before the consent, what the wire carries, and destruction on schedule
// with its proof.
func TestPlaces(t *testing.T) { runHouses(t, "places") }

// TestOperations runs the commands of OPERATIONS.md, so that they stay true.
func TestOperations(t *testing.T) { runHouses(t, "operations") }

// runHouses runs scripts whose folder holds certificates and the settings of a
// server that speaks TLS and erases what has expired within a second.
func runHouses(t *testing.T, dir string) {
	library := runtimeLibrary(t)
	runScripts(t, dir, func(e *testscript.Env) {
		e.Setenv(models.LibraryEnv, library)
		e.Setenv("MENSHEN_TLS_CA", "c/ca.pem")
		page, err := filepath.Abs(filepath.Join("..", "..", "OPERATIONS.md"))
		if err != nil {
			t.Error(err)
		}
		e.Setenv("PAGE", page)
		settings := `{dev: true, listen: "127.0.0.1:0", data_dir: data, root_key_file: root.key, sweep_every: 1s,
  tls: {cert_file: c/server.pem, key_file: c/server.key}, models: {detector: none, concurrency: 1, intra_op: 1}}`
		if err := transporttest.WriteAll(filepath.Join(e.WorkDir, "c")); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(e.WorkDir, "server.yaml"), []byte(settings), 0o600); err != nil {
			t.Error(err)
		}
	})
}

// tap TAPE ADDRESS VARIABLE listens and passes everything on to a server, and
// keeps what went either way in the folder TAPE. The variable gets its address.
func scriptTap(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: tap folder address variable")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o700))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	var taps sync.WaitGroup
	taps.Go(func() {
		for n := 0; ; n++ {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", args[1])
			if err != nil {
				_ = near.Close()
				continue
			}
			taps.Go(func() { record(filepath.Join(dir, fmt.Sprintf("%d-in", n)), far, near) })
			taps.Go(func() { record(filepath.Join(dir, fmt.Sprintf("%d-out", n)), near, far) })
		}
	})
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv(args[2], l.Addr().String())
}

// record passes on what comes until either end is closed, and keeps it.
func record(path string, to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	tape, err := os.Create(path)
	if err != nil {
		return
	}
	defer tape.Close()
	_, _ = io.Copy(to, io.TeeReader(from, tape))
}

// carries TAPE WHAT... wants each text on a tape, or with ! none of them. @FILE is
// anything of a file: 32 bytes of it in a row.
func scriptCarries(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: carries folder text|@file...")
	}
	paths, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*"))
	ts.Check(err)
	var tapes [][]byte
	total := 0
	for _, path := range paths {
		tape, err := os.ReadFile(path)
		ts.Check(err)
		tapes, total = append(tapes, tape), total+len(tape)
	}
	if total < 10_000 {
		ts.Fatalf("%s holds %d bytes: too few to show anything", args[0], total)
	}
	for _, what := range args[1:] {
		if len(what) < 6 {
			ts.Fatalf("%s stands in encrypted bytes by chance: look for 6 bytes or more", what)
		}
		needles := [][]byte{[]byte(what)}
		if name, isFile := strings.CutPrefix(what, "@"); isFile {
			needles = nil
			for data := []byte(ts.ReadFile(name)); len(data) >= 32; data = data[32:] {
				needles = append(needles, data[:32])
			}
		}
		if len(needles) == 0 {
			ts.Fatalf("%s is too short to be found", what)
		}
		found := false
		for _, tape := range tapes {
			for _, needle := range needles {
				found = found || bytes.Contains(tape, needle)
			}
		}
		if found == neg {
			ts.Fatalf("%s in %d bytes of %s: %t", what, total, args[0], found)
		}
	}
	ts.Logf("%d bytes in %s", total, args[0])
}

// until INSTANT waits for a time that lies at most a minute ahead.
func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: until instant")
	}
	at, err := time.Parse(time.RFC3339, args[0])
	ts.Check(err)
	wait := time.Until(at)
	if wait > time.Minute {
		ts.Fatalf("%s lies %v ahead", args[0], wait)
	}
	time.Sleep(wait)
}

// eventually PATTERN PROGRAM ARGS... runs a program again and again until its
// output matches.
func scriptEventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually pattern program args...")
	}
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(250 * time.Millisecond) {
		if err := ts.Exec(args[1], args[2:]...); err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s did not come", args[0])
		}
	}
}
