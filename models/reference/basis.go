package reference

import "math"

// basis is the separable orthonormal transform of a feature vector.
type basis struct {
	overScale, overAngle, overGrid [][]float64
}

func newBasis() *basis {
	return &basis{cosines(numScales), harmonics(orientations), cosines(gridEdge)}
}

// cosines returns the orthonormal DCT-II of n points, one basis vector a row.
func cosines(n int) [][]float64 {
	m := make([][]float64, n)
	for k := range m {
		m[k] = make([]float64, n)
		for i := range m[k] {
			m[k][i] = math.Cos(math.Pi * float64(k) * (float64(i) + 0.5) / float64(n))
		}
		normalise(m[k])
	}
	return m
}

// harmonics returns the orthonormal real Fourier basis of n points, n even.
func harmonics(n int) [][]float64 {
	m := make([][]float64, n)
	for k := range m {
		m[k] = make([]float64, n)
		for i := range m[k] {
			a := 2 * math.Pi * float64((k+1)/2*i) / float64(n)
			if k%2 == 1 || k == 0 {
				m[k][i] = math.Cos(a)
			} else {
				m[k][i] = math.Sin(a)
			}
		}
		normalise(m[k])
	}
	return m
}

func normalise(v []float64) {
	s := 0.0
	for _, x := range v {
		s += x * x
	}
	for i := range v {
		v[i] /= math.Sqrt(s)
	}
}

// along multiplies one axis of a tensor by m: the axis has length len(m), and
// consecutive elements along it lie inner apart.
func along(x []float64, m [][]float64, inner int) []float64 {
	n := len(m)
	out := make([]float64, len(x))
	for base := 0; base < len(x); base += n * inner {
		for k := range n {
			o := out[base+k*inner : base+(k+1)*inner]
			for i, w := range m[k] {
				for j, v := range x[base+i*inner : base+(i+1)*inner] {
					o[j] += w * v
				}
			}
		}
	}
	return out
}

// transform returns the components of a feature vector.
func (b *basis) transform(x []float64) []float64 {
	x = along(x, b.overGrid, 1)
	x = along(x, b.overGrid, gridEdge)
	x = along(x, b.overAngle, gridEdge*gridEdge)
	return along(x, b.overScale, perScale)
}

// inverse returns the feature vector with the given components: the transform is
// orthonormal, so it is the transpose.
func (b *basis) inverse(x []float64) []float64 {
	t := func(m [][]float64) [][]float64 {
		o := make([][]float64, len(m))
		for i := range o {
			o[i] = make([]float64, len(m))
			for k := range m {
				o[i][k] = m[k][i]
			}
		}
		return o
	}
	x = along(x, t(b.overScale), perScale)
	x = along(x, t(b.overAngle), gridEdge*gridEdge)
	x = along(x, t(b.overGrid), gridEdge)
	return along(x, t(b.overGrid), 1)
}

// compose multiplies the kept components' basis vectors by the factor and
// quantises each output's weights to int8 with a scale of its own.
func (b *basis) compose(keep []int, factor [][]float64) *projection {
	p := &projection{scale: make([]float32, Dimension), weights: make([]int8, features*Dimension)}
	for j, row := range factor {
		x := make([]float64, features)
		for i, v := range row {
			x[keep[i]] = v
		}
		x = b.inverse(x)
		peak := 0.0
		for _, v := range x {
			peak = max(peak, math.Abs(v))
		}
		for i, v := range x {
			p.weights[i*Dimension+j] = int8(math.Round(v / peak * 127))
		}
		p.scale[j] = float32(peak / 127)
	}
	return p
}
