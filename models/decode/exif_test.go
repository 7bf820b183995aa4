package decode

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// tiffBlock builds an EXIF block with a few entries, the orientation among them.
func tiffBlock(order binary.AppendByteOrder, kind uint16, value uint32) []byte {
	b := []byte("II*\x00")
	if order == binary.AppendByteOrder(binary.BigEndian) {
		b = []byte("MM\x00*")
	}
	b = order.AppendUint32(b, 8)
	b = order.AppendUint16(b, 3)
	entry := func(tag, kind uint16, count uint32, value func([]byte) []byte) {
		b = order.AppendUint16(b, tag)
		b = order.AppendUint16(b, kind)
		b = order.AppendUint32(b, count)
		n := len(b)
		b = value(b)
		for len(b) < n+4 {
			b = append(b, 0)
		}
	}
	entry(0x010f, 2, 400, func(b []byte) []byte { return order.AppendUint32(b, 1<<31) }) // a maker's name that points nowhere
	entry(tagOrientation, kind, 1, func(b []byte) []byte {
		switch kind {
		case 1:
			return append(b, byte(value))
		case 3:
			return order.AppendUint16(b, uint16(value))
		}
		return order.AppendUint32(b, value)
	})
	entry(0x011a, 5, 1, func(b []byte) []byte { return order.AppendUint32(b, 8) })
	return order.AppendUint32(b, 0)
}

// withAPP1 puts an EXIF segment behind a JPEG's first marker.
func withAPP1(jpeg, tiff []byte) []byte {
	body := append([]byte("Exif\x00\x00"), tiff...)
	out := append([]byte{}, jpeg[:2]...)
	out = append(out, 0xff, 0xe1)
	out = binary.BigEndian.AppendUint16(out, uint16(len(body)+2))
	out = append(out, body...)
	return append(out, jpeg[2:]...)
}

// withEXIF puts an eXIf chunk behind a PNG's header, or before its end.
func withEXIF(png, tiff []byte, last bool) []byte {
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(tiff)))
	chunk = append(chunk, "eXIf"...)
	chunk = append(chunk, tiff...)
	chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
	at := 33
	if last {
		at = len(png) - 12
	}
	return bytes.Join([][]byte{png[:at], chunk, png[at:]}, nil)
}

// pixels is an image as rows of one sample each, for the oracle below.
type pixels [][]byte

func (p pixels) transpose() pixels {
	out := make(pixels, len(p[0]))
	for x := range out {
		for y := range p {
			out[x] = append(out[x], p[y][x])
		}
	}
	return out
}

func (p pixels) mirror() pixels {
	out := make(pixels, len(p))
	for y := range p {
		for x := range p[y] {
			out[y] = append(out[y], p[y][len(p[y])-1-x])
		}
	}
	return out
}

// turn is a quarter turn clockwise.
func (p pixels) turn() pixels { return p.transpose().mirror() }

// uprightOf builds the eight cases from a mirror and quarter turns, in the words
// of the EXIF standard, independently of Turn.Layout.
func (p pixels) uprightOf(o Turn) pixels {
	switch o {
	case mirrored:
		return p.mirror()
	case halfTurn:
		return p.turn().turn()
	case flipped:
		return p.mirror().turn().turn()
	case transposed:
		return p.turn().mirror()
	case quarterTurn:
		return p.turn()
	case transversed:
		return p.mirror().turn()
	case quarterTurnL:
		return p.turn().turn().turn()
	}
	return p
}

