package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
	"github.com/menshen-io/menshen/cmd/menshen/internal/demo"
	"github.com/menshen-io/menshen/index/kernel"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
)

func (c *cli) demoCommand() *cobra.Command {
	opt := demo.Options{}
	var seconds float64
	var runtimePath string
	cmd := &cobra.Command{
		Use:     "demo",
		GroupID: "server",
		Short:   "Watch the whole life of a purpose, on this machine, with synthetic faces",
		Long: `Start a real server on loopback with a temporary data directory, open two halls,
enrol synthetic visitors in one of them, let gates verify and identify, show that
the same faces match nothing at the other hall, revoke the first hall and show
that nothing matches any more. It ends with a table of what was claimed and what
was measured; the exit status is 0 only if all of it held. Nothing is downloaded,
and the data directory is removed afterwards.

The faces are drawn and the model is the built-in reference model, so the rates
say that the pipeline is whole, not how well it tells real people apart.`,
		Example: `  menshen demo
  menshen demo --visitors 500 --seconds 3
  menshen demo --json > demo.json`,
		Args: exactly(),
	}
	f := cmd.Flags()
	f.IntVar(&opt.Visitors, "visitors", 2000, "visitors to enrol at hall A, 200 to 100000; few make rough figures")
	f.Float64Var(&seconds, "seconds", 10, "how long the gates are open at least, 0.5 to 600")
	f.IntVar(&opt.Gates, "gates", 2*runtime.GOMAXPROCS(0), "gates that work at the same time, 1 to 256")
	f.Uint64Var(&opt.Seed, "seed", 2026, "of the synthetic population")
	f.StringVar(&runtimePath, "runtime", "", "path of the ONNX Runtime library (default: the usual places)")
	f.BoolVar(&c.json, "json", false, "print the report as JSON; what happens goes to stderr")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case opt.Visitors < 200 || opt.Visitors > 100_000:
			return usagef("--visitors: %d is outside 200 to 100000", opt.Visitors)
		case !(seconds >= 0.5 && seconds <= 600):
			return usagef("--seconds: %g is outside 0.5 to 600", seconds)
		case opt.Gates < 1 || opt.Gates > 256:
			return usagef("--gates: %d is outside 1 to 256", opt.Gates)
		}
		opt.Traffic = time.Duration(seconds * float64(time.Second))
		return c.demo(cmd.Context(), opt, runtimePath)
	}
	return cmd
}

// demo runs a server and the demo against it, and judges.
func (c *cli) demo(ctx context.Context, opt demo.Options, runtimePath string) (err error) {
	// Whoever reads the output may go away; the data must be removed all the same.
	signal.Ignore(syscall.SIGPIPE)
	dir, err := os.MkdirTemp("", "menshen-demo-")
	if err != nil {
		return fmt.Errorf("no room for the demo's data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	out := c.stdout
	if c.json {
		out = c.stderr
	}
	report, err := runDemo(ctx, dir, opt, runtimePath, out)
	report.Held = err == nil && report.AllHeld()
	if c.json {
		if err := c.printJSON(report); err != nil {
			return err
		}
	} else if len(report.Claims) > 0 {
		fmt.Fprintln(out)
		report.WriteTable(out)
	}
	switch {
	case err != nil:
		return fmt.Errorf("the demo did not come to its end: %w", err)
	case !report.Held:
		return errors.New("not everything that is claimed held; see the table")
	}
	fmt.Fprintf(out, "\nAll of it held, in %.0f s.\n", report.Seconds)
	return nil
}

// runDemo opens a --dev server in dir, plays the demo, and closes it again.
func runDemo(ctx context.Context, dir string, opt demo.Options, runtimePath string, out io.Writer) (_ demo.Report, err error) {
	cfg := config.Default()
	cfg.Dev = true
	cfg.Listen = "127.0.0.1:0"
	cfg.DataDir = filepath.Join(dir, "data")
	cfg.Models.Detector = config.NoDetector // the demo's pictures are aligned crops
	cfg.Models.Runtime = runtimePath
	cfg.Models.IntraOp = 1 // nothing to measure, and so nothing to keep: the demo leaves no file
	cfg.Store.MinFree = 64 << 20
	cfg.DrainTimeout = 5 * time.Second
	if err := cfg.Complete(); err != nil {
		return demo.Report{}, err
	}
	s, err := openServer(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return demo.Report{}, advise(cfg, err)
	}
	defer func() { err = errors.Join(err, s.close()) }()
	_, adminKey, err := s.authority.BootstrapAdmin(ctx, "demo admin", "")
	if err != nil {
		return demo.Report{}, err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- s.run(serving) }()

	report, err := demo.Run(ctx, demo.Target{
		Address:  s.address(),
		AdminKey: adminKey,
		Describe: s.describe(),

		IdentifyThreshold: thresholdFor(opt.Visitors, s.pipeline.EmbedderManifest().Calibration),
		RotationSeed:      s.rotationSeed,
		Embed:             func(ctx context.Context, crop *align.Crop) ([]float32, error) { return s.pipeline.Embed(ctx, crop) },
	}, opt, out)
	stop()
	return report, errors.Join(err, <-served)
}

// describe says in a line what the demo runs on.
func (s *server) describe() string {
	var ids []string
	for _, m := range s.pipeline.Info() {
		ids = append(ids, m.ID)
	}
	return fmt.Sprintf("Menshen %s on %s: model %s (for evaluation only), ONNX Runtime %s, kernel %s, %d CPUs",
		buildVersion(), s.address(), strings.Join(ids, ", "), s.pipeline.RuntimeVersion(), kernel.Implementation(), runtime.GOMAXPROCS(0))
}

// strangersPerSearch is the share of strangers that a search of the demo may
// take for somebody: the threshold aims at it, the demo's claim is 1%.
const strangersPerSearch = 0.002

// smallestGallery is the size below which the demo's threshold does not follow
// the gallery: with few tries a single false match would break a claim.
const smallestGallery = 2000

// thresholdFor picks the score from which a gallery of n identifies, from a
// model's calibration: at the score, the false match rate of a comparison times
// n is strangersPerSearch. Between two points of the calibration the score goes
// with the logarithm of the rate; outside it is that of the nearest point.
// Without calibration it is 0, which leaves the choice to the server.
func thresholdFor(n int, calibration []models.CalibrationPoint) float64 {
	points := slices.Clone(calibration)
	slices.SortFunc(points, func(a, b models.CalibrationPoint) int { return cmp.Compare(b.FMR, a.FMR) })
	want := strangersPerSearch / float64(max(n, smallestGallery))
	for i, p := range points {
		switch {
		case p.FMR > want:
			continue
		case i == 0 || p.FMR == want:
			return p.Score
		}
		above := points[i-1]
		share := math.Log(above.FMR/want) / math.Log(above.FMR/p.FMR)
		return above.Score + share*(p.Score-above.Score)
	}
	if len(points) == 0 {
		return 0
	}
	return points[len(points)-1].Score
}

// rotationSeed takes a scope's secret out of the keyring, for the demo alone:
// no RPC leads here.
func (s *server) rotationSeed(ref scope.Ref) (seed [32]byte, err error) {
	keys, err := s.storage.keyring.Keys(ref)
	if err != nil {
		return seed, err
	}
	err = keys.WithRotationSeed(func(s *[32]byte) error { seed = *s; return nil })
	return seed, err
}
