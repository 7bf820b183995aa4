package align

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/menshen-io/menshen/models/decode"
	"pgregory.net/rapid"
)

// speckle is an image of independent random samples: the hardest for an
// interpolation, since every error of a coordinate shows.
func speckle(w, h int, seed uint64) *decode.Image {
	rnd := rand.New(rand.NewPCG(seed, 1))
	img := &decode.Image{Width: w, Height: h, Pix: make([]byte, 3*w*h)}
	for i := range img.Pix {
		img.Pix[i] = byte(rnd.Uint32())
	}
	return img
}

// plainWarp is the definition, in float64 and without any shortcut.
func plainWarp(img *decode.Image, s Similarity) []float64 {
	at := func(x, y, k int) float64 {
		if x < 0 || y < 0 || x >= img.Width || y >= img.Height {
			return 0
		}
		return float64(img.Pix[3*(y*img.Width+x)+k])
	}
	d := s.A*s.A + s.B*s.B
	out := make([]float64, 0, Size*Size*3)
	for v := range Size {
		for u := range Size {
			x := (s.A*(float64(u)-s.TX) + s.B*(float64(v)-s.TY)) / d
			y := (s.A*(float64(v)-s.TY) - s.B*(float64(u)-s.TX)) / d
			x0, y0 := math.Floor(x), math.Floor(y)
			fx, fy := x-x0, y-y0
			for k := range 3 {
				i, j := int(x0), int(y0)
				out = append(out, (1-fy)*((1-fx)*at(i, j, k)+fx*at(i+1, j, k))+fy*((1-fx)*at(i, j+1, k)+fx*at(i+1, j+1, k)))
			}
		}
	}
	return out
}

func TestWarpIsBilinear(t *testing.T) {
	images := []*decode.Image{speckle(300, 200, 1), speckle(112, 112, 2), speckle(17, 401, 3), speckle(8, 8, 4)}
	rapid.Check(t, func(t *rapid.T) {
		img := images[rapid.IntRange(0, len(images)-1).Draw(t, "image")]
		scale := math.Exp(rapid.Float64Range(math.Log(0.2), math.Log(20)).Draw(t, "log scale"))
		turn := rapid.Float64Range(-math.Pi, math.Pi).Draw(t, "turn")
		s := Similarity{A: scale * math.Cos(turn), B: scale * math.Sin(turn)}
		// Some place of the image in the middle of the crop.
		cx := rapid.Float64Range(-0.2, 1.2).Draw(t, "x") * float64(img.Width)
		cy := rapid.Float64Range(-0.2, 1.2).Draw(t, "y") * float64(img.Height)
		x, y := s.Apply(cx, cy)
		s.TX, s.TY = 56-x, 56-y
		got, want := Warp(img, s).Pix, plainWarp(img, s)
		for i := range want {
			// Half for the rounding, the rest for weights of 11 bits.
			if math.Abs(float64(got[i])-want[i]) > 0.5+0.3 {
				t.Fatalf("sample %d (column %d, row %d): %d, want %.3f with %+v", i, i/3%Size, i/3/Size, got[i], want[i], s)
			}
		}
	})
}

func TestWarpOfWholePixelsIsACopy(t *testing.T) {
	img := speckle(300, 200, 5)
	for _, shift := range []struct{ x, y int }{{0, 0}, {30, 40}, {188, 88}, {-20, -30}, {250, 150}, {-112, 0}, {5000, 5000}} {
		got := Warp(img, Similarity{A: 1, TX: -float64(shift.x), TY: -float64(shift.y)})
		for v := range Size {
			for u := range Size {
				var want [3]byte
				if x, y := u+shift.x, v+shift.y; x >= 0 && y >= 0 && x < img.Width && y < img.Height {
					want = [3]byte(img.Pix[3*(y*img.Width+x):])
				}
				if [3]byte(got.Pix[3*(v*Size+u):]) != want {
					t.Fatalf("shift %v: pixel %d,%d is %v, want %v", shift, u, v, got.Pix[3*(v*Size+u):][:3], want)
				}
			}
		}
	}
}

