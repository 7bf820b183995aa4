package accuracy

import (
	"fmt"
	"math"
	"sync/atomic"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/kernel"
)

// Templates scores images by what the product keeps of them: int8 codes under a
// secret rotation. The error rates from these scores are the product's own; those
// from Cosine are the model's. It keeps the largest and the mean square
// difference between the two, over all scores that it was asked for.
type Templates struct {
	exact  Cosine
	codes  []code.Code
	count  atomic.Int64
	square atomic.Int64 // sum of squared differences, in units of squareUnit
	worst  atomic.Uint64
}

// squareUnit keeps the sum of squares a whole number, so that it does not depend
// on the order of the workers: differences of 1e-7 and up are felt, and 1e8
// comparisons with differences of 0.1 still fit.
const squareUnit = 1e-12

// NewTemplates encodes what was acquired under one rotation. The seed is drawn
// from the number; any seed gives the same scores within the codes' error.
func NewTemplates(a *Acquired, seed uint64) (*Templates, error) {
	t := &Templates{exact: NewCosine(a), codes: make([]code.Code, len(a.Embeddings))}
	var rotation *code.Rotation
	for i, e := range a.Embeddings {
		if e == nil {
			continue
		}
		if rotation == nil {
			var secret code.RotationSeed
			for k := range 8 {
				secret[k] = byte(seed >> (8 * k))
			}
			var err error
			if rotation, err = code.NewRotation(secret, len(e)); err != nil {
				return nil, fmt.Errorf("%w: templates: %w", ErrEmbedding, err)
			}
		}
		c, err := code.Encode(rotation, e)
		if err != nil {
			return nil, fmt.Errorf("%w: template of image %d: %w", ErrEmbedding, i, err)
		}
		t.codes[i] = c
	}
	return t, nil
}

// Score compares two codes as a gallery does.
func (t *Templates) Score(i, j int) float32 {
	a, b := t.codes[i], t.codes[j]
	score := code.Compare(kernel.Dot(a.Q, b.Q), a.Norm2, b.Norm2)
	off := math.Abs(float64(score) - float64(t.exact.Score(i, j)))
	t.count.Add(1)
	t.square.Add(int64(math.Round(off * off / squareUnit)))
	for {
		worst := t.worst.Load()
		if math.Float64frombits(worst) >= off || t.worst.CompareAndSwap(worst, math.Float64bits(off)) {
			return float32(score)
		}
	}
}

// Deviation is how far template scores are from the cosines of the embeddings
// that the templates were made of.
type Deviation struct {
	Largest float64 `json:"largest"`
	RMS     float64 `json:"rms"`
}

// Deviation returns the differences over all scores so far.
func (t *Templates) Deviation() Deviation {
	d := Deviation{Largest: math.Float64frombits(t.worst.Load())}
	if n := t.count.Load(); n > 0 {
		d.RMS = math.Sqrt(float64(t.square.Load()) * squareUnit / float64(n))
	}
	return d
}
