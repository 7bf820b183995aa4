package decode

import (
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"path/filepath"
	"testing"
)

// fuzzLimits keeps one fuzzed call small.
var fuzzLimits = Limits{MaxBytes: 1 << 20, MaxPixels: 1 << 16, MaxSide: 4096}

// seeds returns one small file of each kind, made in code or from testdata.
func seeds(t testing.TB) [][]byte {
	small := image.Rect(0, 0, 16, 12)
	gray16, pal := image.NewGray16(small), image.NewPaletted(small, color.Palette{color.Black, color.Transparent})
	nrgba64 := image.NewNRGBA64(small)
	for i := range nrgba64.Pix {
		nrgba64.Pix[i] = byte(i * 5)
	}
	out := [][]byte{
		encodePNG(t, drawnImage()), encodePNG(t, gray16), encodePNG(t, pal), encodePNG(t, nrgba64),
		encodeJPEG(t, drawnImage()), encodeJPEG(t, image.NewGray(small)),
		withAPP1(encodeJPEG(t, image.NewGray(small)), tiffBlock(binary.BigEndian, 3, 6)),
		withEXIF(encodePNG(t, gray16), tiffBlock(binary.LittleEndian, 3, 5), true),
		pngBomb(8000, 6000, 8, 2), jpegBomb(8000, 6000),
		[]byte("P5 8 8 255\n0123456701234567012345670123456701234567012345670123456701234567"),
		[]byte("P6\n# c\n8 8 65535\n"), []byte("GIF89a"), []byte("RIFF0000WEBP"),
	}
	files, err := filepath.Glob("testdata/*.[jp][pn]g")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		out = append(out, readTestdata(t, filepath.Base(f)))
	}
	return out
}

// checkDecoded asserts what holds for any input: a whole image within the
// limits, or one of the stage's errors and no image.
func checkDecoded(t *testing.T, img *Image, err error) {
	if err != nil {
		for _, known := range []error{ErrEmpty, ErrFormat, ErrCorrupt, ErrTooLarge, ErrTooSmall} {
			if errors.Is(err, known) {
				if img != nil {
					t.Fatal("an image beside an error")
				}
				return
			}
		}
		t.Fatalf("an error of no kind: %v", err)
	}
	if img.Width < MinSide || img.Height < MinSide || img.Width > fuzzLimits.MaxSide || img.Height > fuzzLimits.MaxSide ||
		int64(img.Width)*int64(img.Height) > fuzzLimits.MaxPixels || !img.Whole() {
		t.Fatalf("%d x %d, whole: %t", img.Width, img.Height, img.Whole())
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := Decode(data, fuzzLimits)
		checkDecoded(t, img, err)
	})
}

func FuzzDecodeAny(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := DecodeAny(data, fuzzLimits)
		checkDecoded(t, img, err)
	})
}

func FuzzEXIF(f *testing.F) {
	for _, kind := range []uint16{1, 3, 4, 7} {
		f.Add(tiffBlock(binary.BigEndian, kind, 6))
		f.Add(tiffBlock(binary.LittleEndian, kind, 8))
	}
	f.Add([]byte("II*\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := exifOrientation(data)
		if o < upright || o > quarterTurnL {
			t.Fatalf("orientation %d", o)
		}
		// Every stored pixel has its own place in the upright image.
		const w, h = 5, 3
		stride, _ := o.Stored(w, h)
		origin, dx, dy := o.Layout(w, h, stride)
		var seen [w * h]bool
		for y := range h {
			for x := range w {
				at := origin + x*dx + y*dy
				if seen[at] {
					t.Fatalf("two pixels at %d", at)
				}
				seen[at] = true
				if sx, sy := o.Source(float64(at%stride), float64(at/stride), stride, w*h/stride); sx != float64(x) || sy != float64(y) {
					t.Fatalf("orientation %d: upright pixel %d comes from %g, %g, want %d, %d", o, at, sx, sy, x, y)
				}
			}
		}
		inspectJPEG(append([]byte{0xff, 0xd8}, data...))
		if len(data) >= len(pngSignature) {
			pngEXIF(data)
		}
	})
}
