package decode

import "encoding/binary"

// orientation is the EXIF value 1..8: how the stored image must be turned to
// stand upright (EXIF 2.32, tag 0x0112: where row 0 and column 0 of the stored
// image lie in the scene).
type orientation int

const (
	upright      orientation = 1 // row 0 top, column 0 left
	mirrored     orientation = 2 // row 0 top, column 0 right
	halfTurn     orientation = 3 // row 0 bottom, column 0 right
	flipped      orientation = 4 // row 0 bottom, column 0 left
	transposed   orientation = 5 // row 0 left, column 0 top
	quarterTurn  orientation = 6 // row 0 right, column 0 top: turn clockwise
	transversed  orientation = 7 // row 0 right, column 0 bottom
	quarterTurnL orientation = 8 // row 0 left, column 0 bottom: turn anticlockwise
)

const (
	tagOrientation = 0x0112
	// maxEntries bounds the walk through the first directory. Cameras write
	// a dozen or two.
	maxEntries = 512
)

// exifOrientation reads the orientation from a TIFF block as found in a JPEG's
// APP1 segment or a PNG's eXIf chunk. It reads the first directory only (the
// second describes the thumbnail), touches at most maxEntries entries of it,
// and answers upright for anything damaged, absent or out of range: a bad EXIF
// block never spoils a good image.
func exifOrientation(tiff []byte) orientation {
	if len(tiff) < 8 {
		return upright
	}
	var order binary.ByteOrder
	switch string(tiff[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return upright
	}
	offset := uint64(order.Uint32(tiff[4:]))
	if offset < 8 || offset+2 > uint64(len(tiff)) {
		return upright
	}
	entries := tiff[offset+2:]
	count := min(int(order.Uint16(tiff[offset:])), len(entries)/12, maxEntries)
	for i := range count {
		e := entries[12*i : 12*i+12]
		if order.Uint16(e) != tagOrientation {
			continue
		}
		if order.Uint32(e[4:]) != 1 {
			return upright
		}
		var v uint32
		switch order.Uint16(e[2:]) {
		case 1: // BYTE
			v = uint32(e[8])
		case 3: // SHORT, what the standard asks for
			v = uint32(order.Uint16(e[8:]))
		case 4: // LONG
			v = order.Uint32(e[8:])
		}
		if v < 1 || v > 8 {
			return upright
		}
		return orientation(v)
	}
	return upright
}

// layout says where pixels of a stored w x h image go in the upright one: the
// upright size, and the place (in pixels of the upright buffer) of stored pixel
// (x, y) as origin + x*dx + y*dy.
type layout struct {
	width, height  int
	origin, dx, dy int
}

func (o orientation) layout(w, h int) layout {
	switch o {
	case mirrored:
		return layout{w, h, w - 1, -1, w}
	case halfTurn:
		return layout{w, h, w*h - 1, -1, -w}
	case flipped:
		return layout{w, h, w * (h - 1), 1, -w}
	case transposed:
		return layout{h, w, 0, h, 1}
	case quarterTurn:
		return layout{h, w, h - 1, h, -1}
	case transversed:
		return layout{h, w, w*h - 1, -h, -1}
	case quarterTurnL:
		return layout{h, w, h * (w - 1), -h, 1}
	}
	return layout{w, h, 0, 1, w}
}
