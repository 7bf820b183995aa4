package align

import (
	"math"

	"github.com/menshen-io/menshen/models/decode"
)

// track is the line through the stored image that a row of the crop lies on, in
// pixels: (x, y) is the place of the row's first pixel, (dx, dy) the step.
type track struct{ x, y, dx, dy float64 }

// at returns the place of the row's pixel i.
func (t track) at(i int) (x, y float64) { return t.x + float64(i)*t.dx, t.y + float64(i)*t.dy }

// scaled changes the unit from pixels to samples that each stand for n x m
// pixels. Centres of pixels and of samples are whole numbers.
func (t track) scaled(n, m int) track {
	fx, fy := 1/float64(n), 1/float64(m)
	return track{(t.x+0.5)*fx - 0.5, (t.y+0.5)*fy - 0.5, t.dx * fx, t.dy * fy}
}

// inside tells whether all four neighbours of every place of the row's track
// are samples of a w x h plane, with a margin for the rounding of fixed point.
// The track is straight: with both ends inside, all of it is.
func (t track) inside(w, h int) bool {
	const margin = 1e-3
	right, bottom := float64(w-1)-margin, float64(h-1)-margin
	x, y := t.at(Size - 1)
	return t.x >= margin && t.y >= margin && t.x < right && t.y < bottom && x >= margin && y >= margin && x < right && y < bottom
}

// warpPlanes is Warp for a picture in planes: brightness and colour differences
// are sampled bilinearly, each in its own plane, and put together in the crop.
func warpPlanes(c *Crop, img *decode.Image, inv Similarity) {
	p := img.Planes
	cw, ch := p.ChromaSize()
	for v := range Size {
		row := c.Pix[v*Size*3 : (v+1)*Size*3]
		x0, y0 := inv.Apply(0, float64(v))
		x1, y1 := inv.Apply(Size-1, float64(v))
		var t track
		t.x, t.y = p.Turn.Source(x0, y0, img.Width, img.Height)
		t.dx, t.dy = p.Turn.Source(x1, y1, img.Width, img.Height)
		t.dx, t.dy = (t.dx-t.x)/(Size-1), (t.dy-t.y)/(Size-1)

		luma := t.scaled(p.Reduction, p.Reduction)
		chroma := t.scaled(p.Reduction*p.ShareX, p.Reduction*p.ShareY)
		switch {
		case !luma.inside(p.Width, p.Height) || p.Cb != nil && !chroma.inside(cw, ch):
			edgePlanes(row, img, t)
		case p.Cb == nil:
			greyRow(row, p, newWalk(luma))
		default:
			colourRow(row, p, newWalk(luma), newWalk(chroma))
		}
	}
}

// walk is a track in fixed point.
type walk struct{ x, y, dx, dy int64 }

func newWalk(t track) walk {
	const one = 1 << fractionBits
	return walk{int64(math.Round(t.x * one)), int64(math.Round(t.y * one)), int64(math.Round(t.dx * one)), int64(math.Round(t.dy * one))}
}

// weights returns the index of the top left neighbour and the weights of the
// four, which sum to 1 << (2 * weightBits).
func (w walk) weights(stride int) (at int, w00, w01, w10, w11 uint32) {
	at = int(w.y>>fractionBits)*stride + int(w.x>>fractionBits)
	wx := uint32(w.x>>(fractionBits-weightBits)) & (1<<weightBits - 1)
	wy := uint32(w.y>>(fractionBits-weightBits)) & (1<<weightBits - 1)
	w11 = wx * wy
	w10 = wy<<weightBits - w11
	w01 = wx<<weightBits - w11
	return at, 1<<(2*weightBits) - w11 - w10 - w01, w01, w10, w11
}

// greyRow fills one row that lies inside the image.
func greyRow(row []byte, p *decode.Planes, l walk) {
	stride := p.YStride
	for len(row) >= 3 {
		at, w00, w01, w10, w11 := l.weights(stride)
		top := p.Y[at : at+2 : at+2]
		bottom := p.Y[at+stride : at+stride+2 : at+stride+2]
		const half = 1 << (2*weightBits - 1)
		v := byte((uint32(top[0])*w00 + uint32(top[1])*w01 + uint32(bottom[0])*w10 + uint32(bottom[1])*w11 + half) >> (2 * weightBits))
		row[0], row[1], row[2] = v, v, v
		row = row[3:]
		l.x += l.dx
		l.y += l.dy
	}
}