func TestOrientation(t *testing.T) {
	stored := make(pixels, drawnH)
	for y := range stored {
		for x := range drawnW {
			stored[y] = append(stored[y], byte(drawn(x, y)[0]/2+drawn(x, y)[1]/2)) // no symmetry
		}
	}
	src := drawnImage()
	for y := range drawnH {
		for x := range drawnW {
			i := src.PixOffset(x, y)
			src.Pix[i], src.Pix[i+1], src.Pix[i+2] = stored[y][x], stored[y][x], stored[y][x]
		}
	}
	asPNG, asJPEG := encodePNG(t, src), encodeJPEG(t, src)
	for o := upright; o <= quarterTurnL; o++ {
		want := stored.uprightOf(o)
		for _, tc := range []struct {
			name      string
			data      []byte
			tolerance int
		}{
			{"png big-endian", withEXIF(asPNG, tiffBlock(binary.BigEndian, 3, uint32(o)), false), 0},
			{"png after the pixels", withEXIF(asPNG, tiffBlock(binary.LittleEndian, 3, uint32(o)), true), 0},
			{"jpeg big-endian", withAPP1(asJPEG, tiffBlock(binary.BigEndian, 3, uint32(o))), 6},
			{"jpeg little-endian", withAPP1(asJPEG, tiffBlock(binary.LittleEndian, 3, uint32(o))), 6},
			{"jpeg byte", withAPP1(asJPEG, tiffBlock(binary.LittleEndian, 1, uint32(o))), 6},
			{"jpeg long", withAPP1(asJPEG, tiffBlock(binary.BigEndian, 4, uint32(o))), 6},
			// Another APP1 (XMP) in front must not hide it.
			{"jpeg with XMP", func() []byte {
				d := withAPP1(asJPEG, tiffBlock(binary.BigEndian, 3, uint32(o)))
				return append([]byte("\xff\xd8\xff\xe1\x00\x0ahttp://x"), d[2:]...)
			}(), 6},
		} {
			img, err := Decode(tc.data, Limits{})
			if err != nil {
				t.Fatalf("orientation %d, %s: %v", o, tc.name, err)
			}
			if img.Height != len(want) || img.Width != len(want[0]) {
				t.Fatalf("orientation %d, %s: %d x %d, want %d x %d", o, tc.name, img.Width, img.Height, len(want[0]), len(want))
			}
			for y := range want {
				for x := range want[y] {
					got := int(img.RGB().Pix[3*(y*img.Width+x)])
					if d := got - int(want[y][x]); d > tc.tolerance || d < -tc.tolerance {
						t.Fatalf("orientation %d, %s: pixel %d,%d is %d, want %d", o, tc.name, x, y, got, want[y][x])
					}
				}
			}
		}
	}
}

func TestDamagedEXIFIsIgnored(t *testing.T) {
	whole := tiffBlock(binary.LittleEndian, 3, 6)
	if exifOrientation(whole) != quarterTurn {
		t.Fatal("the whole block is not understood")
	}
	set := func(at int, v ...byte) []byte {
		b := append([]byte{}, whole...)
		copy(b[at:], v)
		return b
	}
	bad := map[string][]byte{
		"empty":                       nil,
		"no TIFF":                     set(0, 'X'),
		"directory beyond the end":    set(4, 0xff, 0xff, 0xff, 0xff),
		"directory in the header":     set(4, 0, 0, 0, 0),
		"no entries":                  set(8, 0, 0),
		"orientation 0":               tiffBlock(binary.BigEndian, 3, 0),
		"orientation 9":               tiffBlock(binary.BigEndian, 3, 9),
		"orientation 65542":           tiffBlock(binary.BigEndian, 4, 65542),
		"orientation of another kind": tiffBlock(binary.BigEndian, 7, 6),
		"two orientations":            set(10+12+4, 2),
	}
	for n := range 10 + 24 { // up to the end of the orientation entry
		bad["cut to "+string(rune('A'+n))] = whole[:n]
	}
	jpeg := encodeJPEG(t, drawnImage())
	for name, tiff := range bad {
		if o := exifOrientation(tiff); o != upright {
			t.Errorf("%s: orientation %d", name, o)
		}
		if img, err := Decode(withAPP1(jpeg, tiff), Limits{}); err != nil || img.Width != drawnW {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A count far beyond the block still finds what is there.
	if o := exifOrientation(set(8, 0xff, 0xff)); o != quarterTurn {
		t.Errorf("a wrong entry count: orientation %d", o)
	}
	// An EXIF segment whose length runs past the file belongs to a damaged JPEG.
	if _, exif := inspectJPEG([]byte("\xff\xd8\xff\xe1\xff\xffExif\x00\x00II*\x00")); exif != nil {
		t.Error("a segment longer than the file was used")
	}
}
