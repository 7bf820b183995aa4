package detect

import (
	"encoding/binary"

	"github.com/menshen-io/menshen/models/decode"
)

func word(b []byte) uint64       { return binary.LittleEndian.Uint64(b) }
func putWord(b []byte, v uint64) { binary.LittleEndian.PutUint64(b, v) }

// layout is what a plan is made for: two pictures of the same layout go the
// same way.
type layout struct {
	box                  letterbox
	width, height        int // stored, in pixels
	samplesW, samplesH   int // of Y
	reduction            int
	shareX, shareY, turn int
	grey                 bool
}

// plan is how pictures of one layout become the input, and memory for one row
// at each step of the way.
type plan struct {
	layout
	w, h             int // of the letterboxed picture as stored
	lumaX, lumaY     axis
	chromaX, chromaY axis
	chromaW          int
	mixed            [3][]byte    // rows of Y, Cb, Cr, mixed from several
	across           [3][]int32   // the same, scaled across
	turned           [3][]float32 // a row of the input, where it does not lie in one piece
}

func newPlan(l layout) *plan {
	p := &plan{layout: l, chromaW: (l.samplesW + l.shareX - 1) / l.shareX}
	p.w, p.h = decode.Turn(l.turn).Stored(l.box.w, l.box.h)
	p.lumaX = newAxis(l.samplesW, l.reduction, l.width, p.w, 1<<acrossBits)
	p.lumaY = newAxis(l.samplesH, l.reduction, l.height, p.h, downOne)
	if !l.grey {
		p.chromaX = newAxis(p.chromaW, l.reduction*l.shareX, l.width, p.w, 1<<acrossBits)
		p.chromaY = newAxis((l.samplesH+l.shareY-1)/l.shareY, l.reduction*l.shareY, l.height, p.h, downOne)
	}
	for k := range 3 {
		p.mixed[k], p.across[k], p.turned[k] = make([]byte, l.samplesW), make([]int32, p.w), make([]float32, p.w)
	}
	return p
}

// fillPlanes scales a picture in planes into the input tensor, turned upright:
// three planes of inH x inW, black outside the picture. Brightness and colour
// are scaled each in its own plane and put together at the input's size.
func (y *YuNet) fillPlanes(in []float32, b letterbox, img *decode.Image) {
	src := img.Planes
	w, h := src.Turn.Stored(img.Width, img.Height)
	l := layout{b, w, h, src.Width, src.Height, src.Reduction, src.ShareX, src.ShareY, int(src.Turn), src.Cb == nil}
	p, _ := y.plans.Get().(*plan)
	if p == nil || p.layout != l {
		p = newPlan(l)
	}
	defer y.plans.Put(p)

	size := b.inW * b.inH
	y.planes.blacken(in, b)
	origin, dx, dy := src.Turn.Layout(p.w, p.h, b.inW)
	for t := range p.h {
		out := p.turned
		from := origin + t*dy
		if dx == 1 {
			for c := range out {
				out[c] = in[c*size+from : c*size+from+p.w]
			}
		}
		p.line(out, src, t, &y.planes)
		if dx != 1 {
			for c, row := range out {
				at := c*size + from
				for _, v := range row {
					in[at] = v
					at += dx
				}
			}
		}
	}
}

// line makes row t of the letterboxed picture, as stored.
func (p *plan) line(out [3][]float32, src *decode.Planes, t int, m *planes) {
	luma := p.lumaY.column(p.mixed[0], src.Y, src.YStride, p.samplesW, t)
	if p.grey {
		p.lumaX.row(p.across[0], luma)
		for c := range out {
			level := &m.level[c]
			for x, v := range p.across[0] {
				out[c][x] = level[byte((v+128)>>8)]
			}
		}
		return
	}
	cb := p.chromaY.column(p.mixed[1], src.Cb, src.CStride, p.chromaW, t)
	cr := p.chromaY.column(p.mixed[2], src.Cr, src.CStride, p.chromaW, t)
	// The rows of the tensor by colour of the pixel.
	r, g, b := out[m.plane[0]], out[m.plane[1]], out[m.plane[2]]
	levelR, levelG, levelB := &m.level[m.plane[0]], &m.level[m.plane[1]], &m.level[m.plane[2]]
	if p.lumaX.copies() && p.chromaX.n == 1 {
		p.unscaled(r, g, b, luma, cb, cr, levelR, levelG, levelB)
		return
	}
	ys, us, vs := p.across[0], p.across[1], p.across[2]
	p.lumaX.row(ys, luma)
	p.chromaX.row(us, cb)
	p.chromaX.row(vs, cr)
	us, vs, r, g, b = us[:len(ys)], vs[:len(ys)], r[:len(ys)], g[:len(ys)], b[:len(ys)]
	for x, v := range ys {
		// As decode.NewChroma, with 8 and 14 bits of fraction.
		l, u, v := v<<14+1<<21, us[x]-128<<8, vs[x]-128<<8
		r[x] = levelR[level(l+22970*v)]
		g[x] = levelG[level(l-5638*u-11700*v)]
		b[x] = levelB[level(l+29032*u)]
	}
}

// unscaled is the end of line for a picture that already has the input's width.
func (p *plan) unscaled(r, g, b []float32, luma, cb, cr []byte, levelR, levelG, levelB *[256]float32) {
	n, share := len(luma), p.shareX
	r, g, b = r[:n], g[:n], b[:n]
	for x := 0; x < n; x += share {
		c := decode.NewChroma(cb[x/share], cr[x/share])
		for i := x; i < min(x+share, n); i++ {
			l := int32(luma[i]) << 16
			r[i] = levelR[decode.Level(l+c.R)]
			g[i] = levelG[decode.Level(l+c.G)]
			b[i] = levelB[decode.Level(l+c.B)]
		}
	}
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

// blacken writes black wherever the input is beside the picture.
func (p *planes) blacken(in []float32, b letterbox) {
	size := b.inW * b.inH
	for c := range 3 {
		black := p.level[c][0]
		plane := in[c*size : (c+1)*size]
		for t := range b.inH {
			row := plane[t*b.inW : (t+1)*b.inW]
			if t < b.h {
				row = row[b.w:]
			}
			for i := range row {
				row[i] = black
			}
		}
	}
}
