package reference

import "math"

// onGrid rounds to a multiple of 2^-16. The math library's last bit differs
// between processors; far coarser than that, weights are the same everywhere.
// Zero is positive whatever the sign of a last bit rounded away.
func onGrid(x float64) float32 {
	n := math.Round(x * 65536)
	if n == 0 {
		return 0
	}
	return float32(n / 65536)
}

// gaussian returns a one-dimensional kernel of the given standard deviation,
// cut at 2.5 of them, with weights that add up to about 1.
func gaussian(sigma float64) []float32 {
	r := int(math.Ceil(2.5 * sigma))
	w := make([]float64, 2*r+1)
	sum := 0.0
	for i := range w {
		d := float64(i-r) / sigma
		w[i] = math.Exp(-d * d / 2)
		sum += w[i]
	}
	out := make([]float32, len(w))
	for i := range w {
		out[i] = onGrid(w[i] / sum)
	}
	return out
}

// gaborBank returns 2*orientations square kernels of the given edge: first the
// even (cosine) filters at angles k*pi/orientations, then the odd (sine) ones.
// Each has no response to constant light and the norm gaborNorm/wavelength, so
// that the responses to a 1/f image are alike over the scales. After J. Daugman,
// "Uncertainty relation for resolution in space, spatial frequency, and
// orientation" (1985), with a circular envelope.
func gaborBank(wavelength float64, orientations int) (kernels []float32, edge int) {
	sigma := gaborSigma * wavelength
	r := int(math.Ceil(gaborCut * sigma))
	edge = 2*r + 1
	window := make([]float64, edge*edge)
	total := 0.0
	for y := -r; y <= r; y++ {
		for x := -r; x <= r; x++ {
			v := math.Exp(-float64(x*x+y*y) / (2 * sigma * sigma))
			window[(y+r)*edge+x+r] = v
			total += v
		}
	}
	for _, phase := range []float64{0, -math.Pi / 2} {
		for k := range orientations {
			sin, cos := math.Sincos(math.Pi * float64(k) / float64(orientations))
			w := make([]float64, edge*edge)
			sum := 0.0
			for y := -r; y <= r; y++ {
				for x := -r; x <= r; x++ {
					i := (y+r)*edge + x + r
					along := float64(x)*cos + float64(y)*sin
					w[i] = window[i] * math.Cos(2*math.Pi*along/wavelength+phase)
					sum += w[i]
				}
			}
			energy := 0.0
			for i := range w {
				w[i] -= window[i] * sum / total
				energy += w[i] * w[i]
			}
			scale := gaborNorm / wavelength / math.Sqrt(energy)
			for i := range w {
				kernels = append(kernels, onGrid(w[i]*scale))
			}
		}
	}
	return kernels, edge
}
