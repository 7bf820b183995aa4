package detect

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
)

// strides are the cell sizes of YuNet's three grids, in input pixels.
var strides = [3]int{8, 16, 32}

// YuNet runs one YuNet model. Safe for concurrent use.
type YuNet struct {
	model  Model
	opt    Options
	w, h   int // the model's input; 0, 0 if it takes any size
	planes planes
	plans  sync.Pool // of *plan: a camera's pictures are all of one layout
}

// New wraps a YuNet model and runs it once on black, so that a model that
// cannot run is found out now. The caller keeps the model and closes it after
// the last Detect.
func New(model Model, man *models.Manifest, opt Options) (*YuNet, error) {
	if man.Architecture != models.ArchYuNet {
		return nil, fmt.Errorf("%w: model %s is a %s, YuNet is wanted; name a face detector", ErrOptions, man.Name, man.Architecture)
	}
	opt, err := opt.orDefaults()
	if err != nil {
		return nil, err
	}
	y := &YuNet{model: model, opt: opt, w: man.Input.Width, h: man.Input.Height, planes: newPlanes(man.Input)}
	black := &decode.Image{Width: 8, Height: 8, Pix: make([]byte, 3*8*8)}
	if _, err := y.Detect(context.Background(), black); err != nil {
		return nil, fmt.Errorf("detector %s does not run: %w", man.Name, err)
	}
	return y, nil
}

// Options returns the options in force.
func (y *YuNet) Options() Options { return y.opt }

// Enough returns to how many pixels a picture of w x h is scaled for the model:
// more of them add nothing to finding faces.
func (y *YuNet) Enough(w, h int) (int, int) {
	b := y.letterbox(w, h)
	return b.w, b.h
}

// Detect returns the faces in img, best score first; none is not an error.
// Errors: ErrImage, models.ErrNotFinite, models.ErrRun, models.ErrClosed,
// ctx.Err().
func (y *YuNet) Detect(ctx context.Context, img *decode.Image) ([]Face, error) {
	if !img.Whole() {
		return nil, fmt.Errorf("%w: empty, or its pixels do not fit its size", ErrImage)
	}
	box := y.letterbox(img.Width, img.Height)
	inShape := []int64{1, 3, int64(box.inH), int64(box.inW)}
	var faces []Face
	err := y.model.Run(ctx, inShape, outputShapes(box.inW, box.inH),
		func(in []float32) error {
			if img.Planes != nil {
				y.fillPlanes(in, box, img)
			} else {
				y.planes.fill(in, box, img)
			}
			return nil
		},
		func(outs [][]float32) error {
			cands, err := y.candidates(outs, box.inW)
			if err != nil {
				return err
			}
			faces = suppress(cands, y.opt.NMSIoU, y.opt.MaxFaces)
			return nil
		})
	if err != nil {
		return nil, err
	}
	for i := range faces {
		box.toImage(&faces[i])
	}
	return faces, nil
}

// letterbox plans how an image of w x h pixels is placed in the model's input.
func (y *YuNet) letterbox(w, h int) letterbox {
	inW, inH := y.w, y.h
	if inW == 0 {
		// A model that takes any size: no more black than the grid asks for.
		s := float64(y.opt.InputSize) / float64(max(w, h))
		inW = roundUp(scaled(w, s), coarsest)
		inH = roundUp(scaled(h, s), coarsest)
	}
	s := min(float64(inW)/float64(w), float64(inH)/float64(h))
	if y.w == 0 {
		s = float64(y.opt.InputSize) / float64(max(w, h))
	}
	b := letterbox{inW: inW, inH: inH, w: min(scaled(w, s), inW), h: min(scaled(h, s), inH)}
	b.toX, b.toY = float64(w)/float64(b.w), float64(h)/float64(b.h)
	return b
}

func scaled(side int, s float64) int { return max(1, int(math.Round(float64(side)*s))) }

func roundUp(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }

// outputShapes are the shapes of YuNet's outputs in the order of
// models.Session.Outputs: cls, obj, bbox, kps, each at strides 8, 16, 32.
func outputShapes(inW, inH int) [][]int64 {
	var out [][]int64
	for _, width := range []int64{1, 1, 4, 10} {
		for _, s := range strides {
			out = append(out, []int64{1, int64((inW / s) * (inH / s)), width})
		}
	}
	return out
}

// candidates reads the model's outputs: every cell whose score reaches the
// threshold, in input pixels, best first, at most maxCandidates.
func (y *YuNet) candidates(outs [][]float32, inW int) ([]Face, error) {
	var cands []Face
	for k, s := range strides {
		cls, obj, bbox, kps := outs[k], outs[3+k], outs[6+k], outs[9+k]
		cols := inW / s
		for i, c := range cls {
			// clamp keeps a NaN, and a NaN reaches no threshold, so both are
			// caught by the sum.
			c, o := clamp01(c), clamp01(obj[i])
			if sum := c + o; sum != sum {
				return nil, fmt.Errorf("%w: a face score", models.ErrNotFinite)
			}
			score := float32(math.Sqrt(float64(c) * float64(o)))
			if score < y.opt.ScoreThreshold {
				continue
			}
			f, ok := cell(score, bbox[4*i:4*i+4], kps[10*i:10*i+10], float32(i%cols), float32(i/cols), float32(s))
			if !ok {
				return nil, fmt.Errorf("%w: a face box", models.ErrNotFinite)
			}
			cands = append(cands, f)
		}
	}
	slices.SortStableFunc(cands, func(a, b Face) int { return cmp.Compare(b.Score, a.Score) })
	return cands[:min(len(cands), maxCandidates)], nil
}

// cell decodes one grid cell at column c and row r. ok is false where a number
// is not finite. (Formula: libfacedetection.train, the YuNet head without
// priors.)
func cell(score float32, bbox, kps []float32, c, r, s float32) (f Face, ok bool) {
	cx, cy := (c+bbox[0])*s, (r+bbox[1])*s
	w := float32(math.Exp(float64(bbox[2]))) * s
	h := float32(math.Exp(float64(bbox[3]))) * s
	f = Face{Score: score, Box: Box{X: cx - w/2, Y: cy - h/2, W: w, H: h}}
	sum := f.Box.X + f.Box.Y + w + h
	for k := range f.Landmarks {
		p := align.Point{X: (kps[2*k] + c) * s, Y: (kps[2*k+1] + r) * s}
		sum += p.X + p.Y
		f.Landmarks[k] = p
	}
	return f, !math.IsNaN(float64(sum)) && !math.IsInf(float64(sum), 0)
}

func clamp01(v float32) float32 {
	if v < 0 {
		return 0
	}
	if v > 1 {
		return 1
	}
	return v
}

// suppress keeps the best of each group of overlapping candidates, at most
// limit. cands are sorted by score; the result is a new slice.
func suppress(cands []Face, iou float32, limit int) []Face {
	var kept []Face
next:
	for _, c := range cands {
		for i := range kept {
			if kept[i].Box.IoU(c.Box) > iou {
				continue next
			}
		}
		kept = append(kept, c)
		if len(kept) == limit {
			break
		}
	}
	return kept
}
