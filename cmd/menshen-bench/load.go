package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/bench/load"
	"github.com/menshen-io/menshen/bench/report"
	"github.com/menshen-io/menshen/bench/target"
)

const loadHelp = `load sends calls to a server that does not get to choose when they come: arrivals
do not wait for answers. What comes due within a millisecond leaves together, and
connections are written by the generator itself (HTTP/2), so that it takes little of
the machine that it measures. A call's latency counts from when it was due, so that a
server that stops is charged for everybody who came meanwhile.

Without --server it starts the menshen beside it in a process of its own, on
loopback with a temporary data directory, makes tenants, scopes and keys, enrols
--gallery synthetic templates and --faces drawn people in each scope, and removes
all of it afterwards. With --server it does the same on a server that runs, with
the key of a platform admin; or, with --scope and a gate's key, it makes nothing.

Profiles:

  constant    --rate for --duration
  step        --rates one after the other, each for --step
  doors-open  few, then a ramp to --rate, the rush, and settling; --duration in all
  overload    the peak by steps of growing load, 80% of it for --steady, --times it
              for --duration, then 80% again for --recovery
  fairness    the peak; all tenants alike at --part of their share for --steady;
              then one of them at --times its share for as long
  stalled     the peak; healthy clients at --part of it for --steady; then the same
              beside --stalled connections that say nothing, stop after the headers
              or half a message, send a byte a second, never read, or open streams
              and idle; for --stalled-for, or until all are cut off

--mix says what is sent, with weights: verify or identify, with a probe that is an
embedding, a crop (112x112 RGB), a jpegcrop or an image (640x480 JPEG: those of
--photos, or else drawn ones, in which a real detector may find no face).

What is printed (keys of --json; null where a profile does not measure it):

  peak_rate           answers a second, the most of any step; peak_after: again at the
                      end. If they differ much, the machine was not the same
  goodput_ratio       answers a second under overload, over peak_rate
  p99_ratio           99th percentile of what was answered under overload, over that
                      at 80% of the peak
  refusal_p99_ms      99th percentile of refusals (RESOURCE_EXHAUSTED), from sending
  recovery_s          from the end of the overload to the first of two seconds in
                      which 97% were answered within twice the 99th percentile at 80%
  memory_peak_mb      the most the server had in memory; memory_steady_mb at 80%
  fairness_p99_ratio  99th percentile of the other tenants beside the flooding one,
                      over that before; others_answered: share of their calls
  stalled_p99_ratio   99th percentile of the healthy beside the stalled, over that
                      before; healthy_answered: share of their calls;
                      stalled_kinds: of each kind how many the server cut off, and when
  server_cpu          cores, in the phase with the most load; client_cpu and
                      client_cpu_share: the generator's; other_cpu: what others used,
                      with what the machine's host took away
  not_sent            calls that were due while --outstanding were under way. If not
                      0, the generator was the limit and the load less than it says
  phases, series      everything by phase, and by second

--record DIR writes the JSON document and an HTML report with plots, which opens
from the file, to DIR, for bench/results: load-overload-verify-crop.json and .html.

Load is sent to this machine and private networks only, unless --allow-remote is
given: a load generator on somebody else's server is an attack.

Exit status: 0 measured, 1 failed, 2 bad flags, 130 interrupted.`

const loadExamples = `  menshen-bench load --profile constant --rate 2000 --duration 10s
  menshen-bench load --profile overload --mix verify:jpegcrop --embedder model.onnx --record bench/results
  menshen-bench load --profile doors-open --rate 300 --mix verify:crop=0.8,identify:image=0.2 \
      --detector yunet.onnx --embedder model.onnx --photos photos/
  menshen-bench load --profile fairness --tenants 5
  menshen-bench load --profile stalled --stalled 1000 --json
  menshen-bench load --profile step --rates 100,200,400 --server 10.0.0.5:7443 \
      --tls-ca ca.pem --api-key-file gate.key --scope tenants/acme/scopes/hall-a`

// loadFlags are the flags of the subcommand.
type loadFlags struct {
	profile                          string
	rate, times, part                float64
	rates                            string
	duration, step, steady, recovery time.Duration
	stalledFor                       time.Duration
	mix                              string
	lanes, tenants, gallery, faces   int
	requests, outstanding, stalled   int
	arrivals                         string
	deadline                         time.Duration
	seed                             uint64
	photos                           string

	server, keyFile, scope, ca string
	remote                     bool
	child                      childFlags

	asJSON bool
	record string

	parsedMix   load.Mix
	parsedRates []float64
}

