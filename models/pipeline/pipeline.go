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
	"fmt"
	"log/slog"
	"net/http"
	"runtime"

	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
	"github.com/menshen-io/menshen/models/embed"
	"github.com/menshen-io/menshen/models/reference"
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

// NoDetector is the detector reference that means none.
const NoDetector = "none"

// Options says which models to open, and how.
type Options struct {
	// Detector and Embedder are references as models.Registry.Resolve takes
	// them: registry names, manifests or .onnx files. Detector "" or "none":
	// the pipeline takes only crops. Embedder "": the built-in reference
	// model.
	Detector, Embedder string
	// ModelDir is the folder of imported and fetched models. Empty: see
	// models.DefaultDir.
	ModelDir string
	// RuntimeLibrary is the path of the ONNX Runtime library. Empty: it is
	// looked for (see models.RuntimeOptions).
	RuntimeLibrary string
	// Production refuses evaluation models.
	Production bool
	// InferenceConcurrency bounds the runs of each model, and the decoding of
	// images, that may be under way at once. 0: GOMAXPROCS.
	InferenceConcurrency int
	// Detect tunes the detector. The zero value: its defaults.
	Detect detect.Options
	// Limits bound the images that Observe takes. The zero value:
	// decode.DefaultLimits.
	Limits decode.Limits
	// Logger hears what was opened. nil: nobody.
	Logger *slog.Logger
}

// ModelInfo tells about one open model.
type ModelInfo struct {
	ID       string
	Manifest models.Manifest
	// Path of the file; empty for a built-in model.
	Path string
}

// Scene is a decoded image and the faces found in it, best score first. It
// belongs to the caller.
type Scene struct {
	Image *decode.Image
	Faces []detect.Face
}

// Pipeline holds open models. Safe for concurrent use.
type Pipeline struct {
	rt       *models.Runtime
	sessions []*models.Session
	detector *detect.YuNet
	embedder *embed.Embedder
	info     []ModelInfo
	notes    []string
	limits   decode.Limits
	decoding chan struct{} // one token for each image being decoded
}

// OpenRegistry opens the registry of models with the built-in reference model.
// rt may be nil where no bare .onnx file has to be recognised; client nil means
// the default one.
func OpenRegistry(dir string, rt *models.Runtime, client *http.Client, log *slog.Logger) (*models.Registry, error) {
	return models.OpenRegistry(models.Options{
		Dir:        dir,
		Builtins:   []models.Builtin{{Manifest: reference.Manifest(), Bytes: reference.Model}},
		HTTPClient: client,
		Runtime:    rt,
		Logger:     log,
	})
}

// Open loads the runtime and the models and runs each once. Everything is
// closed again on an error. Errors: those of models.OpenRuntime, Resolve and
// NewSession, ErrWrongKind, ErrEvaluationModel.
func Open(ctx context.Context, opt Options) (*Pipeline, error) {
	if opt.Limits == (decode.Limits{}) {
		opt.Limits = decode.DefaultLimits()
	}
	if opt.InferenceConcurrency == 0 {
		opt.InferenceConcurrency = runtime.GOMAXPROCS(0)
	}
	if opt.InferenceConcurrency < 0 {
		return nil, fmt.Errorf("pipeline: inference concurrency %d: give a positive number, or 0 for one per core", opt.InferenceConcurrency)
	}
	if opt.Embedder == "" {
		opt.Embedder = reference.Manifest().Name
	}
	rt, err := models.OpenRuntime(models.RuntimeOptions{Library: opt.RuntimeLibrary, Logger: opt.Logger})
	if err != nil {
		return nil, err
	}
	p := &Pipeline{rt: rt, limits: opt.Limits, decoding: make(chan struct{}, opt.InferenceConcurrency)}
	if err := p.open(ctx, opt); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Pipeline) open(ctx context.Context, opt Options) error {
	reg, err := OpenRegistry(opt.ModelDir, p.rt, nil, opt.Logger)
	if err != nil {
		return err
	}
	if opt.Detector != "" && opt.Detector != NoDetector {
		res, sess, err := p.load(ctx, reg, opt.Detector, models.KindDetector, opt)
		if err != nil {
			return err
		}
		if p.detector, err = detect.New(sess, &res.Manifest, opt.Detect); err != nil {
			return err
		}
	}
	res, sess, err := p.load(ctx, reg, opt.Embedder, models.KindEmbedder, opt)
	if err != nil {
		return err
	}
	p.embedder, err = embed.New(sess, &res.Manifest)
	return err
}

