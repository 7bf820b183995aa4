package pipeline

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/internal/onnxtest"
	"github.com/menshen-io/menshen/models/reference"
)

// open opens a pipeline with its own empty models folder, or skips the test
// where ONNX Runtime is not there.
func open(t testing.TB, opt Options) (*Pipeline, error) {
	t.Helper()
	if opt.ModelDir == "" {
		opt.ModelDir = t.TempDir()
	}
	if opt.InferenceThreads == 0 {
		opt.InferenceThreads = 2 // both forms, and nothing to measure
	}
	p, err := Open(t.Context(), opt)
	if errors.Is(err, models.ErrRuntimeMissing) {
		t.Skipf("the pipeline is not tested: %v", err)
	}
	if err == nil {
		t.Cleanup(p.Close)
	}
	return p, err
}

func mustOpen(t testing.TB, opt Options) *Pipeline {
	t.Helper()
	p, err := open(t, opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// realModels are the fixtures' detector and embedder.
func realModels(t testing.TB) Options {
	t.Helper()
	dir := filepath.Join(fixtures.Dir(t), "models")
	return Options{Detector: filepath.Join(dir, "yunet_n_640_640.onnx"), Embedder: filepath.Join(dir, "mobilefacenet_128.onnx")}
}

func grey() *align.Crop {
	return &align.Crop{Pix: bytes.Repeat([]byte{128}, 3*align.Size*align.Size)}
}

func TestReferenceModelIsTheDefault(t *testing.T) {
	p := mustOpen(t, Options{})
	info := p.Info()
	if len(info) != 1 || info[0].Manifest.Name != reference.Manifest().Name || info[0].ID != p.Embedder().ModelID() || info[0].Path != "" {
		t.Errorf("%+v", info)
	}
	if p.EmbedderManifest().Name != reference.Manifest().Name || p.RuntimeVersion() == "" {
		t.Errorf("%+v", p.EmbedderManifest())
	}
	if notes := strings.Join(p.Notes(), "\n"); !strings.Contains(notes, "EVALUATION") {
		t.Errorf("the notes do not say that the model is for evaluation: %q", notes)
	}
	v, err := p.Embed(t.Context(), grey())
	if err != nil || len(v) != p.Embedder().Dim() {
		t.Errorf("%d dimensions, %v", len(v), err)
	}
	if _, err := p.Observe(t.Context(), []byte("x")); !errors.Is(err, ErrNoDetector) {
		t.Errorf("an image without a detector: %v", err)
	}
	if p.Detector() != nil {
		t.Error("there is a detector")
	}
	if none := mustOpen(t, Options{Detector: NoDetector}); none.Detector() != nil {
		t.Error("\"none\" gave a detector")
	}
}

func TestProductionRefusesEvaluationModels(t *testing.T) {
	_, err := open(t, Options{Production: true})
	if !errors.Is(err, ErrEvaluationModel) || !strings.Contains(err.Error(), reference.Manifest().Name) {
		t.Errorf("got %v", err)
	}
	real := realModels(t)
	real.Production = true
	p := mustOpen(t, real)
	if len(p.Info()) != 2 || len(p.Notes()) != 2 {
		t.Errorf("%+v %v", p.Info(), p.Notes())
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	embedder := write("e.onnx", onnxtest.MeanEmbedder(1))
	detector := write("d.onnx", onnxtest.YuNet(64, nil))
	cut := write("cut.onnx", onnxtest.MeanEmbedder(1)[:60])
	for name, tc := range map[string]struct {
		opt  Options
		want error
	}{
		"embedder as detector": {Options{Detector: embedder}, ErrWrongKind},
		"detector as embedder": {Options{Embedder: detector}, ErrWrongKind},
		"not fetched":          {Options{Detector: "yunet-2023mar"}, models.ErrAbsent},
		"unknown":              {Options{Embedder: "nobody"}, models.ErrUnknownModel},
		"cut short":            {Options{Embedder: cut}, models.ErrNotModel},
		"no file":              {Options{Embedder: filepath.Join(dir, "x.onnx")}, models.ErrAbsent},
	} {
		if _, err := open(t, tc.opt); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	if _, err := open(t, Options{InferenceConcurrency: -1}); err == nil {
		t.Error("negative concurrency was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, Options{ModelDir: dir}); !errors.Is(err, context.Canceled) && !errors.Is(err, models.ErrRuntimeMissing) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestTwoPipelines: one process can hold several; closing one does not touch
// the other, and closing twice is harmless.
func TestTwoPipelines(t *testing.T) {
	a, b := mustOpen(t, Options{}), mustOpen(t, Options{InferenceConcurrency: 2})
	var wg sync.WaitGroup
	for _, p := range []*Pipeline{a, b} {
		for range 4 {
			wg.Go(func() {
				for range 5 {
					if _, err := p.Embed(t.Context(), grey()); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	a.Close()
	a.Close()
	if _, err := a.Embed(t.Context(), grey()); !errors.Is(err, models.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := b.Embed(t.Context(), grey()); err != nil {
		t.Errorf("the other: %v", err)
	}
}

func TestObserveBadInput(t *testing.T) {
	p := mustOpen(t, realModels(t))
	for name, data := range map[string][]byte{"empty": nil, "text": []byte("hello"), "cut": {0xff, 0xd8, 0xff, 0xe0, 0, 16}} {
		if _, err := p.Observe(t.Context(), data); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, image.NewGray(image.Rect(0, 0, 300, 200)), nil); err != nil {
		t.Fatal(err)
	}
	scene, err := p.Observe(t.Context(), buf.Bytes())
	if err != nil || len(scene.Faces) != 0 || scene.Image.Width != 300 {
		t.Errorf("faceless: %+v %v", scene, err)
	}
	for _, i := range []int{-1, 0, 1} {
		if _, err := p.Crop(t.Context(), scene, i); !errors.Is(err, ErrNoFace) {
			t.Errorf("face %d of none: %v", i, err)
		}
	}
	if _, err := p.Crop(t.Context(), nil, 0); !errors.Is(err, ErrNoFace) {
		t.Errorf("no scene: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Observe(ctx, buf.Bytes()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	small := realModels(t)
	small.Limits = decode.DefaultLimits()
	small.Limits.MaxPixels = 1000
	if _, err := mustOpen(t, small).Observe(t.Context(), buf.Bytes()); !errors.Is(err, decode.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}
