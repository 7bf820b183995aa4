// Package embed turns aligned face crops into embeddings with a model.
//
// It promises one finite vector of the model's dimension per crop, in the order
// of the crops: exactly what the model put out, neither normalised nor rotated
// nor quantised (the index does that). Models with a fixed batch of one and
// models with an open batch give the same answers.
//
// It does not align faces, judge them, or compare embeddings, and it keeps
// nothing.
package embed

import (
	"context"
	"errors"
	"fmt"

	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
)

// Errors of this stage. A crop that is not 112 x 112 gives align.ErrCropSize.
var (
	// ErrNotEmbedder: the manifest does not describe an embedding model.
	ErrNotEmbedder = errors.New("embed: not an embedding model")
	// ErrNotFinite: the model's output holds NaN or an infinity.
	ErrNotFinite = models.ErrNotFinite
)

// maxBatch is how many crops go into one run of a model with an open batch.
// On CPUs a larger batch is no faster (MobileFaceNet, 4 callers on 4 cores: 636
// faces/s with batch 1, 525 to 575 with 4 to 16), it only saves calls.
const maxBatch = 8

const plane = align.Size * align.Size

// Embedder runs one embedding model. Safe for concurrent use.
type Embedder struct {
	sess    *models.Session
	id      string
	dim     int
	dynamic bool
	channel [3]int // of the RGB pixel, by input plane
	// level maps a pixel's level to its input value, by plane.
	level [3][256]float32
}

// New wraps a session of an embedding model and runs it once on a grey crop, so
// that a model that cannot run, or whose output is not finite, is found out
// now. The caller keeps the session and closes it after the last Embed.
func New(s *models.Session, man *models.Manifest) (*Embedder, error) {
	if man.Architecture != models.ArchEmbedding {
		return nil, fmt.Errorf("%w: model %s is a %s; name a face embedder", ErrNotEmbedder, man.Name, man.Architecture)
	}
	if d := man.Output.Dimension; d < 1 || d > models.MaxDimension {
		return nil, fmt.Errorf("%w: model %s has %d dimensions, 1 to %d can be handled", ErrNotEmbedder, man.Name, d, models.MaxDimension)
	}
	e := &Embedder{
		sess:    s,
		id:      man.ID(),
		dim:     man.Output.Dimension,
		dynamic: man.Batch == models.BatchDynamic,
		channel: [3]int{0, 1, 2},
	}
	if man.Input.Color == models.ColorBGR {
		e.channel = [3]int{2, 1, 0}
	}
	for c := range 3 {
		for v := range 256 {
			e.level[c][v] = (float32(v) - man.Input.Mean[c]) * man.Input.Scale[c]
		}
	}
	grey := &align.Crop{Pix: make([]byte, 3*plane)}
	for i := range grey.Pix {
		grey.Pix[i] = 128
	}
	if _, err := e.Embed(context.Background(), []*align.Crop{grey}); err != nil {
		return nil, fmt.Errorf("embedder %s does not run: %w", man.Name, err)
	}
	return e, nil
}

// ModelID is the id that templates made from these embeddings carry.
func (e *Embedder) ModelID() string { return e.id }

// Dim is the length of each embedding.
func (e *Embedder) Dim() int { return e.dim }

// Embed returns one embedding per crop. No crops give no embeddings. It is all
// or nothing: an error means that nothing is returned. The slices belong to the
// caller. Errors: align.ErrCropSize, ErrNotFinite, models.ErrRun,
// models.ErrClosed, ctx.Err().
func (e *Embedder) Embed(ctx context.Context, crops []*align.Crop) ([][]float32, error) {
	for i, c := range crops {
		if c == nil || len(c.Pix) != 3*plane {
			return nil, fmt.Errorf("%w: crop %d", align.ErrCropSize, i)
		}
	}
	step := 1
	if e.dynamic {
		step = maxBatch
	}
	out := make([][]float32, 0, len(crops))
	for len(crops) > 0 {
		n := min(step, len(crops))
		batch := crops[:n]
		crops = crops[n:]
		err := e.sess.Run(ctx,
			[]int64{int64(n), 3, align.Size, align.Size},
			[][]int64{{int64(n), int64(e.dim)}},
			func(in []float32) error {
				for i, c := range batch {
					e.fill(in[3*plane*i:3*plane*(i+1)], c.Pix)
				}
				return nil
			},
			func(outs [][]float32) error {
				for i := range n {
					v := make([]float32, e.dim)
					copy(v, outs[0][i*e.dim:])
					if !finite(v) {
						return fmt.Errorf("%w: the embedding of model %s", ErrNotFinite, e.id)
					}
					out = append(out, v)
				}
				return nil
			})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// fill writes one crop as three planes.
func (e *Embedder) fill(in []float32, pix []byte) {
	for c := range 3 {
		level, ch := &e.level[c], e.channel[c]
		dst := in[c*plane : (c+1)*plane]
		for i := range dst {
			dst[i] = level[pix[3*i+ch]]
		}
	}
}

// finite reports whether all numbers are finite: x - x is 0 for those alone.
func finite(v []float32) bool {
	for _, x := range v {
		if x-x != 0 {
			return false
		}
	}
	return true
}
