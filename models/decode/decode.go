// Package decode turns the bytes of a photograph into pixels, and says which way
// is up.
//
// It accepts JPEG (baseline, progressive, grey, YCbCr, RGB, CMYK, YCCK) and
// PNG (every kind), told apart by content and never by a name or a declared
// type; DecodeAny also takes binary PGM and PPM for offline tools. Whatever a
// camera or a phone wrote into EXIF about the way it was held is applied, so
// that every later stage sees faces the right way up. Transparent pixels are
// laid over white. A JPEG stays in the planes that it is stored in, since most of
// its pixels are looked at once, in the detector's input, or never.
//
// JPEG is decoded by libjpeg-turbo in a build with the tag turbo (see Decoder),
// and by the standard library otherwise. Both take and refuse the same files:
// what libjpeg-turbo does not finish without a warning is given to the standard
// library.
//
// It promises that hostile input costs little: the format, the side lengths,
// the number of pixels (as int64) and the memory that decoding will take are
// read from the header and checked against Limits before anything of the
// image's size is allocated, a file too short to fill the image it announces is
// refused at that point, and the number of progressive scans is bounded. It
// never panics and is safe for concurrent use.
//
// Memory of one call, beside the caller's data, in bytes per pixel of the
// header's width x height (the result's included):
//
//	JPEG baseline, grey 1, 4:2:0 1.5, 4:4:4 3, RGB 10, CMYK and YCCK 11
//	JPEG progressive, grey 5, 4:2:0 7.5, 4:4:4 15, RGB 22, CMYK and YCCK 27
//	PNG palette or 8-bit grey 4, 8-bit colour 7, 16-bit 11 (interlaced at most 5, 11, 19)
//	PGM and PPM 3
//
// Measure tells it before decoding. A service bounds its memory by weighing the
// calls that it lets run at once, or by Limits.MaxMemory times their number.
//
// It does not look for faces, keep metadata, manage colour profiles, or repair
// damaged files: an image that ends early is refused, since half a face is
// worse than none.
package decode

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Errors of this stage. Their texts tell the sender what to do; details are
// added by wrapping. Match them with errors.Is.
var (
	// ErrEmpty: no bytes at all.
	ErrEmpty = errors.New("decode: the image is empty: send the bytes of a JPEG or PNG file")
	// ErrFormat: not an image format, or kind of JPEG or PNG, that is accepted.
	ErrFormat = errors.New("decode: image format not accepted")
	// ErrCorrupt: recognised, but the content is damaged.
	ErrCorrupt = errors.New("decode: the image is damaged: send the file again, or a new photo")
	// ErrTruncated: recognised, but the file ends before its image does. It
	// is an ErrCorrupt too: errors.Is(ErrTruncated, ErrCorrupt) holds.
	ErrTruncated = fmt.Errorf("%w (it ends early)", ErrCorrupt)
	// ErrTooLarge: more bytes, pixels or pixels a side than Limits allows.
	ErrTooLarge = errors.New("decode: the image is too large")
	// ErrTooSmall: fewer than MinSide pixels a side.
	ErrTooSmall = errors.New("decode: the image is too small")
)

// MinSide is the fewest pixels a side, 8. The detector's finest stride is 8
// pixels: below that there is not one cell to find a face in.
const MinSide = 8

// Limits bounds what is decoded. A zero or negative field takes its value from
// DefaultLimits.
type Limits struct {
	MaxBytes  int   // bytes of the encoded file
	MaxPixels int64 // width x height
	MaxSide   int   // pixels of the longer side
	MaxMemory int64 // bytes that decoding may take, as Measure tells them
}

// DefaultLimits returns 16 MiB, 50 million pixels, 16,384 pixels a side and 512
// MiB of memory: above what phones and gate cameras write (a 48 MP phone photo is
// 8064 x 6048 and 5-12 MB as JPEG, and takes 70 MiB to decode, 350 if
// progressive), below what hurts one machine. Progressive CMYK of 50 million
// pixels would take 1.3 GB; it is refused above 19 million.
func DefaultLimits() Limits {
	return Limits{MaxBytes: 16 << 20, MaxPixels: 50_000_000, MaxSide: 16384, MaxMemory: 512 << 20}
}

func (l Limits) orDefaults() Limits {
	d := DefaultLimits()
	if l.MaxBytes <= 0 {
		l.MaxBytes = d.MaxBytes
	}
	if l.MaxPixels <= 0 {
		l.MaxPixels = d.MaxPixels
	}
	if l.MaxSide <= 0 {
		l.MaxSide = d.MaxSide
	}
	if l.MaxMemory <= 0 {
		l.MaxMemory = d.MaxMemory
	}
	return l
}

