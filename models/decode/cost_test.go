package decode

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"path/filepath"
	"strings"
	"testing"
)

// Measure bounds what Decode allocates, for every kind of file.
func TestMeasureBoundsTheMemory(t *testing.T) {
	// Tables and buffers of the standard decoders, which do not grow.
	const tables = 400 << 10
	files := map[string][]byte{}
	names, err := filepath.Glob("testdata/*.[jp][pn]g")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		files[name] = readTestdata(t, filepath.Base(name))
	}
	r := image.Rect(0, 0, 1024, 768)
	gray16, nrgba, nrgba64 := image.NewGray16(r), image.NewNRGBA(r), image.NewNRGBA64(r)
	gray16.Pix[0], nrgba.Pix[3], nrgba64.Pix[7] = 1, 9, 9
	files["grey jpeg"] = encodeJPEG(t, image.NewGray(r))
	files["4:2:0 jpeg"] = encodeJPEG(t, image.NewYCbCr(r, image.YCbCrSubsampleRatio420))
	files["palette png"] = encodePNG(t, image.NewPaletted(r, color.Palette{color.Black, color.White}))
	files["grey png"] = encodePNG(t, image.NewGray(r))
	files["16-bit grey png"] = encodePNG(t, gray16)
	files["colour png"] = encodePNG(t, nrgba)
	files["16-bit png"] = encodePNG(t, nrgba64)
	for name, data := range files {
		cost, err := Measure(data, Limits{})
		if strings.Contains(name, "arithmetic") {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || cost.Pixels != int64(cost.Width)*int64(cost.Height) || cost.Pixels == 0 {
			t.Errorf("%s: %+v %v", name, cost, err)
			continue
		}
		n := allocated(func() {
			if _, err := Decode(data, Limits{}); err != nil {
				t.Fatal(err)
			}
		})
		if int64(n) > cost.Bytes+tables {
			t.Errorf("%s: %d bytes allocated, %d were measured", name, n, cost.Bytes)
		}
		// And the bound is no guess into the blue. A grey PNG may have a
		// transparent level, which the first header does not tell.
		if cost.Pixels > 1<<19 && int64(n)*4 < cost.Bytes {
			t.Errorf("%s: %d bytes allocated, %d were measured", name, n, cost.Bytes)
		}
	}
}

// Samples a pixel and bytes a sample, as the package comment lists them.
func TestMeasuredBytesPerPixel(t *testing.T) {
	c := func(factors ...int) (out []component) {
		for i := 0; i < len(factors); i += 2 {
			out = append(out, component{byte(i/2 + 1), factors[i], factors[i+1]})
		}
		return out
	}
	for name, tc := range map[string]struct {
		f    frame
		want float64
	}{
		"grey":              {frame{components: c(1, 1)}, 1},
		"grey, odd factors": {frame{components: c(2, 2)}, 1},
		"4:2:0":             {frame{components: c(2, 2, 1, 1, 1, 1)}, 1.5},
		"4:4:4":             {frame{components: c(1, 1, 1, 1, 1, 1)}, 3},
		"rgb":               {frame{components: c(1, 1, 1, 1, 1, 1), untransformed: true}, 10},
		"cmyk":              {frame{components: c(1, 1, 1, 1, 1, 1, 1, 1)}, 11},
		"progressive 4:2:0": {frame{components: c(2, 2, 1, 1, 1, 1), progressive: true}, 7.5},
		"progressive 4:4:4": {frame{components: c(1, 1, 1, 1, 1, 1), progressive: true}, 15},
		"progressive cmyk":  {frame{components: c(1, 1, 1, 1, 1, 1, 1, 1), progressive: true}, 27},
	} {
		tc.f.width, tc.f.height = 1600, 1600
		if got := float64(tc.f.memory()) / (1600 * 1600); got != tc.want {
			t.Errorf("%s: %g bytes a pixel, want %g", name, got, tc.want)
		}
	}
}

func TestMeasureRefusesWhatDecodeRefuses(t *testing.T) {
	for _, data := range append(seeds(t), nil, []byte("x"), []byte("\xff\xd8")) {
		for _, lim := range []Limits{{}, {MaxPixels: 100}, {MaxSide: 20}, {MaxBytes: 30}, {MaxMemory: 1000}} {
			_, measured := Measure(data, lim)
			_, decoded := Decode(data, lim)
			if measured != nil && (decoded == nil || decoded.Error() != measured.Error()) {
				t.Errorf("%.12q, %+v: measured %v, decoded %v", data, lim, measured, decoded)
			}
			if errors.Is(decoded, ErrTooLarge) && measured == nil {
				t.Errorf("%.12q, %+v: too large, and not measured so", data, lim)
			}
		}
	}
}

// A header that would take more memory than is allowed is refused by both,
// before anything is allocated, and says what to do.
func TestMemoryIsBounded(t *testing.T) {
	bomb := jpegBomb(7000, 7000)
	bomb[11] = 4 // four components: CMYK
	bomb = append(bomb[:21], append([]byte{4, 0x11, 0}, bomb[21:]...)...)
	bomb[5] += 3                                           // the segment's length
	bomb = append(bomb, bytes.Repeat([]byte{0}, 1<<20)...) // enough for a bit a block
	for name, f := range map[string]func() error{
		"Measure": func() error { _, err := Measure(bomb, Limits{}); return err },
		"Decode":  func() error { _, err := Decode(bomb, Limits{}); return err },
	} {
		var err error
		n := allocated(func() { err = f() })
		if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "1261 MiB") || n > 1<<20 {
			t.Errorf("%s: %v, %d bytes allocated", name, err, n)
		}
	}
}

func BenchmarkMeasure(b *testing.B) {
	data := encodeJPEG(b, image.NewYCbCr(image.Rect(0, 0, 1920, 1080), image.YCbCrSubsampleRatio420))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Measure(data, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
