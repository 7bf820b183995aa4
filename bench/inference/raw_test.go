package inference

import (
	"errors"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/menshen-io/menshen/bench/target"
	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/pipeline"
)

// The raw side computes what the product computes: the same embedding of the
// same crop. A baseline that computed something else would be no baseline.
func TestRawComputesTheSame(t *testing.T) {
	dir := fixtures.Dir(t)
	rt, err := models.OpenRuntime(models.RuntimeOptions{})
	if err != nil {
		t.Skipf("nothing to compare with: %v", err)
	}
	rt.Close()
	opt := target.ServerOptions{Embedder: filepath.Join(dir, "models", "mobilefacenet_128.onnx")}
	pipe, err := pipeline.Open(t.Context(), pipeline.Options{Embedder: opt.Embedder})
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	r := &run{Options: Options{Server: opt}}
	res, err := r.resolve(t.Context(), opt.Embedder)
	if err != nil {
		t.Fatal(err)
	}
	model, err := newRaw(res)
	if err != nil {
		t.Fatal(err)
	}
	b, err := model.bench(Setting{1, 1, 1, false})
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	crop := &align.Crop{Pix: make([]byte, 3*align.Size*align.Size)}
	for i := range crop.Pix {
		crop.Pix[i] = byte(i * i >> 5)
	}
	want, err := pipe.Embed(t.Context(), crop)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.embed(0, 0, [][]byte{crop.Pix}); err != nil {
		t.Fatal(err)
	}
	got := b.memory[0].out
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	for i := range want {
		if math.Abs(float64(got[i]-want[i])) > 1e-4 {
			t.Fatalf("value %d is %g, want %g", i, got[i], want[i])
		}
	}
}

func TestTogether(t *testing.T) {
	seen := make([][]int, 3)
	_, err := together(3, 20*time.Millisecond, func(caller, i int) error {
		seen[caller] = append(seen[caller], i)
		time.Sleep(time.Millisecond)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for caller, numbers := range seen {
		for k, n := range numbers {
			if n != caller+3*k {
				t.Fatalf("caller %d did %v", caller, numbers)
			}
		}
	}
	wrong := errors.New("wrong")
	if _, err := together(2, time.Hour, func(int, int) error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("%v", err)
	}
}

func TestOf(t *testing.T) {
	base, service, ratio := of([]pair{{100, 50}, {10, 9}, {1000, 600}})
	if base != 100 || service != 50 || ratio != 0.6 {
		t.Errorf("%g, %g, %g; want the medians 100, 50 and that of the ratios, 0.6", base, service, ratio)
	}
	if got := round(123456.789); got != 123500 {
		t.Errorf("round: %g", got)
	}
}
