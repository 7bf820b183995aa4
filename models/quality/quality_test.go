package quality

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
)

// head projects the average head of pose.go, turned by yaw, pitch and roll
// degrees, onto an image: 100 pixels wide, its middle at (x, y). Pitch is
// positive for a head that looks down, yaw for one that looks to the image's
// right.
func head(x, y, yaw, pitch, roll float64) align.Landmarks {
	// x right, y down, z towards the camera; the nose where a level head has it.
	points := [5][3]float64{{-160, -160, 0}, {160, -160, 0}, {0, -160 + 320*noseHeight, 130}, {-150, 160, 0}, {150, 160, 0}}
	a, b, c := yaw*math.Pi/180, pitch*math.Pi/180, roll*math.Pi/180
	var lm align.Landmarks
	for i, p := range points {
		px, py, pz := p[0], p[1]*math.Cos(b)+p[2]*math.Sin(b), p[2]*math.Cos(b)-p[1]*math.Sin(b)
		px = px*math.Cos(a) + pz*math.Sin(a)
		px, py = px*math.Cos(c)-py*math.Sin(c), px*math.Sin(c)+py*math.Cos(c)
		lm[i] = align.Point{X: float32(x + px/6), Y: float32(y + py/6)}
	}
	return lm
}

// level is a face looking at the camera in the middle of a 400 x 400 image.
func level() detect.Face {
	return detect.Face{Score: 0.9, Box: detect.Box{X: 150, Y: 130, W: 100, H: 140}, Landmarks: head(200, 200, 0, 0, 0)}
}

func canvas() *decode.Image {
	return &decode.Image{Width: 400, Height: 400, Pix: make([]byte, 3*400*400)}
}

// drawnCrop is a face of shades: skin, features across and texture, brightness
// as wanted and contrast scaled.
func drawnCrop(brightness, contrast float64) *align.Crop {
	return tiltedCrop(brightness, contrast, 0)
}

// tiltedCrop turns what is drawn by an angle in degrees, clockwise.
func tiltedCrop(brightness, contrast, angle float64) *align.Crop {
	sin, cos := math.Sincos(angle * math.Pi / 180)
	rnd := rand.New(rand.NewPCG(3, 4))
	c := &align.Crop{Pix: make([]byte, align.Size*align.Size*3)}
	for y := range align.Size {
		for x := range align.Size {
			across := float64(x-56)*cos + float64(y-70)*sin
			down := float64(y-70)*cos - float64(x-56)*sin
			v := 30*math.Sin(across/9) + 25*math.Cos(down/7) + 18*math.Sin(down/1.4) + 6*rnd.NormFloat64()
			b := byte(min(255, max(0, brightness+contrast*v)))
			i := 3 * (y*align.Size + x)
			c.Pix[i], c.Pix[i+1], c.Pix[i+2] = b, b, b
		}
	}
	return c
}

// gaussian blurs a crop; sigma in pixels.
func gaussian(c *align.Crop, sigma float64) *align.Crop {
	r := int(3*sigma) + 1
	kernel := make([]float64, 2*r+1)
	var sum float64
	for i := range kernel {
		kernel[i] = math.Exp(-float64((i-r)*(i-r)) / (2 * sigma * sigma))
		sum += kernel[i]
	}
	src := make([]float64, len(c.Pix))
	for i, v := range c.Pix {
		src[i] = float64(v)
	}
	for _, dir := range [2][2]int{{1, 0}, {0, 1}} {
		dst := make([]float64, len(src))
		for y := range align.Size {
			for x := range align.Size {
				for k := range 3 {
					var v float64
					for i, w := range kernel {
						sx := min(max(x+dir[0]*(i-r), 0), align.Size-1)
						sy := min(max(y+dir[1]*(i-r), 0), align.Size-1)
						v += w / sum * src[3*(sy*align.Size+sx)+k]
					}
					dst[3*(y*align.Size+x)+k] = v
				}
			}
		}
		src = dst
	}
	out := &align.Crop{Pix: make([]byte, len(src))}
	for i, v := range src {
		out.Pix[i] = byte(v + 0.5)
	}
	return out
}

