package accuracy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/viterin/vek/vek32"
)

// Face is what an Extractor made of one image.
type Face struct {
	Embedding []float32 // of the chosen face; any length of vector; owned by the receiver
	Faces     int       // how many faces the image shows; 1 for a ready-made crop
}

// Extractor turns an image file into the embedding of its dominant face. It is
// called from many goroutines. An error that concerns the image alone wraps
// ErrNotAcquired; any other ends the measurement.
type Extractor interface {
	Extract(ctx context.Context, path string) (Face, error)
}

// Failure is an image from which no face was acquired.
type Failure struct {
	File   string `json:"file"`
	Reason string `json:"reason"`
}

// Acquired is the outcome of Acquire. It is not changed afterwards.
type Acquired struct {
	// Embeddings holds a unit vector per image of the data set, nil where no face
	// was acquired. All have the same length.
	Embeddings [][]float32
	// Failures lists the others, in the order of the data set.
	Failures []Failure
	// MultipleFaces counts the images with more than one face, of which the
	// dominant one was taken.
	MultipleFaces int
}

// Acquire runs every image of the data set once through the extractor, with the
// given number of workers (at least 1). progress, which may be nil, is called
// after each image, from any goroutine. A cancelled context ends it with the
// context's error; nothing is left running.
func Acquire(ctx context.Context, d *DataSet, extractor Extractor, workers int, progress func()) (*Acquired, error) {
	out := &Acquired{Embeddings: make([][]float32, len(d.Images))}
	reasons := make([]error, len(d.Images))
	var multiple atomic.Int64
	err := eachIndex(ctx, len(d.Images), workers, func(ctx context.Context, i int) error {
		if progress != nil {
			defer progress()
		}
		face, err := acquireOne(ctx, d.Images[i].Path, extractor)
		switch {
		case errors.Is(err, ErrNotAcquired):
			reasons[i] = err
		case err != nil:
			return fmt.Errorf("%s: %w", d.Images[i].Name, err)
		default:
			out.Embeddings[i] = face.Embedding
			if face.Faces > 1 {
				multiple.Add(1)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.MultipleFaces = int(multiple.Load())
	dim, first := 0, ""
	for i, e := range out.Embeddings {
		switch {
		case e == nil:
			out.Failures = append(out.Failures, Failure{File: d.Images[i].Name, Reason: reason(reasons[i])})
		case dim == 0:
			dim, first = len(e), d.Images[i].Name
		case len(e) != dim:
			return nil, fmt.Errorf("%w: %s has %d numbers, %s has %d; the model must give one length", ErrEmbedding, d.Images[i].Name, len(e), first, dim)
		}
	}
	return out, nil
}

func acquireOne(ctx context.Context, path string, extractor Extractor) (Face, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return Face{}, fmt.Errorf("%w: the file is missing", ErrNotAcquired)
	}
	face, err := extractor.Extract(ctx, path)
	if err != nil {
		return Face{}, err
	}
	return face, normalise(face.Embedding)
}

// normalise brings v to length 1, in place. A zero vector is one image's failure
// (nothing was extracted from it), a number that is not finite a broken model.
func normalise(v []float32) error {
	if len(v) == 0 {
		return fmt.Errorf("%w: it is empty", ErrEmbedding)
	}
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	norm := math.Sqrt(sum)
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return fmt.Errorf("%w: it is not finite; check the model and its input scaling", ErrEmbedding)
	}
	if norm < 1e-12 {
		return fmt.Errorf("%w: the embedding is zero", ErrNotAcquired)
	}
	vek32.MulNumber_Inplace(v, float32(1/norm))
	return nil
}

// reason is the text of a failure without the sentinel's own.
func reason(err error) string {
	return strings.TrimPrefix(err.Error(), ErrNotAcquired.Error()+": ")
}

// eachIndex calls work for 0..n-1 from the given number of goroutines and waits
// for all of them. The first error stops the rest and is returned.
func eachIndex(ctx context.Context, n, workers int, work func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(max(workers, 1), max(n, 1)) {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				if err := work(ctx, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
