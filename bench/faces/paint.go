package faces

import "math"

// draw paints the person back to front.
func (c *canvas) draw(d dice) {
	c.backdrop(d)
	c.neckAndEars()
	c.skin()
	c.eyes()
	c.nose()
	c.mouth()
	c.beard()
	c.hair()
	if c.id.glasses != (c.v.Occlusion == GlassesSwap) {
		c.glasses()
	}
	switch c.v.Occlusion {
	case Cap:
		c.cap(d)
	case Hand:
		c.hand(d)
	case SurgicalMask:
		c.mask(d)
	}
}

// backdrop fills the crop with a soft gradient and a few shapes, new in every
// shot, so that nothing behind a person says who it is.
func (c *canvas) backdrop(d dice) {
	g := d.flat(0.15, 0.85)
	from := rgb{float32(g), float32(g * d.flat(0.9, 1.1)), float32(g * d.flat(0.85, 1.15))}
	to := from.scale(d.flat(0.6, 1.3))
	shapes := [3][4]float64{}
	for k := range shapes {
		shapes[k] = [4]float64{d.flat(-20, 132), d.flat(-20, 132), d.flat(10, 45), d.flat(-0.3, 0.3)}
	}
	for j := range side {
		for i := range side {
			col := from.lerp(to, float64(i+j)/(2*side))
			for _, s := range shapes {
				q := bump((float64(i)-s[0])/s[2], (float64(j)-s[1])/s[2])
				if q > 0 {
					col = col.scale(1 + s[3]*q)
				}
			}
			c.pix[j*side+i] = col
		}
	}
	shirt := rgb{float32(d.flat(0.1, 0.9)), float32(d.flat(0.1, 0.9)), float32(d.flat(0.1, 0.9))}
	slope := d.flat(0.12, 0.3)
	for p := range c.pix {
		x, y := math.Abs(float64(c.fx[p])), float64(c.fy[p])
		if a := clamp01(y - 116 - slope*x + 0.5); a > 0 {
			c.pix[p] = c.pix[p].lerp(shirt, a)
		}
	}
}

func (c *canvas) neckAndEars() {
	id := c.id
	neck := id.skin.scale(0.72)
	for p := range c.pix {
		x, y := float64(c.fx[p]), float64(c.fy[p])
		if y > 96 {
			a := clamp01(id.width*0.72-math.Abs(x)+0.5) * clamp01((y-96)/3) * clamp01(130-y)
			if a > 0 {
				c.pix[p] = c.pix[p].lerp(neck, a)
				c.solid[p] = float32(a)
			}
		}
	}
	if id.style == hairLong || id.style == hairAfro {
		c.mane()
	}
	if id.ears > 2 {
		for _, s := range [2]float64{-1, 1} {
			x := s*(id.halfWidth(id.earY, 0)-0.5) + id.mid(id.earY)
			c.disc(x, id.earY, id.ears*0.55, id.ears*1.35, id.skin.scale(0.85), 1)
			c.disc(x+s*0.6, id.earY, id.ears*0.25, id.ears*0.8, id.skin.scale(0.6), 0.6)
		}
	}
}

// mane is hair that falls behind the face.
func (c *canvas) mane() {
	id := c.id
	grow, low := 5+5*id.hairSide, 118.0
	if id.style == hairAfro {
		grow, low = 12+8*id.hairSide, 84
	}
	for p := range c.pix {
		x, y := float64(c.fx[p]), float64(c.fy[p])
		w := id.halfWidth(min(y, id.centreY+8), grow)
		if a := clamp01(w-math.Abs(x)+0.5) * clamp01(low-y+0.5); a > 0 {
			c.pix[p] = c.pix[p].lerp(c.strand(x, y), a)
			c.solid[p] = max(c.solid[p], float32(a))
		}
	}
}

// lattice is smooth noise in -1..1 that belongs to the identity: a hashed grid,
// interpolated.
func lattice(seed uint64, x, y float64) float64 {
	x0, y0 := math.Floor(x), math.Floor(y)
	fx, fy := x-x0, y-y0
	fx, fy = fx*fx*(3-2*fx), fy*fy*(3-2*fy)
	i, j := uint64(int64(x0)+1024), uint64(int64(y0)+1024)
	at := func(i, j uint64) float64 {
		return float64(int64(mix(seed^(i<<20|j))>>40))/(1<<23) - 1
	}
	top := at(i, j) + (at(i+1, j)-at(i, j))*fx
	low := at(i, j+1) + (at(i+1, j+1)-at(i, j+1))*fx
	return top + (low-top)*fy
}

