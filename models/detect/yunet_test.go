package detect

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/internal/onnxtest"
)

// open loads a detector, or skips the test where ONNX Runtime is not there.
func open(t testing.TB, data []byte, man models.Manifest, opt Options) (*YuNet, error) {
	t.Helper()
	rt, err := models.OpenRuntime(models.RuntimeOptions{})
	if errors.Is(err, models.ErrRuntimeMissing) {
		t.Skipf("detection not tested: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.Close)
	s, err := rt.NewSession(&models.Resolved{Manifest: man, Data: data}, models.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return New(s, &man, opt)
}

func manifest(side int) models.Manifest {
	return models.Manifest{
		Name: "yunet", Kind: models.KindDetector, Architecture: models.ArchYuNet, Batch: models.BatchStatic,
		Input: models.Input{Width: side, Height: side, Layout: "NCHW", Color: models.ColorBGR, Scale: [3]float32{1, 1, 1}},
	}
}

// fixture opens one of the fixtures' detectors.
func fixture(t testing.TB, file string, opt Options) *YuNet {
	t.Helper()
	man := map[string]models.Manifest{"yunet_n_320_320.onnx": manifest(320), "yunet_n_640_640.onnx": manifest(640), "yunet_n_dynamic.onnx": manifest(0)}[file]
	data, err := os.ReadFile(filepath.Join(fixtures.Dir(t), "models", file))
	if err != nil {
		t.Fatal(err)
	}
	y, err := open(t, data, man, opt)
	if err != nil {
		t.Fatal(err)
	}
	return y
}

func plain(w, h int, level byte) *decode.Image {
	img := &decode.Image{Width: w, Height: h, Pix: make([]byte, 3*w*h)}
	for i := range img.Pix {
		img.Pix[i] = level
	}
	return img
}

// expectation is what expected.json says of one photo.
type expectation struct {
	Width, Height int
	Faces         []struct {
		Score     float32
		Box       [4]float32    `json:"box_xywh"`
		Landmarks [5][2]float32 `json:"landmarks_xy"`
	}
}

func photos(t testing.TB) (images map[string]*decode.Image, want map[string]expectation) {
	t.Helper()
	dir := fixtures.Dir(t)
	data, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var exp struct{ Photos map[string]expectation }
	if err := json.Unmarshal(data, &exp); err != nil {
		t.Fatal(err)
	}
	if len(exp.Photos) < 6 {
		t.Fatalf("%d photos in expected.json", len(exp.Photos))
	}
	images = map[string]*decode.Image{}
	for name := range exp.Photos {
		if images[name], err = decode.ReadFile(filepath.Join(dir, "photos", name), decode.DefaultLimits()); err != nil {
			t.Fatal(err)
		}
	}
	return images, exp.Photos
}

// TestPhotos compares with the independent implementation: for 640 pixels, for
// which its answers were computed, within the fixtures' tolerances; at 320 the
// model itself is less exact (landmarks up to 0.13 face widths away).
func TestPhotos(t *testing.T) {
	images, want := photos(t)
	for _, tc := range []struct {
		file          string
		iou, landmark float64
	}{
		{"yunet_n_640_640.onnx", 0.8, 0.03},
		{"yunet_n_dynamic.onnx", 0.8, 0.03},
		{"yunet_n_320_320.onnx", 0.8, 0.15},
	} {
		t.Run(tc.file, func(t *testing.T) {
			y := fixture(t, tc.file, Options{})
			worstIoU, worstMark := 1.0, 0.0
			for name, exp := range want {
				faces, err := y.Detect(t.Context(), images[name])
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if len(faces) != len(exp.Faces) {
					t.Errorf("%s: %d faces, want %d: %+v", name, len(faces), len(exp.Faces), faces)
				}
				for _, w := range exp.Faces {
					wantBox := Box{w.Box[0], w.Box[1], w.Box[2], w.Box[3]}
					iou, mark := 0.0, math.Inf(1)
					for _, f := range faces {
						if v := float64(f.Box.IoU(wantBox)); v > iou {
							iou, mark = v, 0
							for k, p := range f.Landmarks {
								d := math.Hypot(float64(p.X-w.Landmarks[k][0]), float64(p.Y-w.Landmarks[k][1]))
								mark = max(mark, d/float64(w.Box[2]))
							}
						}
					}
					worstIoU, worstMark = min(worstIoU, iou), max(worstMark, mark)
					if iou < tc.iou || mark > tc.landmark {
						t.Errorf("%s: IoU %.3f (at least %.2f), landmark off by %.4f face widths (at most %.2f)", name, iou, tc.iou, mark, tc.landmark)
					}
				}
			}
			t.Logf("worst IoU %.4f, worst landmark %.4f face widths", worstIoU, worstMark)
		})
	}
}

// TestScaleAndPlace: the same face is found in the same place of a picture that
// is twice and half as large, or stands in a large black one.
func TestScaleAndPlace(t *testing.T) {
	images, _ := photos(t)
	y := fixture(t, "yunet_n_640_640.onnx", Options{})
	img := images["obama-240p.jpg"].RGB()
	base, err := y.Detect(t.Context(), img)
	if err != nil || len(base) != 1 {
		t.Fatalf("%v %v", base, err)
	}
	twice := &decode.Image{Width: 2 * img.Width, Height: 2 * img.Height, Pix: make([]byte, 12*img.Width*img.Height)}
	for yy := range twice.Height {
		for x := range twice.Width {
			copy(twice.Pix[3*(yy*twice.Width+x):], img.Pix[3*(yy/2*img.Width+x/2):][:3])
		}
	}
	got, err := y.Detect(t.Context(), twice)
	if err != nil || len(got) != 1 {
		t.Fatalf("twice as large: %v %v", got, err)
	}
	b := got[0].Box
	if iou := (Box{b.X / 2, b.Y / 2, b.W / 2, b.H / 2}).IoU(base[0].Box); iou < 0.9 {
		t.Errorf("twice as large: IoU %.3f", iou)
	}
	// A tall picture of 18 megapixels with the photo at its bottom.
	tall := plain(3000, 6000, 0)
	for yy := range twice.Height {
		copy(tall.Pix[3*((tall.Height-twice.Height+yy)*tall.Width+100):], twice.Pix[3*yy*twice.Width:3*(yy+1)*twice.Width])
	}
	big := fixture(t, "yunet_n_dynamic.onnx", Options{InputSize: 1280})
	got, err = big.Detect(t.Context(), tall)
	if err != nil || len(got) != 1 {
		t.Fatalf("in a large picture: %v %v", got, err)
	}
	b = got[0].Box
	b = Box{(b.X - 100) / 2, (b.Y - float32(tall.Height-twice.Height)) / 2, b.W / 2, b.H / 2}
	if iou := b.IoU(base[0].Box); iou < 0.75 {
		t.Errorf("in a large picture: IoU %.3f", iou)
	}
}

// TestFacelessAndOddImages: sizes and contents that hold no face.
func TestFacelessAndOddImages(t *testing.T) {
	noise := plain(500, 300, 0)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range noise.Pix {
		noise.Pix[i] = byte(rng.Uint32())
	}
	for _, file := range []string{"yunet_n_640_640.onnx", "yunet_n_dynamic.onnx"} {
		y := fixture(t, file, Options{})
		for name, img := range map[string]*decode.Image{
			"one pixel": plain(1, 1, 200), "black": plain(640, 480, 0), "white": plain(333, 777, 255),
			"wide": plain(9000, 1, 90), "tall": plain(1, 9000, 90), "noise": noise,
		} {
			faces, err := y.Detect(t.Context(), img)
			if err != nil || len(faces) != 0 {
				t.Errorf("%s, %s: %v %v", file, name, faces, err)
			}
		}
	}
}

// TestCrowd tiles a photo 6 x 6: every face is found.
func TestCrowd(t *testing.T) {
	images, _ := photos(t)
	y := fixture(t, "yunet_n_dynamic.onnx", Options{InputSize: 1920})
	img := images["obama-240p.jpg"].RGB()
	const n = 6
	crowd := plain(n*img.Width, n*img.Height, 0)
	for yy := range crowd.Height {
		for i := range n {
			copy(crowd.Pix[3*(yy*crowd.Width+i*img.Width):], img.Pix[3*(yy%img.Height)*img.Width:][:3*img.Width])
		}
	}
	faces, err := y.Detect(t.Context(), crowd)
	if err != nil || len(faces) != n*n {
		t.Errorf("%d faces, want %d (%v)", len(faces), n*n, err)
	}
	for i := 1; i < len(faces); i++ {
		if faces[i].Score > faces[i-1].Score {
			t.Fatalf("not sorted by score at %d", i)
		}
	}
	few := fixture(t, "yunet_n_dynamic.onnx", Options{InputSize: 1920, MaxFaces: 5})
	if faces, err := few.Detect(t.Context(), crowd); err != nil || len(faces) != 5 {
		t.Errorf("MaxFaces 5: %d faces, %v", len(faces), err)
	}
}

func TestDetectRefusesBadImages(t *testing.T) {
	y, err := open(t, onnxtest.YuNet(64, nil), manifest(64), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, img := range map[string]*decode.Image{
		"nil": nil, "empty": {}, "no pixels": {Width: 10, Height: 10},
		"too few": {Width: 10, Height: 10, Pix: make([]byte, 299)}, "negative": {Width: -1, Height: 10, Pix: make([]byte, 30)},
	} {
		if _, err := y.Detect(t.Context(), img); !errors.Is(err, ErrImage) {
			t.Errorf("%s: got %v, want ErrImage", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := y.Detect(ctx, plain(10, 10, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestDecodeFormula runs a model that always answers the same, for a photo that
// is twice the model's input.
func TestDecodeFormula(t *testing.T) {
	const cell = 2*4 + 1 // column 1, row 2 of the 4 x 4 grid at stride 16
	outs := map[string][]float32{
		"cls_16": make([]float32, 16), "obj_16": make([]float32, 16),
		"bbox_16": make([]float32, 64), "kps_16": make([]float32, 160),
	}
	outs["cls_16"][cell], outs["obj_16"][cell] = 0.81, 1.5 // clamped to 1
	outs["cls_16"][0], outs["obj_16"][0] = 0.9, -3         // clamped to 0
	copy(outs["bbox_16"][4*cell:], []float32{0.5, 0.25, float32(math.Log(2)), float32(math.Log(3))})
	for k := range 5 {
		outs["kps_16"][10*cell+2*k], outs["kps_16"][10*cell+2*k+1] = float32(k)/10, -float32(k)/10
	}
	y, err := open(t, onnxtest.YuNet(64, outs), manifest(64), Options{})
	if err != nil {
		t.Fatal(err)
	}
	faces, err := y.Detect(t.Context(), plain(128, 128, 7))
	if err != nil || len(faces) != 1 {
		t.Fatalf("%v %v", faces, err)
	}
	f := faces[0]
	near := func(what string, got, want float32) {
		if math.Abs(float64(got-want)) > 1e-3 {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	near("score", f.Score, 0.9)
	near("width", f.Box.W, 2*2*16)
	near("height", f.Box.H, 2*3*16)
	near("x", f.Box.X, 2*(1.5*16-16))
	near("y", f.Box.Y, 2*(2.25*16-24))
	for k, p := range f.Landmarks {
		near("landmark x", p.X, 2*16*(1+float32(k)/10))
		near("landmark y", p.Y, 2*16*(2-float32(k)/10))
	}
}

func TestNonFiniteOutputsAreRefused(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, change := range map[string]func(o map[string][]float32){
		"score NaN":    func(o map[string][]float32) { o["cls_32"][1] = nan },
		"object NaN":   func(o map[string][]float32) { o["obj_32"][2] = nan },
		"box NaN":      func(o map[string][]float32) { o["bbox_32"][1] = nan },
		"box infinite": func(o map[string][]float32) { o["bbox_32"][2] = 1000 },
		"landmark":     func(o map[string][]float32) { o["kps_32"][9] = -inf },
	} {
		t.Run(name, func(t *testing.T) {
			outs := map[string][]float32{
				"cls_32": {0.9, 0, 0, 0}, "obj_32": {0.9, 0, 0, 0},
				"bbox_32": make([]float32, 16), "kps_32": make([]float32, 40),
			}
			change(outs)
			if _, err := open(t, onnxtest.YuNet(64, outs), manifest(64), Options{}); !errors.Is(err, models.ErrNotFinite) {
				t.Errorf("got %v, want ErrNotFinite", err)
			}
		})
	}
}

// TestHostileOutputIsBounded: of a picture that makes every cell a face, no more
// cells are left to suppression, which is quadratic, than are allowed.
func TestHostileOutputIsBounded(t *testing.T) {
	const side = maxInputSize
	y := &YuNet{opt: Options{ScoreThreshold: 0.5, NMSIoU: 0.3, MaxFaces: DefaultMaxFaces}}
	var outs [][]float32
	for _, shape := range outputShapes(side, side) {
		o := make([]float32, shape[1]*shape[2])
		for i := range o {
			switch shape[2] {
			case 1:
				o[i] = 0.5 + float32(i%1000)/2000
			case 4:
				o[i] = -1
			}
		}
		outs = append(outs, o)
	}
	cands, err := y.candidates(outs, side)
	if err != nil {
		t.Fatal(err)
	}
	faces := suppress(cands, y.opt.NMSIoU, y.opt.MaxFaces)
	if len(cands) != maxCandidates || len(faces) != DefaultMaxFaces {
		t.Errorf("%d candidates, %d faces", len(cands), len(faces))
	}
	// The best were kept: the limit is a score limit.
	if last := cands[len(cands)-1].Score; last < 0.9 {
		t.Errorf("the weakest candidate kept has score %v", last)
	}
}

func TestSuppress(t *testing.T) {
	faces := []Face{
		{Score: 0.9, Box: Box{0, 0, 10, 10}}, {Score: 0.8, Box: Box{1, 1, 10, 10}}, // one face
		{Score: 0.7, Box: Box{8, 8, 10, 10}},   // a neighbour
		{Score: 0.6, Box: Box{0, 0, 0, 0}},     // a point
		{Score: 0.5, Box: Box{50, 50, 10, 10}}, // elsewhere
	}
	got := suppress(faces, 0.3, 100)
	if len(got) != 4 || got[0].Score != 0.9 || got[1].Score != 0.7 {
		t.Errorf("%+v", got)
	}
	if got := suppress(nil, 0.3, 100); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestOptions(t *testing.T) {
	for _, opt := range []Options{
		{ScoreThreshold: 1.5}, {ScoreThreshold: -1}, {ScoreThreshold: float32(math.NaN())}, {NMSIoU: 2}, {InputSize: 100}, {InputSize: 4096}, {MaxFaces: -1},
	} {
		if _, err := opt.orDefaults(); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: got %v", opt, err)
		}
	}
	embedder := models.Manifest{Name: "e", Architecture: models.ArchEmbedding}
	if _, err := New(nil, &embedder, Options{}); !errors.Is(err, ErrOptions) {
		t.Errorf("an embedder: %v", err)
	}
}

func TestDetectFromManyGoroutines(t *testing.T) {
	images, want := photos(t)
	y := fixture(t, "yunet_n_dynamic.onnx", Options{InputSize: 320})
	var wg sync.WaitGroup
	for name, img := range images {
		for range 3 {
			wg.Go(func() {
				faces, err := y.Detect(t.Context(), img)
				if err != nil || len(faces) != len(want[name].Faces) {
					t.Errorf("%s: %d faces, %v", name, len(faces), err)
				}
			})
		}
	}
	wg.Wait()
}

func BenchmarkDetect(b *testing.B) {
	images, _ := photos(b)
	y := fixture(b, "yunet_n_640_640.onnx", Options{})
	for _, name := range []string{"obama-240p.jpg", "biden.jpg"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := y.Detect(b.Context(), images[name]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
