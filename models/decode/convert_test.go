package decode

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math/rand/v2"
	"testing"
)

// onWhite is the oracle: the standard library's own compositing.
func onWhite(src image.Image) *Image {
	b := src.Bounds()
	dst := image.NewRGBA64(image.Rect(0, 0, b.Dx(), b.Dy()))
	draw.Draw(dst, dst.Bounds(), image.White, image.Point{}, draw.Src)
	draw.Draw(dst, dst.Bounds(), src, b.Min, draw.Over)
	out := &Image{Width: b.Dx(), Height: b.Dy()}
	for y := range b.Dy() {
		for x := range b.Dx() {
			r, g, b, _ := dst.At(x, y).RGBA()
			out.Pix = append(out.Pix, byte(r>>8), byte(g>>8), byte(b>>8))
		}
	}
	return out
}

// plain hides the type of an image, so that only color.Color is left.
type plain struct{ image.Image }

func TestConversionAgreesWithTheStandardLibrary(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	fill := func(b []byte) {
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
	}
	const w, h = 37, 23
	r := image.Rect(0, 0, w, h)
	sub := image.Rect(4, 3, 33, 21)
	images := map[string]image.Image{}

	gray := image.NewGray(r)
	fill(gray.Pix)
	gray16 := image.NewGray16(r)
	fill(gray16.Pix)
	nrgba := image.NewNRGBA(r)
	fill(nrgba.Pix)
	nrgba64 := image.NewNRGBA64(r)
	fill(nrgba64.Pix)
	cmyk := image.NewCMYK(r)
	fill(cmyk.Pix)
	rgba := image.NewRGBA(r)
	draw.Draw(rgba, r, nrgba, image.Point{}, draw.Src) // premultiplied by the library
	rgba64 := image.NewRGBA64(r)
	draw.Draw(rgba64, r, nrgba64, image.Point{}, draw.Src)
	var palette color.Palette
	for range 200 {
		palette = append(palette, color.NRGBA{byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())})
	}
	paletted := image.NewPaletted(r, palette)
	fill(paletted.Pix)
	for i := range paletted.Pix {
		paletted.Pix[i] %= 200
	}
	type subImager interface {
		image.Image
		SubImage(image.Rectangle) image.Image
	}
	for name, m := range map[string]subImager{
		"gray": gray, "gray16": gray16, "nrgba": nrgba, "nrgba64": nrgba64, "cmyk": cmyk,
		"rgba": rgba, "rgba64": rgba64, "paletted": paletted,
	} {
		images[name] = m
		images[name+" part"] = m.SubImage(sub)
	}
	for _, ratio := range []image.YCbCrSubsampleRatio{
		image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420,
		image.YCbCrSubsampleRatio440, image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410,
	} {
		m := image.NewYCbCr(r, ratio)
		fill(m.Y)
		fill(m.Cb)
		fill(m.Cr)
		images[ratio.String()] = m
		images[ratio.String()+" part"] = m.SubImage(sub)
		images[ratio.String()+" odd part"] = m.SubImage(image.Rect(3, 5, 30, 20))
	}
	images["some other type"] = plain{nrgba64}

	for name, m := range images {
		t.Run(name, func(t *testing.T) {
			got, want := fromImage(m, upright).RGB(), onWhite(m)
			if got.Width != want.Width || got.Height != want.Height || len(got.Pix) != len(want.Pix) {
				t.Fatalf("%d x %d, want %d x %d", got.Width, got.Height, want.Width, want.Height)
			}
			for i := range got.Pix {
				if d := int(got.Pix[i]) - int(want.Pix[i]); d < -1 || d > 1 {
					t.Fatalf("byte %d is %d, want %d", i, got.Pix[i], want.Pix[i])
				}
			}
		})
	}
}

func TestShortPaletteDoesNotPanic(t *testing.T) {
	m := image.NewPaletted(image.Rect(0, 0, 9, 9), color.Palette{color.White})
	m.Pix[0] = 200
	if got := fromImage(m, upright).Pix[:3]; got[0] != 0 || got[1] != 0 || got[2] != 0 {
		t.Errorf("an index beyond the palette is %v, want black", got)
	}
}

func BenchmarkDecode(b *testing.B) {
	m := image.NewRGBA(image.Rect(0, 0, 640, 480))
	for i := range m.Pix {
		m.Pix[i] = byte(i*7 + i/640*3)
	}
	for format, data := range map[Format][]byte{JPEG: encodeJPEG(b, m), PNG: encodePNG(b, m)} {
		b.Run(fmt.Sprintf("format=%s/width=640/height=480", format), func(b *testing.B) {
			b.SetBytes(3 * 640 * 480)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(data, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkConvert(b *testing.B) {
	r := image.Rect(0, 0, 1920, 1080)
	for _, tc := range []struct {
		name string
		m    image.Image
	}{
		{"ycbcr420", image.NewYCbCr(r, image.YCbCrSubsampleRatio420)},
		{"ycbcr444", image.NewYCbCr(r, image.YCbCrSubsampleRatio444)},
		{"gray", image.NewGray(r)},
		{"rgba", image.NewRGBA(r)},
		{"generic", plain{image.NewRGBA(r)}},
	} {
		for _, o := range []Turn{upright, quarterTurn} {
			b.Run(fmt.Sprintf("type=%s/orientation=%d", tc.name, o), func(b *testing.B) {
				b.SetBytes(3 * 1920 * 1080)
				b.ReportAllocs()
				for b.Loop() {
					fromImage(tc.m, o)
				}
			})
		}
	}
}