func (c *canvas) skin() {
	id := c.id
	rosy := rgb{id.skin[0], id.skin[1] * 0.75, id.skin[2] * 0.72}
	for p := range c.pix {
		x, y := float64(c.fx[p]), float64(c.fy[p])
		w := id.halfWidth(y, 0)
		if w <= 0 {
			continue
		}
		dx := x - id.mid(y)
		a := clamp01(w - math.Abs(dx) + 0.5)
		if a == 0 {
			continue
		}
		tone := 1 + id.mottle[0]*lattice(id.seed, x/15, y/15) + id.mottle[1]*lattice(id.seed+1, x/7, y/7)
		col := id.skin.scale(tone)
		if f := bump((math.Abs(dx)-21)/14, (y-74)/13); f > 0 {
			col = col.lerp(rosy, id.flush*4*f)
		}
		c.pix[p] = c.pix[p].lerp(col, a)
		c.solid[p] = max(c.solid[p], float32(a))
	}
	for _, m := range id.moles {
		c.shade(m.x, m.y, m.r, m.r, m.depth)
	}
	// folds from the nose to the mouth, deeper in a smile
	fold := id.furrow + 0.25*max(0, c.v.Smile)
	for _, s := range [2]float64{-1, 1} {
		c.paint(-30, id.noseY-2, 30, id.mouthY+4, func(x, y float64) (rgb, float64) {
			t := (y - id.noseY) / (id.mouthY - id.noseY)
			line := id.mid(y) + s*(id.noseW+2+(id.mouthW+2-id.noseW)*t)
			return id.skin.scale(0.35), fold * bump((x-line)/1.8, (t-0.5)/0.75)
		})
		c.shade(s*id.eyeX, id.eyeY+6.5, id.eyeW*1.2, 3, id.eyeBags)
	}
}

func (c *canvas) eyes() {
	id, v := c.id, c.v
	for _, s := range [2]float64{-1, 1} {
		ex, ey := s*id.eyeX, id.eyeY-s*id.eyeSkew
		open := id.eyeH * (1 - 0.85*v.Blink) * (1 - 0.2*max(0, v.Smile))
		tilt := -s * id.eyeTilt
		c.shade(ex, ey-3.5, id.eyeW*1.5, 5.5, 0.28)
		ix, iy := ex+v.Gaze*2.2, ey-0.3
		c.paint(ex-id.eyeW-2, ey-8, ex+id.eyeW+2, ey+7, func(x, y float64) (rgb, float64) {
			dx := (x - ex) / id.eyeW
			dy := y - ey - tilt*(x-ex)
			if dx <= -1 || dx >= 1 {
				return rgb{}, 0
			}
			arc := (1 - dx*dx)
			up, down := -open*arc, 0.75*open*arc
			in := clamp01(min(dy-up, down-dy) + 0.5)
			col := rgb{0.90, 0.88, 0.86}
			r := math.Sqrt((x-ix)*(x-ix) + (y-iy)*(y-iy))
			col = col.lerp(id.iris, clamp01(id.irisR-r+0.5))
			col = col.lerp(rgb{0.03, 0.03, 0.03}, clamp01(id.irisR*0.45-r+0.5))
			col = col.lerp(rgb{1, 1, 1}, clamp01(0.8-math.Sqrt((x-ix-1)*(x-ix-1)+(y-iy+1)*(y-iy+1))+0.3))
			lash := id.lid * clamp01(1.3-math.Abs(dy-up))
			col = col.lerp(rgb{0.08, 0.05, 0.04}, lash)
			return col, max(in, lash)
		})
		// crease of the lid
		c.paint(ex-id.eyeW-1, ey-10, ex+id.eyeW+1, ey, func(x, y float64) (rgb, float64) {
			dx := (x - ex) / (id.eyeW + 1)
			line := ey + tilt*(x-ex) - id.eyeH*(1-dx*dx) - 2.2
			return id.skin.scale(0.45), 0.5 * clamp01(1-math.Abs(y-line)) * clamp01(1-dx*dx)
		})
		by := ey + id.browY - 0.8*max(0, v.Smile)
		c.paint(ex-id.browW-2, by-9, ex+id.browW+2, by+8, func(x, y float64) (rgb, float64) {
			dx := s * (x - ex) / id.browW // -1 inner end, 1 outer
			if dx <= -1 || dx >= 1 {
				return rgb{}, 0
			}
			line := by - id.browArch*(1-(dx-0.25)*(dx-0.25)) - s*id.browTilt*(x-ex)
			thick := id.browH * (1 - 0.55*max(0, dx)) * min(1, 4*(1-dx*dx))
			return id.hair.scale(0.7), id.brow * clamp01(thick-math.Abs(y-line)+0.5)
		})
	}
}