// lit returns the crop with its light scaled and shifted.
func lit(c *align.Crop, gain, offset float64) *align.Crop {
	out := &align.Crop{Pix: make([]byte, len(c.Pix))}
	for i, v := range c.Pix {
		out.Pix[i] = byte(min(255, max(0, gain*float64(v)+offset)))
	}
	return out
}

func TestGoodFaceHasNoFinding(t *testing.T) {
	for name, lim := range map[string]Limits{"probe": DefaultLimits(), "enrolment": EnrollmentLimits()} {
		r := Assess(canvas(), []detect.Face{level()}, 0, drawnCrop(128, 1), lim)
		if !r.Good() {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestEachFinding(t *testing.T) {
	faces := func(change func(*detect.Face)) []detect.Face {
		f := level()
		change(&f)
		return []detect.Face{f}
	}
	posed := func(yaw, pitch, roll float64) []detect.Face {
		return faces(func(f *detect.Face) { f.Landmarks = head(200, 200, yaw, pitch, roll) })
	}
	same := func(*detect.Face) {}
	rival := append(faces(same), faces(func(f *detect.Face) { f.Box.W, f.Box.H = 80, 80 })...)
	sharp := drawnCrop(128, 1)
	nan := float32(math.NaN())
	for _, tc := range []struct {
		name             string
		faces            []detect.Face
		crop             *align.Crop
		probe, enrolment []Finding
	}{
		{"rival", rival, sharp, nil, []Finding{ManyFaces}},
		{"small", faces(func(f *detect.Face) { f.Box.W = 39 }), sharp, []Finding{FaceTooSmall}, []Finding{FaceTooSmall}},
		{"small for enrolment", faces(func(f *detect.Face) { f.Box.W = 45 }), sharp, nil, []Finding{FaceTooSmall}},
		{"width not a number", faces(func(f *detect.Face) { f.Box.W = nan }), sharp, []Finding{FaceTooSmall}, []Finding{FaceTooSmall}},
		{"weak", faces(func(f *detect.Face) { f.Score = 0.5 }), sharp, []Finding{LowDetectionScore}, []Finding{LowDetectionScore}},
		{"score not a number", faces(func(f *detect.Face) { f.Score = nan }), sharp, []Finding{LowDetectionScore}, []Finding{LowDetectionScore}},
		{"yaw 40", posed(40, 0, 0), sharp, nil, []Finding{PoseYaw}},
		{"yaw -60", posed(-60, 0, 0), sharp, []Finding{PoseYaw}, []Finding{PoseYaw}},
		{"pitch 30", posed(0, 30, 0), sharp, nil, []Finding{PosePitch}},
		{"pitch -45", posed(0, -45, 0), sharp, []Finding{PosePitch}, []Finding{PosePitch}},
		{"roll 30", posed(0, 0, 30), sharp, nil, []Finding{PoseRoll}},
		{"roll -60", posed(0, 0, -60), sharp, []Finding{PoseRoll}, []Finding{PoseRoll}},
		{"tilted in the crop", faces(same), tiltedCrop(128, 1, -50), []Finding{PoseRoll}, []Finding{PoseRoll}},
		{"landmarks turned 20, the crop 30 more", posed(0, 0, 20), tiltedCrop(128, 1, 30), []Finding{PoseRoll}, []Finding{PoseRoll}},
		{"landmarks turned upside down", posed(0, 0, 180), sharp, []Finding{PoseRoll}, []Finding{PoseRoll}},
		{"at the edge", faces(func(f *detect.Face) { f.Landmarks = head(33, 200, 0, 0, 0) }), sharp, nil, []Finding{FaceCutOff}},
		{"half outside", faces(func(f *detect.Face) { f.Landmarks = head(200, 395, 0, 0, 0) }), sharp, []Finding{FaceCutOff}, []Finding{FaceCutOff}},
		{"dark", faces(same), drawnCrop(20, 0.3), []Finding{TooDark}, []Finding{TooDark}},
		{"bright", faces(same), drawnCrop(240, 0.4), []Finding{TooBright}, []Finding{TooBright}},
		{"flat", faces(same), drawnCrop(128, 0.1), []Finding{LowContrast}, []Finding{LowContrast}},
		{"blurred a little", faces(same), gaussian(sharp, 1), nil, []Finding{Blurred}},
		{"blurred", faces(same), gaussian(sharp, 3), []Finding{Blurred}, []Finding{Blurred}},
		{"one colour", faces(same), drawnCrop(128, 0), []Finding{LowContrast, Blurred}, []Finding{LowContrast, Blurred}},
		{"nothing is a number", []detect.Face{{Score: nan, Box: detect.Box{X: nan, Y: nan, W: nan, H: nan}, Landmarks: align.Landmarks{{X: nan, Y: nan}}}}, sharp,
			[]Finding{FaceTooSmall, FaceCutOff, LowDetectionScore, PoseYaw, PosePitch, PoseRoll},
			[]Finding{FaceTooSmall, FaceCutOff, LowDetectionScore, PoseYaw, PosePitch, PoseRoll}},
	} {
		for which, want := range map[string][]Finding{"probe": tc.probe, "enrolment": tc.enrolment} {
			lim := DefaultLimits()
			if which == "enrolment" {
				lim = EnrollmentLimits()
			}
			if r := Assess(canvas(), tc.faces, 0, tc.crop, lim); !slices.Equal(r.Findings, want) {
				t.Errorf("%s, %s: %v, want %v (%+v)", tc.name, which, r.Findings, want, r)
			}
		}
	}
}

func TestNoFaceAndMissingParts(t *testing.T) {
	one := []detect.Face{level()}
	for _, chosen := range []int{-1, 1, 99} {
		if r := Assess(canvas(), one, chosen, drawnCrop(128, 1), DefaultLimits()); !slices.Equal(r.Findings, []Finding{NoFace}) {
			t.Errorf("chosen %d: %v", chosen, r.Findings)
		}
	}
	if r := Assess(nil, nil, 0, nil, DefaultLimits()); !slices.Equal(r.Findings, []Finding{NoFace}) {
		t.Errorf("nothing at all: %v", r.Findings)
	}
	if r := Assess(nil, one, 0, nil, EnrollmentLimits()); !r.Good() || r.FaceWidth != 100 || r.Sharpness != 0 {
		t.Errorf("no image and no crop: %+v", r)
	}
	if r := AssessCrop(nil, DefaultLimits()); !slices.Equal(r.Findings, []Finding{NoFace}) {
		t.Errorf("no crop: %v", r.Findings)
	}
	if r := AssessCrop(drawnCrop(10, 0.1), DefaultLimits()); !slices.Equal(r.Findings, []Finding{TooDark, LowContrast}) || r.Brightness > 12 {
		t.Errorf("a dark crop: %+v", r)
	}
	// All checks off.
	nan := float32(math.NaN())
	off := detect.Face{Landmarks: align.Landmarks{{X: nan}}}
	if r := Assess(canvas(), []detect.Face{off, off}, 0, drawnCrop(3, 0), Limits{}); !r.Good() {
		t.Errorf("limits of zero: %v", r.Findings)
	}
}

func TestPose(t *testing.T) {
	for _, want := range [][3]float64{{0, 0, 0}, {30, 0, 0}, {-50, 0, 0}, {0, 20, 0}, {0, -30, 0}, {0, 0, 40}, {0, 0, -120}, {25, 0, 30}, {0, -20, -70}} {
		yaw, pitch, roll := pose(head(70, 90, want[0], want[1], want[2]))
		// The drawn head's eyes and mouth differ in width from their mean, and
		// the nose's own height adds to its depth when the head is nodded.
		for i, got := range []float64{yaw, pitch, roll} {
			if math.Abs(got-want[i]) > 5 {
				t.Errorf("head held at %v: measured %.1f %.1f %.1f", want, yaw, pitch, roll)
				break
			}
		}
	}
	// Roll says nothing about yaw and pitch, whatever the scale.
	for roll := -180.0; roll <= 180; roll += 7 {
		y, p, _ := pose(head(-3000, 9000, 20, 10, roll))
		y0, p0, _ := pose(head(0, 0, 20, 10, 0))
		if math.Abs(y-y0) > 0.1 || math.Abs(p-p0) > 0.1 {
			t.Errorf("turned by %g: yaw %.2f pitch %.2f, upright %.2f %.2f", roll, y, p, y0, p0)
		}
	}
	mirrored := head(0, 0, 0, 0, 0)
	for i := range mirrored {
		mirrored[i].X = -mirrored[i].X
	}
	if y, p, _ := pose(mirrored); !math.IsNaN(y) || !math.IsNaN(p) {
		t.Errorf("left and right swapped: yaw %g pitch %g, want not a number", y, p)
	}
}

// Sharpness must not follow the light, and must fall with every blur.
func TestSharpness(t *testing.T) {
	crop := drawnCrop(128, 1)
	base := AssessCrop(crop, Limits{}).Sharpness
	for _, l := range [][2]float64{{0.5, 0}, {0.5, 100}, {0.8, 20}, {1, -40}, {1, 40}} {
		if s := AssessCrop(lit(crop, l[0], l[1]), Limits{}).Sharpness; math.Abs(s/base-1) > 0.1 {
			t.Errorf("light times %g plus %g: sharpness %.3f, before %.3f", l[0], l[1], s, base)
		}
	}
	last := base
	for _, sigma := range []float64{0.5, 0.8, 1.2, 2, 3} {
		s := AssessCrop(gaussian(crop, sigma), Limits{}).Sharpness
		if !(s < last*0.9) {
			t.Errorf("blurred by %g: sharpness %.4f, before %.4f", sigma, s, last)
		}
		last = s
	}
	// The two figures of the doc comment: white noise, and a wave.
	rnd := rand.New(rand.NewPCG(5, 6))
	noise, wave := drawnCrop(0, 0), drawnCrop(0, 0)
	const period = 16
	for i := range align.Size * align.Size {
		n := byte(128 + 20*rnd.NormFloat64())
		w := byte(math.Round(128 + 100*math.Sin(float64(i%align.Size)*2*math.Pi/period)))
		for k := range 3 {
			noise.Pix[3*i+k], wave.Pix[3*i+k] = n, w
		}
	}
	if s := AssessCrop(noise, Limits{}).Sharpness; math.Abs(s-20) > 1 {
		t.Errorf("white noise has the sharpness %.2f, want about 20", s)
	}
	if s, want := AssessCrop(wave, Limits{}).Sharpness, math.Pow(2*math.Pi/period, 4); math.Abs(s/want-1) > 0.1 {
		t.Errorf("a wave of %d pixels has the sharpness %.4f, want about %.4f", period, s, want)
	}
}

func TestTilt(t *testing.T) {
	for angle := -75.0; angle <= 75; angle += 10 {
		if got := tilt(tiltedCrop(128, 1, angle)); math.Abs(got-angle) > 4 {
			t.Errorf("turned by %g: %.1f", angle, got)
		}
	}
	// Nothing to tell it by: noise, one colour.
	noise := drawnCrop(0, 0)
	rnd := rand.New(rand.NewPCG(7, 8))
	for i := range noise.Pix {
		noise.Pix[i] = byte(rnd.Uint32())
	}
	for name, c := range map[string]*align.Crop{"noise": noise, "one colour": drawnCrop(128, 0), "light from the side": tiltedCrop(128, 1, 88)} {
		if got := tilt(c); got != 0 {
			t.Errorf("%s: %g", name, got)
		}
	}
}

func TestDominant(t *testing.T) {
	face := func(w, h float32) detect.Face { return detect.Face{Box: detect.Box{W: w, H: h}} }
	nan := float32(math.NaN())
	for _, tc := range []struct {
		name      string
		faces     []detect.Face
		index     int
		ambiguous bool
	}{
		{"none", nil, -1, false},
		{"one", []detect.Face{face(10, 10)}, 0, false},
		{"one large", []detect.Face{face(10, 10), face(50, 50), face(20, 10)}, 1, false},
		{"largest first", []detect.Face{face(50, 50), face(10, 10)}, 0, false},
		{"alike", []detect.Face{face(50, 50), face(48, 50)}, 0, true},
		{"exactly the ratio", []detect.Face{face(10, 10), face(5, 10)}, 0, true},
		{"just below", []detect.Face{face(10, 10), face(4.9, 10)}, 0, false},
		{"all the same", []detect.Face{face(9, 9), face(9, 9), face(9, 9)}, 0, true},
		{"no area", []detect.Face{face(0, 0), face(0, 0)}, 0, true},
		{"not a number", []detect.Face{face(nan, 1), face(3, 3)}, 0, true},
	} {
		if i, a := Dominant(tc.faces, 0.5); i != tc.index || a != tc.ambiguous {
			t.Errorf("%s: %d %t, want %d %t", tc.name, i, a, tc.index, tc.ambiguous)
		}
	}
}

func TestFindingsHaveTexts(t *testing.T) {
	seen := map[string]Finding{}
	general := Finding("?").Text()
	for _, f := range Findings() {
		text := f.Text()
		if other, twice := seen[text]; twice || text == general || !strings.Contains(text, ": ") {
			t.Errorf("%s says %q (as %s does): each needs its own text, what is wrong and what to do", f, text, other)
		}
		seen[text] = f
	}
	if len(seen) != 12 {
		t.Errorf("%d findings", len(seen))
	}
}

func TestLimits(t *testing.T) {
	probe, enrolment := DefaultLimits(), EnrollmentLimits()
	for _, l := range []Limits{probe, enrolment, {}} {
		if err := l.Validate(); err != nil {
			t.Error(err)
		}
	}
	for name, stricter := range map[string]bool{
		"rival area": enrolment.RivalArea > probe.RivalArea, "width": enrolment.MinFaceWidth > probe.MinFaceWidth,
		"score": enrolment.MinScore > probe.MinScore, "yaw": enrolment.MaxYaw < probe.MaxYaw, "pitch": enrolment.MaxPitch < probe.MaxPitch,
		"roll": enrolment.MaxRoll < probe.MaxRoll, "outside": enrolment.MaxOutside < probe.MaxOutside,
		"dark": enrolment.MinBrightness > probe.MinBrightness, "bright": enrolment.MaxBrightness < probe.MaxBrightness,
		"clipped": enrolment.MaxClipped < probe.MaxClipped, "contrast": enrolment.MinContrast > probe.MinContrast,
		"sharpness": enrolment.MinSharpness > probe.MinSharpness,
	} {
		if !stricter {
			t.Errorf("enrolment is not stricter in %s", name)
		}
	}
	bad := Limits{MinScore: 2, MaxYaw: -1, MaxOutside: math.NaN(), MinBrightness: 200, MaxBrightness: 100}
	err := bad.Validate()
	if !errors.Is(err, ErrLimits) || strings.Count(err.Error(), "quality:") != 4 {
		t.Errorf("four bad limits: %v", err)
	}
}

func TestAssessDoesNotAllocate(t *testing.T) {
	img, faces, crop, lim := canvas(), []detect.Face{level()}, drawnCrop(128, 1), EnrollmentLimits()
	if n := testing.AllocsPerRun(20, func() { Assess(img, faces, 0, crop, lim) }); n > 0 {
		t.Errorf("%g allocations for a good face", n)
	}
}

func BenchmarkAssess(b *testing.B) {
	img, faces, crop, lim := canvas(), []detect.Face{level()}, drawnCrop(128, 1), EnrollmentLimits()
	b.Run("face=good", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Assess(img, faces, 0, crop, lim)
		}
	})
}