// childFlags say what server is started.
type childFlags struct {
	target.ServerOptions
}

func (f *childFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.Binary, "menshen", "", "the server's program (default: the menshen beside this program)")
	flags.StringVar(&f.Detector, "detector", "", "face detector of the server that is started: registry name, manifest or .onnx file")
	flags.StringVar(&f.Embedder, "embedder", "", "its face embedder (default: the built-in reference model)")
	flags.StringVar(&f.Runtime, "runtime-library", "", "path of the ONNX Runtime library (default: the usual places)")
	flags.StringArrayVar(&f.Args, "serve-arg", nil, "a further argument of menshen serve, such as --serve-arg=--kernel=avx2; may be repeated")
}

var profiles = []string{"constant", "step", "doors-open", "overload", "fairness", "stalled"}

func newLoad(commandLine []string) *cobra.Command {
	var f loadFlags
	stages := load.DefaultStages()
	cmd := &cobra.Command{
		Use:     "load --profile P",
		Short:   "Measure a server under load that does not wait for it",
		Long:    loadHelp,
		Example: loadExamples,
		Args:    flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd.Flags().Changed); err != nil {
				return usageError{cmd.CommandPath(), err}
			}
			return f.run(cmd.Context(), commandLine, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.profile, "profile", "", strings.Join(profiles, ", "))
	flags.StringVar(&f.mix, "mix", "verify:embedding", "what is sent, such as verify:crop=0.8,identify:image=0.2")
	flags.Float64Var(&f.rate, "rate", 0, "calls a second: of constant, and of the rush of doors-open")
	flags.StringVar(&f.rates, "rates", "", "calls a second of the steps of step, such as 100,200,400")
	flags.Float64Var(&f.times, "times", 0, "overload: times the peak (default 10); fairness: times its share (default 20)")
	flags.Float64Var(&f.part, "part", 0, "part of its share that everybody sends in fairness (default 0.8), and of the peak in stalled (default 0.5)")
	flags.DurationVar(&f.duration, "duration", stages.Overload, "of constant and doors-open in all, of overload's overload")
	flags.DurationVar(&f.step, "step", stages.Step, "length of a step")
	flags.DurationVar(&f.steady, "steady", stages.Steady, "length of a part that is compared with")
	flags.DurationVar(&f.recovery, "recovery", stages.Recovery, "how long a recovery is watched")
	flags.IntVar(&f.lanes, "lanes", 4, "connections of each tenant")
	flags.IntVar(&f.tenants, "tenants", 0, "tenants, with a scope each (default 1; fairness: 5)")
	flags.IntVar(&f.gallery, "gallery", 10_000, "templates of each scope")
	flags.IntVar(&f.faces, "faces", 64, "drawn people enrolled in each scope, where the mix has crops or images")
	flags.IntVar(&f.requests, "requests", 256, "different requests of each kind and tenant")
	flags.StringVar(&f.arrivals, "arrivals", string(load.Poisson), "how calls follow each other: poisson or even")
	flags.DurationVar(&f.deadline, "deadline", 2*time.Second, "of a call, from when it was due")
	flags.IntVar(&f.outstanding, "outstanding", 4096, "most calls under way")
	flags.IntVar(&f.stalled, "stalled", 1000, "connections that stall")
	flags.DurationVar(&f.stalledFor, "stalled-for", stages.Stalled, "how long they stay, unless the server cuts off all of them before")
	flags.Uint64Var(&f.seed, "seed", 1, "seed of arrivals and data")
	flags.StringVar(&f.photos, "photos", "", "folder of photographs for images (default: drawn ones)")
	flags.StringVar(&f.server, "server", "", "address of a running server, host:port (default: one is started)")
	flags.StringVar(&f.keyFile, "api-key-file", "", "file of the API key for --server: a platform admin's, or with --scope a gate's")
	flags.StringVar(&f.scope, "scope", "", "resource name of the scope that a gate's key is for")
	flags.StringVar(&f.ca, "tls-ca", "", "PEM file of the authorities of --server (default: the system's; plain text on loopback)")
	flags.BoolVar(&f.remote, "allow-remote", false, "permit a --server outside this machine and private networks; it must be yours")
	f.child.add(cmd)
	flags.BoolVar(&f.asJSON, "json", false, "print the result as JSON")
	flags.StringVar(&f.record, "record", "", "write the JSON document and the HTML report to files in this folder")
	return cmd
}

