package faces

import "math"

func anyColour(d dice) rgb {
	return rgb{float32(d.flat(0.08, 0.9)), float32(d.flat(0.08, 0.9)), float32(d.flat(0.08, 0.9))}
}

// cap covers the head down to the brows' upper side and throws a shadow.
func (c *canvas) cap(d dice) {
	id := c.id
	cloth, brim := anyColour(d), 25+d.flat(-3, 4)
	for p := range c.pix {
		x, y := float64(c.fx[p]), float64(c.fy[p])
		edge := brim + 0.004*x*x
		if a := clamp01(edge-y+0.5) * clamp01(id.halfWidth(min(y, id.centreY), 7)-math.Abs(x)+0.5); a > 0 {
			c.pix[p] = c.pix[p].lerp(cloth.scale(1-0.25*clamp01((y-edge+6)/6)), a)
			c.solid[p] = 1
		} else if y >= edge && y < edge+9 {
			c.pix[p] = c.pix[p].scale(1 - 0.35*(1-(y-edge)/9)*float64(c.solid[p]))
		}
	}
}

// hand is held to one side of the jaw.
func (c *canvas) hand(d dice) {
	s := 1.0
	if d.chance(0.5) {
		s = -1
	}
	tone := c.id.skin.scale(d.flat(0.85, 1.1))
	x0, y0 := s*d.flat(30, 40), d.flat(92, 104)
	for k := range 4 {
		x, y := x0-s*float64(k)*1.5, y0-9+6.5*float64(k)
		c.disc(x, y, 15, 3.9, tone.scale(0.55), 1)
		c.disc(x, y-0.4, 14.4, 3.1, tone, 1)
	}
}

// mask covers nose and mouth.
func (c *canvas) mask(d dice) {
	id := c.id
	cloth := rgb{0.62, 0.78, 0.86}
	switch d.pick(2, 1, 1) {
	case 1:
		cloth = rgb{0.93, 0.93, 0.92}
	case 2:
		cloth = rgb{0.08, 0.08, 0.09}
	}
	top := id.noseY - d.flat(4, 12)
	for p := range c.pix {
		x, y := float64(c.fx[p]), float64(c.fy[p])
		edge := top + 0.010*x*x
		a := clamp01(y-edge+0.5) * clamp01(id.halfWidth(min(y, 108), 1)-math.Abs(x)+0.5)
		if a > 0 && c.solid[p] > 0 {
			fold := 1 - 0.10*clamp01(1-math.Abs(math.Mod(y-edge, 11)-5.5))
			c.pix[p] = c.pix[p].lerp(cloth.scale(fold), a)
		}
	}
}
