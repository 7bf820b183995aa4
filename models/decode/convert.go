package decode

import (
	"image"
	"image/color"
)

// fromImage turns a decoded image into an Image. YCbCr and grey ones keep
// their planes. All others become upright RGB in one pass: every stored pixel is
// converted and written once, at its upright place. Types that the standard
// decoders return have their own loops; anything else goes through color.Color.
func fromImage(src image.Image, t Turn) *Image {
	b := src.Bounds()
	w, h := b.Dx(), b.Dy()
	if p := planesOf(src, t); p != nil {
		return p.place(w, h)
	}
	img := &Image{Pix: make([]byte, 3*w*h)}
	img.Width, img.Height = t.Stored(w, h) // its own inverse
	origin, dx, dy := t.Layout(w, h, img.Width)
	var table *[256][3]byte
	if m, ok := src.(*image.Paletted); ok {
		table = paletteTable(m.Palette)
	}
	for y := range h {
		row := rowWriter{pix: img.Pix, at: 3 * (origin + y*dy), step: 3 * dx}
		switch m := src.(type) {
		case *image.Gray16:
			row.gray16(m.Pix[y*m.Stride:][:2*w])
		case *image.RGBA:
			row.rgba(m.Pix[y*m.Stride:][:4*w])
		case *image.NRGBA:
			row.nrgba(m.Pix[y*m.Stride:][:4*w])
		case *image.RGBA64:
			row.rgba64(m.Pix[y*m.Stride:][:8*w])
		case *image.NRGBA64:
			row.nrgba64(m.Pix[y*m.Stride:][:8*w])
		case *image.CMYK:
			row.cmyk(m.Pix[y*m.Stride:][:4*w])
		case *image.Paletted:
			row.paletted(m.Pix[y*m.Stride:][:w], table)
		default:
			row.generic(src, b.Min.X, b.Min.Y+y, w)
		}
	}
	return img
}

// rowWriter writes the pixels of one stored row into the upright buffer: the
// first at byte offset at, each next one step bytes on (step may be negative).
type rowWriter struct {
	pix      []byte
	at, step int
}

func (r *rowWriter) put(red, green, blue byte) {
	p := r.pix[r.at : r.at+3 : r.at+3]
	p[0], p[1], p[2] = red, green, blue
	r.at += r.step
}

// Chroma holds what one Cb, Cr pair adds to the luma, in 16.16 fixed point,
// half a unit for rounding included. JFIF 1.02 (ITU-R BT.601, full range):
// R = Y + 1.402 (Cr-128), G = Y - 0.344136 (Cb-128) - 0.714136 (Cr-128),
// B = Y + 1.772 (Cb-128).
type Chroma struct{ R, G, B int32 }

// NewChroma returns the parts of a pair.
func NewChroma(cb, cr byte) Chroma {
	u, v := int32(cb)-128, int32(cr)-128
	const half = 1 << 15
	return Chroma{91881*v + half, -22554*u - 46802*v + half, 116130*u + half}
}

// Level drops the fraction of a 16.16 number and clamps it to 0..255.
func Level(v int32) byte {
	if uint32(v) < 256<<16 {
		return byte(v >> 16)
	}
	if v < 0 {
		return 0
	}
	return 255
}

// ycbcr converts row y. Chroma is repeated, not smoothed, over the luma samples
// that share it.
func (r *rowWriter) ycbcr(p *Planes, y int) {
	luma := p.Y[y*p.YStride:][:p.Width]
	first := y / p.ShareY * p.CStride
	cb, cr := p.Cb[first:], p.Cr[first:]
	// With its place in locals the loop takes 15% less time than with put
	// (1920 x 1080, 4:2:0 and 4:4:4).
	pix, at, step, share := r.pix, r.at, r.step, p.ShareX
	for x := 0; x < len(luma); x += share {
		c := NewChroma(cb[x/share], cr[x/share])
		for _, v := range luma[x:min(x+share, len(luma))] {
			l := int32(v) << 16
			p := pix[at : at+3 : at+3]
			p[0], p[1], p[2] = Level(l+c.R), Level(l+c.G), Level(l+c.B)
			at += step
		}
	}
	r.at = at
}

