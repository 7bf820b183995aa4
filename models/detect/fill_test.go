package detect

import (
	"fmt"
	"math"
	"testing"

	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/decode"
)

func TestAxisWeights(t *testing.T) {
	for _, tc := range []struct{ samples, pitch, extent, targets int }{
		{1, 1, 1, 1}, {1, 1, 1, 640}, {2, 1, 2, 640}, {640, 1, 640, 640}, {320, 2, 640, 640}, {321, 2, 641, 640}, {160, 4, 640, 640},
		{960, 2, 1920, 640}, {480, 4, 1920, 640}, {251, 4, 1001, 640}, {2048, 8, 16384, 640}, {16384, 1, 16384, 1}, {8, 1, 8, 1}, {46, 2, 92, 526},
	} {
		for _, one := range []uint32{downOne, 1 << acrossBits} {
			a := newAxis(tc.samples, tc.pitch, tc.extent, tc.targets, one)
			for i, first := range a.first {
				var sum uint32
				var centre float64
				for k, w := range a.weights[i*a.n : (i+1)*a.n] {
					sum += w
					centre += float64(w) * (float64(int(first)+k) + 0.5) * float64(tc.pitch)
				}
				if sum != one || first < 0 || int(first)+a.n > tc.samples {
					t.Fatalf("%+v: target %d: %d weights from %d sum to %d, want %d", tc, i, a.n, first, sum, one)
				}
				// The weights' centre is where the target is, to within half a
				// sample of what repeating samples must lose, and the rounding.
				want := (float64(i) + 0.5) * float64(tc.extent) / float64(tc.targets)
				if d := math.Abs(centre/float64(one) - want); d > float64(tc.pitch)/2+float64(a.n*tc.pitch)/float64(one)*float64(a.n) {
					t.Fatalf("%+v: target %d lies at %.2f, want %.2f", tc, i, centre/float64(one), want)
				}
			}
		}
	}
}

// drawnPlanes is a smooth picture in planes of w x h stored pixels, of colours
// that RGB can hold.
func drawnPlanes(w, h, shareX, shareY, reduction int, turn decode.Turn, grey bool) *decode.Image {
	p := &decode.Planes{Width: (w + reduction - 1) / reduction, Height: (h + reduction - 1) / reduction, ShareX: shareX, ShareY: shareY, Reduction: reduction, Turn: turn}
	plane := func(n, m, pitchX, pitchY, phase int) ([]byte, int) {
		stride := n + 3
		out := make([]byte, stride*m)
		for i := range out {
			out[i] = 255 // beside the picture: must not show
		}
		for y := range m {
			for x := range n {
				u, v := (float64(x)+0.5)*float64(pitchX)/float64(w), (float64(y)+0.5)*float64(pitchY)/float64(h)
				out[y*stride+x] = byte(120 + 30*math.Sin(3*u+float64(phase)) + 20*v)
			}
		}
		return out, stride
	}
	p.Y, p.YStride = plane(p.Width, p.Height, reduction, reduction, 0)
	if !grey {
		p.Cb = []byte{} // ChromaSize asks whether there are any
		cw, ch := p.ChromaSize()
		p.Cb, p.CStride = plane(cw, ch, reduction*shareX, reduction*shareY, 1)
		p.Cr, _ = plane(cw, ch, reduction*shareX, reduction*shareY, 2)
	}
	img := &decode.Image{Planes: p}
	img.Width, img.Height = turn.Stored(w, h)
	return img
}

