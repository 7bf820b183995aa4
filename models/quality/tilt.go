package quality

import (
	"math"

	"github.com/menshen-io/menshen/models/align"
)

const (
	// minCoherence is how clearly a crop's grain must point one way to be
	// believed, 0 (no direction) to 1 (stripes).
	minCoherence = 0.1
	// maxTilt is the largest tilt that is believed, in degrees. Light from the
	// side draws a line down the face, which looks like a face lying down; a
	// face that does lie down is hardly ever detected.
	//
	// Both measured on the 400 ORL faces and six photographs with YuNet 640,
	// upright and turned by 60 degrees (a hundred and the six), as faces given a
	// roll above 35 degrees of those that were found:
	//
	//	minCoherence  maxTilt  upright    turned by -60  turned by 60
	//	0             90       17 of 406  64 of 80       62 of 68
	//	0.06          90       11         61             61
	//	0.10          90        1         54             53
	//	0.10          80        0         51             52
	//	0.10          70        0         43             50
	//	0.14          90        1         44             45
	maxTilt = 80
)

// tilt returns how far the face in an aligned crop is still turned, in degrees
// clockwise, up to maxTilt either way; 0 when the crop does not tell.
//
// Landmarks alone do not show a tilted head: a detector that was trained on
// upright faces sets them much too upright (YuNet, photos turned by 60 degrees:
// 10 to 22 degrees between the eyes), so that the crop comes out turned and the
// embedding is useless (cosine to the upright photo 0.0 to 0.2; at 30 degrees
// 0.3 to 0.9). But faces have a grain: brows, lids, nostrils and lips run across,
// so that brightness changes along the face. The direction in which it changes
// most, of the structure tensor of the luma within the face ellipse, each pixel
// weighted by the strength of its gradient, is that of the face.
//
// A face upside down has the same grain and is not told apart.
func tilt(c *align.Crop) float64 {
	luma := func(i int) float64 {
		p := c.Pix[3*i : 3*i+3]
		return 0.299*float64(p[0]) + 0.587*float64(p[1]) + 0.114*float64(p[2])
	}
	var xx, xy, yy float64
	for y := 36; y < 106; y++ {
		for x := 24; x < 88; x++ {
			if u, v := float64(x-56)/32, float64(y-70)/36; u*u+v*v > 1 {
				continue
			}
			const row = align.Size
			i := y*row + x
			// Sobel's operators.
			nw, n, ne := luma(i-row-1), luma(i-row), luma(i-row+1)
			sw, s, se := luma(i+row-1), luma(i+row), luma(i+row+1)
			gx := ne + 2*luma(i+1) + se - nw - 2*luma(i-1) - sw
			gy := sw + 2*s + se - nw - 2*n - ne
			m := math.Sqrt(gx*gx + gy*gy)
			if m < 1 { // an eighth of a step of luma: flat, the rest is rounding
				continue
			}
			xx += gx * gx / m
			xy += gx * gy / m
			yy += gy * gy / m
		}
	}
	coherence := math.Hypot(xx-yy, 2*xy) / (xx + yy)
	if !(coherence >= minCoherence) {
		return 0
	}
	angle := math.Atan2(2*xy, xx-yy)/2*180/math.Pi - 90 // of the change, from straight down
	if angle <= -90 {
		angle += 180
	}
	if math.Abs(angle) > maxTilt {
		return 0
	}
	return angle
}
