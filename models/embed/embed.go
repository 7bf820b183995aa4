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
	"sync"
	"sync/atomic"

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

const plane = align.Size * align.Size

// Model runs the network: a models.Runner, or a models.Session for its raw
// form.
type Model interface {
	Run(ctx context.Context, inShape []int64, outShapes [][]int64, fill func(input []float32) error, read func(outputs [][]float32) error) error
}

// Embedder runs one embedding model. Safe for concurrent use.
type Embedder struct {
	model   Model
	id      string
	dim     int
	channel [3]int // of the RGB pixel, by input plane
	// level maps a pixel's level to its input value, by plane.
	level [3][256]float32

	inShape   []int64
	outShapes [][]int64
	jobs      sync.Pool // of *job
}

// job is one crop on its way. It is kept for later crops with its two
// functions, so that a run allocates nothing for them.
type job struct {
	e    *Embedder
	crop *align.Crop
	vec  []float32
	fill func([]float32) error
	read func([][]float32) error
}

// New wraps an embedding model and runs it once on a grey crop, so that a model
// that cannot run, or whose output is not finite, is found out now. The caller
// keeps the model and closes it after the last Embed.
func New(model Model, man *models.Manifest) (*Embedder, error) {
	if man.Architecture != models.ArchEmbedding {
		return nil, fmt.Errorf("%w: model %s is a %s; name a face embedder", ErrNotEmbedder, man.Name, man.Architecture)
	}
	if d := man.Output.Dimension; d < 1 || d > models.MaxDimension {
		return nil, fmt.Errorf("%w: model %s has %d dimensions, 1 to %d can be handled", ErrNotEmbedder, man.Name, d, models.MaxDimension)
	}
	e := &Embedder{
		model:     model,
		id:        man.ID(),
		dim:       man.Output.Dimension,
		channel:   [3]int{0, 1, 2},
		inShape:   []int64{1, 3, align.Size, align.Size},
		outShapes: [][]int64{{1, int64(man.Output.Dimension)}},
	}
	e.jobs.New = func() any {
		j := &job{e: e}
		j.fill, j.read = j.write, j.take
		return j
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
	if _, err := e.EmbedOne(context.Background(), grey); err != nil {
		return nil, fmt.Errorf("embedder %s does not run: %w", man.Name, err)
	}
	return e, nil
}

// ModelID is the id that templates made from these embeddings carry.
func (e *Embedder) ModelID() string { return e.id }

// Dim is the length of each embedding.
func (e *Embedder) Dim() int { return e.dim }

// Embed returns one embedding per crop. No crops give no embeddings. Several
// are embedded at once, as far as the model's turn-taking allows. It is all or
// nothing: an error means that nothing is returned. The slices belong to the
// caller. Errors: those of EmbedOne.
func (e *Embedder) Embed(ctx context.Context, crops []*align.Crop) ([][]float32, error) {
	for i, c := range crops {
		if c == nil || len(c.Pix) != 3*plane {
			return nil, fmt.Errorf("%w: crop %d", align.ErrCropSize, i)
		}
	}
	out := make([][]float32, len(crops))
	errs := make([]error, len(crops))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < len(crops); i = int(next.Add(1)) - 1 {
			if out[i], errs[i] = e.EmbedOne(ctx, crops[i]); errs[i] != nil {
				cancel(errs[i])
				return
			}
		}
	}
	var wg sync.WaitGroup
	for range min(len(crops), maxAtOnce) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return out, nil
}

// maxAtOnce bounds the crops of one call that are under way at once, so that a
// call does not crowd out the others.
const maxAtOnce = 16

// EmbedOne returns the embedding of one crop. The slice belongs to the caller.
// Errors: align.ErrCropSize, ErrNotFinite, models.ErrRun, models.ErrClosed,
// ctx.Err().
func (e *Embedder) EmbedOne(ctx context.Context, crop *align.Crop) ([]float32, error) {
	if crop == nil || len(crop.Pix) != 3*plane {
		return nil, align.ErrCropSize
	}
	j := e.jobs.Get().(*job)
	j.crop = crop
	err := e.model.Run(ctx, e.inShape, e.outShapes, j.fill, j.read)
	vec := j.vec
	j.crop, j.vec = nil, nil
	e.jobs.Put(j)
	if err != nil {
		return nil, err
	}
	return vec, nil
}

func (j *job) write(in []float32) error {
	j.e.fill(in, j.crop.Pix)
	return nil
}

func (j *job) take(outs [][]float32) error {
	v := make([]float32, j.e.dim)
	copy(v, outs[0])
	if !finite(v) {
		return fmt.Errorf("%w: the embedding of model %s", ErrNotFinite, j.e.id)
	}
	j.vec = v
	return nil
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
