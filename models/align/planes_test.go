package align

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/menshen-io/menshen/models/decode"
	"pgregory.net/rapid"
)

// planar is a picture in planes: speckle in Y, flat chroma, so that its RGB form
// is exact and every error of a coordinate shows. What lies beside the planes'
// rows is poison.
func planar(w, h int, turn decode.Turn, grey bool, seed uint64) *decode.Image {
	rnd := rand.New(rand.NewPCG(seed, 3))
	p := &decode.Planes{Width: w, Height: h, YStride: w + 5, ShareX: 2, ShareY: 2, Reduction: 1, Turn: turn, Y: make([]byte, (w+5)*h)}
	for i := range p.Y {
		if p.Y[i] = 255; i%p.YStride < w {
			p.Y[i] = byte(rnd.Uint32N(200) + 30)
		}
	}
	if !grey {
		p.Cb = []byte{}
		cw, ch := p.ChromaSize()
		p.CStride = cw + 3
		p.Cb, p.Cr = make([]byte, p.CStride*ch), make([]byte, p.CStride*ch)
		for i := range p.Cb {
			if i%p.CStride < cw {
				p.Cb[i], p.Cr[i] = 119, 135
			}
		}
	}
	img := &decode.Image{Planes: p}
	img.Width, img.Height = turn.Stored(w, h)
	return img
}

func TestWarpOfPlanesIsWarpOfRGB(t *testing.T) {
	var images []*decode.Image
	for turn := decode.Turn(1); turn <= 8; turn++ {
		images = append(images, planar(300, 201, turn, false, uint64(turn)), planar(57, 130, turn, turn%2 == 0, uint64(turn)))
	}
	images = append(images, planar(8, 8, 1, false, 99), planar(9, 11, 6, true, 98))
	rapid.Check(t, func(t *rapid.T) {
		img := images[rapid.IntRange(0, len(images)-1).Draw(t, "image")]
		scale := math.Exp(rapid.Float64Range(math.Log(0.2), math.Log(20)).Draw(t, "log scale"))
		angle := rapid.Float64Range(-math.Pi, math.Pi).Draw(t, "angle")
		s := Similarity{A: scale * math.Cos(angle), B: scale * math.Sin(angle)}
		cx := rapid.Float64Range(-0.2, 1.2).Draw(t, "x") * float64(img.Width)
		cy := rapid.Float64Range(-0.2, 1.2).Draw(t, "y") * float64(img.Height)
		x, y := s.Apply(cx, cy)
		s.TX, s.TY = 56-x, 56-y
		got, want := Warp(img, s).Pix, plainWarp(img.RGB(), s)
		for i := range want {
			// Half for each rounding: of the picture to RGB, and of the crop.
			if math.Abs(float64(got[i])-want[i]) > 1+0.3 {
				t.Fatalf("sample %d (column %d, row %d): %d, want %.3f with %+v, turn %d", i, i/3%Size, i/3/Size, got[i], want[i], s, img.Planes.Turn)
			}
		}
	})
}

// Any transform of any picture gives a crop: no place outside is read.
func TestWarpOfPlanesTakesAnything(t *testing.T) {
	img := planar(40, 30, 6, false, 1)
	for _, s := range []Similarity{
		{A: 1, TX: 1e6}, {A: 1e-9, TX: 1e9}, {A: 1e9, B: 1e9, TX: -1e300}, {}, {A: math.NaN()}, {A: 1, TX: math.Inf(1)}, {A: 1e-170}, {A: 1e6, TX: -2e7, TY: -1e7},
	} {
		if c := Warp(img, s); len(c.Pix) != 3*Size*Size {
			t.Errorf("%+v: %d bytes", s, len(c.Pix))
		}
	}
	img.Planes = nil // released
	for _, v := range Warp(img, Similarity{A: 1}).Pix {
		if v != 0 {
			t.Fatal("a picture without pixels is not black")
		}
	}
}

func BenchmarkAlignPlanes(b *testing.B) {
	img := planar(1280, 720, 1, false, 9)
	lm := place(Similarity{A: 2 * math.Cos(0.2), B: 2 * math.Sin(0.2), TX: 400, TY: 200})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Align(img, lm); err != nil {
			b.Fatal(err)
		}
	}
}
