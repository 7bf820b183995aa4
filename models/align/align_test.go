package align

import (
	"errors"
	"math"
	"math/cmplx"
	"testing"

	"github.com/menshen-io/menshen/models/decode"
	"pgregory.net/rapid"
)

// place maps the reference points into an image with a similarity: where a
// face would lie.
func place(s Similarity) Landmarks {
	var lm Landmarks
	for i, p := range Reference() {
		x, y := s.Apply(float64(p.X), float64(p.Y))
		lm[i] = Point{float32(x), float32(y)}
	}
	return lm
}

// drawSimilarity draws a placement: any turn, faces of 10 to 5,000 pixels,
// anywhere in and around a large image.
func drawSimilarity(t *rapid.T) Similarity {
	scale := math.Exp(rapid.Float64Range(math.Log(0.1), math.Log(50)).Draw(t, "log scale"))
	turn := rapid.Float64Range(-math.Pi, math.Pi).Draw(t, "turn")
	return Similarity{
		A: scale * math.Cos(turn), B: scale * math.Sin(turn),
		TX: rapid.Float64Range(-16384, 16384).Draw(t, "tx"),
		TY: rapid.Float64Range(-16384, 16384).Draw(t, "ty"),
	}
}

func TestEstimateRecoversAnySimilarity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		placed := drawSimilarity(t)
		got, err := Estimate(place(placed))
		if err != nil {
			t.Fatal(err)
		}
		want, err := placed.Invert()
		if err != nil {
			t.Fatal(err)
		}
		// The landmarks are float32: 2^-24 of their distance from the origin
		// comes back scaled into the crop.
		tolerance := 1e-4 + 4e-7*(math.Abs(placed.TX)+math.Abs(placed.TY)+200*placed.Scale())*want.Scale()
		for i, p := range place(placed) {
			x, y := got.Apply(float64(p.X), float64(p.Y))
			if r := Reference()[i]; math.Hypot(x-float64(r.X), y-float64(r.Y)) > tolerance {
				t.Fatalf("landmark %d comes to %.5f,%.5f, want %v (tolerance %g)", i, x, y, r, tolerance)
			}
		}
		if math.Abs(got.Scale()/want.Scale()-1) > tolerance/10 {
			t.Fatalf("scale %g, want %g", got.Scale(), want.Scale())
		}
	})
}

// residual is the sum of squared distances that Estimate minimises.
func residual(s Similarity, lm Landmarks) float64 {
	var sum float64
	for i, r := range Reference() {
		x, y := s.Apply(float64(lm[i].X), float64(lm[i].Y))
		sum += (x-float64(r.X))*(x-float64(r.X)) + (y-float64(r.Y))*(y-float64(r.Y))
	}
	return sum
}

func TestEstimateIsTheLeastSquares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		placed := drawSimilarity(t)
		noise := rapid.Float64Range(0, 8).Draw(t, "noise")
		var noisy Landmarks
		for i, r := range Reference() { // noise in pixels of the crop
			x, y := placed.Apply(float64(r.X)+noise*rapid.Float64Range(-1, 1).Draw(t, "nx"), float64(r.Y)+noise*rapid.Float64Range(-1, 1).Draw(t, "ny"))
			noisy[i] = Point{float32(x), float32(y)}
		}
		best, err := Estimate(noisy)
		if err != nil {
			t.Fatal(err)
		}
		least := residual(best, noisy)
		// Nothing near is better: neither a small change in any parameter nor
		// the placement that was drawn.
		truth, _ := placed.Invert()
		for _, other := range []Similarity{
			truth,
			{best.A * 1.001, best.B * 1.001, best.TX, best.TY},
			{best.A - 1e-3*best.B, best.B + 1e-3*best.A, best.TX, best.TY},
			{best.A, best.B, best.TX + 0.01, best.TY},
			{best.A, best.B, best.TX, best.TY - 0.01},
		} {
			if r := residual(other, noisy); r < least*(1-1e-6)-1e-5 {
				t.Fatalf("%+v has the residual %g, %+v has %g", other, r, best, least)
			}
		}
		// Five points, each off by at most noise*sqrt2: the fit is no worse.
		if least > 5*2*noise*noise+1e-3 {
			t.Fatalf("residual %g for noise of %g", least, noise)
		}
	})
}

// A mirrored face is turned and scaled, never mirrored back: the form of
// Similarity has no room for a reflection, and this states it.
func TestEstimateNeverReflects(t *testing.T) {
	mirrored := Reference()
	for i := range mirrored {
		mirrored[i].X = Size - 1 - mirrored[i].X
	}
	s, err := Estimate(mirrored)
	if err != nil {
		t.Fatal(err)
	}
	if residual(s, mirrored) < 100 {
		t.Errorf("mirrored points are mapped onto the reference: %+v", s)
	}
	e0x, e0y := s.Apply(1, 0)
	e1x, e1y := s.Apply(0, 1)
	ox, oy := s.Apply(0, 0)
	if det := (e0x-ox)*(e1y-oy) - (e0y-oy)*(e1x-ox); det <= 0 {
		t.Errorf("determinant %g: a reflection", det)
	}
}

