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

func decodeJPEG(data []byte, lim Limits) (*Image, error) {
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
	scans, exif := inspectJPEG(data)
	if scans > maxScans {
		return nil, fmt.Errorf("%w: a JPEG with more than %d scans: save it again as an ordinary JPEG", ErrFormat, maxScans)
	}
	src, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, jpegFault(err)
	}
	return fromImage(src, exifOrientation(exif)), nil
}

func jpegFault(err error) error {
	var unsupported jpeg.UnsupportedError
	if errors.As(err, &unsupported) {
		return fmt.Errorf("%w: a kind of JPEG that is not read here (%s): save it again as an ordinary RGB JPEG or PNG", ErrFormat, string(unsupported))
	}
	return fault(JPEG, err)
}

// inspectJPEG walks the markers up to the end of the image. It returns the
// number of scans and the TIFF block of the first EXIF segment before the first
// scan (a slice of data), or nil.
func inspectJPEG(data []byte) (scans int, exif []byte) {
	for i := 2; i < len(data); {
		skip := bytes.IndexByte(data[i:], 0xff)
		if skip < 0 {
			return scans, exif
		}
		for i += skip; i < len(data) && data[i] == 0xff; i++ {
		}
		if i == len(data) {
			return scans, exif
		}
		marker := data[i]
		i++
		switch {
		case marker == 0xd9: // end of image
			return scans, exif
		case marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8): // stuffing, TEM, restarts, SOI: no length
			continue
		}
		if len(data)-i < 2 {
			return scans, exif
		}
		n := int(data[i])<<8 | int(data[i+1])
		if n < 2 || n > len(data)-i {
			return scans, exif
		}
		segment := data[i+2 : i+n]
		switch marker {
		case 0xda: // start of scan
			if scans++; scans > maxScans {
				return scans, exif
			}
		case 0xe1: // APP1
			if tiff, ok := bytes.CutPrefix(segment, []byte("Exif\x00\x00")); ok && exif == nil && scans == 0 {
				exif = tiff
			}
		}
		i += n
	}
	return scans, exif
}