// flagsOnly refuses arguments that are not flags.
func flagsOnly(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{cmd.CommandPath(), fmt.Errorf("unexpected argument %q: everything is a flag", args[0])}
	}
	return nil
}

const (
	maxPart     = 10 * time.Minute // of a run
	maxRate     = 1e6
	maxTemplate = 10_000_000
)

// check looks for contradictions in the flags and completes them.
func (f *loadFlags) check(given func(name string) bool) (err error) {
	defaultTenants, defaultTimes, defaultPart := 1, 10.0, 0.5
	switch f.profile {
	case "":
		return fmt.Errorf("which profile? Give --profile: %s", strings.Join(profiles, ", "))
	case "constant", "doors-open":
		if !(f.rate > 0 && f.rate <= maxRate) {
			return fmt.Errorf("--rate %g: %s needs calls a second, above 0 and at most %g", f.rate, f.profile, float64(maxRate))
		}
	case "step":
		if f.parsedRates, err = parseRates(f.rates); err != nil {
			return err
		}
	case "fairness":
		defaultTenants, defaultTimes, defaultPart = 5, 20, 0.8
	case "overload", "stalled":
	default:
		return fmt.Errorf("--profile %q: there are %s", f.profile, strings.Join(profiles, ", "))
	}
	for name, belongs := range map[string]string{"rate": "constant doors-open", "rates": "step", "times": "overload fairness", "part": "fairness stalled", "stalled": "stalled", "stalled-for": "stalled", "recovery": "overload"} {
		if given(name) && !strings.Contains(belongs, f.profile) {
			return fmt.Errorf("--%s belongs to the profile %s", name, strings.ReplaceAll(belongs, " ", " or "))
		}
	}
	if !given("tenants") {
		f.tenants = defaultTenants
	}
	if !given("times") {
		f.times = defaultTimes
	}
	if !given("part") {
		f.part = defaultPart
	}
	if f.parsedMix, err = load.ParseMix(f.mix); err != nil {
		return err
	}
	for name, d := range map[string]time.Duration{"duration": f.duration, "step": f.step, "steady": f.steady, "recovery": f.recovery, "stalled-for": f.stalledFor} {
		if d < time.Second || d > maxPart {
			return fmt.Errorf("--%s %s: 1s to %s", name, d, maxPart)
		}
	}
	for _, n := range []struct {
		name             string
		value, low, high int
	}{
		{"lanes", f.lanes, 1, 1024}, {"tenants", f.tenants, 1, 64}, {"gallery", f.gallery, 1, maxTemplate}, {"faces", f.faces, 1, 10_000},
		{"requests", f.requests, 2, 1 << 16}, {"outstanding", f.outstanding, 1, 1 << 15}, {"stalled", f.stalled, 1, 10_000},
	} {
		if n.value < n.low || n.value > n.high {
			return fmt.Errorf("--%s %d: %d to %d", n.name, n.value, n.low, n.high)
		}
	}
	switch {
	case !(f.times >= 1 && f.times <= 100):
		return fmt.Errorf("--times %g: 1 to 100", f.times)
	case !(f.part > 0 && f.part <= 1):
		return fmt.Errorf("--part %g: above 0, at most 1", f.part)
	case f.deadline < time.Millisecond || f.deadline > time.Minute:
		return fmt.Errorf("--deadline %s: 1ms to 1m", f.deadline)
	case f.arrivals != string(load.Poisson) && f.arrivals != string(load.Even):
		return fmt.Errorf("--arrivals %q: there are %s and %s", f.arrivals, load.Poisson, load.Even)
	case f.profile == "fairness" && f.tenants < 2:
		return errors.New("--tenants: fairness needs at least 2")
	case f.photos != "" && !f.parsedMix.Needs(target.Image):
		return errors.New("--photos: the mix has no images")
	}
	return f.checkServer(given)
}

