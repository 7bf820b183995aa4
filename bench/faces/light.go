package faces

import "math"

// light shades the person by the relief and applies the light's colour and the
// camera's exposure.
func (c *canvas) light() {
	v := c.v
	norm := 1 / math.Sqrt(v.LightX*v.LightX+v.LightY*v.LightY+1)
	lx, ly, lz := float32(v.LightX*norm), float32(v.LightY*norm), float32(norm)
	// 2^Exposure by its series: no math library call whose last bit varies.
	e := v.Exposure * 0.6931471805599453
	gain := float32(1 + e*(1+e/2*(1+e/3*(1+e/4*(1+e/5)))))
	tint := rgb{1 + 0.10*float32(v.Warmth), 1, 1 - 0.10*float32(v.Warmth)}
	k := float32(v.Contrast)
	for j := range side {
		for i := range side {
			p := j*side + i
			f := gain
			if s := c.solid[p]; s > 0 {
				l, r, u, d := max(i-1, 0), min(i+1, side-1), max(j-1, 0), min(j+1, side-1)
				dx := (c.z[j*side+r] - c.z[j*side+l]) / float32(r-l)
				dy := (c.z[d*side+i] - c.z[u*side+i]) / float32(d-u)
				dx, dy = max(-2, min(2, dx)), max(-2, min(2, dy))
				n := float32(1 / math.Sqrt(float64(dx*dx+dy*dy+1)))
				lambert := max(0, (lz-dx*lx-dy*ly)*n)
				f *= 1 + s*(1-k+k*1.25*lambert-1)
			}
			for ch := range 3 {
				c.pix[p][ch] *= f * tint[ch]
			}
		}
	}
}

// soften blurs with a separable 7-tap kernel of the given standard deviation.
func (c *canvas) soften(sigma float64) {
	if sigma < 0.2 {
		return
	}
	// Weights of a discrete kernel with variance sigma^2: one or more passes of
	// [w, 1-2w, w], each with variance 2w, w <= 1/4.
	left := sigma * sigma
	tmp := new([side * side]rgb)
	for left > 1e-3 {
		w := float32(min(0.25, left/2))
		left -= 2 * float64(w)
		for j := range side {
			row := c.pix[j*side : (j+1)*side]
			for i := range side {
				a, b, d := &row[max(i-1, 0)], &row[i], &row[min(i+1, side-1)]
				for ch := range 3 {
					tmp[j*side+i][ch] = b[ch] + w*(a[ch]+d[ch]-2*b[ch])
				}
			}
		}
		for j := range side {
			up, mid, low := max(j-1, 0)*side, j*side, min(j+1, side-1)*side
			for i := range side {
				a, b, d := &tmp[up+i], &tmp[mid+i], &tmp[low+i]
				for ch := range 3 {
					c.pix[mid+i][ch] = b[ch] + w*(a[ch]+d[ch]-2*b[ch])
				}
			}
		}
	}
}

// expose turns the colours into bytes with sensor noise: part of it common to
// the three channels, part of it not.
func (c *canvas) expose(pix []byte) {
	seed := mix(c.v.Seed + 11)
	amount := float32(c.v.Noise)
	for p := range c.pix {
		h := mix(seed + uint64(p))
		common := bell16(h)
		h2 := mix(h)
		for ch := range 3 {
			n := 0.8*common + 0.6*bell8(h2>>(16*ch))
			x := c.pix[p][ch]*255 + amount*n + 0.5
			pix[3*p+ch] = byte(max(0, min(255, x)))
		}
	}
}

// bell16 turns 64 random bits into a value of mean 0 and variance 1.
func bell16(h uint64) float32 {
	s := int32(h&0xffff) + int32(h>>16&0xffff) + int32(h>>32&0xffff) + int32(h>>48) - 2*0xffff
	return float32(s) * (1.7320508 / 65536)
}

// bell8 does so with the lowest 16 bits.
func bell8(h uint64) float32 {
	s := int32(h&0xff) + int32(h>>8&0xff) - 0xff
	return float32(s) * (2.4494897 / 256)
}
