package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/bench/accuracy"
	"github.com/menshen-io/menshen/bench/report"
	"github.com/menshen-io/menshen/models/detect"
	"github.com/menshen-io/menshen/models/pipeline"
)

const accuracyHelp = `accuracy measures how well a detector and an embedder tell people apart on a set
of photographs, in the terms of ISO/IEC 19795-1.

The data set is either a list of pairs or folders:

  --pairs CSV --images DIR   the CSV's first line is file_a,file_b,mated; the files
                             are relative to DIR; mated is 1 for the same person
                             and 0 for different ones
  --folders DIR              one folder per person; every image is compared with
                             every other: mated within a folder, non-mated between

A model is a registry name, a manifest file, or an .onnx file: with a manifest of
the same name beside it, or one whose inputs and outputs tell what it is.

A comparison is a match if its score is at or above the threshold. Of an image
with several faces the dominant (largest) one is taken. What is printed:

  pairs, mated, non_mated  the comparisons that were made
  failure_to_acquire       the images that could not be decoded or in which no face
                           was found; each is listed under failures with the reason.
                           Their comparisons are left out: pairs_not_compared
  best_threshold, accuracy the threshold that decides most pairs rightly, and their
                           share: an optimistic figure, chosen on the same data
  eer                      the rate at which FMR and FNMR cross
  fnmr                     FNMR at FMR 1e-2, 1e-3 and 1e-4: at the smallest score
                           that keeps the FMR. null where the non-mated pairs are
                           fewer than 3/FMR (rule of 3); fnmr_note then says so
  fnmr_with_failures       the same with uncompared mated pairs as non-matches
  rank1                    folders only: the share of images whose nearest other
                           image is of the same person
  ..._ci95                 95% confidence intervals; ci_method says how they are
                           made

Images whose files are missing end the run, unless --keep-going counts them as
failures to acquire. Exit status: 0 measured, 1 failed, 2 bad flags, data set or
models, 130 interrupted.`

const accuracyExamples = `  menshen-bench accuracy --folders faces/ --detector yunet.onnx --embedder arcface.onnx
  menshen-bench accuracy --pairs pairs.csv --images photos/ --detector yunet-2023mar --embedder sface-2021dec --json
  menshen-bench accuracy --folders crops/ --aligned --embedder arcface.onnx --templates --plot det.png`

// defaultPlot is the file, in the working directory, that the plot goes to.
const defaultPlot = "accuracy.svg"

// accuracyFlags are the flags of the subcommand.
type accuracyFlags struct {
	pairs, images, folders string
	detector, embedder     string
	aligned, templates     bool
	minScore               float32
	modelDir, library      string
	workers                int
	seed                   uint64
	plot                   string
	asJSON, keepGoing      bool
	plotAsked              bool // --plot was given
}

