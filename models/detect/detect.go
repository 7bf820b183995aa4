// Package detect finds faces and their five landmarks in a photograph with a
// YuNet model.
//
// It promises boxes and landmarks in pixels of the upright photograph whatever
// its size, sorted by score, at most one per face, in time that does not depend
// on how many faces a hostile picture pretends to have. A model whose output is
// not finite gives an error, never a face.
//
// It does not judge whether a face is good enough (package quality does), and
// it does not recognise anybody. Faces that are smaller than about 10 pixels
// once the photograph has been scaled to the model's input are not found.
package detect

import (
	"context"
	"errors"
	"fmt"

	"github.com/menshen-io/menshen/models/align"
)

// Errors of this stage.
var (
	// ErrOptions: the options contradict themselves or the model.
	ErrOptions = errors.New("detect: bad options")
	// ErrImage: the image is empty or its pixels do not fit its size.
	ErrImage = errors.New("detect: bad image")
)

// Model runs the network: a models.Runner, or a models.Session for its raw
// form.
type Model interface {
	Run(ctx context.Context, inShape []int64, outShapes [][]int64, fill func(input []float32) error, read func(outputs [][]float32) error) error
}

// Box is a rectangle in pixels of the upright image. It may reach beyond the
// image's edges where a face is cut off.
type Box struct{ X, Y, W, H float32 }

// IoU returns the intersection of two boxes over their union, 0..1.
func (b Box) IoU(o Box) float32 {
	w := min(b.X+b.W, o.X+o.W) - max(b.X, o.X)
	h := min(b.Y+b.H, o.Y+o.H) - max(b.Y, o.Y)
	if w <= 0 || h <= 0 {
		return 0
	}
	inter := w * h
	union := b.W*b.H + o.W*o.H - inter
	if !(union > 0) {
		return 0
	}
	return inter / union
}

// Face is one detected face. Score lies in 0..1.
type Face struct {
	Score     float32
	Box       Box
	Landmarks align.Landmarks
}

// Defaults of Options, and fixed bounds.
const (
	// DefaultScoreThreshold is the score from which a detection is a face. Of
	// the 400 ORL faces (92 x 112 pixels) YuNet at 640 finds 400 at 0.5, 398
	// at 0.6, 391 at 0.7; on the six photos the faces score 0.92 and more.
	// What 0.5 adds are second, smaller boxes inside 13 of the 400 faces
	// (spectacle lenses, mostly), which is why the larger face counts.
	DefaultScoreThreshold = 0.5
	// DefaultNMSIoU is the overlap above which the weaker of two detections is
	// taken for the same face; YuNet's authors use the same.
	DefaultNMSIoU = 0.3
	// DefaultInputSize is the longest side, in pixels, to which an image is
	// scaled for a model that takes any size.
	DefaultInputSize = 640
	// DefaultMaxFaces bounds the answer.
	DefaultMaxFaces = 500
	// maxCandidates bounds what goes into non-maximum suppression, which is
	// quadratic at worst: the best by score are kept. A 640 x 640 input has
	// 8,400 cells, and a crowd of 1,000 faces lights up fewer than 5,000.
	maxCandidates = 5000
	// maxInputSize bounds the longest side of a dynamic model's input.
	maxInputSize = 2048
	// coarsest is the stride of the coarsest grid; input sides are multiples
	// of it.
	coarsest = 32
)

// Options tunes a detector. The zero value means the defaults above.
type Options struct {
	ScoreThreshold float32 // 0..1
	NMSIoU         float32 // 0..1
	InputSize      int     // for models that take any size: the longest side, a multiple of 32
	MaxFaces       int
}

func (o Options) orDefaults() (Options, error) {
	if o.ScoreThreshold == 0 {
		o.ScoreThreshold = DefaultScoreThreshold
	}
	if o.NMSIoU == 0 {
		o.NMSIoU = DefaultNMSIoU
	}
	if o.InputSize == 0 {
		o.InputSize = DefaultInputSize
	}
	if o.MaxFaces == 0 {
		o.MaxFaces = DefaultMaxFaces
	}
	var errs []error
	if !(o.ScoreThreshold > 0 && o.ScoreThreshold <= 1) {
		errs = append(errs, fmt.Errorf("%w: score threshold %v: above 0, at most 1", ErrOptions, o.ScoreThreshold))
	}
	if !(o.NMSIoU > 0 && o.NMSIoU <= 1) {
		errs = append(errs, fmt.Errorf("%w: NMS overlap %v: above 0, at most 1", ErrOptions, o.NMSIoU))
	}
	if o.InputSize < coarsest || o.InputSize > maxInputSize || o.InputSize%coarsest != 0 {
		errs = append(errs, fmt.Errorf("%w: input size %d: a multiple of %d up to %d", ErrOptions, o.InputSize, coarsest, maxInputSize))
	}
	if o.MaxFaces < 0 {
		errs = append(errs, fmt.Errorf("%w: at most %d faces: give a positive number", ErrOptions, o.MaxFaces))
	}
	return o, errors.Join(errs...)
}
