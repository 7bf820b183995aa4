package models

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/models/internal/onnxtest"
)

func testRegistry(t *testing.T, rt *Runtime) *Registry {
	t.Helper()
	r, err := OpenRegistry(Options{Dir: filepath.Join(t.TempDir(), "models"), Runtime: rt})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func manifestText(t *testing.T, m Manifest) []byte {
	t.Helper()
	text, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestResolveByManifest(t *testing.T) {
	r, dir := testRegistry(t, nil), t.TempDir()
	data := onnxtest.MeanEmbedder(1)
	onnx := write(t, filepath.Join(dir, "m.onnx"), data)
	man := embedderManifest(BatchStatic)
	man.File = "m.onnx"
	path := write(t, filepath.Join(dir, "m.yaml"), manifestText(t, man))

	for _, ref := range []string{path, onnx} {
		res, err := r.Resolve(t.Context(), ref)
		if err != nil {
			t.Fatalf("%s: %v", ref, err)
		}
		if res.Manifest.SHA256 != hashOf(data) || string(res.Data) != string(data) || res.Path != onnx || len(res.Notes) != 0 {
			t.Errorf("%s: %v %v %v", ref, res.Manifest.ID(), res.Path, res.Notes)
		}
	}

	man.SHA256 = strings.Repeat("0", 64)
	write(t, path, manifestText(t, man))
	for _, ref := range []string{path, onnx} {
		_, err := r.Resolve(t.Context(), ref)
		if !errors.Is(err, ErrHashMismatch) || !strings.Contains(err.Error(), hashOf(data)) || !strings.Contains(err.Error(), man.SHA256) {
			t.Errorf("%s: got %v; want ErrHashMismatch with both hashes", ref, err)
		}
	}

	man.SHA256, man.File = "", "other.onnx"
	write(t, path, manifestText(t, man))
	if _, err := r.Resolve(t.Context(), path); !errors.Is(err, ErrAbsent) {
		t.Errorf("manifest without its file: %v", err)
	}
	if _, err := r.Resolve(t.Context(), onnx); !errors.Is(err, ErrManifest) {
		t.Errorf("file beside another file's manifest: %v", err)
	}
	write(t, path, []byte("name: x\nextra: 1\n"))
	if _, err := r.Resolve(t.Context(), onnx); !errors.Is(err, ErrManifest) {
		t.Errorf("broken manifest beside the file: %v", err)
	}
}

func TestResolveErrors(t *testing.T) {
	r, dir := testRegistry(t, nil), t.TempDir()
	bare := write(t, filepath.Join(dir, "bare.onnx"), onnxtest.MeanEmbedder(1))
	write(t, filepath.Join(dir, "renamed.bin"), onnxtest.MeanEmbedder(1))
	for ref, want := range map[string]error{
		"":                                ErrUnknownModel,
		"no-such-model":                   ErrUnknownModel,
		"No Such":                         ErrModelName,
		"yunet-2023mar":                   ErrAbsent,
		filepath.Join(dir, "x.onnx"):      ErrAbsent,
		filepath.Join(dir, "x.yaml"):      ErrAbsent,
		filepath.Join(dir, "x.bin"):       ErrAbsent,
		filepath.Join(dir, "renamed.bin"): ErrNotModel,
		dir:                               ErrNotModel,
		bare:                              ErrRuntimeMissing,
		"../../no/such/passwd":            ErrAbsent,
		filepath.Join(dir, "..", "..onn"): ErrAbsent,
	} {
		if _, err := r.Resolve(t.Context(), ref); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", ref, err, want)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.onnx"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve(t.Context(), filepath.Join(dir, "folder.onnx")); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a folder: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Resolve(ctx, bare); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := r.Resolve(t.Context(), "no-such-model"); !strings.Contains(err.Error(), "sface-2021dec") {
		t.Errorf("the error does not list what there is: %v", err)
	}
	if _, err := r.Resolve(t.Context(), "yunet-2023mar"); !strings.Contains(err.Error(), "models pull yunet-2023mar") {
		t.Errorf("the error does not say what to do: %v", err)
	}
}

func TestRecognise(t *testing.T) {
	rt := testRuntime(t)
	r, dir := testRegistry(t, rt), t.TempDir()
	for name, tc := range map[string]struct {
		data []byte
		want func(*Manifest) bool
		note string
	}{
		"static": {onnxtest.MeanEmbedder(1), func(m *Manifest) bool {
			return m.Kind == KindEmbedder && m.Batch == BatchStatic && m.Output.Dimension == 3
		}, "(x-127.5)/127.5"},
		"dynamic": {onnxtest.MeanEmbedder(-1), func(m *Manifest) bool { return m.Kind == KindEmbedder && m.Batch == BatchDynamic }, "uncalibrated"},
		"yunet": {onnxtest.YuNet(64, nil), func(m *Manifest) bool {
			return m.Kind == KindDetector && m.Input.Width == 64 && m.Input.Color == ColorBGR
		}, "YuNet"},
	} {
		res, err := r.Resolve(t.Context(), write(t, filepath.Join(dir, name+".onnx"), tc.data))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !tc.want(&res.Manifest) || len(res.Notes) != 1 || !strings.Contains(res.Notes[0], tc.note) {
			t.Errorf("%s: %+v %v", name, res.Manifest, res.Notes)
		}
		if err := res.Manifest.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s, err := rt.NewSession(res, SessionOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s.Close()
	}
	// Neither one nor the other.
	odd := onnxtest.Graph{
		Inputs:  []onnxtest.Value{{Name: "x", Elem: onnxtest.Float, Dims: []int64{1, 7}}},
		Outputs: []onnxtest.Value{{Name: "y", Elem: onnxtest.Float, Dims: []int64{1, 7}}},
		Nodes:   []onnxtest.Node{{Op: "Relu", In: []string{"x"}, Out: []string{"y"}}},
	}.Bytes()
	_, err := r.Resolve(t.Context(), write(t, filepath.Join(dir, "odd.onnx"), odd))
	if !errors.Is(err, ErrUnrecognised) || !strings.Contains(err.Error(), "x[1 7]") {
		t.Errorf("odd model: %v", err)
	}
	_, err = r.Resolve(t.Context(), write(t, filepath.Join(dir, "text.onnx"), []byte("hello")))
	if !errors.Is(err, ErrNotModel) {
		t.Errorf("not a model: %v", err)
	}
}

func TestRecogniseFixtures(t *testing.T) {
	dir := fixtures.Dir(t)
	r := testRegistry(t, testRuntime(t))
	for file, want := range map[string]func(*Manifest) bool{
		"yunet_n_320_320.onnx":   func(m *Manifest) bool { return m.Input.Width == 320 && m.Input.Height == 320 },
		"yunet_n_640_640.onnx":   func(m *Manifest) bool { return m.Input.Width == 640 },
		"yunet_n_dynamic.onnx":   func(m *Manifest) bool { return m.Input.Width == 0 && m.Architecture == ArchYuNet },
		"mobilefacenet_128.onnx": func(m *Manifest) bool { return m.Output.Dimension == 128 && m.Batch == BatchStatic },
	} {
		res, err := r.Resolve(t.Context(), filepath.Join(dir, "models", file))
		if err != nil {
			t.Errorf("%s: %v", file, err)
		} else if !want(&res.Manifest) {
			t.Errorf("%s: %+v", file, res.Manifest)
		}
	}
}

func TestBuiltins(t *testing.T) {
	man := embedderManifest(BatchStatic)
	man.Name = "inside"
	data := onnxtest.MeanEmbedder(1)
	b := Builtin{Manifest: man, Bytes: func() ([]byte, error) { return data, nil }}
	r, err := OpenRegistry(Options{Dir: t.TempDir(), Builtins: []Builtin{b}})
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.Resolve(t.Context(), "inside")
	if err != nil || res.Manifest.SHA256 != hashOf(data) {
		t.Fatalf("%v %v", res, err)
	}
	if e, err := r.Lookup("inside"); err != nil || e.State != StateBuiltin {
		t.Errorf("%v %v", e, err)
	}
	if err := r.Pull(t.Context(), "inside", nil); err != nil {
		t.Errorf("pulling what is built in: %v", err)
	}
	b.Manifest.SHA256 = strings.Repeat("1", 64)
	r, err = OpenRegistry(Options{Dir: t.TempDir(), Builtins: []Builtin{b}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve(t.Context(), "inside"); !errors.Is(err, ErrHashMismatch) {
		t.Errorf("built-in model with another hash: %v", err)
	}
	b.Manifest.Name = "sface-2021dec"
	if _, err := OpenRegistry(Options{Dir: t.TempDir(), Builtins: []Builtin{b}}); !errors.Is(err, ErrModelExists) {
		t.Errorf("built-in model under a pinned name: %v", err)
	}
}

func TestImport(t *testing.T) {
	rt := testRuntime(t)
	r, dir := testRegistry(t, rt), t.TempDir()
	data := onnxtest.MeanEmbedder(1)
	file := write(t, filepath.Join(dir, "Some Model.onnx"), data)

	res, err := r.Import(t.Context(), file, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if res.Manifest.Name != "some-model" || len(res.Notes) != 1 {
		t.Errorf("%s %v", res.Manifest.ID(), res.Notes)
	}
	again, err := r.Resolve(t.Context(), "some-model")
	if err != nil || again.Manifest.ID() != res.Manifest.ID() || string(again.Data) != string(data) {
		t.Fatalf("%+v %v", again, err)
	}
	if err := r.Verify(t.Context(), "some-model"); err != nil {
		t.Error(err)
	}
	// The same again is fine; other content is not, unless asked for.
	if _, err := r.Import(t.Context(), file, ImportOptions{}); err != nil {
		t.Errorf("the same again: %v", err)
	}
	write(t, file, onnxtest.MeanEmbedder(-1))
	if _, err := r.Import(t.Context(), file, ImportOptions{}); !errors.Is(err, ErrModelExists) {
		t.Errorf("other content: %v", err)
	}
	if _, err := r.Import(t.Context(), file, ImportOptions{Replace: true}); err != nil {
		t.Errorf("replacing: %v", err)
	}
	if e, err := r.Lookup("some-model"); err != nil || e.State != StatePresent || e.Manifest.Batch != BatchDynamic {
		t.Errorf("after replacing: %+v %v", e, err)
	}

	// What the folder shows, and damage.
	list, err := r.List()
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]State{}
	for _, e := range list {
		states[e.Manifest.Name] = e.State
	}
	if states["some-model"] != StatePresent || states["yunet-2023mar"] != StateAbsent {
		t.Errorf("list: %v", states)
	}
	write(t, filepath.Join(r.Dir(), "some-model.onnx"), data[:100])
	if e, _ := r.Lookup("some-model"); e.State != StateDamaged || e.Problem == "" {
		t.Errorf("damaged file: %+v", e)
	}
	if err := r.Verify(t.Context(), "some-model"); !errors.Is(err, ErrHashMismatch) {
		t.Errorf("damaged file: %v", err)
	}
	write(t, filepath.Join(r.Dir(), "broken.yaml"), []byte("?"))
	if list, err := r.List(); err != nil || list[len(list)-2].Manifest.Name != "broken" || list[len(list)-2].State != StateDamaged {
		t.Errorf("broken manifest in the folder: %v %v", list, err)
	}

	left, err := filepath.Glob(filepath.Join(r.Dir(), ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

// TestImportPinned: a local copy of a known public model is recognised by its
// hash and stands in for a download.
func TestImportPinned(t *testing.T) {
	data := onnxtest.MeanEmbedder(1)
	for _, how := range []string{"by hash", "by name"} {
		r := testRegistry(t, testRuntime(t))
		m := embedderManifest(BatchStatic)
		m.Name, m.File, m.SHA256, m.License = "known", "official.onnx", hashOf(data), "MIT"
		r.pinned = append(r.pinned, m)
		opt := ImportOptions{}
		if how == "by name" {
			opt.Name = "known"
		}
		file := write(t, filepath.Join(t.TempDir(), "renamed.onnx"), data)
		res, err := r.Import(t.Context(), file, opt)
		if err != nil || res.Manifest.License != "MIT" || len(res.Notes) != 1 {
			t.Fatalf("%s: %+v %v", how, res, err)
		}
		if e, err := r.Lookup("known"); err != nil || e.State != StatePresent {
			t.Errorf("%s: %+v %v", how, e, err)
		}
		if err := r.Pull(t.Context(), "known", nil); err != nil {
			t.Errorf("%s: pulling what is present: %v", how, err)
		}
		if files, _ := os.ReadDir(r.Dir()); len(files) != 1 {
			t.Errorf("%s: %v", how, files)
		}
	}
}

// TestNoFolder: without a cache folder, what is built in or named by path works,
// and the rest says what to do.
func TestNoFolder(t *testing.T) {
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	b := Builtin{Manifest: embedderManifest(BatchStatic), Bytes: func() ([]byte, error) { return []byte("x"), nil }}
	r, err := OpenRegistry(Options{Builtins: []Builtin{b}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve(t.Context(), "test"); err != nil {
		t.Errorf("built in: %v", err)
	}
	if _, err := r.List(); err != nil {
		t.Errorf("list: %v", err)
	}
	if _, err := r.Resolve(t.Context(), "other"); !errors.Is(err, ErrUnknownModel) {
		t.Errorf("unknown: %v", err)
	}
	_, errResolve := r.Resolve(t.Context(), "sface-2021dec")
	_, errImport := r.Import(t.Context(), "x.onnx", ImportOptions{})
	for what, err := range map[string]error{"resolve": errResolve, "pull": r.Pull(t.Context(), "sface-2021dec", nil), "import": errImport} {
		if err == nil || !strings.Contains(err.Error(), "name a folder") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	r, dir := testRegistry(t, testRuntime(t)), t.TempDir()
	good := write(t, filepath.Join(dir, "good.onnx"), onnxtest.MeanEmbedder(1))
	text := write(t, filepath.Join(dir, "text.onnx"), []byte("not a model"))
	man := embedderManifest(BatchStatic)
	man.Output.Dimension = 512
	wrong := write(t, filepath.Join(dir, "wrong.yml"), manifestText(t, man))
	for name, tc := range map[string]struct {
		file string
		opt  ImportOptions
		want error
	}{
		"name":           {good, ImportOptions{Name: "../up"}, ErrModelName},
		"file name":      {good, ImportOptions{Name: "x.onnx"}, ErrModelName},
		"pinned name":    {good, ImportOptions{Name: "sface-2021dec"}, ErrHashMismatch},
		"not a model":    {text, ImportOptions{}, ErrNotModel},
		"absent":         {filepath.Join(dir, "none.onnx"), ImportOptions{}, ErrAbsent},
		"no manifest":    {good, ImportOptions{Manifest: filepath.Join(dir, "none.yaml")}, ErrAbsent},
		"wrong manifest": {good, ImportOptions{Manifest: wrong}, ErrModelShape},
	} {
		if _, err := r.Import(t.Context(), tc.file, tc.opt); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	if files, err := os.ReadDir(r.Dir()); err == nil && len(files) > 0 {
		t.Errorf("refused imports left %v", files)
	}
}
