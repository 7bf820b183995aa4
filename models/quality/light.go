package quality

import (
	"math"

	"github.com/menshen-io/menshen/models/align"
)

// The part of the crop that is judged: brows to chin, within the cheeks, so
// that hair, hats and what is behind the head do not count.
const (
	left, right = 26, 86
	top, bottom = 38, 104
)

// clippedLuma is the luma from which a pixel counts as burnt out.
const clippedLuma = 250

// roundingNoise is what rounding to 8 bits adds to the variance of the
// Laplacian: 20/12 where the three channels are equal, 0.75 where they round
// independently. Without taking it off, a blurred face of low contrast would
// look sharp.
const roundingNoise = 1

// measured is what one crop's pixels say.
type measured struct {
	mean, deviation, clipped, sharpness float64
}

// measure computes the light and sharpness of the face in one pass over its
// luma (ITU-R BT.601).
//
// Sharpness is the variance of the Laplacian (4 neighbours) over the variance
// of the luma. Light that is multiplied and shifted by any amount leaves it the
// same, as long as nothing is clipped. For white noise it is 20, for a pure
// wave of w pixels a period about (2 pi / w)^4; blurring by a Gaussian takes the
// high frequencies out of the numerator and leaves the denominator nearly as it
// is.
func measure(c *align.Crop) measured {
	// Of the part and one pixel around it, for the Laplacian.
	const width, height = right - left + 2, bottom - top + 2
	var luma [width * height]int32
	for y := range height {
		row := c.Pix[3*((y+top-1)*align.Size+left-1):]
		for x := range width {
			p := row[3*x : 3*x+3]
			luma[y*width+x] = 299*int32(p[0]) + 587*int32(p[1]) + 114*int32(p[2]) // thousandths
		}
	}
	// Sums in thousandths and their squares are below 2^53: exact, and quicker than
	// floats, which wait for one another.
	var sum, squares, lap, lap2, clipped int64
	for y := 1; y < height-1; y++ {
		above, row, below := luma[(y-1)*width:][:width], luma[y*width:][:width], luma[(y+1)*width:][:width]
		for x := 1; x < width-1; x++ {
			v := int64(row[x])
			l := 4*v - int64(row[x-1]) - int64(row[x+1]) - int64(above[x]) - int64(below[x])
			sum += v
			squares += v * v
			lap += l
			lap2 += l * l
			if v >= 1000*clippedLuma {
				clipped++
			}
		}
	}
	const n = (right - left) * (bottom - top)
	m := measured{mean: float64(sum) / (1000 * n), clipped: float64(clipped) / n}
	variance := max(0, float64(squares)/(1e6*n)-m.mean*m.mean)
	steep := float64(lap) / (1000 * n)
	m.deviation = math.Sqrt(variance)
	// A quarter: half a step of 8-bit luma squared, so that a flat face has no
	// sharpness and not 0/0.
	m.sharpness = max(0, float64(lap2)/(1e6*n)-steep*steep-roundingNoise) / (variance + 0.25)
	return m
}
