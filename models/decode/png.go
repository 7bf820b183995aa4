package decode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/png"
	"strings"
)

// maxInflate is the most bytes that one byte of deflate can stand for: a match
// of 258 bytes in two bits is 1032 (zlib's technical notes give the same).
const maxInflate = 1032

// pngHeader is what a PNG's first chunk says.
type pngHeader struct {
	width, height int
	depth, colour byte
	interlaced    bool
}

// readPNGHeader refuses what the limits rule out, before anything of the
// image's size is allocated.
func readPNGHeader(data []byte, lim Limits) (pngHeader, error) {
	cfg, err := png.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return pngHeader{}, pngFault(err)
	}
	if err := lim.checkSize(cfg.Width, cfg.Height); err != nil {
		return pngHeader{}, err
	}
	// IHDR is the first chunk; DecodeConfig has checked it. Byte 24 of the
	// file is the bit depth, 25 the colour type, 28 the way of interlacing.
	h := pngHeader{cfg.Width, cfg.Height, data[24], data[25], data[28] != 0}
	bits := int64(h.depth) * int64(pngChannels(h.colour))
	if raw := (int64(cfg.Width)*bits + 7) / 8 * int64(cfg.Height); raw > int64(len(data))*maxInflate {
		return pngHeader{}, fmt.Errorf("%w: png: %d bytes cannot hold the %d x %d pixels that its header announces", ErrTruncated, len(data), cfg.Width, cfg.Height)
	}
	return h, lim.checkMemory(h.memory())
}

// memory bounds what the standard library's decoder and the conversion behind
// it hold at once: the library's image, half as much again for the passes of an
// interlaced file, and RGB, which 8-bit grey does without.
func (h pngHeader) memory() int64 {
	sample := int64(1) // bytes a pixel of the library's image
	switch {
	case h.depth == 16:
		sample = 8
	case pngChannels(h.colour) > 1:
		sample = 4
	}
	bytes := 3 + sample
	if h.interlaced {
		bytes += sample
	}
	return bytes * int64(h.width) * int64(h.height)
}

func decodePNG(data []byte, lim Limits) (*Image, error) {
	if _, err := readPNGHeader(data, lim); err != nil {
		return nil, err
	}
	src, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, pngFault(err)
	}
	return fromImage(src, exifOrientation(pngEXIF(data))), nil
}

func pngFault(err error) error {
	var unsupported png.UnsupportedError
	if errors.As(err, &unsupported) {
		if strings.Contains(string(unsupported), "dimension overflow") {
			return fmt.Errorf("%w: its header announces more pixels than can be counted", ErrTooLarge)
		}
		return fmt.Errorf("%w: a kind of PNG that does not exist (%s): save it again as an ordinary PNG", ErrFormat, string(unsupported))
	}
	if strings.HasSuffix(err.Error(), "not enough pixel data") {
		return fmt.Errorf("%w: %s", ErrTruncated, PNG)
	}
	return fault(PNG, err)
}

// pngChannels is the number of samples a pixel for an IHDR colour type.
func pngChannels(colourType byte) int {
	switch colourType {
	case 2:
		return 3
	case 4:
		return 2
	case 6:
		return 4
	}
	return 1
}

// pngEXIF returns the content of the first eXIf chunk (a slice of data), or nil.
func pngEXIF(data []byte) []byte {
	for rest := data[len(pngSignature):]; len(rest) >= 12; {
		n := uint64(binary.BigEndian.Uint32(rest))
		if n > uint64(len(rest)-12) {
			return nil
		}
		switch string(rest[4:8]) {
		case "eXIf":
			return rest[8 : 8+n]
		case "IEND":
			return nil
		}
		rest = rest[12+n:]
	}
	return nil
}

// EncodePNG returns the image as a PNG file. It is for tests and the demo, not
// for a request's path. It fails only for an image whose Pix does not fit its
// size.
func (m *Image) EncodePNG() ([]byte, error) {
	if m.Planes != nil {
		m = m.RGB()
	}
	if m.Width <= 0 || m.Height <= 0 || len(m.Pix) != 3*m.Width*m.Height {
		return nil, fmt.Errorf("decode: cannot encode %d x %d pixels from %d bytes: three bytes a pixel are needed", m.Width, m.Height, len(m.Pix))
	}
	out := image.NewRGBA(image.Rect(0, 0, m.Width, m.Height))
	for i, j := 0, 0; i < len(m.Pix); i, j = i+3, j+4 {
		out.Pix[j], out.Pix[j+1], out.Pix[j+2], out.Pix[j+3] = m.Pix[i], m.Pix[i+1], m.Pix[i+2], 0xff
	}
	var b bytes.Buffer
	if err := png.Encode(&b, out); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return b.Bytes(), nil
}
