package detect

import (
	"math"
	"testing"

	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/decode"
)

func TestResamplingWeights(t *testing.T) {
	for _, tc := range [][2]int{{1, 1}, {1, 640}, {2, 640}, {92, 526}, {640, 640}, {641, 640}, {1000, 640}, {1126, 640}, {16384, 640}, {16384, 1}, {3, 2}} {
		n, m := tc[0], tc[1]
		used := make([]float64, n)
		for i, tp := range resampling(n, m) {
			var sum float64
			for j, w := range tp.weights {
				if w < 0 || tp.first+j >= n || tp.first < 0 {
					t.Fatalf("%d to %d: target %d: weight %v at %d", n, m, i, w, tp.first+j)
				}
				sum += float64(w)
				used[tp.first+j] += float64(w)
			}
			if math.Abs(sum-1) > 1e-4 {
				t.Errorf("%d to %d: weights of target %d sum to %v", n, m, i, sum)
			}
		}
		if n > m {
			// Reducing looks at every source pixel alike: none is skipped.
			for j, u := range used {
				if math.Abs(u-float64(m)/float64(n)) > 1e-3 {
					t.Fatalf("%d to %d: source pixel %d has weight %v", n, m, j, u)
				}
			}
		}
	}
}

func TestFillPlacesColoursAndBlack(t *testing.T) {
	// Left half red, right half blue, 8 x 4, into 32 x 32 at scale 4.
	img := &decode.Image{Width: 8, Height: 4, Pix: make([]byte, 3*32)}
	for i := range 32 {
		if i%8 < 4 {
			img.Pix[3*i] = 200
		} else {
			img.Pix[3*i+2] = 100
		}
	}
	y := &YuNet{w: 32, h: 32}
	box := y.letterbox(8, 4)
	if box.w != 32 || box.h != 16 || box.toX != 0.25 || box.toY != 0.25 {
		t.Fatalf("%+v", box)
	}
	p := newPlanes(models.Input{Color: models.ColorBGR, Scale: [3]float32{1, 1, 1}})
	in := make([]float32, 3*32*32)
	for i := range in {
		in[i] = 77 // what an earlier run left
	}
	p.fill(in, box, img)
	at := func(plane, y, x int) float32 { return in[plane*1024+y*32+x] }
	for _, tc := range []struct {
		plane, y, x int
		want        float32
	}{
		{2, 0, 0, 200}, {0, 0, 0, 0}, {0, 15, 31, 100}, {2, 15, 31, 0}, {1, 8, 8, 0},
		{2, 8, 8, 200}, {0, 16, 31, 0}, {2, 16, 0, 0}, {2, 31, 31, 0},
	} {
		if got := at(tc.plane, tc.y, tc.x); math.Abs(float64(got-tc.want)) > 1e-3 {
			t.Errorf("plane %d, (%d, %d): %v, want %v", tc.plane, tc.x, tc.y, got, tc.want)
		}
	}
	// Mean and scale reach the border too: black is a level like any other.
	p = newPlanes(models.Input{Color: models.ColorRGB, Mean: [3]float32{100, 100, 100}, Scale: [3]float32{0.5, 0.5, 0.5}})
	p.fill(in, box, img)
	if at(0, 0, 0) != 50 || at(0, 31, 31) != -50 {
		t.Errorf("normalised: %v, %v", at(0, 0, 0), at(0, 31, 31))
	}
}

func TestLetterboxSizes(t *testing.T) {
	static := &YuNet{w: 640, h: 640}
	dynamic := &YuNet{opt: Options{InputSize: 640}}
	for _, tc := range []struct {
		y                *YuNet
		w, h             int
		inW, inH, tw, th int
	}{
		{static, 970, 2204, 640, 640, 282, 640},
		{static, 92, 112, 640, 640, 526, 640},
		{static, 16384, 1, 640, 640, 640, 1},
		{static, 1, 1, 640, 640, 640, 640},
		{dynamic, 970, 2204, 288, 640, 282, 640},
		{dynamic, 427, 240, 640, 384, 640, 360},
		{dynamic, 1, 16384, 32, 640, 1, 640},
		{dynamic, 640, 640, 640, 640, 640, 640},
	} {
		b := tc.y.letterbox(tc.w, tc.h)
		if b.inW != tc.inW || b.inH != tc.inH || b.w != tc.tw || b.h != tc.th {
			t.Errorf("%d x %d: %+v, want input %d x %d, image %d x %d", tc.w, tc.h, b, tc.inW, tc.inH, tc.tw, tc.th)
		}
	}
}

func BenchmarkFill(b *testing.B) {
	y := &YuNet{w: 640, h: 640}
	p := newPlanes(models.Input{Color: models.ColorBGR, Scale: [3]float32{1, 1, 1}})
	in := make([]float32, 3*640*640)
	for name, img := range map[string]*decode.Image{"92x112": plain(92, 112, 9), "640x480": plain(640, 480, 9), "1920x1080": plain(1920, 1080, 9), "8000x6000": plain(8000, 6000, 9)} {
		box := y.letterbox(img.Width, img.Height)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(img.Pix)))
			for b.Loop() {
				p.fill(in, box, img)
			}
		})
	}
}
