package decode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The picture of testdata: see its README.
const drawnW, drawnH = 45, 31

func drawn(x, y int) [3]int { return [3]int{40 + 4*x, 30 + 6*y, 200 - 3*x} }

func drawnImage() *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, drawnW, drawnH))
	for y := range drawnH {
		for x := range drawnW {
			c := drawn(x, y)
			m.SetNRGBA(x, y, color.NRGBA{uint8(c[0]), uint8(c[1]), uint8(c[2]), 255})
		}
	}
	return m
}

func readTestdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func encodePNG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func encodeJPEG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// distance returns the mean and largest difference of a sample between img and
// the drawn picture passed through f.
func distance(img *Image, f func(c [3]int) [3]int) (mean float64, largest int) {
	img = img.RGB()
	for y := range img.Height {
		for x := range img.Width {
			want := f(drawn(x, y))
			for k := range 3 {
				d := int(img.Pix[3*(y*img.Width+x)+k]) - want[k]
				d = max(d, -d)
				mean += float64(d) / float64(len(img.Pix))
				largest = max(largest, d)
			}
		}
	}
	return mean, largest
}

func TestEveryKindOfFile(t *testing.T) {
	same := func(c [3]int) [3]int { return c }
	grey := func(c [3]int) [3]int {
		l := (2126*c[0] + 7152*c[1] + 722*c[2] + 5000) / 10000 // ITU-R BT.709, as convert does
		return [3]int{l, l, l}
	}
	for _, tc := range []struct {
		file    string
		mean    float64
		largest int
		want    func([3]int) [3]int
	}{
		{"ycc444.jpg", 2, 8, same},
		// Chroma is repeated: up to half a group's colour step beside it.
		{"ycc422.jpg", 3, 12, same},
		{"ycc440.jpg", 3, 12, same},
		{"ycc420.jpg", 3, 14, same},
		{"ycc411.jpg", 5, 20, same},
		{"progressive.jpg", 3, 14, same},
		{"restart.jpg", 3, 14, same},
		{"rgb.jpg", 2, 8, same},
		{"ycck.jpg", 2, 10, same},
		{"ycck-progressive.jpg", 2, 10, same},
		{"grey.jpg", 2, 8, grey},
		{"grey-progressive.jpg", 2, 8, grey},
		{"interlaced.png", 0, 0, same},
		{"interlaced-palette.png", 20, 100, same}, // 16 colours, dithered
	} {
		t.Run(tc.file, func(t *testing.T) {
			img, err := Decode(readTestdata(t, tc.file), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if img.Width != drawnW || img.Height != drawnH || !img.Whole() {
				t.Fatalf("%d x %d, whole: %t", img.Width, img.Height, img.Whole())
			}
			mean, largest := distance(img, tc.want)
			if mean > tc.mean || largest > tc.largest {
				t.Errorf("differs from the drawing by %.2f on average (allowed %g), %d at most (%d)", mean, tc.mean, largest, tc.largest)
			}
		})
	}
}

func TestPNGRoundTripIsExact(t *testing.T) {
	img, err := Decode(encodePNG(t, drawnImage()), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	data, err := img.EncodePNG()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(data, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if _, largest := distance(again, func(c [3]int) [3]int { return c }); largest != 0 {
		t.Errorf("a sample changed by %d", largest)
	}
	if _, err := (&Image{Width: 4, Height: 4, Pix: make([]byte, 5)}).EncodePNG(); err == nil {
		t.Error("an image whose pixels do not fit its size was encoded")
	}
}

// header returns the start of a PNG file of that size, with a few bytes of
// image data.
func pngBomb(w, h uint32, depth, colourType byte) []byte {
	chunk := func(kind string, body []byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
		b = append(b, kind...)
		b = append(b, body...)
		return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
	}
	ihdr := binary.BigEndian.AppendUint32(nil, w)
	ihdr = binary.BigEndian.AppendUint32(ihdr, h)
	ihdr = append(ihdr, depth, colourType, 0, 0, 0)
	b := append([]byte(pngSignature), chunk("IHDR", ihdr)...)
	return append(b, chunk("IDAT", []byte{0x78, 0x9c, 0x63, 0x00})...)
}

// jpegBomb returns a JPEG of a few dozen bytes that announces w x h pixels in
// three components, progressive.
func jpegBomb(w, h uint16) []byte {
	b := []byte{0xff, 0xd8, 0xff, 0xc2, 0, 17, 8, byte(h >> 8), byte(h), byte(w >> 8), byte(w), 3}
	b = append(b, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0)
	return append(b, 0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 0, 0, 0xff, 0xd9)
}

// allocated runs f and returns how many bytes it allocated.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestBombsAreRefusedBeforeAllocation(t *testing.T) {
	for _, tc := range []struct {
		name string
		data []byte
		want error
	}{
		{"png 4 Gpx a side", pngBomb(1<<31-1, 1<<31-1, 8, 2), ErrTooLarge},
		{"png side", pngBomb(20000, 100, 8, 2), ErrTooLarge},
		{"png pixels", pngBomb(16000, 16000, 8, 2), ErrTooLarge},
		{"png within the limits, nothing in it", pngBomb(8000, 6000, 16, 6), ErrTruncated},
		{"png 1 bit", pngBomb(7000, 7000, 1, 0), ErrTruncated},
		{"jpeg side", jpegBomb(65535, 65535), ErrTooLarge},
		{"jpeg pixels", jpegBomb(16000, 16000), ErrTooLarge},
		{"jpeg within the limits, nothing in it", jpegBomb(8000, 6000), ErrTruncated},
		{"jpeg without height", jpegBomb(100, 0), ErrCorrupt},
		{"pnm", []byte("P6 16000 16000 255\n"), ErrTooLarge},
		{"pnm overflow", []byte("P6 999999999 999999999 255\n"), ErrTooLarge},
		{"pnm digits", []byte("P6 99999999999999999999 1 255\n"), ErrCorrupt},
		{"pnm within the limits, nothing in it", []byte("P5 7000 7000 65535\n"), ErrTruncated},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var err error
			n := allocated(func() { _, err = DecodeAny(tc.data, Limits{}) })
			if !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
			if n > 1<<20 {
				t.Errorf("%d bytes allocated for a file of %d bytes", n, len(tc.data))
			}
		})
	}
}

