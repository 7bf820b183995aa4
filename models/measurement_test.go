package models

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/menshen-io/menshen/models/internal/onnxtest"
)

// measured opens a runner that measures, and returns its choice and what it
// logged.
func measured(t *testing.T, batch string, opt RunnerOptions) (Choice, string) {
	t.Helper()
	rt := testRuntime(t)
	var log bytes.Buffer
	opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
	data := onnxtest.MeanEmbedder(1)
	if batch == BatchDynamic {
		data = onnxtest.MeanEmbedder(-1)
	}
	r, err := rt.NewRunner(t.Context(), &Resolved{Manifest: embedderManifest(batch), Data: data}, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := r.Choice()
	if c.Callers < 1 || c.IntraOp < 1 || c.IdleIntraOp < 1 || c.Batch < 1 || c.Callers*c.IntraOp > r.budget.Size() {
		t.Errorf("a choice that cannot be run: %+v", c)
	}
	return c, log.String()
}

func onlyFile(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	return files[0]
}

func TestMeasurementIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	// With one token nothing can be disturbed.
	opt := RunnerOptions{Measurements: dir, Budget: testBudget(t, 1)}
	first, log := measured(t, BatchStatic, opt)
	if first.Source != "measured" || first.Rate <= 0 || first.Latency <= 0 || log != "" {
		t.Errorf("%+v %q", first, log)
	}
	path := onlyFile(t, dir)
	second, log := measured(t, BatchStatic, opt)
	first.Source = "kept"
	if second.String() != first.String() || log != "" {
		t.Errorf("kept %v, measured %v; %q", second, first, log)
	}
	opt.Remeasure = true
	if again, _ := measured(t, BatchStatic, opt); again.Source != "measured" {
		t.Errorf("remeasure: %+v", again)
	}
	opt.Remeasure = false
	// Another number of tokens is another measurement.
	opt.Budget = testBudget(t, 2)
	if other, _ := measured(t, BatchStatic, opt); other.Source == "kept" {
		t.Errorf("another budget: %+v", other)
	}
	opt.Budget = testBudget(t, 1)
	opt.Measurements = ""
	if none, _ := measured(t, BatchStatic, opt); none.Source != "measured" {
		t.Errorf("nothing kept: %+v", none)
	}

	// What is damaged, foreign or cannot be run is measured again and replaced.
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	with := func(key string, value any) []byte {
		var m map[string]any
		if err := json.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		if _, ok := m[key]; !ok {
			t.Fatalf("no %q in %s", key, good)
		}
		m[key] = value
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	opt.Measurements = dir
	var kept measurement
	if err := json.Unmarshal(good, &kept); err != nil {
		t.Fatal(err)
	}
	key := kept.measurementKey
	if key.path(dir) != path {
		t.Fatalf("%s is kept in %s", key.path(dir), path)
	}
	for _, tc := range []struct {
		name string
		data []byte
		why  string
	}{
		{"empty", nil, "damaged"},
		{"cut short", good[:len(good)/2], "damaged"},
		{"text", []byte("hello"), "damaged"},
		{"too long", append(bytes.Clone(good), bytes.Repeat([]byte(" "), maxMeasurement)...), "damaged"},
		{"numbers as text", with("callers", "2"), "damaged"},
		{"another model", with("model_sha256", "00"), "another model or machine"},
		{"another CPU", with("cpu", "abacus"), "another model or machine"},
		{"another format", with("format", measurementFormat+1), "another model or machine"},
		{"no callers", with("callers", 0), "cannot be run"},
		{"too many threads", with("idle_intra_op", 100000), "cannot be run"},
		{"a negative batch", with("batch", -1), "cannot be run"},
		{"no rate", with("images_per_s", 0), "cannot be run"},
	} {
		if err := os.WriteFile(path, tc.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := key.load(dir); err == nil || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.why)
		}
	}
	c, log := measured(t, BatchStatic, opt)
	if c.Source != "measured" || !strings.Contains(log, "cannot be run") {
		t.Errorf("after a bad file: %v, logged %q", c, log)
	}
	if c, log := measured(t, BatchStatic, opt); c.Source != "kept" || log != "" {
		t.Errorf("the bad file was not replaced: %v %q", c, log)
	}
}

func TestMeasurementThatCannotBeKept(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "file"), []byte("x"))
	c, log := measured(t, BatchStatic, RunnerOptions{Measurements: filepath.Join(file, "folder"), Budget: testBudget(t, 1)})
	if c.Source != "measured" || !strings.Contains(log, "could not be kept") {
		t.Errorf("%v %q", c, log)
	}
}

// TestMeasurementOfBatches: a model with an open batch is tried with batches,
// and what the options say wins.
func TestMeasurementOfBatches(t *testing.T) {
	dir := t.TempDir()
	if c, _ := measured(t, BatchDynamic, RunnerOptions{Measurements: dir}); c.Batch != 1 && c.Batch != 8 {
		t.Errorf("%+v", c)
	}
	if c, _ := measured(t, BatchDynamic, RunnerOptions{Measurements: dir, Batch: 3, IntraOp: 2}); c.Batch != 3 || c.IdleIntraOp != 2 || c.Source != "set" {
		t.Errorf("%+v", c)
	}
	if c, _ := measured(t, BatchDynamic, RunnerOptions{Measurements: dir, IntraOp: 1}); c.IdleIntraOp != 1 {
		t.Errorf("%+v", c)
	}
}

func TestChoiceInWords(t *testing.T) {
	c := Choice{Callers: 4, IntraOp: 1, Batch: 1, IdleIntraOp: 4, Rate: 1100, Latency: 1.2e6, Source: "kept"}
	if s := c.String(); s != "4 x 1 threads x batch 1 under load, 4 threads when idle (kept), 1100 images/s, 1.2 ms" {
		t.Error(s)
	}
	if v := c.LogValue().String(); !strings.Contains(v, "idle_intra_op=4") || !strings.Contains(v, "images_per_s=1100") {
		t.Error(v)
	}
}

// TestMeasurementOnADisturbedMachine: while others take the cores, a choice is
// made all the same, and one that was only assumed is not kept.
func TestMeasurementOnADisturbedMachine(t *testing.T) {
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for range 4 * runtime.GOMAXPROCS(0) {
		others.Go(func() {
			for ctx.Err() == nil {
			}
		})
	}
	c, log := measured(t, BatchStatic, RunnerOptions{Measurements: dir, Budget: testBudget(t, 4)})
	stop()
	others.Wait()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	switch c.Source {
	case "assumed":
		if len(files) != 0 || !strings.Contains(log, "next start measures again") || c.Rate != 0 || c.IntraOp != 1 || c.IdleIntraOp != min(4, runtime.GOMAXPROCS(0)) {
			t.Errorf("%+v, kept %v, logged %q", c, files, log)
		}
	case "measured": // the scheduler was kind
		if len(files) != 1 {
			t.Errorf("%+v, kept %v", c, files)
		}
	default:
		t.Errorf("%+v", c)
	}
}
