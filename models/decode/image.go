package decode

import "image"

// Image is a decoded photograph of Width x Height upright pixels, held in one
// of two forms.
//
// RGB (PNG, PNM, rare kinds of JPEG, and whatever is drawn): Pix holds rows from
// top to bottom, pixels from left to right, three bytes R, G, B each, with no
// padding; len(Pix) == 3*Width*Height, and Planes is nil.
//
// Planes (JPEG): the samples as the decoder left them, neither turned nor
// converted; Pix is nil. Who samples a few places of a picture, as an aligned
// crop does, reads them there; RGB converts everything.
//
// The holder owns it.
type Image struct {
	Width, Height int
	Pix           []byte
	Planes        *Planes
}

// Planes are the samples of a JPEG as stored: brightness Y, and the colour
// differences Cb and Cr (nil for grey), full range as JFIF 1.02 has it.
type Planes struct {
	Y, Cb, Cr        []byte
	YStride, CStride int
	// Width and Height are those of Y, as stored, before any turn.
	Width, Height int
	// ShareX and ShareY say how many samples of Y, along a row and down a
	// column, share one of Cb and Cr. Of these there are ShareX'ths and
	// ShareY'ths of Width and Height, rounded up.
	ShareX, ShareY int
	// Reduction is how many pixels a side of the photograph one sample of Y
	// stands for: 1, or 2, 4, 8 where it was decoded at a reduced size. Sample
	// 0 stands for pixels 0 to Reduction-1.
	Reduction int
	// Turn leads from the stored rows to the upright ones.
	Turn Turn

	buffer []byte // what the planes lie in, where Buffers lent it
	lender *Buffers
}

// ChromaSize returns the width and height of Cb and Cr, 0, 0 for grey.
func (p *Planes) ChromaSize() (w, h int) {
	if p.Cb == nil {
		return 0, 0
	}
	return (p.Width + p.ShareX - 1) / p.ShareX, (p.Height + p.ShareY - 1) / p.ShareY
}

// Whole tells whether there are pixels, and that they fit the size.
func (m *Image) Whole() bool {
	if m == nil || m.Width <= 0 || m.Height <= 0 {
		return false
	}
	if p := m.Planes; p != nil {
		w, h := m.Width, m.Height
		if p.Turn.swaps() {
			w, h = h, w
		}
		cw, ch := p.ChromaSize()
		return m.Pix == nil && p.Reduction > 0 && p.Width == (w+p.Reduction-1)/p.Reduction && p.Height == (h+p.Reduction-1)/p.Reduction &&
			holds(p.Y, p.YStride, p.Width, p.Height) && holds(p.Cb, p.CStride, cw, ch) && holds(p.Cr, p.CStride, cw, ch)
	}
	return len(m.Pix) == 3*m.Width*m.Height
}

func holds(plane []byte, stride, w, h int) bool {
	return h == 0 || stride >= w && len(plane) >= stride*(h-1)+w
}

// RGB returns the picture in its RGB form: itself, or a conversion of its
// planes with as many pixels as those hold, fewer than Width x Height where it
// was decoded at a reduced size.
func (m *Image) RGB() *Image {
	if m.Planes == nil {
		return m
	}
	p := m.Planes
	out := &Image{Width: p.Width, Height: p.Height, Pix: make([]byte, 3*p.Width*p.Height)}
	if p.Turn.swaps() {
		out.Width, out.Height = out.Height, out.Width
	}
	origin, dx, dy := p.Turn.Layout(p.Width, p.Height, out.Width)
	for y := range p.Height {
		row := rowWriter{pix: out.Pix, at: 3 * (origin + y*dy), step: 3 * dx}
		if p.Cb == nil {
			row.gray(p.Y[y*p.YStride:][:p.Width])
		} else {
			row.ycbcr(p, y)
		}
	}
	return out
}

// Release gives memory that Buffers lent back to them, and takes it from the
// picture, which has no pixels afterwards. It is for the holder that knows that
// nobody reads the pixels any more; a picture that is not released is the
// garbage collector's. A second call does nothing.
func (m *Image) Release() {
	if m == nil || m.Planes == nil || m.Planes.lender == nil {
		return
	}
	p := m.Planes
	m.Planes = nil
	p.lender.put(p.buffer)
	*p = Planes{}
}

// planesOf returns the planes of what the standard library's JPEG decoder
// made, without copying, or nil where it is no YCbCr or grey image that starts
// at a whole group of samples.
func planesOf(src image.Image, t Turn) *Planes {
	b := src.Bounds()
	p := &Planes{Width: b.Dx(), Height: b.Dy(), ShareX: 1, ShareY: 1, Reduction: 1, Turn: t}
	switch m := src.(type) {
	case *image.Gray:
		p.Y, p.YStride = m.Pix, m.Stride
		return p
	case *image.YCbCr:
		switch m.SubsampleRatio {
		case image.YCbCrSubsampleRatio422:
			p.ShareX = 2
		case image.YCbCrSubsampleRatio420:
			p.ShareX, p.ShareY = 2, 2
		case image.YCbCrSubsampleRatio440:
			p.ShareY = 2
		case image.YCbCrSubsampleRatio411:
			p.ShareX = 4
		case image.YCbCrSubsampleRatio410:
			p.ShareX, p.ShareY = 4, 2
		}
		if b.Min.X%p.ShareX != 0 || b.Min.Y%p.ShareY != 0 {
			return nil
		}
		c := m.COffset(b.Min.X, b.Min.Y)
		p.Y, p.YStride = m.Y[m.YOffset(b.Min.X, b.Min.Y):], m.YStride
		p.Cb, p.Cr, p.CStride = m.Cb[c:], m.Cr[c:], m.CStride
		return p
	}
	return nil
}

// place wraps planes as an upright image of the stored size w x h.
func (p *Planes) place(w, h int) *Image {
	if p.Turn.swaps() {
		w, h = h, w
	}
	return &Image{Width: w, Height: h, Planes: p}
}