func TestScansAreBounded(t *testing.T) {
	data := readTestdata(t, "progressive.jpg")
	at := bytes.Index(data, []byte{0xff, 0xda})
	if n, _ := inspectJPEG(data); n < 3 || n > 20 {
		t.Fatalf("a progressive file of an ordinary encoder counts %d scans", n)
	}
	// The first scan, over and over.
	end := at + 2 + bytes.Index(data[at+2:], []byte{0xff, 0xc4})
	many := append([]byte{}, data[:at]...)
	for range maxScans + 1 {
		many = append(many, data[at:end]...)
	}
	many = append(many, 0xff, 0xd9)
	for name, f := range map[string]func() error{
		"Measure": func() error { _, err := Measure(many, Limits{}); return err },
		"Decode":  func() error { _, err := Decode(many, Limits{}); return err },
	} {
		if err := f(); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "scans") {
			t.Errorf("%s: %d scans: %v", name, maxScans+1, err)
		}
	}
	if cost, err := Measure(data, Limits{}); err != nil || cost.Passes < 3 || cost.Passes > 20 {
		t.Errorf("%+v, %v", cost, err)
	}
	if cost, err := Measure(encodePNG(t, drawnImage()), Limits{}); err != nil || cost.Passes != 1 {
		t.Errorf("%+v, %v", cost, err)
	}
}

func TestLimits(t *testing.T) {
	data := encodePNG(t, drawnImage())
	for _, tc := range []struct {
		lim  Limits
		want error
	}{
		{Limits{MaxBytes: len(data)}, nil},
		{Limits{MaxBytes: len(data) - 1}, ErrTooLarge},
		{Limits{MaxPixels: drawnW * drawnH}, nil},
		{Limits{MaxPixels: drawnW*drawnH - 1}, ErrTooLarge},
		{Limits{MaxSide: drawnW}, nil},
		{Limits{MaxSide: drawnW - 1}, ErrTooLarge},
		{Limits{MaxBytes: -1, MaxPixels: -1, MaxSide: -1}, nil},
	} {
		if _, err := Decode(data, tc.lim); !errors.Is(err, tc.want) {
			t.Errorf("%+v: %v, want %v", tc.lim, err, tc.want)
		}
	}
	for _, side := range []int{1, MinSide - 1, MinSide} {
		_, err := Decode(encodePNG(t, image.NewGray(image.Rect(0, 0, side, 100))), Limits{})
		if (side < MinSide) != errors.Is(err, ErrTooSmall) {
			t.Errorf("%d pixels a side: %v", side, err)
		}
	}
}

func TestForeignFormatsAreNamed(t *testing.T) {
	box := func(brand string) string { return "\x00\x00\x00\x20ftyp" + brand + "\x00\x00\x00\x00" }
	for text, want := range map[string]string{
		"GIF89a\x01\x00\x01\x00":      "a GIF image",
		"RIFF\x00\x00\x00\x00WEBPVP8": "a WebP image",
		"BM\x00\x00\x00\x00":          "a BMP image",
		"II*\x00\x08\x00\x00\x00":     "a TIFF",
		"MM\x00*\x00\x00\x00\x08":     "a TIFF",
		box("heic"):                   "a HEIC image",
		box("avif"):                   "an AVIF image",
		box("isom"):                   "video",
		"%PDF-1.7\n":                  "a PDF document",
		"<svg xmlns=":                 "an SVG drawing",
		"/9j/4AAQSkZJRg":              "base64",
		"P3 1 1 255 0 0 0":            "PNM",
		"hello, this is no image":     "no known image format",
		"\x00":                        "no known image format",
	} {
		for name, f := range map[string]func([]byte, Limits) (*Image, error){"Decode": Decode, "DecodeAny": DecodeAny} {
			_, err := f([]byte(text), Limits{})
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "send JPEG") {
				t.Errorf("%s(%q): %v, want ErrFormat with %q and what to send", name, text, err, want)
			}
		}
	}
	pgm := append([]byte("P5 10 10 255\n"), make([]byte, 100)...)
	if _, err := Decode(pgm, Limits{}); !errors.Is(err, ErrFormat) {
		t.Errorf("the service's Decode takes a PGM: %v", err)
	}
	if _, err := Decode(nil, Limits{}); !errors.Is(err, ErrEmpty) {
		t.Errorf("no bytes: %v", err)
	}
	if _, err := Decode(readTestdata(t, "arithmetic.jpg"), Limits{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "save it again") {
		t.Errorf("arithmetic coding: %v", err)
	}
	// Four components that nobody says are CMYK.
	ycck := readTestdata(t, "ycck.jpg")
	plain := append([]byte{0xff, 0xd8}, ycck[2+16:]...)
	if _, err := Decode(plain, Limits{}); !errors.Is(err, ErrFormat) {
		t.Errorf("four components without an Adobe marker: %v", err)
	}
}

