package decode

import "encoding/binary"

// Turn is the EXIF orientation 1..8: how the stored image must be turned to
// stand upright (EXIF 2.32, tag 0x0112: where row 0 and column 0 of the stored
// image lie in the scene). Any other value is taken as 1, no turn.
type Turn int

const (
	upright      Turn = 1 // row 0 top, column 0 left
	mirrored     Turn = 2 // row 0 top, column 0 right
	halfTurn     Turn = 3 // row 0 bottom, column 0 right
	flipped      Turn = 4 // row 0 bottom, column 0 left
	transposed   Turn = 5 // row 0 left, column 0 top
	quarterTurn  Turn = 6 // row 0 right, column 0 top: turn clockwise
	transversed  Turn = 7 // row 0 right, column 0 bottom
	quarterTurnL Turn = 8 // row 0 left, column 0 bottom: turn anticlockwise
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
func exifOrientation(tiff []byte) Turn {
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
		return Turn(v)
	}
	return upright
}

// swaps tells whether rows become columns.
func (t Turn) swaps() bool { return t >= transposed && t <= quarterTurnL }

// Layout says where the pixels of a stored w x h image go in an upright buffer
// whose rows are stride pixels apart: stored pixel (x, y) at origin + x*dx + y*dy.
func (t Turn) Layout(w, h, stride int) (origin, dx, dy int) {
	switch t {
	case mirrored:
		return w - 1, -1, stride
	case halfTurn:
		return stride*(h-1) + w - 1, -1, -stride
	case flipped:
		return stride * (h - 1), 1, -stride
	case transposed:
		return 0, stride, 1
	case quarterTurn:
		return h - 1, stride, -1
	case transversed:
		return stride*(w-1) + h - 1, -stride, -1
	case quarterTurnL:
		return stride * (w - 1), -stride, 1
	}
	return 0, 1, stride
}

// Stored returns the size of the stored image that stands upright as w x h.
func (t Turn) Stored(w, h int) (int, int) {
	if t.swaps() {
		return h, w
	}
	return w, h
}

// Source returns the place in the stored image of the place (u, v) of the
// upright one, which is w x h pixels. Pixel centres are whole numbers.
func (t Turn) Source(u, v float64, w, h int) (x, y float64) {
	right, down := float64(w-1), float64(h-1)
	switch t {
	case mirrored:
		return right - u, v
	case halfTurn:
		return right - u, down - v
	case flipped:
		return u, down - v
	case transposed:
		return v, u
	case quarterTurn:
		return v, right - u
	case transversed:
		return down - v, right - u
	case quarterTurnL:
		return down - v, u
	}
	return u, v
}