func newAccuracy(commandLine []string) *cobra.Command {
	var f accuracyFlags
	cmd := &cobra.Command{
		Use:     "accuracy (--pairs CSV --images DIR | --folders DIR) --detector MODEL --embedder MODEL",
		Short:   "Measure error rates on photographs",
		Long:    accuracyHelp,
		Example: accuracyExamples,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{cmd.CommandPath(), fmt.Errorf("unexpected argument %q: everything is a flag", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.plotAsked = cmd.Flags().Changed("plot")
			if err := f.check(cmd.Flags().Changed); err != nil {
				return usageError{cmd.CommandPath(), err}
			}
			return f.run(cmd.Context(), commandLine, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.pairs, "pairs", "", "list of pairs: CSV with the header file_a,file_b,mated")
	flags.StringVar(&f.images, "images", "", "folder that the names in the list are relative to (default: the list's own)")
	flags.StringVar(&f.folders, "folders", "", "folder with one folder of images per person")
	flags.StringVar(&f.detector, "detector", "", "face detector: registry name, manifest or .onnx file")
	flags.StringVar(&f.embedder, "embedder", "", "embedder: registry name, manifest or .onnx file (default: the built-in reference model)")
	flags.BoolVar(&f.aligned, "aligned", false, "the images are aligned face crops of 112 x 112 pixels: no detector")
	flags.BoolVar(&f.templates, "templates", false, "score by int8 templates under a rotation, as galleries do, instead of embeddings")
	flags.Float32Var(&f.minScore, "min-score", detect.DefaultScoreThreshold, "detection score from which a face is one, above 0 to 1")
	flags.BoolVar(&f.keepGoing, "keep-going", false, "count images whose files are missing as failures to acquire")
	flags.BoolVar(&f.asJSON, "json", false, "print the result as JSON")
	flags.StringVar(&f.plot, "plot", defaultPlot, `write the DET and ROC curves to this .svg or .png file; "none" for no plot`)
	flags.IntVar(&f.workers, "workers", runtime.GOMAXPROCS(0), "images that are worked on at once")
	flags.Uint64Var(&f.seed, "seed", 1, "seed of the bootstrap intervals and of the templates' rotation")
	flags.StringVar(&f.modelDir, "model-dir", "", "folder of imported and fetched models (default: menshen/models in the user's cache folder)")
	flags.StringVar(&f.library, "runtime-library", "", "ONNX Runtime library (default: looked for)")
	return cmd
}

// check looks for contradictions in the flags.
func (f *accuracyFlags) check(given func(name string) bool) error {
	switch {
	case f.pairs == "" && f.folders == "":
		return errors.New("which data set? Give --pairs CSV --images DIR, or --folders DIR")
	case f.pairs != "" && f.folders != "":
		return errors.New("--pairs and --folders exclude each other")
	case f.folders != "" && given("images"):
		return errors.New("--images belongs to --pairs; --folders names its own images")
	case f.aligned && f.detector != "":
		return errors.New("--aligned takes crops as they are: leave --detector out, or --aligned")
	case f.aligned && given("min-score"):
		return errors.New("--min-score is the detector's; --aligned uses none")
	case !f.aligned && (f.detector == "" || f.detector == pipeline.NoDetector):
		return errors.New("photographs need a face detector: give --detector, or --aligned for 112 x 112 crops")
	case !(f.minScore > 0 && f.minScore <= 1):
		return fmt.Errorf("--min-score %v: above 0, at most 1", f.minScore)
	case f.workers < 1 || f.workers > 1024:
		return fmt.Errorf("--workers %d: 1 to 1024", f.workers)
	}
	if f.plot == "" || f.plot == "none" {
		f.plot = ""
		return nil
	}
	if _, err := report.PlotFormat(f.plot); err != nil {
		return fmt.Errorf("--plot: %w", err)
	}
	if dir, err := os.Stat(filepath.Dir(f.plot)); f.plotAsked && (err != nil || !dir.IsDir()) {
		return fmt.Errorf("--plot %s: there is no such folder", f.plot)
	}
	return nil
}

func (f *accuracyFlags) run(ctx context.Context, commandLine []string, stdout, stderr io.Writer) error {
	started := time.Now()
	data, err := f.dataSet()
	if err != nil {
		return err
	}
	models, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer models.Close()
	for _, line := range models.Notes() {
		note(stderr, "%s", line)
	}

	var extractor accuracy.Extractor = accuracy.Photographs{Pipeline: models}
	if f.aligned {
		extractor = accuracy.Crops{Pipeline: models}
	}
	bar := newProgress(ctx, stderr, "images", len(data.Images))
	acquired, err := accuracy.Acquire(ctx, data, extractor, f.workers, bar.step)
	bar.stop()
	if err != nil {
		return err
	}

	out := accuracyOutput{Score: scoreCosine, RuntimeVersion: models.RuntimeVersion()}
	out.name(models.Info(), f.aligned)
	var scorer accuracy.Scorer = accuracy.NewCosine(acquired)
	var templates *accuracy.Templates
	if f.templates {
		if templates, err = accuracy.NewTemplates(acquired, f.seed); err != nil {
			return err
		}
		scorer, out.Score = templates, scoreTemplates
	}
	result, scores, err := accuracy.Evaluate(ctx, data, acquired, scorer, accuracy.Settings{Seed: f.seed, Workers: f.workers})
	if err != nil {
		return withFailures(err, acquired)
	}
	out.Result = result
	if templates != nil {
		deviation := templates.Deviation()
		out.TemplateDeviation = &deviation
	}
	if out.Plot, err = f.writePlot(&out, scores, stderr); err != nil {
		return err
	}
	out.Environment = report.NewEnvironment(commandLine, started)
	out.Environment.Seconds = time.Since(started).Round(time.Millisecond).Seconds()
	return writeResult(stdout, f.asJSON, &out, out.table())
}

func (f *accuracyFlags) dataSet() (*accuracy.DataSet, error) {
	if f.folders != "" {
		return accuracy.ReadFolders(f.folders)
	}
	dir := f.images
	if dir == "" {
		dir = filepath.Dir(f.pairs)
	}
	data, err := accuracy.ReadPairs(f.pairs, dir)
	if err != nil || f.keepGoing {
		return data, err
	}
	if err := data.CheckFiles(); err != nil {
		return nil, fmt.Errorf("%w. Check --images, or give --keep-going to count them as failures to acquire", err)
	}
	return data, nil
}

func (f *accuracyFlags) open(ctx context.Context) (*pipeline.Pipeline, error) {
	return pipeline.Open(ctx, pipeline.Options{
		Detector:             f.detector,
		Embedder:             f.embedder,
		ModelDir:             f.modelDir,
		RuntimeLibrary:       f.library,
		InferenceConcurrency: f.workers,
		InferenceThreads:     1, // all workers are busy from first to last
		Detect:               detect.Options{ScoreThreshold: f.minScore},
	})
}

// withFailures adds to "nothing could be compared" why that is.
func withFailures(err error, acquired *accuracy.Acquired) error {
	if !errors.Is(err, accuracy.ErrNothingCompared) || len(acquired.Failures) == 0 {
		return err
	}
	first := acquired.Failures[0]
	return fmt.Errorf("%w; the first: %s: %s", err, first.File, first.Reason)
}

// writePlot writes the plot if there is to be one and returns where. A default
// plot that cannot be written is only noted: nobody asked for it.
func (f *accuracyFlags) writePlot(out *accuracyOutput, scores *accuracy.Scores, stderr io.Writer) (string, error) {
	if f.plot == "" {
		return "", nil
	}
	if len(scores.Mated) == 0 || len(scores.NonMated) == 0 {
		note(stderr, "no plot: it needs mated and non-mated pairs")
		return "", nil
	}
	if err := out.tradeoff(scores).WriteFile(f.plot); err != nil {
		if f.plotAsked {
			return "", err
		}
		note(stderr, "%v; --plot names another file", err)
		return "", nil
	}
	note(stderr, "plot written to %s", f.plot)
	return f.plot, nil
}