func (r *rowWriter) gray(row []byte) {
	for _, v := range row {
		r.put(v, v, v)
	}
}

func (r *rowWriter) gray16(row []byte) {
	for ; len(row) >= 2; row = row[2:] {
		v := to8(be16(row))
		r.put(v, v, v)
	}
}

// rgba converts premultiplied pixels: over white adds what alpha leaves.
func (r *rowWriter) rgba(row []byte) {
	for ; len(row) >= 4; row = row[4:] {
		white := 255 - row[3]
		r.put(sat(row[0], white), sat(row[1], white), sat(row[2], white))
	}
}

func (r *rowWriter) nrgba(row []byte) {
	for ; len(row) >= 4; row = row[4:] {
		if a := uint32(row[3]); a == 255 {
			r.put(row[0], row[1], row[2])
		} else {
			r.put(over8(row[0], a), over8(row[1], a), over8(row[2], a))
		}
	}
}

func (r *rowWriter) rgba64(row []byte) {
	for ; len(row) >= 8; row = row[8:] {
		white := 0xffff - be16(row[6:])
		r.put(to8(min(be16(row)+white, 0xffff)), to8(min(be16(row[2:])+white, 0xffff)), to8(min(be16(row[4:])+white, 0xffff)))
	}
}

func (r *rowWriter) nrgba64(row []byte) {
	for ; len(row) >= 8; row = row[8:] {
		a := uint64(be16(row[6:]))
		r.put(over16(be16(row), a), over16(be16(row[2:]), a), over16(be16(row[4:]), a))
	}
}

func (r *rowWriter) cmyk(row []byte) {
	for ; len(row) >= 4; row = row[4:] {
		k := 255 - uint32(row[3])
		r.put(ink(row[0], k), ink(row[1], k), ink(row[2], k))
	}
}

// paletted converts one row through the prepared table.
func (r *rowWriter) paletted(row []byte, table *[256][3]byte) {
	for _, i := range row {
		c := &table[i]
		r.put(c[0], c[1], c[2])
	}
}

// generic converts through color.Color, for image types without a loop above.
func (r *rowWriter) generic(src image.Image, x0, y, w int) {
	for x := range w {
		r.put(overWhite(src.At(x0+x, y)))
	}
}

// paletteTable lays each colour over white. An index beyond the palette is black.
func paletteTable(palette color.Palette) *[256][3]byte {
	var t [256][3]byte
	for i, c := range palette[:min(len(palette), 256)] {
		t[i][0], t[i][1], t[i][2] = overWhite(c)
	}
	return &t
}

func overWhite(c color.Color) (red, green, blue byte) {
	r, g, b, a := c.RGBA() // premultiplied, 16 bits
	white := 0xffff - a
	return to8(min(r+white, 0xffff)), to8(min(g+white, 0xffff)), to8(min(b+white, 0xffff))
}

func be16(b []byte) uint32 { return uint32(b[0])<<8 | uint32(b[1]) }

// to8 scales 0..65535 to 0..255 with rounding.
func to8(v uint32) byte { return byte((v*255 + 32767) / 65535) }

// over8 lays one sample with alpha a (0..255) over white, with rounding.
func over8(v byte, a uint32) byte { return byte((uint32(v)*a + 255*(255-a) + 127) / 255) }

// over16 lays one 16-bit sample with alpha a (0..65535) over white and scales
// the result to 8 bits.
func over16(v uint32, a uint64) byte {
	return to8(uint32((uint64(v)*a + 65535*(65535-a) + 32767) / 65535))
}

// ink is what a CMY ink leaves of the light that black lets through (0..255).
func ink(v byte, light uint32) byte { return byte(((255-uint32(v))*light + 127) / 255) }

// sat adds without wrapping.
func sat(a, b byte) byte {
	if s := a + b; s >= a {
		return s
	}
	return 255
}