// The planes give the input that their conversion to RGB gives, whatever was in
// the tensor before: every way of sharing chroma, turn, and change of size.
func TestFillPlanesIsFillOfRGB(t *testing.T) {
	in := models.Input{Color: models.ColorBGR, Mean: [3]float32{10, 20, 30}, Scale: [3]float32{1, 0.5, 2}}
	for _, size := range [][2]int{{64, 48}, {48, 64}, {63, 47}, {200, 120}, {131, 97}, {50, 37}} {
		for _, share := range [][2]int{{1, 1}, {2, 2}, {2, 1}, {1, 2}, {4, 1}, {0, 0}} {
			for turn := decode.Turn(1); turn <= 8; turn++ {
				name := fmt.Sprintf("%v, shared %v, turn %d", size, share, turn)
				img := drawnPlanes(size[0], size[1], max(share[0], 1), max(share[1], 1), 1, turn, share[0] == 0)
				if !img.Whole() {
					t.Fatal(name, "is not whole")
				}
				y := &YuNet{w: 64, h: 64, planes: newPlanes(in)}
				box := y.letterbox(img.Width, img.Height)
				got, want := make([]float32, 3*64*64), make([]float32, 3*64*64)
				for i := range got {
					got[i] = float32(math.NaN())
				}
				y.fillPlanes(got, box, img)
				y.planes.fill(want, box, img.RGB())
				for i := range want {
					// Two levels for the rounding in two steps, and what smoothing
					// chroma changes: a group is some levels wide.
					if d := math.Abs(float64(got[i]-want[i])) / float64(in.Scale[i/4096]); !(d <= 2+2*float64(max(share[0], share[1]))) {
						t.Fatalf("%s: plane %d, (%d, %d): %g, want %g", name, i/4096, i%64, i/64%64, got[i], want[i])
					}
				}
			}
		}
	}
}

// A picture decoded at a reduced size lies in the same place.
func TestFillOfReducedPictures(t *testing.T) {
	for _, size := range [][2]int{{256, 192}, {257, 190}, {190, 257}, {511, 300}} {
		for _, turn := range []decode.Turn{1, 3, 6} {
			y := &YuNet{w: 64, h: 64, planes: newPlanes(models.Input{Scale: [3]float32{1, 1, 1}})}
			whole, half := drawnPlanes(size[0], size[1], 2, 2, 1, turn, false), drawnPlanes(size[0], size[1], 2, 2, 2, turn, false)
			box := y.letterbox(whole.Width, whole.Height)
			a, b := make([]float32, 3*64*64), make([]float32, 3*64*64)
			y.fillPlanes(a, box, whole)
			y.fillPlanes(b, box, half)
			for i := range a {
				if d := math.Abs(float64(a[i] - b[i])); !(d <= 4) {
					t.Fatalf("%v, turn %d: plane %d, (%d, %d): %g from the half size, %g from the whole", size, turn, i/4096, i%64, i/64%64, b[i], a[i])
				}
			}
		}
	}
}

func TestFillPlanesDoesNotAllocate(t *testing.T) {
	y := &YuNet{w: 640, h: 640, planes: newPlanes(models.Input{Scale: [3]float32{1, 1, 1}})}
	img := drawnPlanes(1280, 720, 2, 2, 1, 1, false)
	box, in := y.letterbox(1280, 720), make([]float32, 3*640*640)
	y.fillPlanes(in, box, img)
	// A garbage collection takes the plan: one run of many may make a new one.
	if n := testing.AllocsPerRun(50, func() { y.fillPlanes(in, box, img) }); n > 1 {
		t.Errorf("%g allocations", n)
	}
}

func BenchmarkFillPlanes(b *testing.B) {
	y := &YuNet{w: 640, h: 640, planes: newPlanes(models.Input{Color: models.ColorBGR, Scale: [3]float32{1, 1, 1}})}
	in := make([]float32, 3*640*640)
	for _, tc := range []struct{ w, h, reduction int }{{640, 480, 1}, {1280, 720, 1}, {1280, 720, 2}, {1920, 1080, 1}, {1920, 1080, 2}} {
		img := drawnPlanes(tc.w, tc.h, 2, 2, tc.reduction, 1, false)
		box := y.letterbox(tc.w, tc.h)
		b.Run(fmt.Sprintf("size=%dx%d/reduction=%d", tc.w, tc.h, tc.reduction), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				y.fillPlanes(in, box, img)
			}
		})
	}
}