func (c *canvas) nose() {
	id := c.id
	x0 := id.mid(id.noseY) + id.noseX
	c.shade(x0, id.noseY+5.5, id.noseW*1.25, 3.2, 0.3)
	for _, s := range [2]float64{-1, 1} {
		c.shade(x0+s*id.noseW*0.46, id.noseY+3.6, 2.6, 1.7, 0.75)
		c.shade(x0+s*id.noseW*1.02, id.noseY+1.2, 2.2, 4.6, 0.3)
		c.shade(x0*0.5+s*id.noseW*0.62, id.eyeY+6, 3.0, 11, 0.22*id.bridge+0.08)
	}
	c.paint(x0-3, id.noseY-4, x0+3, id.noseY+1, func(x, y float64) (rgb, float64) {
		return rgb{1, 1, 1}, 0.16 * bump((x-x0)/3, (y-id.noseY+1.5)/2.5)
	})
}

func (c *canvas) mouth() {
	id, v := c.id, c.v
	m := id.mid(id.mouthY)
	wide := id.mouthW * (1 + 0.10*v.Smile)
	gap := 5.5 * v.Open
	c.paint(m-wide-1, id.mouthY-id.upperLip-5, m+wide+1, id.mouthY+id.lowerLip+gap+5, func(x, y float64) (rgb, float64) {
		q := (x - m) / wide
		if q <= -1 || q >= 1 {
			return rgb{}, 0
		}
		arc := 1 - q*q
		line := id.mouthY + id.mouthTilt*(x-m) - 2.4*v.Smile*(q*q-0.35)
		top := line - gap*0.35*arc
		low := line + gap*0.65*arc
		cupid := 1 - id.bow*bump(q/0.22, 0)
		up := id.upperLip * arc * cupid * (1 - 0.2*max(0, v.Smile))
		down := id.lowerLip * arc * (0.6 + 0.4*arc)
		switch {
		case y < top:
			return id.lip.scale(0.86), clamp01(y-top+up+0.5) * 0.9
		case y > low:
			return id.lip, clamp01(low+down-y+0.5) * 0.9
		case y < top+1.8*v.Open+0.3 && v.Open > 0.25:
			return rgb{0.88, 0.86, 0.80}, 1
		}
		return rgb{0.16, 0.05, 0.05}, 1
	})
	c.paint(m-wide-1, id.mouthY-5, m+wide+1, id.mouthY+5, func(x, y float64) (rgb, float64) {
		q := (x - m) / wide
		line := id.mouthY + id.mouthTilt*(x-m) - 2.4*v.Smile*(q*q-0.35) - gap*0.35*(1-q*q)
		return rgb{0.2, 0.07, 0.06}, 0.8 * clamp01(1.1-math.Abs(y-line)) * clamp01(3*(1-q*q))
	})
	c.shade(m, id.mouthY+id.lowerLip+gap+3.5, id.mouthW*0.7, 2.6, 0.22)
}

func (c *canvas) beard() {
	id := c.id
	if id.beard == beardNone {
		return
	}
	m := id.mid(id.mouthY)
	c.paint(-60, id.noseY+2, 60, 125, func(x, y float64) (rgb, float64) {
		w := id.halfWidth(y, 0)
		if w <= 0 || math.Abs(x) > w {
			return rgb{}, 0
		}
		q := (x - m) / (id.mouthW * 1.15)
		moustache := clamp01((y-id.noseY-6.5-2.5*q*q)*0.5) *
			clamp01((id.mouthY-0.5*id.upperLip-y+3*q*q+0.5)*0.7) * clamp01(2.2*(1-q*q))
		chin := clamp01(2.5*bump((x-m)/(id.mouthW*1.05), (y-id.mouthY-id.lowerLip-11)/12)) *
			clamp01((y-(id.mouthY+id.lowerLip+1.5))*0.5)
		edge := math.Abs(x-m) / w
		jaw := clamp01((y - id.beardLine - 9*(1-edge) + 12*clamp01(edge*3-2)) * 0.35)
		lips := bump((x-m)/(id.mouthW*1.15), (y-id.mouthY-0.5)/(4+0.5*(id.upperLip+id.lowerLip)))
		var a float64
		switch id.beard {
		case beardStubble:
			a = 0.4 * max(jaw, moustache)
		case beardMoustache:
			a = moustache
		case beardGoatee:
			a = max(moustache, chin)
		case beardFull:
			a = max(jaw, max(moustache, chin))
		}
		if a *= id.beardDark * clamp01(1-1.6*lips); a <= 0 {
			return rgb{}, 0
		}
		return c.strand(x, y).scale(0.8), a * (0.8 + 0.2*lattice(id.seed+7, x/2, y/2))
	})
}

