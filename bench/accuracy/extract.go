package accuracy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/pipeline"
	"github.com/menshen-io/menshen/models/quality"
)

// Photographs extracts faces the way the service does: decode, detect, take the
// dominant face, align, embed. No face is refused for its quality, so that the
// figures are those of the models.
type Photographs struct {
	Pipeline *pipeline.Pipeline // with a detector
	Limits   decode.Limits      // zero: decode.DefaultLimits
}

// Extract implements Extractor.
func (p Photographs) Extract(ctx context.Context, path string) (Face, error) {
	img, err := decode.ReadFile(path, p.Limits)
	if err != nil {
		return Face{}, imageFault(path, err)
	}
	detector := p.Pipeline.Detector()
	if detector == nil {
		return Face{}, pipeline.ErrNoDetector
	}
	found, err := detector.Detect(ctx, img)
	if err != nil {
		return Face{}, err
	}
	chosen, _ := quality.Dominant(found, 0)
	if chosen < 0 {
		return Face{}, fmt.Errorf("%w: no face found", ErrNotAcquired)
	}
	crop, err := align.Align(img, found[chosen].Landmarks)
	if err != nil {
		return Face{}, imageFault(path, err)
	}
	embedding, err := p.Pipeline.Embed(ctx, crop)
	return Face{Embedding: embedding, Faces: len(found)}, err
}

// Crops embeds images that are aligned face crops of 112 x 112 pixels already.
type Crops struct {
	Pipeline *pipeline.Pipeline
	Limits   decode.Limits // zero: decode.DefaultLimits
}

// Extract implements Extractor.
func (c Crops) Extract(ctx context.Context, path string) (Face, error) {
	img, err := decode.ReadFile(path, c.Limits)
	if err != nil {
		return Face{}, imageFault(path, err)
	}
	crop, err := align.CropFromImage(img)
	if err != nil {
		return Face{}, imageFault(path, err)
	}
	embedding, err := c.Pipeline.Embed(ctx, crop)
	return Face{Embedding: embedding, Faces: 1}, err
}

// imageFault marks errors that are about the image alone. A file that cannot be
// read is not among them: the measurement should not go on without it.
func imageFault(path string, err error) error {
	for _, fault := range []error{
		decode.ErrEmpty, decode.ErrFormat, decode.ErrCorrupt, decode.ErrTooLarge, decode.ErrTooSmall,
		align.ErrDegenerate, align.ErrCropSize,
	} {
		if errors.Is(err, fault) {
			return fmt.Errorf("%w: %s", ErrNotAcquired, strings.TrimPrefix(err.Error(), path+": "))
		}
	}
	return err
}
