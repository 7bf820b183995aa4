package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/menshen-io/menshen/bench/faces"
	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
)

// TestMain also serves as the real program, for the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"menshen-bench": main})
}

// runtimeLibrary returns the ONNX Runtime library, or skips the test.
func runtimeLibrary(t *testing.T) string {
	t.Helper()
	rt, err := models.OpenRuntime(models.RuntimeOptions{})
	if err != nil {
		t.Skipf("nothing measured: %v", err)
	}
	defer rt.Close()
	return rt.Library()
}

func TestScripts(t *testing.T) { scripts(t, "testdata/script", nil) }

// The scripts that open models need the ONNX Runtime library.
func TestModelScripts(t *testing.T) {
	library := runtimeLibrary(t)
	scripts(t, "testdata/models", func(env *testscript.Env) error {
		env.Setenv(models.LibraryEnv, library)
		return nil
	})
}

// The scripts that start servers need the server's program too.
func TestServedScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	library := runtimeLibrary(t)
	server := filepath.Join(t.TempDir(), "menshen")
	if text, err := exec.Command("go", "build", "-o", server, "../menshen").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	scripts(t, "testdata/served", func(env *testscript.Env) error {
		env.Setenv(models.LibraryEnv, library)
		env.Setenv("MENSHEN", server)
		return nil
	})
}

func scripts(t *testing.T, dir string, setup func(*testscript.Env) error) {
	testscript.Run(t, testscript.Params{
		Dir:   dir,
		Setup: setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// status N command...: run the command, which must end with status N.
			"status": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got := 0
				var exit *exec.ExitError
				if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
					got = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if got != want {
					ts.Fatalf("%s ended with status %d, want %d", strings.Join(args[1:], " "), got, want)
				}
			},
		},
	})
}

// measure runs the program in this process and returns its JSON.
func measure(t *testing.T, args ...string) (*accuracyOutput, string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args = append([]string{"menshen-bench", "accuracy", "--json"}, args...)
	if status := run(args, &stdout, &stderr); status != 0 {
		t.Fatalf("status %d: %s", status, stderr.String())
	}
	var out accuracyOutput
	decoder := json.NewDecoder(&stdout)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&out); err != nil {
		t.Fatal(err)
	}
	if decoder.More() {
		t.Error("more than one JSON document on standard output")
	}
	return &out, stderr.String()
}

func realModels(dir string) []string {
	return []string{
		"--detector", filepath.Join(dir, "models", "yunet_n_640_640.onnx"),
		"--embedder", filepath.Join(dir, "models", "mobilefacenet_128.onnx"),
	}
}

// The ORL faces must come out as the independent implementation found them: see
// the fixtures' README.
func TestORL(t *testing.T) {
	if testing.Short() {
		t.Skip("400 images are not run with -short")
	}
	dir := fixtures.Dir(t)
	runtimeLibrary(t)
	plot := filepath.Join(t.TempDir(), "orl.png")
	args := append(realModels(dir), "--folders", filepath.Join(dir, "orl"), "--plot", plot)
	out, stderr := measure(t, args...)
	if out.Images != 400 || out.People != 40 || out.Pairs != 79800 || out.Mated != 1800 || out.NonMated != 78000 || out.FailureToAcquire != 0 || out.PairsNotCompared != 0 {
		t.Errorf("counts: %+v", out.Result)
	}
	if out.Rank1 == nil || *out.Rank1 < 0.99 || out.Rank1Probes != 400 {
		t.Errorf("rank-1 %v", out.Rank1)
	}
	for key, most := range map[string]float64{"1e-2": 0.025, "1e-3": 0.045, "1e-4": 0.065} {
		fnmr, ci := out.FNMR[key], out.FNMRCI95[key]
		if fnmr == nil || ci == nil || *fnmr > most || ci[0] > *fnmr || ci[1] < *fnmr {
			t.Errorf("FNMR at %s: %v in %v, at most %v is wanted", key, fnmr, ci, most)
		}
	}
	for key, want := range map[string]float64{"1e-2": 0.349, "1e-3": 0.444, "1e-4": 0.494} {
		if got := out.FNMRThreshold[key]; got == nil || math.Abs(*got-want) > 0.02 {
			t.Errorf("threshold at %s: %v, the independent implementation found %v", key, got, want)
		}
	}
	if _, err := os.Stat(plot); err != nil || out.Plot != plot || !strings.Contains(stderr, "plot written to") {
		t.Errorf("plot %q: %v; %s", out.Plot, err, stderr)
	}
	if !strings.Contains(stderr, "mobilefacenet_128") {
		t.Errorf("no note about the bare model file: %s", stderr)
	}

	coded, _ := measure(t, append(args[:len(args)-1], "none", "--templates")...)
	if d := coded.TemplateDeviation; d == nil || d.Largest > 0.005 || d.RMS > 0.0012 {
		t.Errorf("templates are off by %+v", d)
	}
	for key, fnmr := range coded.FNMR {
		if math.Abs(*fnmr-*out.FNMR[key]) > 0.002 {
			t.Errorf("FNMR at %s: %v with templates, %v with embeddings", key, *fnmr, *out.FNMR[key])
		}
	}
	t.Logf("cosine: %s", summary(out))
	t.Logf("templates: %s, deviation %+v", summary(coded), *coded.TemplateDeviation)
}

