//go:build turbo

package decode

import (
	"bytes"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"
	"testing"

	"github.com/menshen-io/menshen/internal/fixtures"
)

// bothDecoders returns what each decoder makes of a file, nil where it refuses
// it or leaves it to the other.
func bothDecoders(t testing.TB, data []byte, reduction int, buffers *Buffers) (turbo, std *Planes) {
	t.Helper()
	f, err := jpegFrame(data, DefaultLimits())
	if err != nil {
		return nil, nil
	}
	turbo = turboPlanes(data, f, reduction, buffers)
	if src, err := jpeg.Decode(bytes.NewReader(data)); err == nil {
		std = planesOf(src, upright)
	}
	return turbo, std
}

// planeDistance returns the mean and largest difference of two planes' samples.
func planeDistance(a []byte, strideA int, b []byte, strideB, w, h int) (mean float64, largest int) {
	for y := range h {
		for x := range w {
			d := int(a[y*strideA+x]) - int(b[y*strideB+x])
			d = max(d, -d)
			mean += float64(d) / float64(w*h)
			largest = max(largest, d)
		}
	}
	return mean, largest
}

func samePlanes(t *testing.T, name string, a, b *Planes) {
	t.Helper()
	if a.Width != b.Width || a.Height != b.Height || a.ShareX != b.ShareX && a.Cb != nil || a.ShareY != b.ShareY && a.Cb != nil || (a.Cb == nil) != (b.Cb == nil) {
		t.Fatalf("%s: %d x %d shared %d x %d, want %d x %d shared %d x %d", name, a.Width, a.Height, a.ShareX, a.ShareY, b.Width, b.Height, b.ShareX, b.ShareY)
	}
	cw, ch := a.ChromaSize()
	for i, pair := range [][2][]byte{{a.Y, b.Y}, {a.Cb, b.Cb}, {a.Cr, b.Cr}} {
		w, h, sa, sb := a.Width, a.Height, a.YStride, b.YStride
		if i > 0 {
			w, h, sa, sb = cw, ch, a.CStride, b.CStride
		}
		// Two exact inverse transforms may round differently.
		if mean, largest := planeDistance(pair[0], sa, pair[1], sb, w, h); mean > 0.1 || largest > 2 {
			t.Errorf("%s, plane %d: differs by %.3f on average, %d at most", name, i, mean, largest)
		}
	}
}

func TestDecodersAgree(t *testing.T) {
	for file, shared := range map[string]bool{
		"ycc444.jpg": true, "ycc422.jpg": true, "ycc440.jpg": true, "ycc420.jpg": true, "ycc411.jpg": true,
		"progressive.jpg": true, "restart.jpg": true, "grey.jpg": true, "grey-progressive.jpg": true,
		"rgb.jpg": false, "ycck.jpg": false, "ycck-progressive.jpg": false, "arithmetic.jpg": false,
	} {
		turbo, std := bothDecoders(t, readTestdata(t, file), 1, nil)
		if !shared {
			if turbo != nil {
				t.Errorf("%s is not left to the standard library", file)
			}
			continue
		}
		if turbo == nil || std == nil {
			t.Errorf("%s: libjpeg-turbo %t, standard library %t", file, turbo != nil, std != nil)
			continue
		}
		samePlanes(t, file, turbo, std)
	}
	photos, err := filepath.Glob(filepath.Join(fixtures.Dir(t), "photos", "*.jpg"))
	if err != nil || len(photos) == 0 {
		t.Fatal(photos, err)
	}
	for _, file := range photos {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		turbo, std := bothDecoders(t, data, 1, nil)
		if turbo == nil || std == nil {
			t.Fatalf("%s: libjpeg-turbo %t, standard library %t", file, turbo != nil, std != nil)
		}
		samePlanes(t, filepath.Base(file), turbo, std)
	}
}

// A reduced picture is the whole one averaged, about, sample by sample: in the
// same place, of the same light. Sides that no reduction divides are among them.
func TestReducedIsTheAverage(t *testing.T) {
	for _, size := range [][2]int{{640, 480}, {641, 479}, {333, 250}, {16, 9}} {
		m := image.NewRGBA(image.Rect(0, 0, size[0], size[1]))
		for y := range size[1] {
			for x := range size[0] {
				i := m.PixOffset(x, y)
				m.Pix[i], m.Pix[i+1], m.Pix[i+2], m.Pix[i+3] = byte(x*200/size[0]), byte(y*200/size[1]), byte(200-x*150/size[0]), 255
			}
		}
		data := encodeJPEG(t, m)
		for _, r := range []int{2, 4, 8} {
			small, whole := bothDecoders(t, data, r, nil)
			if small == nil || small.Reduction != r || small.Width != (size[0]+r-1)/r || small.Height != (size[1]+r-1)/r {
				t.Fatalf("%v by %d: %+v", size, r, small)
			}
			var worst float64
			for y := range small.Height {
				for x := range small.Width {
					var sum, n float64
					for v := y * r; v < min((y+1)*r, whole.Height); v++ {
						for u := x * r; u < min((x+1)*r, whole.Width); u++ {
							sum, n = sum+float64(whole.Y[v*whole.YStride+u]), n+1
						}
					}
					d := float64(small.Y[y*small.YStride+x]) - sum/n
					worst = max(worst, d, -d)
				}
			}
			if worst > 4 {
				t.Errorf("%v by %d: a sample is off by %.1f", size, r, worst)
			}
		}
	}
}

// What a buffer held before never shows: every sample that can be read was
// written by this decoding, padding included.
func TestLentBuffersDoNotLeak(t *testing.T) {
	files := [][]byte{readTestdata(t, "ycc420.jpg"), readTestdata(t, "ycc411.jpg"), readTestdata(t, "progressive.jpg"), readTestdata(t, "grey.jpg"), readTestdata(t, "ycc440.jpg")}
	for _, data := range files {
		for _, r := range []int{1, 2, 4, 8} {
			var got [2][]byte
			for i, poison := range []byte{0x00, 0xff} {
				buffers := &Buffers{}
				buffers.idle.New = func() any {
					dirty := bytes.Repeat([]byte{poison}, 1<<16)
					return &dirty
				}
				p, _ := bothDecoders(t, data, r, buffers)
				if p == nil {
					t.Fatal("not decoded")
				}
				got[i] = append(append(append([]byte{}, p.Y...), p.Cb...), p.Cr...)
			}
			if !bytes.Equal(got[0], got[1]) {
				t.Errorf("reduced by %d, %d bytes: what was there before shows", r, len(data))
			}
		}
	}
}

// A file that libjpeg-turbo decodes without a warning is one that the standard
// library takes too, and means the same size.
func FuzzDecodersAgree(f *testing.F) {
	for _, s := range seeds(f) {
		if Sniff(s) == JPEG {
			f.Add(s, byte(0))
			f.Add(s, byte(1))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, reduction byte) {
		if len(data) > fuzzLimits.MaxBytes || Sniff(data) != JPEG {
			return
		}
		frame, err := jpegFrame(data, fuzzLimits)
		if err != nil {
			return
		}
		if scans, _ := inspectJPEG(data); scans > maxScans {
			return
		}
		p := turboPlanes(data, frame, 1<<(reduction&3), nil)
		if p == nil {
			return
		}
		if !p.place(frame.width, frame.height).Whole() {
			t.Fatalf("%+v: the planes do not fit %d x %d", p, frame.width, frame.height)
		}
		if _, err := jpeg.Decode(bytes.NewReader(data)); err != nil {
			t.Fatalf("libjpeg-turbo takes what the standard library refuses: %v", err)
		}
	})
}
