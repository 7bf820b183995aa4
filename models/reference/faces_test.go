package reference_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/menshen-io/menshen/bench/faces"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/embed"
	"github.com/menshen-io/menshen/models/reference"
)

func openRuntime(t testing.TB) *models.Runtime {
	t.Helper()
	rt, err := models.OpenRuntime(models.RuntimeOptions{})
	if errors.Is(err, models.ErrRuntimeMissing) {
		t.Skipf("the reference model is not run: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.Close)
	return rt
}

func openEmbedder(t testing.TB) *embed.Embedder {
	t.Helper()
	rt := openRuntime(t)
	data, err := reference.Model()
	if err != nil {
		t.Fatal(err)
	}
	res := &models.Resolved{Manifest: reference.Manifest(), Data: data}
	s, err := rt.NewSession(res, models.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	e, err := embed.New(s, &res.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// embedAll embeds n crops, made by crop, and normalises the results.
func embedAll(t testing.TB, e *embed.Embedder, n int, crop func(i int) *align.Crop) [][]float32 {
	t.Helper()
	out := make([][]float32, n)
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				v, err := e.Embed(context.Background(), []*align.Crop{crop(i)})
				if err != nil {
					t.Errorf("crop %d: %v", i, err)
					return
				}
				out[i] = unit(v[0])
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return out
}

func unit(v []float32) []float32 {
	s := 0.0
	for _, x := range v {
		s += float64(x) * float64(x)
	}
	s = math.Sqrt(s)
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(float64(x) / s)
	}
	return out
}

func cosine(a, b []float32) float64 {
	s := 0.0
	for i := range a {
		s += float64(a[i]) * float64(b[i])
	}
	return s
}

// fused reports whether the compiler fuses multiply and add into one rounding.
func fused() bool {
	x := 1 + 1.0/(1<<30)
	return mulAdd(x, x, -float64(x*x)) != 0
}

//go:noinline
func mulAdd(a, b, c float64) float64 { return a*b + c }

// The shipped projection was fitted on the faces that the generator draws now.
func TestProjectionBelongsToTheGenerator(t *testing.T) {
	if fused() {
		t.Skip("the sum of the crops is for builds that do not fuse multiply and add; see bench/faces")
	}
	g := faces.New(reference.FitSeed)
	got := reference.CropSum(func(person, shot int) []byte { return g.Crop(person, shot).Pix })
	if !reference.FittedOn(got) {
		t.Error("bench/faces has changed since the projection was fitted: go run ./bench/faces/fitreference, then measure the threshold again")
	}
}

// What the demonstration relies on, in small: of people enrolled with one
// shot, gate shots find the right one above the manifest's threshold; of
// strangers, hardly any is taken for someone. The figures at full size are in
// the package comment.
func TestThresholdSeparatesSyntheticPeople(t *testing.T) {
	e := openEmbedder(t)
	const enrolled, strangers = 400, 200
	g := faces.New(20261121)
	gallery := embedAll(t, e, enrolled, func(i int) *align.Crop { return g.Crop(i, 0) })
	probes := embedAll(t, e, enrolled+strangers, func(i int) *align.Crop { return g.Crop(i, 1+i%5) })

	threshold := reference.Manifest().Threshold
	misses, wrong, alarms := 0, 0, 0
	for i, p := range probes {
		best, who := -2.0, -1
		for j, q := range gallery {
			if s := cosine(p, q); s > best {
				best, who = s, j
			}
		}
		switch {
		case i >= enrolled && best >= threshold:
			alarms++
		case i < enrolled && best >= threshold && who != i:
			wrong++
		case i < enrolled && best < threshold:
			misses++
		}
	}
	t.Logf("threshold %.2f, gallery %d: missed %d of %d, taken for another %d, strangers let in %d of %d", threshold, enrolled, misses, enrolled, wrong, alarms, strangers)
	if misses > enrolled*2/100 {
		t.Errorf("%d of %d enrolled people were missed, at most 2%% expected", misses, enrolled)
	}
	if wrong > 2 {
		t.Errorf("%d of %d enrolled people were taken for another", wrong, enrolled)
	}
	if alarms > strangers*2/100 {
		t.Errorf("%d of %d strangers were let in, at most 2%% expected", alarms, strangers)
	}
}

// Strangers' scores centre on zero.
func TestStrangersScoreAroundZero(t *testing.T) {
	e := openEmbedder(t)
	g := faces.New(99)
	v := embedAll(t, e, 200, func(i int) *align.Crop { return g.Crop(i, 1) })
	var scores []float64
	for i := range v {
		for j := range i {
			scores = append(scores, cosine(v[i], v[j]))
		}
	}
	slices.Sort(scores)
	if m := scores[len(scores)/2]; math.Abs(m) > 0.05 {
		t.Errorf("median score between strangers %.3f, want about 0", m)
	}
	if q := scores[len(scores)*999/1000]; q > reference.Manifest().Threshold {
		t.Errorf("one comparison in a thousand between strangers scores %.3f or more, above the threshold", q)
	}
}

// A batch gives what single crops give, and featureless crops give finite
// vectors.
func TestBatchesAndPlainCrops(t *testing.T) {
	e := openEmbedder(t)
	g := faces.New(4)
	var crops []*align.Crop
	for i := range 3 {
		crops = append(crops, g.Crop(i, i))
	}
	for _, level := range []byte{0, 128, 255} {
		pix := make([]byte, 3*112*112)
		for i := range pix {
			pix[i] = level
		}
		crops = append(crops, &align.Crop{Pix: pix})
	}
	all, err := e.Embed(context.Background(), crops)
	if err != nil {
		t.Fatal(err)
	}
	for i := range crops {
		one, err := e.Embed(context.Background(), crops[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		if len(one[0]) != reference.Dimension {
			t.Fatalf("crop %d: %d values", i, len(one[0]))
		}
		if s := cosine(unit(one[0]), unit(all[i])); s < 0.9999 {
			t.Errorf("crop %d: cosine %v between single and batch", i, s)
		}
	}
}

func BenchmarkEmbed(b *testing.B) {
	e := openEmbedder(b)
	crop := []*align.Crop{faces.New(1).Crop(0, 0)}
	b.SetBytes(int64(len(crop[0].Pix)))
	for b.Loop() {
		if _, err := e.Embed(context.Background(), crop); err != nil {
			b.Fatal(err)
		}
	}
}
