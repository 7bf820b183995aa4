package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/menshen-io/menshen/bench/search"
)

// Mismatches fail the run, whatever else was measured.
func TestMismatchesFail(t *testing.T) {
	err := verdict(&search.Setting{Mismatches: 3, CheckedCount: 64})
	if !errors.Is(err, errMismatches) || exitStatus(err) != exitFailed || !strings.Contains(err.Error(), "3 of 64") {
		t.Errorf("status %d: %v", exitStatus(err), err)
	}
	if err := verdict(&search.Setting{CheckedCount: 64}); err != nil {
		t.Errorf("without mismatches: %v", err)
	}
}

// An interrupt writes nothing.
func TestSearchInterrupt(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string][]string{
		"scan": nil, "scopes": {"--scopes", "20"}, "churn": {"--churn", "1000"},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(300*time.Millisecond, cancel)
		var stdout, stderr bytes.Buffer
		args := append([]string{"search", "--gallery", "500", "--dim", "64", "--seconds", "600", "--record", dir}, mode...)
		root := newRoot(append([]string{"menshen-bench"}, args...))
		root.SetArgs(args)
		root.SetOut(&stdout)
		root.SetErr(&stderr)
		began := time.Now()
		err := root.ExecuteContext(ctx)
		cancel()
		if !errors.Is(err, context.Canceled) || stdout.Len() != 0 || time.Since(began) > 5*time.Minute {
			t.Errorf("%s: %v; out %q", name, err, stdout.String())
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What is recorded is what is printed.
func TestRecord(t *testing.T) {
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	args := []string{"menshen-bench", "search", "--gallery", "300", "--dim", "64", "--probes", "4", "--rounds", "1", "--seconds", "0.001", "--buffer-mib", "1", "--json", "--record", dir}
	if status := run(args, &stdout, &stderr); status != exitOK {
		t.Fatalf("status %d: %s", status, stderr.String())
	}
	text, err := os.ReadFile(filepath.Join(dir, "search-300x64-p4-spectrum.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, stdout.Bytes()) {
		t.Error("the file is not what was printed")
	}
	var out scanOutput
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Join(out.Environment.Command[1:], " ") != strings.Join(args[1:], " ") || out.CPU != out.Environment.CPU || out.Environment.Commit == "" {
		t.Errorf("environment: %+v", out.Environment)
	}
}
