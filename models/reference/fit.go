package reference

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
)

// The fit's constants and what they were measured to do: see the package
// comment.
const (
	fitBetween = 0.10  // share of the between-person scatter in the metric
	fitRidge   = 0.003 // of the mean variance, added to the metric's diagonal
	minTrace   = 1e-4  // of the metric; synthetic faces give about 10, rounding of the mean 1e-7
)

// FeatureLength is the number of values that FeatureModel puts out for a crop.
const FeatureLength = features

// ErrFit: the features cannot be fitted.
var ErrFit = errors.New("reference: fit")

// Fit computes the projection from the features of a synthetic population:
// rows of FeatureLength values, `shots` successive rows for each person.
// cropSum identifies the crops the features were computed from. It returns the
// contents of projection.bin. Time: about people*shots*FeatureLength^2
// multiplications.
//
// The projection, y = L^-1 S B (x - mean):
//
//	B     an orthonormal basis of products of cosines: over the scales, the
//	      rows and the columns of the grid; and of a Fourier series over the orientations
//	S     keeps the Dimension components with the largest ratio of total to
//	      within-person variance (Fisher's criterion)
//	L     Cholesky factor of W + fitBetween*(T-W) + ridge, where W and T are the
//	      within-person and total covariance of the kept components
//
// A factor rather than eigenvectors, because it is unique and moves little when
// the features move little: the fit gives the same file on every run.
func Fit(rows [][]float32, shots int, cropSum [32]byte) ([]byte, error) {
	if shots < 2 || len(rows)%shots != 0 || len(rows) < 2*Dimension {
		return nil, fmt.Errorf("%w: %d rows in groups of %d: want at least %d rows, a whole number of groups of 2 or more", ErrFit, len(rows), shots, 2*Dimension)
	}
	for i, r := range rows {
		if len(r) != features {
			return nil, fmt.Errorf("%w: row %d has %d values, want %d", ErrFit, i, len(r), features)
		}
	}
	mean := make([]float64, features)
	for _, r := range rows {
		for j, v := range r {
			mean[j] += float64(v)
		}
	}
	for j := range mean {
		mean[j] = math.Round(mean[j]/float64(len(rows))*65536) / 65536
	}

	basis := newBasis()
	total, within := make([][]float64, len(rows)), make([][]float64, len(rows))
	for i, r := range rows {
		x := make([]float64, features)
		for j, v := range r {
			x[j] = float64(v) - mean[j]
		}
		total[i] = basis.transform(x)
	}
	for g := 0; g < len(rows); g += shots {
		centre := make([]float64, features)
		for _, x := range total[g : g+shots] {
			for j, v := range x {
				centre[j] += v / float64(shots)
			}
		}
		for i, x := range total[g : g+shots] {
			d := make([]float64, features)
			for j, v := range x {
				d[j] = v - centre[j]
			}
			within[g+i] = d
		}
	}
	keep := selectComponents(total, within, shots)
	w := covariance(within, keep, float64(len(rows))*float64(shots-1)/float64(shots))
	t := covariance(total, keep, float64(len(rows)))
	trace := 0.0
	for i := range w {
		for j := range w[i] {
			w[i][j] += fitBetween * (t[i][j] - w[i][j])
		}
		trace += w[i][i]
	}
	if trace < minTrace {
		return nil, fmt.Errorf("%w: the rows are all alike: use crops that differ", ErrFit)
	}
	for i := range w {
		w[i][i] += fitRidge * trace / Dimension
	}
	inv, err := inverseFactor(w)
	if err != nil {
		return nil, err
	}
	p := basis.compose(keep, inv)
	p.fittedTo, p.fittedOn = sha256.Sum256(FeatureModel()), cropSum
	p.mean = make([]float32, features)
	for j, m := range mean {
		p.mean[j] = float32(m)
	}
	return p.encode(), nil
}

// selectComponents returns the Dimension components that tell people apart
// best, in ascending order.
func selectComponents(total, within [][]float64, shots int) []int {
	t, w := make([]float64, features), make([]float64, features)
	for i := range total {
		for j := range t {
			t[j] += total[i][j] * total[i][j]
			w[j] += within[i][j] * within[i][j] * float64(shots) / float64(shots-1)
		}
	}
	floor := 0.0
	for _, v := range w {
		floor += fitRidge * v / features
	}
	order := make([]int, features)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		ra, rb := t[a]/(w[a]+floor), t[b]/(w[b]+floor)
		switch {
		case ra > rb:
			return -1
		case ra < rb:
			return 1
		}
		return 0
	})
	keep := order[:Dimension]
	slices.Sort(keep)
	return keep
}

// covariance returns the lower triangle of the second moments of the kept
// components, divided by n; the rows are centred already.
func covariance(rows [][]float64, keep []int, n float64) [][]float64 {
	c := make([][]float64, len(keep))
	for i := range c {
		c[i] = make([]float64, i+1)
	}
	x := make([]float64, len(keep))
	for _, r := range rows {
		for i, k := range keep {
			x[i] = r[k]
		}
		for i, v := range x {
			ci := c[i]
			for j, u := range x[:i+1] {
				ci[j] += v * u
			}
		}
	}
	for i := range c {
		for j := range c[i] {
			c[i][j] /= n
		}
	}
	return c
}

// inverseFactor returns the inverse of the lower Cholesky factor of a, which is
// given by its lower triangle and overwritten.
func inverseFactor(a [][]float64) ([][]float64, error) {
	for i := range a {
		for j := range a[i] {
			s := a[i][j]
			for k := range j {
				s -= a[i][k] * a[j][k]
			}
			if i != j {
				a[i][j] = s / a[j][j]
				continue
			}
			if !(s > 0) {
				return nil, fmt.Errorf("%w: the covariance is singular at component %d: use more people", ErrFit, i)
			}
			a[i][i] = math.Sqrt(s)
		}
	}
	inv := make([][]float64, len(a))
	for i := range a {
		inv[i] = make([]float64, i+1)
		inv[i][i] = 1 / a[i][i]
		for j := range i {
			s := 0.0
			for k := j; k < i; k++ {
				s += a[i][k] * inv[k][j]
			}
			inv[i][j] = -s / a[i][i]
		}
	}
	return inv, nil
}

// The population that the shipped projection was fitted on: people 0 to
// FitPeople-1 of faces.New(FitSeed), shots 0 to FitShots-1 of each. Tests and
// demonstrations use other seeds.
const (
	FitSeed   = 0x6d656e7368656e // "menshen"
	FitPeople = 1500
	FitShots  = 6
)

// CropSum identifies a population by three crops of each of its first 20 people.
func CropSum(crop func(person, shot int) []byte) [32]byte {
	h := sha256.New()
	for person := range 20 {
		for shot := range 3 {
			h.Write(crop(person, shot))
		}
	}
	return [32]byte(h.Sum(nil))
}