// colourRow fills one row that lies inside the image. Brightness and colour
// differences keep 8 bits of fraction until they are put together.
func colourRow(row []byte, p *decode.Planes, l, c walk) {
	yStride, cStride := p.YStride, p.CStride
	const drop = 2*weightBits - 8
	for len(row) >= 3 {
		at, w00, w01, w10, w11 := l.weights(yStride)
		top := p.Y[at : at+2 : at+2]
		bottom := p.Y[at+yStride : at+yStride+2 : at+yStride+2]
		y := int32((uint32(top[0])*w00 + uint32(top[1])*w01 + uint32(bottom[0])*w10 + uint32(bottom[1])*w11) >> drop)

		at, w00, w01, w10, w11 = c.weights(cStride)
		top, bottom = p.Cb[at:at+2:at+2], p.Cb[at+cStride:at+cStride+2:at+cStride+2]
		cb := int32((uint32(top[0])*w00 + uint32(top[1])*w01 + uint32(bottom[0])*w10 + uint32(bottom[1])*w11) >> drop)
		top, bottom = p.Cr[at:at+2:at+2], p.Cr[at+cStride:at+cStride+2:at+cStride+2]
		cr := int32((uint32(top[0])*w00 + uint32(top[1])*w01 + uint32(bottom[0])*w10 + uint32(bottom[1])*w11) >> drop)

		row[0], row[1], row[2] = rgb(y, cb, cr)
		row = row[3:]
		l.x, l.y = l.x+l.dx, l.y+l.dy
		c.x, c.y = c.x+c.dx, c.y+c.dy
	}
}

// rgb converts samples with 8 bits of fraction (JFIF 1.02; decode.NewChroma has
// the formula). Its coefficients have 14 bits of fraction: 10 of 32 stay.
func rgb(y, cb, cr int32) (r, g, b byte) {
	y = y<<14 + 1<<21 // and half a level for rounding
	cb -= 128 << 8
	cr -= 128 << 8
	return level(y + 22970*cr), level(y - 5638*cb - 11700*cr), level(y + 29032*cb)
}

// level drops 22 bits of fraction and clamps to 0..255.
func level(v int32) byte {
	if uint32(v) < 256<<22 {
		return byte(v >> 22)
	}
	if v < 0 {
		return 0
	}
	return 255
}

// edgePlanes fills one row that leaves the image somewhere. Neighbours outside
// count as black with their weight. That is separable: the colour at the nearest
// place inside, times the share of the neighbours inside, across and down.
func edgePlanes(row []byte, img *decode.Image, t track) {
	p := img.Planes
	w, h := p.Turn.Stored(img.Width, img.Height)
	cw, ch := p.ChromaSize()
	for i := range Size {
		x, y := t.at(i)
		if !(x > -1 && y > -1 && x < float64(w) && y < float64(h)) {
			continue // all black; not-a-number and the far outside end here too
		}
		here := track{x: x, y: y}
		light := sample(p.Y, p.YStride, p.Width, p.Height, here.scaled(p.Reduction, p.Reduction))
		cb, cr := 128.0, 128.0
		if p.Cb != nil {
			at := here.scaled(p.Reduction*p.ShareX, p.Reduction*p.ShareY)
			cb, cr = sample(p.Cb, p.CStride, cw, ch, at), sample(p.Cr, p.CStride, cw, ch, at)
		}
		r, g, b := rgb(int32(light*256), int32(cb*256), int32(cr*256))
		share := within(x, w) * within(y, h)
		row[3*i], row[3*i+1], row[3*i+2] = byte(float64(r)*share+0.5), byte(float64(g)*share+0.5), byte(float64(b)*share+0.5)
	}
}

// within is the weight of the neighbours of x that are one of n pixels.
func within(x float64, n int) float64 { return max(0, min(1, x+1, float64(n)-x)) }

// sample interpolates at the place of the plane that is nearest to (t.x, t.y).
func sample(plane []byte, stride, w, h int, t track) float64 {
	x, y := max(0, min(t.x, float64(w-1))), max(0, min(t.y, float64(h-1)))
	left, top := int(x), int(y)
	wx, wy := x-float64(left), y-float64(top)
	right, bottom := min(left+1, w-1), min(top+1, h-1)
	upper := (1-wx)*float64(plane[top*stride+left]) + wx*float64(plane[top*stride+right])
	lower := (1-wx)*float64(plane[bottom*stride+left]) + wx*float64(plane[bottom*stride+right])
	return (1-wy)*upper + wy*lower
}