// checkSize refuses dimensions outside the limits. It is called with the
// header's numbers, before any allocation that grows with them.
func (l Limits) checkSize(w, h int) error {
	if w <= 0 || h <= 0 {
		return fmt.Errorf("%w: its header says %d x %d pixels", ErrCorrupt, w, h)
	}
	if w > l.MaxSide || h > l.MaxSide {
		return fmt.Errorf("%w: %d x %d pixels, at most %d a side are accepted: send a smaller version", ErrTooLarge, w, h, l.MaxSide)
	}
	if n := int64(w) * int64(h); n > l.MaxPixels {
		return fmt.Errorf("%w: %d x %d is %d pixels, at most %d are accepted: send a smaller version", ErrTooLarge, w, h, n, l.MaxPixels)
	}
	if w < MinSide || h < MinSide {
		return fmt.Errorf("%w: %d x %d pixels, at least %d a side are needed: send the camera's full image", ErrTooSmall, w, h, MinSide)
	}
	return nil
}

func (l Limits) checkBytes(n int64) error {
	if n > int64(l.MaxBytes) {
		return fmt.Errorf("%w: %d bytes, at most %d are accepted: send a smaller version or a stronger JPEG compression", ErrTooLarge, n, l.MaxBytes)
	}
	return nil
}

// Options says how a picture is decoded. The zero value: whole, within the
// default limits, into new memory.
type Options struct {
	Limits Limits
	// Enough returns how many upright pixels of a width x height picture its
	// user can use. A JPEG may then be decoded at a half, a quarter or an eighth
	// of its size, where that still holds as many; Width and Height of the
	// result stay those of the whole picture. The standard library's decoder
	// cannot do so: it decodes the whole. nil: all.
	Enough func(width, height int) (int, int)
	// Buffers lends memory; the result should be released. nil: none.
	Buffers *Buffers
}

// Decode decodes a JPEG or PNG file. data is only read, and not kept.
// Errors: ErrEmpty, ErrFormat, ErrCorrupt, ErrTruncated, ErrTooLarge,
// ErrTooSmall, wrapped.
func Decode(data []byte, lim Limits) (*Image, error) {
	return decode(data, Options{Limits: lim}, false)
}

// DecodeWith is Decode with options.
func DecodeWith(data []byte, opt Options) (*Image, error) {
	return decode(data, opt, false)
}

// DecodeAny is Decode that also takes binary PGM and PPM (P5 and P6, 8 or 16
// bits a sample, comments allowed, the first image of the file). It is meant
// for offline tools and collections of test photos, not for a service's input.
func DecodeAny(data []byte, lim Limits) (*Image, error) {
	return decode(data, Options{Limits: lim}, true)
}

func decode(data []byte, opt Options, pnm bool) (*Image, error) {
	opt.Limits = opt.Limits.orDefaults()
	if err := recognised(data, opt.Limits, pnm); err != nil {
		return nil, err
	}
	switch Sniff(data) {
	case JPEG:
		return decodeJPEG(data, opt)
	case PNG:
		return decodePNG(data, opt.Limits)
	}
	return decodePNM(data, opt.Limits)
}

// recognised refuses what is too long or no format that is read here.
func recognised(data []byte, lim Limits, pnm bool) error {
	if len(data) == 0 {
		return ErrEmpty
	}
	if err := lim.checkBytes(int64(len(data))); err != nil {
		return err
	}
	switch f := Sniff(data); {
	case f == JPEG, f == PNG, f == PNM && pnm:
		return nil
	case f == PNM:
		return fmt.Errorf("%w: this is a PNM image: send JPEG or PNG", ErrFormat)
	}
	if len(data) < len(pngSignature) && (strings.HasPrefix(pngSignature, string(data)) || strings.HasPrefix(jpegSignature, string(data))) {
		return fmt.Errorf("%w: %d bytes", ErrTruncated, len(data))
	}
	want := "JPEG or PNG"
	if pnm {
		want = "JPEG, PNG or binary PGM or PPM"
	}
	if name := foreignName(data); name != "" {
		return fmt.Errorf("%w: this is %s: send %s", ErrFormat, name, want)
	}
	return fmt.Errorf("%w: its first bytes are those of no known image format: send %s", ErrFormat, want)
}

// ReadFile reads and decodes one file with DecodeAny. The size is checked
// before the content is read. Every error names the file.
func ReadFile(path string, lim Limits) (*Image, error) {
	lim = lim.orDefaults()
	st, err := os.Stat(path) // before opening: a pipe without a writer would block
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if st.IsDir() {
		return nil, fmt.Errorf("%s: %w: this is a folder: name an image file", path, ErrFormat)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: this is a pipe or a device: name an image file", path, ErrFormat)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	defer f.Close()
	if err := lim.checkBytes(st.Size()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// A file may grow: the reading itself is bounded too.
	data, err := io.ReadAll(io.LimitReader(f, int64(lim.MaxBytes)+1))
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	img, err := DecodeAny(data, lim)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return img, nil
}

// fault sorts an error of a standard-library decoder into this package's.
func fault(format Format, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %s", ErrTruncated, format)
	}
	return fmt.Errorf("%w: %s: %v", ErrCorrupt, format, err)
}
