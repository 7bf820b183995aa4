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
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/pipeline"
)

// The raw side computes what the product computes: the same embedding of the
// same crop, and a detector's input that finds the same face. A baseline that
// computed something else would be no baseline.
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
	model, err := newRaw(res, align.Size, align.Size)
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

// An image of the input's own size is filled as it is; one of twice the size
// becomes the mean of its pixels.
func TestFillScaled(t *testing.T) {
	res := &models.Resolved{Manifest: models.Manifest{Input: models.Input{Scale: [3]float32{1, 1, 1}, Color: models.ColorBGR}}}
	r := &raw{model: res, w: 4, h: 4, channel: [3]int{2, 1, 0}}
	for _, factor := range []int{1, 2} {
		rt, err := models.OpenRuntime(models.RuntimeOptions{})
		if err != nil {
			t.Skipf("nothing to fill: %v", err)
		}
		rt.Close()
		tensor, err := r.tensors(1)
		if err != nil {
			t.Fatal(err)
		}
		img := &decode.Image{Width: 4 * factor, Height: 2 * factor, Pix: make([]byte, 3*8*factor*factor)}
		for y := range img.Height {
			for x := range img.Width {
				for c := range 3 {
					img.Pix[3*(y*img.Width+x)+c] = byte(40*(x/factor) + 10*(y/factor) + c)
				}
			}
		}
		r.fillScaled(tensor, img)
		in := tensor.in.GetData()
		for c := range 3 {
			for y := range 4 {
				for x := range 4 {
					want := float32(40*x + 10*y + 2 - c)
					if y >= 2 {
						want = 0
					}
					if got := in[c*16+y*4+x]; got != want {
						t.Errorf("factor %d: plane %d, pixel %d, %d is %g, want %g", factor, c, x, y, got, want)
					}
				}
			}
		}
		tensor.free()
	}
}

// The samples of a JPEG fill the tensor as its pixels do, but for the rounding of
// colours.
func TestFillPlanes(t *testing.T) {
	rt, err := models.OpenRuntime(models.RuntimeOptions{})
	if err != nil {
		t.Skipf("nothing to fill: %v", err)
	}
	rt.Close()
	scenes, err := target.DrawnScenes(1)
	if err != nil {
		t.Fatal(err)
	}
	img, err := decode.Decode(scenes[0], decode.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	res := &models.Resolved{Manifest: models.Manifest{Input: models.Input{Scale: [3]float32{1, 1, 1}, Color: models.ColorRGB}}}
	r := &raw{model: res, w: 320, h: 320, channel: [3]int{0, 1, 2}}
	var filled [2]*tensors
	for i, form := range []*decode.Image{img, img.RGB()} {
		if filled[i], err = r.tensors(1); err != nil {
			t.Fatal(err)
		}
		defer filled[i].free()
		r.fillScaled(filled[i], form)
	}
	sum, a, b := 0.0, filled[0].in.GetData(), filled[1].in.GetData()
	for i := range a {
		sum += math.Abs(float64(a[i] - b[i]))
	}
	if mean := sum / float64(len(a)); mean > 2 {
		t.Errorf("the tensors differ by %.2f levels on average", mean)
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