// strand is the colour of the hair at one place.
func (c *canvas) strand(x, y float64) rgb {
	return c.id.hair.scale(1 + 0.25*lattice(c.id.seed+3, x/2.2, y/11) + 0.35*lattice(c.id.seed+4, x/8, y/14))
}

func (c *canvas) hair() {
	id := c.id
	grow := 3 + 3*id.hairSide
	switch id.style {
	case hairAfro:
		grow = 12 + 8*id.hairSide
	case hairBald:
		grow = 1
	}
	c.paint(-90, -60, 90, 122, func(x, y float64) (rgb, float64) {
		dx := x - id.mid(y)
		out := id.halfWidth(min(y, id.earY+4), grow)
		if out <= 0 && y > 0 {
			return rgb{}, 0
		}
		ad := math.Abs(dx)
		outer := clamp01(out - ad + 0.5)
		if outer == 0 || y < id.centreY-id.height-grow {
			return rgb{}, 0
		}
		line := id.hairline + id.hairWave*lattice(id.seed+5, x/11, 0)
		sideburn := id.earY - 6
		thick := 1.5 + 4.5*id.hairSide
		switch id.style {
		case hairBald:
			line = -40
			thick = 1.5
		case hairShort:
			line += 5 * bump(dx/12, 0) * (id.hairSide - 0.5)
		case hairFringe:
			line += 11 + 2*lattice(id.seed+6, x/4, 0)
		case hairParted:
			line += 0.32*math.Abs(x-id.hairPart) - 6
		case hairLong:
			line += 0.30*math.Abs(x-id.hairPart*0.5) - 5
			sideburn = 122
			thick = 3 + 6*id.hairSide
		case hairAfro:
			line += 2
		}
		a := clamp01(line - y + 0.5)
		if y < sideburn && y > id.hairline-8 {
			in := id.halfWidth(y, 0) - thick
			a = max(a, clamp01((ad-in)*0.8)*clamp01((sideburn-y)*0.3))
		}
		if a *= outer; a <= 0 {
			return rgb{}, 0
		}
		return c.strand(x, y), a
	})
	// what the hair adds to the outline is part of the person for the light
	for p := range c.pix {
		x, y := float64(c.fx[p]), float64(c.fy[p])
		if y < id.hairline && math.Abs(x) < id.halfWidth(y, grow) {
			c.solid[p] = 1
		}
	}
}

func (c *canvas) glasses() {
	id := c.id
	ring := func(x, y float64, s float64) float64 {
		dx, dy := math.Abs(x-s*(id.eyeX+0.6)), math.Abs(y-id.eyeY-id.glassGap)
		u, v := dx/id.glassW, dy/id.glassH
		u2, v2 := u*u, v*v
		q := u2 + v2
		if id.glassRound > 2 { // squarer rims
			q = math.Sqrt(u2*u2 + v2*v2)
		}
		return (math.Sqrt(q) - 1) * min(id.glassW, id.glassH)
	}
	c.paint(-50, id.eyeY-22, 50, id.eyeY+24, func(x, y float64) (rgb, float64) {
		l, r := ring(x, y, -1), ring(x, y, 1)
		d := min(math.Abs(l), math.Abs(r))
		a := clamp01(id.glassT*0.7 - d + 0.5)
		if l > 0 && r > 0 { // bridge and arms
			bar := math.Abs(y - id.eyeY - id.glassGap + 2 - 0.004*x*x)
			if math.Abs(x) < id.eyeX || math.Abs(x) > id.eyeX+id.glassW-1 {
				a = max(a, clamp01(id.glassT*0.6-bar+0.5))
			}
		}
		if a == 0 && (l < 0 || r < 0) { // a faint reflection
			return rgb{1, 1, 1}, 0.07 + 0.18*bump((x+y*0.7-40)/9, 0)
		}
		return id.glassColour, a
	})
}