// Every proper prefix of every kind of file is refused as truncated or damaged:
// no file that lost its end passes for a whole one.
func TestTruncatedFilesAreRefused(t *testing.T) {
	files, err := filepath.Glob("testdata/*.[jp][pn]g")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if strings.Contains(file, "arithmetic") {
			continue
		}
		data := readTestdata(t, filepath.Base(file))
		for n := 1; n < len(data); n++ {
			if _, err := Decode(data[:n], Limits{}); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s cut to %d of %d bytes: %v", file, n, len(data), err)
			}
		}
		_, err := Decode(data[:len(data)*2/3], Limits{})
		if !errors.Is(err, ErrTruncated) && !strings.Contains(err.Error(), "send the file again") {
			t.Errorf("%s cut to two thirds: %v", file, err)
		}
	}
	ppm := []byte("P6 8 8 255\n" + strings.Repeat("x", 3*64))
	for n := 3; n < len(ppm); n++ {
		if _, err := DecodeAny(ppm[:n], Limits{}); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("a PPM cut to %d bytes: %v", n, err)
		}
	}
}

func TestPNM(t *testing.T) {
	body8 := strings.Repeat("\x00\x7f\xff\x40", 16)
	for _, tc := range []struct {
		name, data string
		want       [3]byte // the second pixel
	}{
		{"grey", "P5 8 8 255\n" + body8, [3]byte{0x7f, 0x7f, 0x7f}},
		{"comments", "P5# a\n#b\r 8#c\n8\t# d\n255\n" + body8, [3]byte{0x7f, 0x7f, 0x7f}},
		{"colour", "P6\n8 8\n255\n" + body8 + body8 + body8, [3]byte{0x40, 0x00, 0x7f}},
		{"7 bits", "P5 8 8 127\n" + body8, [3]byte{0xff, 0xff, 0xff}},
		{"2 values", "P5 8 8 2\n" + strings.Repeat("\x00\x01", 32), [3]byte{128, 128, 128}},
		{"16 bits", "P5 8 8 65535\n" + strings.Repeat("\x00\x00\x80\x00", 32), [3]byte{128, 128, 128}},
		{"12 bits colour", "P6 8 8 4095\n" + strings.Repeat("\x08\x00\x0f\xff\x00\x00", 64), [3]byte{128, 255, 0}},
		{"more images behind", "P5 8 8 255\n" + body8 + "P5 8 8 255\n" + body8, [3]byte{0x7f, 0x7f, 0x7f}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img, err := DecodeAny([]byte(tc.data), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if img.Width != 8 || img.Height != 8 || [3]byte(img.Pix[3:6]) != tc.want {
				t.Errorf("%d x %d, second pixel %v, want %v", img.Width, img.Height, img.Pix[3:6], tc.want)
			}
		})
	}
	for _, bad := range []string{"P5 8 8 0\n" + body8, "P5 8 8 65536\n" + body8, "P5 8 -8 255\n" + body8, "P5 0 8 255\n" + body8, "P5 8 x", "P5 8 8 255", "P5 #"} {
		if _, err := DecodeAny([]byte(bad), Limits{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%.12q: %v", bad, err)
		}
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("a name that lies.gif", encodeJPEG(t, drawnImage()))
	if img, err := ReadFile(good, Limits{}); err != nil || img.Width != drawnW {
		t.Errorf("%v %v", img, err)
	}
	for path, want := range map[string]error{
		write("empty.jpg", nil):                     ErrEmpty,
		write("text.png", []byte("not an image")):   ErrFormat,
		write("cut.png", []byte("\x89PNG\r\n\x1a")): ErrTruncated,
		write("big.jpg", make([]byte, 5000)):        ErrTooLarge,
		dir:                                         ErrFormat,
		filepath.Join(dir, "absent"):                os.ErrNotExist,
	} {
		_, err := ReadFile(path, Limits{MaxBytes: 4000})
		if !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), path) {
			t.Errorf("%s: %v, want %v and the file's name", path, err, want)
		}
	}
}