func summary(o *accuracyOutput) string {
	text := fmt.Sprintf("rank1 %.4f, EER %.4f", *o.Rank1, *o.EER)
	for _, key := range []string{"1e-2", "1e-3", "1e-4"} {
		text += fmt.Sprintf(", FNMR@%s %.4f %.4f at %.4f", key, *o.FNMR[key], *o.FNMRCI95[key], *o.FNMRThreshold[key])
	}
	return text
}

// The photographs, as a list of pairs: three people's worth of yes and no.
func TestPhotos(t *testing.T) {
	dir := fixtures.Dir(t)
	runtimeLibrary(t)
	list := filepath.Join(t.TempDir(), "photos.csv")
	f, err := os.Create(list)
	if err != nil {
		t.Fatal(err)
	}
	w := csv.NewWriter(f)
	err = w.WriteAll([][]string{
		{"file_a", "file_b", "mated"},
		{"obama.jpg", "obama2.jpg", "1"},
		{"obama.jpg", "obama-240p.jpg", "1"},
		{"obama2.jpg", "obama_partial.jpg", "1"},
		{"biden.jpg", "two_people.jpg", "1"}, // the larger face of the two is his
		{"obama.jpg", "biden.jpg", "0"},
		{"obama2.jpg", "biden.jpg", "0"},
		{"obama_partial.jpg", "two_people.jpg", "0"},
	})
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	out, _ := measure(t, append(realModels(dir), "--pairs", list, "--images", filepath.Join(dir, "photos"), "--plot", "none")...)
	if out.Images != 6 || out.Pairs != 7 || out.Mated != 4 || out.NonMated != 3 || out.MultipleFaces != 1 || out.FailureToAcquire != 0 {
		t.Errorf("counts: %+v", out.Result)
	}
	// expected.json: mated 0.61 and more, non-mated 0.163 and less.
	if *out.Accuracy != 1 || *out.EER != 0 || math.Abs(out.MatedScores["p1"]-0.61) > 0.04 || math.Abs(out.NonMatedScores["p99.9"]-0.163) > 0.04 {
		t.Errorf("accuracy %v, EER %v, mated from %v, non-mated to %v", *out.Accuracy, *out.EER, out.MatedScores["p1"], out.NonMatedScores["p99.9"])
	}
	if out.FNMR["1e-2"] != nil || !strings.Contains(out.FNMRNote["1e-2"], "not supported by 3 non-mated pairs") || out.Plot != "" {
		t.Errorf("FNMR %v, %q; plot %q", out.FNMR["1e-2"], out.FNMRNote["1e-2"], out.Plot)
	}
}