func (f *loadFlags) checkServer(given func(name string) bool) error {
	if f.server == "" {
		for _, name := range []string{"api-key-file", "scope", "tls-ca", "allow-remote"} {
			if given(name) {
				return fmt.Errorf("--%s belongs to --server", name)
			}
		}
		if f.parsedMix.Needs(target.Image) && f.child.Detector == "" {
			return errors.New("the mix has images: give the server a --detector")
		}
		return checkRecord(f.record)
	}
	for _, name := range []string{"menshen", "detector", "embedder", "runtime-library", "serve-arg"} {
		if given(name) {
			return fmt.Errorf("--%s is for a server that is started; there is --server", name)
		}
	}
	switch {
	case f.keyFile == "":
		return errors.New("--server needs --api-key-file: a platform admin's key, or with --scope a gate's")
	case f.scope != "" && f.tenants != 1:
		return errors.New("--scope is one tenant's: it goes with neither --tenants nor fairness")
	case f.scope != "" && (given("gallery") || given("faces")):
		return errors.New("--gallery and --faces: nobody is enrolled in a --scope that is there already")
	case f.profile == "stalled" && f.ca != "":
		return errors.New("stalled speaks plain text: it is for servers on this machine")
	}
	if _, err := target.NewDialer(f.server, f.ca, f.remote); err != nil {
		return err
	}
	return checkRecord(f.record)
}

func checkRecord(path string) error {
	if path == "" {
		return nil
	}
	if dir, err := os.Stat(path); err != nil || !dir.IsDir() {
		return fmt.Errorf("--record %s: there is no such folder", path)
	}
	return nil
}

func parseRates(text string) (rates []float64, err error) {
	for part := range strings.SplitSeq(text, ",") {
		rate, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
		if err != nil || !(rate > 0 && rate <= maxRate) || len(rates) == 100 {
			return nil, fmt.Errorf("--rates %q: step needs up to 100 numbers above 0 and at most %g, with commas", text, float64(maxRate))
		}
		rates = append(rates, rate)
	}
	return rates, nil
}

func (f *loadFlags) run(ctx context.Context, commandLine []string, stdout, stderr io.Writer) (err error) {
	started := time.Now()
	bars := phases{ctx: ctx, w: stderr}
	defer bars.stop()
	s, err := f.open(ctx, &bars)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	bars.stop()

	live := newLive(ctx, stderr, f.profile)
	defer live.stop()
	s.options.Progress = live.show
	result, err := f.play(ctx, s)
	if err != nil {
		return err
	}
	live.stop()
	environment := report.NewEnvironment(commandLine, started)
	environment.Seconds = time.Since(started).Round(time.Millisecond).Seconds()
	out := newLoadOutput(f, s, result, environment)
	for _, remark := range out.Remarks {
		note(stderr, "%s", remark)
	}
	if f.record != "" {
		name := filepath.Join(f.record, out.recordName())
		if err := report.WriteJSONFile(name+".json", out); err != nil {
			return err
		}
		if err := out.page().WriteFile(name + ".html"); err != nil {
			return err
		}
		note(stderr, "written to %s.json and %s.html", name, name)
	}
	return writeResult(stdout, f.asJSON, out, out.table())
}

// play plays the profile.
func (f *loadFlags) play(ctx context.Context, s *session) (*load.Result, error) {
	g, err := load.NewGenerator(s.options)
	if err != nil {
		return nil, err
	}
	stages := load.Stages{Step: f.step, Steady: f.steady, Overload: f.duration, Recovery: f.recovery, Stalled: f.stalledFor}
	switch f.profile {
	case "constant":
		return load.Constant(ctx, g, f.rate, f.duration)
	case "step":
		return load.Step(ctx, g, f.parsedRates, f.step)
	case "doors-open":
		return load.DoorsOpen(ctx, g, f.rate, f.duration)
	case "overload":
		return load.Overload(ctx, g, f.times, stages)
	case "fairness":
		return load.Fairness(ctx, g, f.times, f.part, stages)
	}
	crowd, err := s.tenants[0].Requests(target.Kind{Verb: target.Verify, Probe: target.Embedding}, 1, nil)
	if err != nil {
		return nil, err
	}
	return load.Stalled(ctx, g, load.StalledOptions{
		Clients: f.stalled, Address: s.address, Key: s.tenants[0].GateKey, Request: crowd[0], Part: f.part,
	}, stages)
}
