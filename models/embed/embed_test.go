package embed

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/internal/onnxtest"
)

func session(t testing.TB, data []byte, man models.Manifest, opt models.SessionOptions) *models.Session {
	t.Helper()
	rt, err := models.OpenRuntime(models.RuntimeOptions{})
	if errors.Is(err, models.ErrRuntimeMissing) {
		t.Skipf("embedding not tested: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.Close)
	s, err := rt.NewSession(&models.Resolved{Manifest: man, Data: data}, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func manifest(batch, color string) models.Manifest {
	return models.Manifest{
		Name: "mean", Kind: models.KindEmbedder, Architecture: models.ArchEmbedding, Batch: batch,
		SHA256: "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
		Input: models.Input{Width: 112, Height: 112, Layout: "NCHW", Color: color,
			Mean: [3]float32{127.5, 127.5, 127.5}, Scale: [3]float32{1 / 127.5, 1 / 127.5, 1 / 127.5}},
		Output: models.Output{Dimension: 3},
	}
}

// flat returns a crop of one colour.
func flat(r, g, b byte) *align.Crop {
	c := &align.Crop{Pix: make([]byte, 3*plane)}
	for i := 0; i < len(c.Pix); i += 3 {
		c.Pix[i], c.Pix[i+1], c.Pix[i+2] = r, g, b
	}
	return c
}

func check(t *testing.T, got []float32, want ...float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%v, want %v", got, want)
	}
	for i, w := range want {
		if math.Abs(float64(got[i])-w) > 1e-4 {
			t.Errorf("%v, want %v", got, want)
			return
		}
	}
}

// TestEmbedStaticAndDynamic: both kinds of batch give the same answers, in the
// order of the crops, for any number of them.
func TestEmbedStaticAndDynamic(t *testing.T) {
	level := func(v int) float64 { return (float64(v) - 127.5) / 127.5 }
	for batch, data := range map[string][]byte{
		models.BatchStatic:  onnxtest.MeanEmbedder(1),
		models.BatchDynamic: onnxtest.MeanEmbedder(-1),
	} {
		for _, n := range []int{0, 1, 2, maxAtOnce, maxAtOnce + 1, 3*maxAtOnce - 1} {
			man := manifest(batch, models.ColorRGB)
			e, err := New(session(t, data, man, models.SessionOptions{}), &man)
			if err != nil {
				t.Fatal(err)
			}
			var crops []*align.Crop
			for i := range n {
				crops = append(crops, flat(byte(i), byte(100+i), 255))
			}
			got, err := e.Embed(t.Context(), crops)
			if err != nil || len(got) != n {
				t.Fatalf("%s, %d crops: %d embeddings, %v", batch, n, len(got), err)
			}
			for i, v := range got {
				check(t, v, level(i), level(100+i), 1)
			}
		}
	}
}

func TestEmbedColourOrder(t *testing.T) {
	for color, want := range map[string][]float64{models.ColorRGB: {1, 0.6, -1}, models.ColorBGR: {-1, 0.6, 1}} {
		man := manifest(models.BatchStatic, color)
		e, err := New(session(t, onnxtest.MeanEmbedder(1), man, models.SessionOptions{}), &man)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Embed(t.Context(), []*align.Crop{flat(255, 204, 0)})
		if err != nil {
			t.Fatal(err)
		}
		check(t, got[0], want...)
		if e.Dim() != 3 || e.ModelID() != "mean@001122334455" {
			t.Errorf("%d %s", e.Dim(), e.ModelID())
		}
	}
}

func TestEmbedRefusesBadCrops(t *testing.T) {
	man := manifest(models.BatchStatic, models.ColorRGB)
	e, err := New(session(t, onnxtest.MeanEmbedder(1), man, models.SessionOptions{}), &man)
	if err != nil {
		t.Fatal(err)
	}
	good := flat(1, 2, 3)
	for name, c := range map[string]*align.Crop{"nil": nil, "empty": {}, "short": {Pix: make([]byte, 3*plane-1)}, "long": {Pix: make([]byte, 3*plane+1)}} {
		if got, err := e.Embed(t.Context(), []*align.Crop{good, c}); !errors.Is(err, align.ErrCropSize) || got != nil {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Embed(ctx, []*align.Crop{good}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestEmbedRefusesNonFiniteOutput(t *testing.T) {
	// The logarithm of a negative input is NaN: a dark crop, but not the grey
	// one that New tries.
	man := manifest(models.BatchStatic, models.ColorRGB)
	e, err := New(session(t, onnxtest.LogEmbedder(), man, models.SessionOptions{}), &man)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Embed(t.Context(), []*align.Crop{flat(200, 200, 200)}); err != nil {
		t.Errorf("bright: %v", err)
	}
	got, err := e.Embed(t.Context(), []*align.Crop{flat(200, 200, 200), flat(200, 50, 200)})
	if !errors.Is(err, ErrNotFinite) || got != nil {
		t.Errorf("dark: %v %v", got, err)
	}
	// Minus infinity: the logarithm of 0.
	zero := man
	zero.Input.Mean = [3]float32{128, 128, 128}
	if _, err := New(session(t, onnxtest.LogEmbedder(), zero, models.SessionOptions{}), &zero); !errors.Is(err, ErrNotFinite) {
		t.Errorf("infinite at the first run: %v", err)
	}
}

func TestNewRefusesOtherModels(t *testing.T) {
	man := manifest(models.BatchStatic, models.ColorRGB)
	man.Architecture = models.ArchYuNet
	if _, err := New(nil, &man); !errors.Is(err, ErrNotEmbedder) {
		t.Errorf("a detector: %v", err)
	}
	man = manifest(models.BatchStatic, models.ColorRGB)
	man.Output.Dimension = models.MaxDimension + 1
	if _, err := New(nil, &man); !errors.Is(err, ErrNotEmbedder) {
		t.Errorf("too many dimensions: %v", err)
	}
}

func TestEmbedFromManyGoroutines(t *testing.T) {
	man := manifest(models.BatchDynamic, models.ColorRGB)
	e, err := New(session(t, onnxtest.MeanEmbedder(-1), man, models.SessionOptions{Concurrency: 2}), &man)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 10 {
				crops := make([]*align.Crop, 1+(g+i)%3)
				for k := range crops {
					crops[k] = flat(byte(g*10+i), byte(k), 0)
				}
				got, err := e.Embed(t.Context(), crops)
				if err != nil {
					t.Error(err)
					return
				}
				for k, v := range got {
					if math.Abs(float64(v[0])-(float64(g*10+i)-127.5)/127.5) > 1e-4 || math.Abs(float64(v[1])-(float64(k)-127.5)/127.5) > 1e-4 {
						t.Errorf("caller %d, round %d, crop %d: %v", g, i, k, v)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkEmbed(b *testing.B) {
	data, err := os.ReadFile(filepath.Join(fixtures.Dir(b), "models", "mobilefacenet_128.onnx"))
	if err != nil {
		b.Fatal(err)
	}
	man := manifest(models.BatchStatic, models.ColorRGB)
	man.Output.Dimension = 128
	e, err := New(session(b, data, man, models.SessionOptions{}), &man)
	if err != nil {
		b.Fatal(err)
	}
	crops := []*align.Crop{flat(90, 80, 70)}
	b.Run("callers=1", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := e.Embed(b.Context(), crops); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "faces/s")
	})
	b.Run("callers=GOMAXPROCS", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := e.Embed(b.Context(), crops); err != nil {
					b.Error(err)
					return
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "faces/s")
	})
}
