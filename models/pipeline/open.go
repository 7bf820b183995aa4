package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
	"github.com/menshen-io/menshen/models/embed"
	"github.com/menshen-io/menshen/models/reference"
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
	// InferenceConcurrency is the number of cores for inference and for the
	// decoding of images, all models together. 0: GOMAXPROCS.
	InferenceConcurrency int
	// InferenceThreads, Provider, Measurements and Remeasure say how the models
	// are run: see models.RunnerOptions.
	InferenceThreads int
	Provider         models.Provider
	Measurements     string
	Remeasure        bool
	// Detect tunes the detector. The zero value: its defaults.
	Detect detect.Options
	// Limits bound the images that Observe takes. The zero value:
	// decode.DefaultLimits.
	Limits decode.Limits
	// Logger hears what was opened. nil: nobody.
	Logger *slog.Logger
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
// NewRunner, ErrWrongKind, ErrEvaluationModel.
func Open(ctx context.Context, opt Options) (*Pipeline, error) {
	if opt.Limits == (decode.Limits{}) {
		opt.Limits = decode.DefaultLimits()
	}
	budget, err := models.NewBudget(opt.InferenceConcurrency)
	if err != nil {
		return nil, err
	}
	if opt.Embedder == "" {
		opt.Embedder = reference.Manifest().Name
	}
	rt, err := models.OpenRuntime(models.RuntimeOptions{Library: opt.RuntimeLibrary, Logger: opt.Logger})
	if err != nil {
		return nil, err
	}
	p := &Pipeline{rt: rt, budget: budget, limits: opt.Limits}
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
		res, runner, err := p.load(ctx, reg, opt.Detector, models.KindDetector, opt)
		if err != nil {
			return err
		}
		if p.detector, err = detect.New(runner, &res.Manifest, opt.Detect); err != nil {
			return err
		}
	}
	res, runner, err := p.load(ctx, reg, opt.Embedder, models.KindEmbedder, opt)
	if err != nil {
		return err
	}
	p.embedder, err = embed.New(runner, &res.Manifest)
	return err
}

// load resolves one model and opens its runner, which p owns from then on.
func (p *Pipeline) load(ctx context.Context, reg *models.Registry, ref string, kind models.Kind, opt Options) (*models.Resolved, *models.Runner, error) {
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
	spin := models.SpinBriefly
	if kind == models.KindEmbedder { // runs last
		spin = models.SpinLonger
	}
	runner, err := p.rt.NewRunner(ctx, res, models.RunnerOptions{
		Budget: p.budget, Provider: opt.Provider, IntraOp: opt.InferenceThreads, Spin: spin,
		Measurements: opt.Measurements, Remeasure: opt.Remeasure, Logger: opt.Logger,
	})
	if err != nil {
		return nil, nil, err
	}
	p.runners = append(p.runners, runner)
	p.info = append(p.info, ModelInfo{ID: m.ID(), Manifest: *m, Path: res.Path, Choice: runner.Choice()})
	p.notes = append(p.notes, res.Notes...)
	if m.Evaluation {
		p.notes = append(p.notes, fmt.Sprintf("%s is an EVALUATION model: it shows how the service works and must not decide about people", m.Name))
	}
	if m.NonCommercial {
		p.notes = append(p.notes, fmt.Sprintf("%s may not be used commercially: %s", m.Name, m.License))
	}
	if opt.Logger != nil {
		opt.Logger.Info("model opened", "kind", string(kind), "model", m.ID(), "evaluation", m.Evaluation, "runs", runner.Choice())
	}
	return res, runner, nil
}