// What cannot be acquired is left out, counted and listed, with its reason.
func TestFailures(t *testing.T) {
	fixture := fixtures.Dir(t)
	runtimeLibrary(t)
	dir := t.TempDir()
	for _, name := range []string{"obama.jpg", "obama2.jpg", "biden.jpg"} {
		data, err := os.ReadFile(filepath.Join(fixture, "photos", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), data)
	}
	grey := &decode.Image{Width: 200, Height: 150, Pix: bytes.Repeat([]byte{128}, 3*200*150)}
	png, err := grey.EncodePNG()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "wall.png"), png)
	write(t, filepath.Join(dir, "cut.png"), png[:len(png)/2])
	list := filepath.Join(dir, "list.csv")
	write(t, list, []byte("file_a,file_b,mated\nobama.jpg,obama2.jpg,1\nobama.jpg,biden.jpg,0\nobama.jpg,wall.png,1\nbiden.jpg,cut.png,0\ngone.jpg,biden.jpg,0\n"))
	args := append(realModels(fixture), "--pairs", list, "--plot", "none") // --images is the list's own folder

	var stdout, stderr bytes.Buffer
	if status := run(append([]string{"menshen-bench", "accuracy"}, args...), &stdout, &stderr); status != exitUsage || !strings.Contains(stderr.String(), "gone.jpg") || stdout.Len() != 0 {
		t.Errorf("a missing file: status %d, %s", status, stderr.String())
	}
	out, _ := measure(t, append(args, "--keep-going")...)
	if out.Images != 6 || out.FailureToAcquire != 3 || out.Pairs != 2 || out.PairsNotCompared != 3 || out.MatedNotCompared != 1 || len(out.Failures) != 3 || *out.Accuracy != 1 {
		t.Errorf("counts: %+v", out.Result)
	}
	for i, want := range []string{"wall.png: no face found", "cut.png: decode: the image is damaged", "gone.jpg: the file is missing"} {
		if got := out.Failures[i].File + ": " + out.Failures[i].Reason; !strings.HasPrefix(got, want) {
			t.Errorf("failure %d: %s, want %s", i, got, want)
		}
	}

	stdout.Reset()
	if status := run(append([]string{"menshen-bench", "accuracy", "--keep-going"}, args...), &stdout, &stderr); status != 0 {
		t.Fatalf("status %d: %s", status, stderr.String())
	}
	for _, want := range []string{"failure_to_acquire  3 (50.00%)", "pairs_not_compared  3 (1 mated)", "not acquired        wall.png: no face found", "fnmr 1e-4           not supported by 1 non-mated pairs"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, stdout.String())
		}
	}
}

// Aligned crops need no detector, and the built-in model no download.
func TestAligned(t *testing.T) {
	runtimeLibrary(t)
	dir := t.TempDir()
	people := faces.New(1)
	for person := range 6 {
		for shot := range 3 {
			crop := people.Crop(person, shot)
			img := &decode.Image{Width: align.Size, Height: align.Size, Pix: crop.Pix}
			png, err := img.EncodePNG()
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "people", fmt.Sprint(person), fmt.Sprintf("%d.png", shot)), png)
		}
	}
	write(t, filepath.Join(dir, "people", "0", "large.png"), largePNG(t))
	t.Chdir(dir)
	out, stderr := measure(t, "--aligned", "--folders", "people")
	if out.Images != 19 || out.FailureToAcquire != 1 || out.Mated != 18 || out.NonMated != 135 || out.Detector != "" || !strings.HasPrefix(out.Embedder, "reference-") {
		t.Errorf("counts: %+v, detector %q, embedder %q", out.Result, out.Detector, out.Embedder)
	}
	if out.Failures[0].File != "0/large.png" || !strings.Contains(out.Failures[0].Reason, "112 x 112") {
		t.Errorf("failures: %v", out.Failures)
	}
	if *out.Rank1 < 0.8 {
		t.Errorf("rank-1 %v on easy synthetic faces", *out.Rank1)
	}
	if !strings.Contains(stderr, "EVALUATION") || out.Plot != defaultPlot {
		t.Errorf("plot %q, notes %s", out.Plot, stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, defaultPlot)); err != nil {
		t.Error(err)
	}
	// The same again: the figures do not depend on the number of workers.
	again, _ := measure(t, "--aligned", "--folders", "people", "--workers", "1")
	if !reflect.DeepEqual(out.Result, again.Result) {
		t.Errorf("with one worker: %+v, with all: %+v", again.Result, out.Result)
	}
}

func largePNG(t *testing.T) []byte {
	t.Helper()
	img := &decode.Image{Width: 128, Height: 128, Pix: make([]byte, 3*128*128)}
	png, err := img.EncodePNG()
	if err != nil {
		t.Fatal(err)
	}
	return png
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// An interrupt ends the run cleanly: its own status, one line, no output.
func TestInterrupt(t *testing.T) {
	dir := fixtures.Dir(t)
	runtimeLibrary(t)
	cmd := exec.Command("menshen-bench", append([]string{"accuracy", "--workers", "1"}, append(realModels(dir), "--folders", filepath.Join(dir, "orl"))...)...)
	cmd.Dir = t.TempDir()
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	defer deadline.Stop()
	// The first note comes when the models are open: the images are next.
	var stderr bytes.Buffer
	chunk := make([]byte, 4096)
	for sent := false; ; {
		n, err := pipe.Read(chunk)
		stderr.Write(chunk[:n])
		if !sent && bytes.Contains(stderr.Bytes(), []byte("note: ")) {
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			sent = true
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted || stdout.Len() != 0 || !strings.Contains(stderr.String(), "interrupted; nothing was written") {
		t.Errorf("%v; out %q; err %q", err, stdout.String(), stderr.String())
	}
	if left, err := os.ReadDir(cmd.Dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