func TestWarpOutsideIsBlack(t *testing.T) {
	img := speckle(50, 50, 6)
	black := make([]byte, Size*Size*3)
	for _, s := range []Similarity{
		{A: 1, TX: 1e6}, {A: 1, TX: -1e6}, {A: 1, TY: 1e15}, {A: 1e-9, TX: 1e9}, {A: 1e9, B: 1e9, TX: -1e300},
		{}, {A: math.NaN()}, {A: 1, TX: math.Inf(1)}, {A: 1e-170, B: 1e-170},
	} {
		if got := Warp(img, s).Pix; !bytes.Equal(got, black) {
			t.Errorf("%+v is not black", s)
		}
	}
	// A face entirely beside the image.
	lm := Reference()
	for i := range lm {
		lm[i].X += 1e7
		lm[i].Y -= 1e7
	}
	if c, err := Align(img, lm); err != nil || !bytes.Equal(c.Pix, black) {
		t.Errorf("landmarks far outside: %v", err)
	}
}

func TestAlignPutsTheLandmarksOnTheReference(t *testing.T) {
	// A dot of light on each landmark of a turned and scaled face.
	img := &decode.Image{Width: 640, Height: 480, Pix: make([]byte, 3*640*480)}
	lm := place(Similarity{A: 2 * math.Cos(0.4), B: 2 * math.Sin(0.4), TX: 200, TY: 90})
	for _, p := range lm {
		for dy := -6; dy <= 6; dy++ {
			for dx := -6; dx <= 6; dx++ {
				x, y := int(math.Round(float64(p.X)))+dx, int(math.Round(float64(p.Y)))+dy
				d := math.Hypot(float64(x)-float64(p.X), float64(y)-float64(p.Y))
				img.Pix[3*(y*640+x)] = byte(max(0, 255*(1-d/6)))
			}
		}
	}
	c, err := Align(img, lm)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range Reference() {
		var sum, sx, sy float64
		for y := int(r.Y) - 6; y <= int(r.Y)+6; y++ {
			for x := int(r.X) - 6; x <= int(r.X)+6; x++ {
				v := float64(c.Pix[3*(y*Size+x)])
				sum, sx, sy = sum+v, sx+v*float64(x), sy+v*float64(y)
			}
		}
		if sum == 0 || math.Hypot(sx/sum-float64(r.X), sy/sum-float64(r.Y)) > 0.1 {
			t.Errorf("landmark %d lies at %.2f,%.2f, want %v", i, sx/sum, sy/sum, r)
		}
	}
}

func TestCropSizes(t *testing.T) {
	raw := speckle(Size, Size, 7).Pix
	c, err := CropFromRGB(raw)
	if err != nil || !bytes.Equal(c.Pix, raw) {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(20, func() { CropFromRGB(raw) }); n > 1 {
		t.Errorf("%g allocations: its pixels are not copied", n)
	}
	if d, err := CropFromImage(c.Image()); err != nil || !bytes.Equal(d.Pix, c.Pix) {
		t.Error(err)
	}
	for _, n := range []int{0, 1, Size * Size, Size*Size*3 - 1, Size*Size*3 + 1} {
		if _, err := CropFromRGB(make([]byte, n)); !errors.Is(err, ErrCropSize) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, img := range []*decode.Image{speckle(Size, Size+1, 1), speckle(Size*2, Size/2, 1), {Width: Size, Height: Size}} {
		if _, err := CropFromImage(img); !errors.Is(err, ErrCropSize) {
			t.Errorf("%d x %d: %v", img.Width, img.Height, err)
		}
	}
}

func TestAlignAllocatesTheCropOnly(t *testing.T) {
	img := speckle(640, 480, 8)
	lm := place(Similarity{A: 2, TX: 150, TY: 100})
	// The crop's struct and its pixels.
	if n := testing.AllocsPerRun(20, func() { Align(img, lm) }); n > 2 {
		t.Errorf("%g allocations", n)
	}
}

func BenchmarkAlign(b *testing.B) {
	img := speckle(1280, 720, 9)
	for _, tc := range []struct {
		place string
		s     Similarity
	}{
		{"inside", Similarity{A: 2 * math.Cos(0.2), B: 2 * math.Sin(0.2), TX: 400, TY: 200}},
		{"edge", Similarity{A: 2 * math.Cos(0.2), B: 2 * math.Sin(0.2), TX: -60, TY: -40}},
	} {
		lm := place(tc.s)
		b.Run(fmt.Sprintf("face=%s/size=%d", tc.place, Size), func(b *testing.B) {
			b.SetBytes(Size * Size * 3)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Align(img, lm); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
