package faces

import (
	"math"

	"github.com/menshen-io/menshen/models/align"
)

const (
	side   = 112 // pixels of a crop's edge
	pivotY = 70  // height of the axis the head nods about

	// The depth map: the face's relief on a coarse grid, looked up bilinearly.
	gridStep         = 2
	gridX0, gridY0   = -80, -24
	gridNX, gridNY   = 81, 85
	solveSteps       = 3    // fixed-point steps from a pixel to the face
	eyeRow           = 51.6 // where the ArcFace reference has the eyes
	midX             = 55.91310882568359
	landmarksPerFace = 5
)

// canvas is one shot being drawn: where each pixel lies on the face, how far it
// stands out, and its colour so far.
type canvas struct {
	id *Identity
	v  *Variation

	relief                 [gridNX * gridNY]float32
	cosY, sinY, cosP, sinP float64
	a, b, tx, ty           float64 // similarity from the projected face to the crop

	fx, fy [side * side]float32 // face coordinates of each pixel
	z      [side * side]float32 // depth towards the camera
	pix    [side * side]rgb
	solid  [side * side]float32 // how much of a pixel belongs to the person
}

func clamp01(x float64) float64 { return min(1, max(0, x)) }

// bump is 1 at the centre and falls smoothly to 0 at distance 1.
func bump(x, y float64) float64 {
	q := 1 - x*x - y*y
	if q <= 0 {
		return 0
	}
	return q * q
}

// mid is the face's own midline at height y.
func (id *Identity) mid(y float64) float64 { return id.asymmetry * (y - eyeRow) }

// halfWidth is the half width of the head at height y, 0 above and below it.
func (id *Identity) halfWidth(y, grow float64) float64 {
	t := (y - id.centreY) / (id.height + grow)
	if t <= -1 || t >= 1 {
		return 0
	}
	w := math.Sqrt(1 - t*t)
	if t > 0 {
		// Towards the chin: narrower, then squared off again.
		w *= 1 - id.jaw*t
		w += 0.05 * id.chin * t * t * (1 - t*t)
	} else {
		w *= 1 - id.temple*t*t
	}
	return (id.width + grow) * w
}

// standsOut is the relief of the face at (x, y), pixels towards the viewer.
func (id *Identity) standsOut(x, y float64) float64 {
	w := id.halfWidth(y, 0)
	if w <= 0 {
		return 0
	}
	q := (x - id.mid(y)) / w
	if q <= -1 || q >= 1 {
		return 0
	}
	t := (y - id.centreY) / id.height
	z := id.depth * math.Sqrt((1-q*q)*(1-0.8*t*t))

	// nose: a ridge that rises to the tip and ends below it
	x0 := id.mid(y) + id.noseX*clamp01((y-eyeRow)/20)
	top, tip := id.eyeY-2, id.noseY
	if y > top && y < tip+7 {
		rise := id.bridge + (1-id.bridge)*clamp01((y-top)/(tip-top))
		rise *= clamp01((y - top) / 8)
		if y > tip {
			rise *= 1 - (y-tip)/7
		}
		half := id.noseW * (0.45 + 0.6*clamp01((y-top)/(tip-top)))
		z += id.noseL * rise * bump((x-x0)/(half*1.15), 0)
	}
	for _, s := range [2]float64{-1, 1} {
		z -= 3.2 * bump((x-s*id.eyeX)/11, (y-id.eyeY)/7.5)
		z += 2.2 * bump((x-s*id.eyeX)/14, (y-id.eyeY-id.browY)/6)
		z += id.cheek * bump((x-s*id.width*0.58)/14, (y-70)/12)
	}
	m := id.mid(id.mouthY)
	z += 2.5 * bump((x-m)/id.mouthW/1.2, (y-id.mouthY)/9)
	z += 3.0 * bump((x-id.mid(110))/12, (y-109)/9)
	return z
}

// layout fixes the geometry of the shot: relief, pose, alignment, and the face
// coordinates of every pixel.
func (c *canvas) layout(d dice) {
	for j := range gridNY {
		for i := range gridNX {
			c.relief[j*gridNX+i] = float32(c.id.standsOut(float64(gridX0+gridStep*i), float64(gridY0+gridStep*j)))
		}
	}
	c.sinY, c.cosY = math.Sincos(c.v.Yaw)
	c.sinP, c.cosP = math.Sincos(c.v.Pitch)

	// What a detector and the five-point alignment would do with this face.
	id := c.id
	spots := [landmarksPerFace][2]float64{
		{-id.eyeX, id.eyeY + id.eyeSkew}, {id.eyeX, id.eyeY - id.eyeSkew},
		{id.mid(id.noseY) + id.noseX, id.noseY},
		{id.mid(id.mouthY) - id.mouthW, id.mouthY}, {id.mid(id.mouthY) + id.mouthW, id.mouthY},
	}
	for k := range spots {
		x, y := c.project(spots[k][0], spots[k][1])
		spots[k] = [2]float64{x + d.bell(0, 1)*c.v.Jitter, y + d.bell(0, 1)*c.v.Jitter}
	}
	c.alignTo(spots)

	det := c.a*c.a + c.b*c.b
	for j := range side {
		for i := range side {
			u, v := float64(i)-c.tx, float64(j)-c.ty
			px, py := (c.a*u+c.b*v)/det, (c.a*v-c.b*u)/det
			x, y := px, py
			var z, back float64
			for range solveSteps {
				z = c.reliefAt(x, y)
				back = z*c.cosY - x*c.sinY
				x = (px - z*c.sinY) / c.cosY
				y = pivotY + (py-pivotY-back*c.sinP)/c.cosP
			}
			p := j*side + i
			c.fx[p], c.fy[p], c.z[p] = float32(x), float32(y), float32(back)
		}
	}
}

