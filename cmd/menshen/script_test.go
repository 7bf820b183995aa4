package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/menshen-io/menshen/bench/faces"
	"github.com/menshen-io/menshen/cmd/menshen/internal/transport/transporttest"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
)

// scriptCommands are what the scripts can do besides testscript's own commands.
func scriptCommands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"exits":    scriptExits,
		"await":    scriptAwait,
		"crop":     scriptCrop,
		"port":     scriptPort,
		"certs":    scriptCerts,
		"equal":    scriptEqual,
		"keep":     scriptKeep("stdout"),
		"keeperr":  scriptKeep("stderr"),
		"nothing":  scriptNothing,
		"spoil":    scriptSpoil,
		"identity": scriptIdentity,
		"flip":     scriptFlip,

		"publickey":  scriptPublicKey,
		"tap":        scriptTap,
		"carries":    scriptCarries,
		"until":      scriptUntil,
		"eventually": scriptEventually,
		"operates":   scriptOperates,
	}
}

// exits CODE PROGRAM ARGS... runs a program that must end with that status.
func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code program args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var status *exec.ExitError
	switch {
	case err == nil && want == 0:
	case err == nil:
		ts.Fatalf("it ended with 0, want %d", want)
	case !errors.As(err, &status):
		ts.Fatalf("it did not run: %v", err)
	case status.ExitCode() != want:
		ts.Fatalf("it ended with %d, want %d", status.ExitCode(), want)
	}
}

// await FILE [VARIABLE] waits until a file has content, and puts it into a
// variable.
func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: await file [variable]")
	}
	deadline := time.Now().Add(3 * time.Minute)
	for {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		if text := strings.TrimSpace(string(data)); err == nil && text != "" {
			if len(args) == 2 {
				ts.Setenv(args[1], text)
			}
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s did not come to be: %v", args[0], err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// crop FILE PERSON SHOT writes a synthetic face: .rgb raw, .png or .ppm encoded.
func scriptCrop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: crop file person shot")
	}
	person, err := strconv.Atoi(args[1])
	ts.Check(err)
	shot, err := strconv.Atoi(args[2])
	ts.Check(err)
	data := faces.New(1).Crop(person, shot).Pix
	switch filepath.Ext(args[0]) {
	case ".png":
		img := &decode.Image{Width: align.Size, Height: align.Size, Pix: data}
		data, err = img.EncodePNG()
		ts.Check(err)
	case ".ppm":
		data = append([]byte("P6\n112 112\n255\n"), data...)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}

// port VARIABLE listens on a port until the script ends and puts its address
// into a variable.
func scriptPort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: port variable")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

// equal A B compares two texts.
func scriptEqual(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: equal text text")
	}
	if (args[0] == args[1]) == neg {
		ts.Fatalf("%q, %q", args[0], args[1])
	}
}

// keep PATTERN VARIABLE puts what the group of a pattern finds in the output of the
// last program into a variable; keeperr looks at its standard error.
func scriptKeep(stream string) func(ts *testscript.TestScript, neg bool, args []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 2 {
			ts.Fatalf("usage: keep pattern variable")
		}
		pattern, err := regexp.Compile(args[0])
		ts.Check(err)
		found := pattern.FindStringSubmatch(ts.ReadFile(stream))
		if len(found) != 2 {
			ts.Fatalf("%s is not in the output", args[0])
		}
		ts.Setenv(args[1], found[1])
	}
}

// publickey FILE VARIABLE takes the public key out of what keys show --json printed.
func scriptPublicKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: publickey file variable")
	}
	var info keysInfo
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &info))
	ts.Setenv(args[1], info.Public)
}

// nothing DIR wants an empty folder.
func scriptNothing(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: nothing dir")
	}
	names, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(names) > 0 {
		ts.Fatalf("%s holds %d things, the first is %s", args[0], len(names), names[0].Name())
	}
}

// certs DIR writes ca.pem, server and client certificates with their keys that it
// signed, ones that a server must refuse, and other-ca.pem, which signed stranger.
func scriptCerts(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: certs dir")
	}
	ts.Check(transporttest.WriteAll(ts.MkAbs(args[0])))
}
