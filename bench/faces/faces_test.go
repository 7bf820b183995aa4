package faces

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"sync"
	"testing"
)

func distance(a, b []byte) float64 {
	s := 0.0
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		s += d * d
	}
	return math.Sqrt(s / float64(len(a)))
}

func TestCropIsDeterministicAndConcurrent(t *testing.T) {
	const people, shots = 8, 3
	var want [people * shots][]byte
	g := New(7)
	for n := range want {
		want[n] = g.Crop(n/shots, n%shots).Pix
		if len(want[n]) != 3*side*side {
			t.Fatalf("crop of %d bytes", len(want[n]))
		}
	}
	same := New(7)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := range want {
				if !bytes.Equal(same.Crop(n/shots, n%shots).Pix, want[n]) {
					t.Errorf("person %d shot %d differs between two renderings", n/shots, n%shots)
				}
			}
		})
	}
	wg.Wait()
	if bytes.Equal(New(8).Crop(0, 0).Pix, want[0]) {
		t.Error("another population has the same first person")
	}
}

// fused reports whether the compiler fuses multiply and add into one rounding.
func fused() bool {
	x := 1 + 1.0/(1<<30)
	return mulAdd(x, x, -float64(x*x)) != 0
}

//go:noinline
func mulAdd(a, b, c float64) float64 { return a*b + c }

// The bytes are part of the reference model's calibration: a change here means
// measuring it again (see models/reference).
func TestGoldenBytes(t *testing.T) {
	if fused() {
		t.Skip("the golden hash is for builds that do not fuse multiply and add; see the package comment")
	}
	h := sha256.New()
	g := New(1)
	for i := range 20 {
		for k := range 3 {
			h.Write(g.Crop(i, k).Pix)
		}
	}
	const want = "73f2eae4e2af0bd4b1d68b52efa12a9fab120e9b8de6b5c5da47562b76043935"
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("sha256 of 60 crops = %s, want %s", got, want)
	}
}

// People differ, shots differ, and a shot of the same person without a change
// of conditions does not.
func TestIdentityAndVariationSeparate(t *testing.T) {
	g := New(3)
	var still Variation
	for i := range 20 {
		a := g.Identity(i).Render(still).Pix
		if !bytes.Equal(a, g.Identity(i).Render(still).Pix) {
			t.Fatalf("person %d: equal variations, different crops", i)
		}
		if d := distance(a, g.Identity(i+1).Render(still).Pix); d < 8 {
			t.Errorf("persons %d and %d differ by only %.1f grey levels rms", i, i+1, d)
		}
		if d := distance(g.Crop(i, 1).Pix, g.Crop(i, 2).Pix); d < 5 {
			t.Errorf("person %d: two gate shots differ by only %.1f grey levels rms", i, d)
		}
	}
}

// Without landmark error and pose, the eyes lie where ArcFace wants them.
func TestLandmarksLandOnTheReference(t *testing.T) {
	g := New(5)
	for i := range 50 {
		id := g.Identity(i)
		for _, yaw := range []float64{0, 0.3, -0.3} {
			v := Variation{Yaw: yaw, Seed: 1}
			c := &canvas{id: &id, v: &v}
			c.layout(newDice(1, 1))
			for s, want := range map[float64]float64{-1: 38.29, 1: 73.53} {
				x, y := c.toCrop(s*id.eyeX, id.eyeY)
				if math.Hypot(x-want, y-51.6) > 6 {
					t.Errorf("person %d yaw %.1f: eye at (%.1f, %.1f), want about (%.1f, 51.6)", i, yaw, x, y, want)
				}
			}
		}
	}
}

// Each occlusion changes the picture, and the mask hides the mouth.
func TestOcclusionsShow(t *testing.T) {
	id := New(1).Identity(3)
	plain := id.Render(Variation{Seed: 9}).Pix
	for o := NoOcclusion + 1; o < occlusionKind; o++ {
		pix := id.Render(Variation{Seed: 9, Occlusion: o}).Pix
		if d := distance(plain, pix); d < 3 {
			t.Errorf("%s: differs by only %.1f grey levels rms", o, d)
		}
		if o.String() == "unknown" {
			t.Errorf("occlusion %d has no name", o)
		}
	}
}

// Extreme values draw something, never a panic.
func TestExtremeVariations(t *testing.T) {
	id := New(1).Identity(0)
	for _, v := range []Variation{
		{Yaw: 1.2, Pitch: -1}, {Jitter: 40}, {Exposure: 5, Noise: 200}, {Exposure: -5, Blur: 6}, {LightX: 50, LightY: -50, Contrast: 1}, {Open: 1, Blink: 1, Smile: -1},
	} {
		if got := len(id.Render(v).Pix); got != 3*side*side {
			t.Errorf("%+v: %d bytes", v, got)
		}
	}
}

func BenchmarkCrop(b *testing.B) {
	g := New(1)
	for i := 0; b.Loop(); i++ {
		g.Crop(i, 1)
	}
}
