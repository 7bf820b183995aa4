package quality

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
)

// openDetector opens the fixtures' YuNet, or skips.
func openDetector(t *testing.T) (*detect.YuNet, string) {
	t.Helper()
	dir := fixtures.Dir(t)
	rt, err := models.OpenRuntime(models.RuntimeOptions{})
	if errors.Is(err, models.ErrRuntimeMissing) {
		t.Skipf("real-model tests not run: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.Close)
	reg, err := models.OpenRegistry(models.Options{Dir: t.TempDir(), Runtime: rt})
	if err != nil {
		t.Fatal(err)
	}
	res, err := reg.Resolve(context.Background(), filepath.Join(dir, "models", "yunet_n_640_640.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.NewSession(res, models.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	y, err := detect.New(s, &res.Manifest, detect.Options{ScoreThreshold: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	return y, dir
}

// found is an image with its faces, the dominant one and its crop.
type found struct {
	img    *decode.Image
	faces  []detect.Face
	chosen int
	crop   *align.Crop
}

func find(t *testing.T, y *detect.YuNet, img *decode.Image) found {
	t.Helper()
	f := found{img: img}
	var err error
	if f.faces, err = y.Detect(context.Background(), img); err != nil {
		t.Error(err)
	}
	if f.chosen, _ = Dominant(f.faces, 0.5); f.chosen >= 0 {
		if f.crop, err = align.Align(img, f.faces[f.chosen].Landmarks); err != nil {
			t.Error(err)
		}
	}
	return f
}

func (f found) judge(lim Limits) Report { return Assess(f.img, f.faces, f.chosen, f.crop, lim) }

func readPhoto(t *testing.T, dir, name string) *decode.Image {
	t.Helper()
	img, err := decode.ReadFile(filepath.Join(dir, "photos", name), decode.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return img.RGB()
}

func TestPhotos(t *testing.T) {
	y, dir := openDetector(t)
	for name, enrolment := range map[string][]Finding{
		"biden.jpg": nil, "obama.jpg": nil, "obama2.jpg": nil, "obama-240p.jpg": nil,
		"obama_partial.jpg": {FaceCutOff}, "two_people.jpg": {ManyFaces},
	} {
		f := find(t, y, readPhoto(t, dir, name))
		if r := f.judge(DefaultLimits()); !r.Good() {
			t.Errorf("%s as a probe: %+v", name, r)
		}
		r := f.judge(EnrollmentLimits())
		if !slices.Equal(r.Findings, enrolment) {
			t.Errorf("%s for enrolment: %+v, want %v", name, r, enrolment)
		}
		t.Logf("%s: %+.3v", name, r)
	}
}

func TestORL(t *testing.T) {
	if testing.Short() {
		t.Skip("400 detections: not with -short")
	}
	y, dir := openDetector(t)
	files, err := filepath.Glob(filepath.Join(dir, "orl", "*", "*.pgm"))
	if err != nil || len(files) != 400 {
		t.Fatalf("%d ORL files, %v", len(files), err)
	}
	probes, enrolments := make([]Report, len(files)), make([]Report, len(files))
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < len(files); i += 4 {
				img, err := decode.ReadFile(files[i], decode.Limits{})
				if err != nil {
					t.Error(err)
					return
				}
				f := find(t, y, img)
				probes[i], enrolments[i] = f.judge(DefaultLimits()), f.judge(EnrollmentLimits())
			}
		})
	}
	wg.Wait()
	count := func(rs []Report) (good int, why map[Finding]int) {
		why = map[Finding]int{}
		for _, r := range rs {
			if r.Good() {
				good++
			}
			for _, f := range r.Findings {
				why[f]++
			}
		}
		return good, why
	}
	for name, get := range map[string]func(Report) float64{
		"width": func(r Report) float64 { return r.FaceWidth }, "score": func(r Report) float64 { return r.Score },
		"yaw": func(r Report) float64 { return r.Yaw }, "pitch": func(r Report) float64 { return r.Pitch },
		"roll": func(r Report) float64 { return r.Roll }, "outside": func(r Report) float64 { return r.Outside },
		"brightness": func(r Report) float64 { return r.Brightness }, "clipped": func(r Report) float64 { return r.Clipped },
		"contrast": func(r Report) float64 { return r.Contrast }, "sharpness": func(r Report) float64 { return r.Sharpness },
	} {
		var vs []float64
		for _, r := range probes {
			vs = append(vs, get(r))
		}
		slices.Sort(vs)
		t.Logf("measure=%s min=%.3g p1=%.3g p5=%.3g p50=%.3g p95=%.3g p99=%.3g max=%.3g", name, vs[0], vs[4], vs[20], vs[200], vs[380], vs[396], vs[399])
	}
	good, why := count(probes)
	t.Logf("probes=400 accepted=%d findings=%v", good, why)
	if good < 380 {
		t.Errorf("%d of 400 accepted as probes, want at least 380", good)
	}
	strict, why := count(enrolments)
	t.Logf("enrolments=400 accepted=%d findings=%v", strict, why)
	if strict >= good || strict < 200 {
		t.Errorf("%d of 400 accepted for enrolment, %d as probes", strict, good)
	}
}

// turned turns an image by an angle (clockwise) about its centre on a grey
// canvas that holds all of it.
func turned(img *decode.Image, degrees float64) *decode.Image {
	side := int(math.Ceil(math.Hypot(float64(img.Width), float64(img.Height))))
	out := &decode.Image{Width: side, Height: side, Pix: make([]byte, 3*side*side)}
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	for y := range side {
		for x := range side {
			u, v := float64(x)-float64(side)/2, float64(y)-float64(side)/2
			sx := int(math.Round(cos*u + sin*v + float64(img.Width)/2))
			sy := int(math.Round(-sin*u + cos*v + float64(img.Height)/2))
			to := 3 * (y*side + x)
			if sx < 0 || sy < 0 || sx >= img.Width || sy >= img.Height {
				out.Pix[to], out.Pix[to+1], out.Pix[to+2] = 90, 90, 90
				continue
			}
			copy(out.Pix[to:to+3], img.Pix[3*(sy*img.Width+sx):])
		}
	}
	return out
}

// part cuts a rectangle out of an image.
func part(img *decode.Image, x0, y0, x1, y1 int) *decode.Image {
	out := &decode.Image{Width: x1 - x0, Height: y1 - y0}
	for y := y0; y < y1; y++ {
		out.Pix = append(out.Pix, img.Pix[3*(y*img.Width+x0):3*(y*img.Width+x1)]...)
	}
	return out
}

// smaller reduces an image n times by averaging.
func smaller(img *decode.Image, n int) *decode.Image {
	out := &decode.Image{Width: img.Width / n, Height: img.Height / n}
	for y := range out.Height {
		for x := range out.Width {
			for k := range 3 {
				sum := 0
				for i := range n * n {
					sum += int(img.Pix[3*((y*n+i/n)*img.Width+x*n+i%n)+k])
				}
				out.Pix = append(out.Pix, byte((sum+n*n/2)/(n*n)))
			}
		}
	}
	return out
}

// exposed scales the light of an image.
func exposed(img *decode.Image, gain, offset float64) *decode.Image {
	return &decode.Image{Width: img.Width, Height: img.Height, Pix: lit(&align.Crop{Pix: img.Pix}, gain, offset).Pix}
}

// blurred is a box blur of the image, three times: close to a Gaussian of
// standard deviation sigma pixels.
func blurred(img *decode.Image, sigma float64) *decode.Image {
	r := max(1, int(math.Round((math.Sqrt(4*sigma*sigma+1)-1)/2)))
	w, h := img.Width, img.Height
	src := slices.Clone(img.Pix)
	for range 3 {
		for _, axis := range []struct{ n, m, step, cross int }{{w, h, 3, 3 * w}, {h, w, 3 * w, 3}} {
			dst := make([]byte, len(src))
			for j := range axis.m {
				for k := range 3 {
					at := func(i int) int { return int(src[j*axis.cross+k+axis.step*min(max(i, 0), axis.n-1)]) }
					sum := 0
					for i := -r; i <= r; i++ {
						sum += at(i)
					}
					for i := range axis.n {
						dst[j*axis.cross+k+axis.step*i] = byte((sum + r) / (2*r + 1))
						sum += at(i+r+1) - at(i-r)
					}
				}
			}
			src = dst
		}
	}
	return &decode.Image{Width: w, Height: h, Pix: src}
}

// A good photograph, spoilt in one way after the other, is accepted before and
// flagged after.
func TestSpoiltPhotosAreFlagged(t *testing.T) {
	y, dir := openDetector(t)
	img := readPhoto(t, dir, "obama.jpg")
	before := find(t, y, img)
	if len(before.faces) != 1 {
		t.Fatalf("%d faces", len(before.faces))
	}
	box := before.faces[0].Box
	// Pixels of the image for one of the crop: a blur is felt in the crop.
	s, err := align.Estimate(before.faces[0].Landmarks)
	if err != nil {
		t.Fatal(err)
	}
	px := 1 / s.Scale()
	for _, tc := range []struct {
		name  string
		img   *decode.Image
		lim   Limits
		wants []Finding // one of them
	}{
		{"blurred by 2.5 pixels of the crop", blurred(img, 2.5*px), DefaultLimits(), []Finding{Blurred}},
		{"blurred by 1.2 pixels of the crop, for enrolment", blurred(img, 1.2*px), EnrollmentLimits(), []Finding{Blurred}},
		{"dark", exposed(img, 0.15, 0), DefaultLimits(), []Finding{TooDark}},
		{"burnt out", exposed(img, 2, 60), DefaultLimits(), []Finding{TooBright}},
		{"fog", exposed(img, 0.1, 110), DefaultLimits(), []Finding{LowContrast}},
		{"tilted by 60 degrees", turned(img, 60), DefaultLimits(), []Finding{PoseRoll}},
		{"tilted by 35 degrees, for enrolment", turned(img, -35), EnrollmentLimits(), []Finding{PoseRoll}},
		{"left third of the face cut off", part(img, int(box.X+box.W*0.35), 0, img.Width, img.Height), DefaultLimits(), []Finding{FaceCutOff}},
		{"chin cut off", part(img, 0, 0, img.Width, int(box.Y+box.H*0.7)), DefaultLimits(), []Finding{FaceCutOff}},
		{"far away", smaller(img, 7), DefaultLimits(), []Finding{FaceTooSmall}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if r := before.judge(tc.lim); !r.Good() {
				t.Fatalf("before: %+v", r)
			}
			r := find(t, y, tc.img).judge(tc.lim)
			if !slices.ContainsFunc(tc.wants, func(f Finding) bool { return slices.Contains(r.Findings, f) }) {
				t.Errorf("findings %v, want one of %v: %+v", r.Findings, tc.wants, r)
			}
			t.Logf("%+.3v", r)
		})
	}
}