// unrelated returns landmarks that no turn and scale brings any nearer to the
// reference: its mirror image less the part that correlates with it.
func unrelated() Landmarks {
	var mean, along complex128
	var q [5]complex128
	for i, r := range Reference() {
		q[i] = complex(float64(r.X), float64(r.Y))
		mean += q[i] / 5
	}
	var norm float64
	for i := range q {
		q[i] -= mean
		along += cmplx.Conj(q[i]) * cmplx.Conj(q[i])
		norm += real(q[i])*real(q[i]) + imag(q[i])*imag(q[i])
	}
	var lm Landmarks
	for i := range q {
		p := cmplx.Conj(q[i]) - q[i]*along/complex(norm, 0)
		lm[i] = Point{float32(real(p)) + 60, float32(imag(p)) + 60}
	}
	return lm
}

func TestDegenerateLandmarks(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	with := func(i int, p Point) Landmarks {
		lm := Reference()
		lm[i] = p
		return lm
	}
	img := &decode.Image{Width: 20, Height: 20, Pix: make([]byte, 1200)}
	for name, lm := range map[string]Landmarks{
		"zero":            {},
		"one place":       {{50, 50}, {50, 50}, {50, 50}, {50, 50}, {50, 50}},
		"one place, far":  {{1e9, 50}, {1e9 + 1, 50}, {1e9, 51}, {1e9, 50}, {1e9, 50}},
		"NaN":             with(2, Point{nan, 3}),
		"Inf":             with(0, Point{3, inf}),
		"minus Inf":       with(4, Point{-inf, inf}),
		"largest float32": {{math.MaxFloat32, -math.MaxFloat32}, {math.MaxFloat32, math.MaxFloat32}, {0, 0}, {-math.MaxFloat32, 0}, {0, 0}},
		"no relation":     unrelated(),
	} {
		s, err := Estimate(lm)
		if name == "largest float32" {
			if err == nil && !finite(s.A, s.B, s.TX, s.TY) {
				t.Errorf("%s: %+v", name, s)
			}
			continue
		}
		if !errors.Is(err, ErrDegenerate) {
			t.Errorf("%s: %+v %v", name, s, err)
		}
		if c, err := Align(img, lm); c != nil || !errors.Is(err, ErrDegenerate) {
			t.Errorf("%s: Align gives a crop (%t) and %v", name, c != nil, err)
		}
	}
}

func TestInvert(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSimilarity(t)
		inv, err := s.Invert()
		if err != nil {
			t.Fatal(err)
		}
		x, y := inv.Apply(s.Apply(12.5, -3))
		if math.Hypot(x-12.5, y+3) > 1e-6 {
			t.Fatalf("there and back: %g, %g", x, y)
		}
	})
	for _, s := range []Similarity{{}, {A: math.NaN()}, {A: math.Inf(1)}, {A: 1, TX: math.Inf(-1)}, {A: 1e-200}} {
		if _, err := s.Invert(); !errors.Is(err, ErrDegenerate) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

// FuzzAlign: any landmarks on a small image give a crop or ErrDegenerate.
func FuzzAlign(f *testing.F) {
	r := Reference()
	f.Add(r[0].X, r[0].Y, r[1].X, r[1].Y, r[2].X, r[2].Y, r[3].X, r[3].Y, r[4].X, r[4].Y)
	f.Add(float32(0), float32(0), float32(0), float32(0), float32(0), float32(0), float32(0), float32(0), float32(0), float32(0))
	f.Add(float32(-3e38), float32(3e38), float32(1), float32(2), float32(1e30), float32(-4), float32(math.NaN()), float32(1), float32(9), float32(9))
	f.Add(float32(-1e6), float32(-1e6), float32(-1e6+40), float32(-1e6), float32(-1e6+20), float32(-1e6+20), float32(-1e6), float32(-1e6+40), float32(-1e6+40), float32(-1e6+40))
	img := &decode.Image{Width: 33, Height: 21, Pix: make([]byte, 3*33*21)}
	for i := range img.Pix {
		img.Pix[i] = byte(i * 13)
	}
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, h, i, j, k float32) {
		crop, err := Align(img, Landmarks{{a, b}, {c, d}, {e, g}, {h, i}, {j, k}})
		if err != nil {
			if crop != nil || !errors.Is(err, ErrDegenerate) {
				t.Fatalf("a crop (%t) beside %v", crop != nil, err)
			}
			return
		}
		if len(crop.Pix) != Size*Size*3 {
			t.Fatal(len(crop.Pix))
		}
	})
}