// load resolves one model and opens its session, which p owns from then on.
func (p *Pipeline) load(ctx context.Context, reg *models.Registry, ref string, kind models.Kind, opt Options) (*models.Resolved, *models.Session, error) {
	res, err := reg.Resolve(ctx, ref)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", kind, err)
	}
	m := &res.Manifest
	if m.Kind != kind {
		return nil, nil, fmt.Errorf("%w: %s is of kind %s, and kind %s is wanted here", ErrWrongKind, ref, m.Kind, kind)
	}
	if m.Evaluation && opt.Production {
		return nil, nil, fmt.Errorf("%w: %s: name a real %s; evaluation models are for development servers alone", ErrEvaluationModel, m.Name, kind)
	}
	sess, err := p.rt.NewSession(res, models.SessionOptions{Concurrency: opt.InferenceConcurrency})
	if err != nil {
		return nil, nil, err
	}
	p.sessions = append(p.sessions, sess)
	p.info = append(p.info, ModelInfo{ID: m.ID(), Manifest: *m, Path: res.Path})
	p.notes = append(p.notes, res.Notes...)
	if m.Evaluation {
		p.notes = append(p.notes, fmt.Sprintf("%s is an EVALUATION model: it shows how the service works and must not decide about people", m.Name))
	}
	if m.NonCommercial {
		p.notes = append(p.notes, fmt.Sprintf("%s may not be used commercially: %s", m.Name, m.License))
	}
	if opt.Logger != nil {
		opt.Logger.Info("model opened", "kind", string(kind), "model", m.ID(), "evaluation", m.Evaluation)
	}
	return res, sess, nil
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

// RuntimeVersion is the version of the ONNX Runtime library in use.
func (p *Pipeline) RuntimeVersion() string { return p.rt.Version() }

// Observe decodes a JPEG or PNG and finds the faces in it. An image without
// faces is a Scene without faces, not an error. Errors: ErrNoDetector, those of
// decode.Decode and of detect, ctx.Err().
func (p *Pipeline) Observe(ctx context.Context, data []byte) (*Scene, error) {
	if p.detector == nil {
		return nil, ErrNoDetector
	}
	img, err := p.Decode(ctx, data)
	if err != nil {
		return nil, err
	}
	faces, err := p.detector.Detect(ctx, img)
	if err != nil {
		return nil, err
	}
	return &Scene{Image: img, Faces: faces}, nil
}

// Decode decodes a JPEG or PNG within the pipeline's limits. It waits its turn:
// a large picture takes much memory and time.
func (p *Pipeline) Decode(ctx context.Context, data []byte) (*decode.Image, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case p.decoding <- struct{}{}:
		defer func() { <-p.decoding }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return decode.Decode(data, p.limits)
}

// Crop aligns face i of a scene. Errors: ErrNoFace, align.ErrDegenerate.
func (p *Pipeline) Crop(s *Scene, i int) (*align.Crop, error) {
	if s == nil || i < 0 || i >= len(s.Faces) {
		return nil, fmt.Errorf("%w: index %d", ErrNoFace, i)
	}
	return align.Align(s.Image, s.Faces[i].Landmarks)
}

// Embed returns the embedding of one aligned crop, as the model puts it out.
func (p *Pipeline) Embed(ctx context.Context, crop *align.Crop) ([]float32, error) {
	vecs, err := p.embedder.Embed(ctx, []*align.Crop{crop})
	if err != nil {
		return nil, err
	}
	return vecs[0], nil
}

// Close refuses new work, waits for what is under way and frees the models.
// Calling it again does nothing.
func (p *Pipeline) Close() {
	for _, s := range p.sessions {
		s.Close()
	}
	p.rt.Close()
}
