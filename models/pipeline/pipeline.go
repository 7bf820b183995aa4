// Package pipeline opens the models that a program has been told to use and
// offers the stages from image bytes to embedding one by one: Observe (decode,
// detect), Crop (align), Embed.
//
// It promises that a Pipeline that opened can run: the ONNX Runtime library is
// loaded, each model's bytes have the hash that its manifest pins, its inputs
// and outputs fit, and each model has been run once. In production mode an
// evaluation model is refused. A Pipeline may be used by any number of
// goroutines, several may be open in one process, and Close waits for work that
// is under way.
//
// It does not judge quality, choose among faces, or compare embeddings, and it
// keeps neither images nor embeddings.
package pipeline

import (
	"context"
	"errors"

	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
	"github.com/menshen-io/menshen/models/embed"
)

// Errors of this stage.
var (
	// ErrEvaluationModel: production mode was asked for with a model that is
	// for evaluation only.
	ErrEvaluationModel = errors.New("pipeline: an evaluation model cannot be used in production")
	// ErrNoDetector: an image was given, but the pipeline has no detector.
	ErrNoDetector = errors.New("pipeline: no face detector is configured: send an aligned face crop or an embedding, or name a detector")
	// ErrWrongKind: a detector was named as embedder, or the other way round.
	ErrWrongKind = errors.New("pipeline: model of the wrong kind")
	// ErrNoFace: the scene has no face with that index.
	ErrNoFace = errors.New("pipeline: no such face in the scene")
)

// ModelInfo tells about one open model.
type ModelInfo struct {
	ID       string
	Manifest models.Manifest
	// Path of the file; empty for a built-in model.
	Path string
	// Choice is how it is run.
	Choice models.Choice
}

// Pipeline holds open models. Safe for concurrent use.
type Pipeline struct {
	rt       *models.Runtime
	budget   *models.Budget // of cores: for all models and for decoding
	runners  []*models.Runner
	detector *detect.YuNet
	embedder *embed.Embedder
	info     []ModelInfo
	notes    []string
	limits   decode.Limits
	buffers  decode.Buffers
}

// Detector returns the face detector, or nil where there is none.
func (p *Pipeline) Detector() *detect.YuNet { return p.detector }

// Embedder returns the embedder.
func (p *Pipeline) Embedder() *embed.Embedder { return p.embedder }

// Info tells about the open models: the detector, if any, then the embedder.
func (p *Pipeline) Info() []ModelInfo { return append([]ModelInfo(nil), p.info...) }

// EmbedderManifest returns the embedder's manifest, for its threshold and
// calibration.
func (p *Pipeline) EmbedderManifest() models.Manifest { return p.info[len(p.info)-1].Manifest }

// Notes are lines that an operator should see at start: what was taken for
// granted, and what a model must not be used for.
func (p *Pipeline) Notes() []string { return append([]string(nil), p.notes...) }

// Runs is the number of runs of models that may go on at once.
func (p *Pipeline) Runs() int { return p.budget.Size() }

// Ran is how many runs of models and decodings have begun so far.
func (p *Pipeline) Ran() uint64 { return p.budget.Granted() }

// Extra is how many of these are beyond the cores.
func (p *Pipeline) Extra() int { return p.budget.Size() - p.budget.Cores() }

// Hold waits for the place of one run and keeps it from the models until release.
// Error: ctx.Err().
func (p *Pipeline) Hold(ctx context.Context) (release func(), err error) {
	if err := p.budget.Acquire(ctx); err != nil {
		return nil, err
	}
	return p.budget.Release, nil
}

// RuntimeVersion is the version of the ONNX Runtime library in use.
func (p *Pipeline) RuntimeVersion() string { return p.rt.Version() }

// Embed returns the embedding of one aligned crop, as the model puts it out.
func (p *Pipeline) Embed(ctx context.Context, crop *align.Crop) ([]float32, error) {
	return p.embedder.EmbedOne(ctx, crop)
}

// Close refuses new work, waits for what is under way and frees the models.
// Calling it again does nothing.
func (p *Pipeline) Close() {
	for _, r := range p.runners {
		r.Close()
	}
	p.rt.Close()
}