// reliefAt looks the depth map up bilinearly; 0 outside.
func (c *canvas) reliefAt(x, y float64) float64 {
	gx, gy := (x-gridX0)/gridStep, (y-gridY0)/gridStep
	if gx < 0 || gy < 0 || gx >= gridNX-1 || gy >= gridNY-1 {
		return 0
	}
	i, j := int(gx), int(gy)
	fx, fy := float32(gx-float64(i)), float32(gy-float64(j))
	r := c.relief[j*gridNX+i:]
	top := r[0] + (r[1]-r[0])*fx
	low := r[gridNX] + (r[gridNX+1]-r[gridNX])*fx
	return float64(top + (low-top)*fy)
}

// project gives the image position of a face point before alignment.
func (c *canvas) project(x, y float64) (float64, float64) {
	z := c.reliefAt(x, y)
	back := z*c.cosY - x*c.sinY
	return x*c.cosY + z*c.sinY, pivotY + (y-pivotY)*c.cosP + back*c.sinP
}

// toCrop gives the crop position of a face point.
func (c *canvas) toCrop(x, y float64) (float64, float64) {
	px, py := c.project(x, y)
	return c.a*px - c.b*py + c.tx, c.b*px + c.a*py + c.ty
}

// paint calls f with the face coordinates of every pixel that may lie in the
// given rectangle of the face and blends the colour that f returns.
func (c *canvas) paint(x0, y0, x1, y1 float64, f func(x, y float64) (rgb, float64)) {
	lx, ly, hx, hy := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, q := range [5][2]float64{{x0, y0}, {x1, y0}, {x0, y1}, {x1, y1}, {(x0 + x1) / 2, (y0 + y1) / 2}} {
		x, y := c.toCrop(q[0], q[1])
		lx, ly, hx, hy = min(lx, x), min(ly, y), max(hx, x), max(hy, y)
	}
	const margin = 4
	i0, i1 := max(0, int(lx)-margin), min(side-1, int(hx)+margin)
	j0, j1 := max(0, int(ly)-margin), min(side-1, int(hy)+margin)
	for j := j0; j <= j1; j++ {
		for p := j*side + i0; p <= j*side+i1; p++ {
			x, y := float64(c.fx[p]), float64(c.fy[p])
			if x < x0 || x > x1 || y < y0 || y > y1 {
				continue
			}
			if col, alpha := f(x, y); alpha > 0 {
				c.pix[p] = c.pix[p].lerp(col, min(1, alpha))
			}
		}
	}
}

// disc paints an ellipse with an edge of about one pixel.
func (c *canvas) disc(x, y, rx, ry float64, col rgb, alpha float64) {
	m := min(rx, ry)
	c.paint(x-rx-1, y-ry-1, x+rx+1, y+ry+1, func(u, v float64) (rgb, float64) {
		q := math.Sqrt((u-x)*(u-x)/(rx*rx) + (v-y)*(v-y)/(ry*ry))
		return col, alpha * clamp01((1-q)*m+0.5)
	})
}

// shade multiplies the colour by 1-amount in a soft ellipse.
func (c *canvas) shade(x, y, rx, ry, amount float64) {
	c.paint(x-rx, y-ry, x+rx, y+ry, func(u, v float64) (rgb, float64) {
		return rgb{}, amount * bump((u-x)/rx, (v-y)/ry)
	})
}

// alignTo sets the similarity that five-point alignment finds for the spots.
func (c *canvas) alignTo(spots [landmarksPerFace][2]float64) {
	var lm align.Landmarks
	for k, s := range spots {
		lm[k] = align.Point{X: float32(s[0] + midX), Y: float32(s[1])}
	}
	s, err := align.Estimate(lm)
	if err != nil { // five distinct points of a face are never degenerate
		s = align.Similarity{A: 1}
	}
	c.a, c.b = s.A, s.B
	// the face's midline is x = 0, the crop's is midX
	c.tx, c.ty = s.TX+s.A*midX, s.TY+s.B*midX
}
