package decode

import (
	"bytes"
	"errors"
	"fmt"
	"image/jpeg"
)

// maxScans bounds the scans of one JPEG file. Encoders write about ten for a
// progressive image; each scan can walk all blocks of the image for a handful
// of bytes, so that a file with thousands of them would keep a core busy for
// minutes.
const maxScans = 100

// decodeJPEG decodes with libjpeg-turbo, where it is built in and the file is
// of a kind that it is given, and with the standard library otherwise. The
// latter has the last word on every file that the former stumbles over, so that
// both builds take and refuse the same files.
func decodeJPEG(data []byte, opt Options) (*Image, error) {
	f, err := jpegFrame(data, opt.Limits)
	if err != nil {
		return nil, err
	}
	turn := exifOrientation(f.exif)
	if p := turboPlanes(data, f, opt.reduction(f.width, f.height, turn), opt.Buffers); p != nil {
		p.Turn = turn
		return p.place(f.width, f.height), nil
	}
	src, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, jpegFault(err)
	}
	return fromImage(src, turn), nil
}

// maxReduction is the strongest reduction of a JPEG: one sample a block.
const maxReduction = 8

// reduction returns the largest of 1, 2, 4 and 8 by which a stored w x h
// picture may be reduced.
func (o Options) reduction(w, h int, t Turn) int {
	if o.Enough == nil {
		return 1
	}
	uprightW, uprightH := t.Stored(w, h)
	minW, minH := t.Stored(o.Enough(uprightW, uprightH))
	for r := maxReduction; r > 1; r /= 2 {
		if w/r >= max(minW, 1) && h/r >= max(minH, 1) {
			return r
		}
	}
	return 1
}

func jpegFault(err error) error {
	var unsupported jpeg.UnsupportedError
	if errors.As(err, &unsupported) {
		return fmt.Errorf("%w: a kind of JPEG that is not read here (%s): save it again as an ordinary RGB JPEG or PNG", ErrFormat, string(unsupported))
	}
	return fault(JPEG, err)
}

// frame is what a JPEG's frame header and its markers say.
type frame struct {
	width, height int
	progressive   bool
	untransformed bool // an Adobe segment says that the colours are not YCbCr
	components    []component
	scans         int
	exif          []byte // the TIFF block, a slice of the file; nil: none
}

// component is one colour plane: its identifier and how many blocks across and
// down it has in each unit of the image.
type component struct {
	id           byte
	across, down int
}

// jpegFrame reads the header, counts the scans and refuses what the limits rule
// out, before anything of the image's size is allocated. The standard library is asked
// first: what it does not read is refused here.
func jpegFrame(data []byte, lim Limits) (*frame, error) {
	cfg, err := jpeg.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, jpegFault(err)
	}
	if err := lim.checkSize(cfg.Width, cfg.Height); err != nil {
		return nil, err
	}
	// Each 8x8 block takes at least one bit, in any scan that first shows it.
	if blocks := int64(cfg.Width+7) / 8 * (int64(cfg.Height+7) / 8); blocks > int64(len(data))*8 {
		return nil, fmt.Errorf("%w: jpeg: %d bytes cannot hold the %d x %d pixels that its header announces", ErrTruncated, len(data), cfg.Width, cfg.Height)
	}
	f := &frame{width: cfg.Width, height: cfg.Height}
	eachSegment(data, func(marker byte, segment []byte) bool {
		switch {
		case (marker == 0xc0 || marker == 0xc1 || marker == 0xc2) && len(segment) >= 6 && f.components == nil: // start of frame
			f.progressive = marker == 0xc2
			for c := segment[6:]; len(c) >= 3 && len(f.components) < 4; c = c[3:] {
				f.components = append(f.components, component{c[0], int(c[1] >> 4), int(c[1] & 15)})
			}
		case marker == 0xee && len(segment) >= 12 && string(segment[:5]) == "Adobe": // APP14
			f.untransformed = segment[11] == 0
		}
		return marker != 0xda // start of scan
	})
	if len(f.components) == 0 {
		return nil, fmt.Errorf("%w: jpeg: no frame header", ErrCorrupt)
	}
	if err := lim.checkMemory(f.memory()); err != nil {
		return nil, err
	}
	if f.scans, f.exif = inspectJPEG(data); f.scans > maxScans {
		return nil, fmt.Errorf("%w: a JPEG with more than %d scans: save it again as an ordinary JPEG", ErrFormat, maxScans)
	}
	return f, nil
}

// unit returns how many blocks across and down one unit of the image has.
func (f *frame) unit() (across, down int) {
	across, down = 1, 1
	for _, c := range f.components {
		across, down = max(across, c.across), max(down, c.down)
	}
	return across, down
}

// memory returns how many bytes the standard library's decoder and the
// conversion behind it hold at once: a byte a sample, four more for a
// progressive file's coefficients, and seven a pixel where the planes are put
// together and then converted (RGB, which the identifiers or an Adobe segment
// tell, CMYK and YCCK). libjpeg-turbo takes less.
func (f *frame) memory() int64 {
	across, down := f.unit()
	units := int64((f.width+8*across-1)/(8*across)) * int64((f.height+8*down-1)/(8*down))
	var blocks int64
	for _, c := range f.components {
		blocks += int64(c.across) * int64(c.down)
	}
	if len(f.components) == 1 {
		blocks, units = 1, int64((f.width+7)/8)*int64((f.height+7)/8) // one component has no units
	}
	bytes := units * blocks * 64
	if f.progressive {
		bytes *= 5
	}
	if len(f.components) == 4 || f.rgb() {
		bytes += 7 * int64(f.width) * int64(f.height)
	}
	return bytes
}

// rgb tells that the colours may be R, G and B: the identifiers are these
// letters, or an Adobe segment says so.
func (f *frame) rgb() bool {
	c := f.components
	return len(c) == 3 && (f.untransformed || c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B')
}

// inspectJPEG walks the markers up to the end of the image. It returns the
// number of scans and the TIFF block of the first EXIF segment before the first
// scan (a slice of data), or nil.
func inspectJPEG(data []byte) (scans int, exif []byte) {
	eachSegment(data, func(marker byte, segment []byte) bool {
		switch marker {
		case 0xda: // start of scan
			scans++
		case 0xe1: // APP1
			if tiff, ok := bytes.CutPrefix(segment, []byte("Exif\x00\x00")); ok && exif == nil && scans == 0 {
				exif = tiff
			}
		}
		return scans <= maxScans
	})
	return scans, exif
}

// eachSegment calls visit with the marker and the content of each segment up to
// the end of the image, until it returns false.
func eachSegment(data []byte, visit func(marker byte, segment []byte) bool) {
	for i := 2; i < len(data); {
		skip := bytes.IndexByte(data[i:], 0xff)
		if skip < 0 {
			return
		}
		for i += skip; i < len(data) && data[i] == 0xff; i++ {
		}
		if i == len(data) {
			return
		}
		marker := data[i]
		i++
		switch {
		case marker == 0xd9: // end of image
			return
		case marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8): // stuffing, TEM, restarts, SOI: no length
			continue
		}
		if len(data)-i < 2 {
			return
		}
		n := int(data[i])<<8 | int(data[i+1])
		if n < 2 || n > len(data)-i {
			return
		}
		if !visit(marker, data[i+2:i+n]) {
			return
		}
		i += n
	}
}
