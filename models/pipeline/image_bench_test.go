package pipeline

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"
	"testing"

	xdraw "golang.org/x/image/draw"

	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
)

// cameraJPEG makes what a gate camera of w x h pixels sends: one of the fixtures'
// photos, scaled to fill the height and set in the middle of a picture that the
// same photo, enlarged, fills.
func cameraJPEG(t testing.TB, w, h int) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(fixtures.Dir(t), "photos", "obama.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	src, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	b := src.Bounds()
	dst := image.NewRGBA(image.Rect(0, 0, w, h))
	xdraw.ApproxBiLinear.Scale(dst, dst.Bounds(), src, image.Rect(0, b.Dy()*2/3, b.Dx(), b.Dy()), xdraw.Src, nil)
	width := h * b.Dx() / b.Dy()
	xdraw.CatmullRom.Scale(dst, image.Rect((w-width)/2, 0, (w+width)/2, h), src, b, xdraw.Src, nil)
	var out bytes.Buffer
	if err := jpeg.Encode(&out, dst, &jpeg.Options{Quality: 85}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func BenchmarkImagePath(b *testing.B) {
	p := mustOpen(b, realModels(b))
	for _, size := range [][2]int{{640, 480}, {1920, 1080}} {
		data := cameraJPEG(b, size[0], size[1])
		name := fmt.Sprintf("/size=%dx%d", size[0], size[1])
		b.Run("stage=std"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				jpeg.Decode(bytes.NewReader(data))
			}
		})
		b.Run("stage=decode"+name, func(b *testing.B) {
			b.ReportMetric(float64(len(data)), "filebytes")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decode.Decode(data, decode.Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("stage=decode-reduced"+name, func(b *testing.B) {
			b.ReportAllocs()
			var buffers decode.Buffers
			for b.Loop() {
				img, err := decode.DecodeWith(data, decode.Options{Enough: p.Detector().Enough, Buffers: &buffers})
				if err != nil {
					b.Fatal(err)
				}
				img.Release()
			}
		})
		img, err := decode.DecodeWith(data, decode.Options{Enough: p.Detector().Enough})
		if err != nil {
			b.Fatal(err)
		}
		faces, err := p.Detector().Detect(b.Context(), img)
		if err != nil || len(faces) == 0 {
			b.Fatal(faces, err)
		}
		b.Run("stage=detect"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Detector().Detect(b.Context(), img)
			}
		})
		b.Run("stage=align"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				align.Align(img, faces[0].Landmarks)
			}
		})
		b.Run("stage=observe+crop"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s, err := p.Observe(b.Context(), data)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := p.Crop(b.Context(), s, 0); err != nil {
					b.Fatal(err)
				}
				s.Release()
			}
		})
		crop, _ := align.Align(img, faces[0].Landmarks)
		b.Run("stage=embed"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Embed(b.Context(), crop)
			}
		})
	}
}
