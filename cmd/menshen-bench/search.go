package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/bench/report"
	"github.com/menshen-io/menshen/bench/search"
	"github.com/menshen-io/menshen/index/kernel"
)

const searchHelp = `search measures how fast galleries are searched, on synthetic embeddings.

Without --scopes and --churn one gallery of --gallery templates is searched for
the best 5 above the threshold, in rounds in which these take turns:

  baseline    a fair fp32 brute force: vek32.Dot over vectors of norm 1, in blocks
              that fit the caches (their shape is tried out first), on all cores,
              with a list of the best for every worker
  single      one caller, one probe after the other
  batch       one caller, all --probes at once
  concurrent  --callers callers, each one probe after the other
  limits      what the machine can do at most: the rate at which all cores together
              read a buffer of --buffer-mib from memory, and int8 multiply-adds a
              second; the best of all rounds

What is printed (the keys of --json):

  baseline_single_ms, single_ms     a search for one probe: median over the rounds
                                    of the median in a round
  single_speedup                    the first over the second
  baseline_batch_qps, batch_qps     probes a second, --probes at once; medians
  batch_speedup                     the second over the first
  concurrent_qps                    searches a second of all callers; median
  concurrent_of_batch               its share of batch_qps
  bytes_per_template                growth of the process in memory (resident, with
                                    what the Go runtime keeps) by the gallery, over
                                    its templates. The benchmark's own data are made
                                    afterwards. resident_peak_bytes is the most that
                                    the process had while it was filled
  bandwidth_fraction                of the measured memory bandwidth: what a plain
                                    int8 scan would have to read for one probe (the
                                    codes and 4 bytes of norm a template) in the
                                    time that it took. Above 1, a prefilter or the
                                    caches saved reading
  mac_fraction                      of the int8 multiply-adds that all cores do on
                                    values in registers: templates x dimensions x
                                    batch_qps
  mismatches                        answers that differ, in ids, order or scores,
                                    from a reference scan of --check probes that
                                    makes every template anew and uses no code of
                                    the gallery. All answers to these probes in the
                                    whole run are compared. Must be 0
  kernel, cpu                       what computed
  single_p50_ms ... p99_ms          over all searches of all rounds
  allocs_per_search                 heap objects, the candidates' being the caller's;
                                    what the runtime allocates by the way is counted
                                    with them
  fmr, mated_found                  of the checked probes: share of the comparisons
                                    of different people at the threshold or above,
                                    and of the mated probes whose mate is a candidate
  single_work, batch_work           what one search did, the mean over the probes:
                                    rows_glanced through the prefilter, rows_passed by
                                    it, rows_compared in full (those that passed
                                    included), shards, and tasks that workers took
  baseline_scaled_from              rows of the baseline, where its float vectors do
                                    not fit in half of the free memory: its times are
                                    scaled from them. Not null where that was so

--scopes M searches M galleries of --gallery templates each, another one every
time: scope_search_us, scope_concurrent_qps, and scope_overhead_bytes: the growth in
memory for each scope (gallery, entry in the index, rotation) less the bytes that
its templates take in one large gallery of the same run.

--churn R compares the searches of one caller in a gallery that is left alone with
those in one with R changes a second, inserts and removes by turns: quiet_p99_ms,
churn_p99_ms, churn_ratio, churn_achieved_per_s. Answers are checked before and
after.

The data: --data isotropic has all directions alike; --data spectrum varies more in
some than in others, so that strangers' scores scatter as those of a 128-d
MobileFaceNet do on the ORL faces (standard deviation 0.113; participation ratio
about 80). Every second probe is mated, at a cosine of 0.5 to 0.9 to its template.
The same --seed gives the same data.

--record DIR writes the JSON document also to a file there, whose name follows from
the parameters, for bench/results: search-1000000x512-p256-spectrum.json,
search-100x512-scopes10000-spectrum.json, search-1000000x512-churn5000-spectrum.json.

--profile FILE writes a CPU profile of Menshen's own searches, single, batch and
concurrent by turns, for go tool pprof. They are run once more for it, after what is
measured.

Exit status: 0 measured, 1 failed or mismatches, 2 bad flags or too little memory,
130 interrupted.`

const searchExamples = `  menshen-bench search --gallery 1000000 --dim 512 --probes 256
  menshen-bench search --gallery 10000000 --dim 512 --probes 256 --skip-baseline --json
  menshen-bench search --scopes 10000 --gallery 100 --dim 512
  menshen-bench search --gallery 1000000 --dim 512 --churn 5000 --rounds 10 --record bench/results`

// errMismatches: answers differ from the reference scan. The result was printed.
var errMismatches = errors.New("answers differ from the reference scan")

// searchFlags are the flags of the subcommand.
type searchFlags struct {
	search.Options
	data          string
	seconds       float64
	bufferMiB     int
	scopes, churn int
	asJSON        bool
	record        string
	profile       string
	kernel        string
}

func newSearch(commandLine []string) *cobra.Command {
	var f searchFlags
	cmd := &cobra.Command{
		Use:     "search [--gallery N] [--dim D] [--probes P]",
		Short:   "Measure searches, against a brute force and the machine's limits",
		Long:    searchHelp,
		Example: searchExamples,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{cmd.CommandPath(), fmt.Errorf("unexpected argument %q: everything is a flag", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd.Flags().Changed); err != nil {
				return usageError{cmd.CommandPath(), err}
			}
			return f.run(cmd.Context(), commandLine, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVar(&f.Gallery, "gallery", 1_000_000, "templates; of each scope with --scopes")
	flags.IntVar(&f.Dim, "dim", 512, "values of an embedding")
	flags.IntVar(&f.Probes, "probes", 256, "probes at once")
	flags.StringVar(&f.data, "data", string(search.Spectrum), `distribution of the embeddings: "isotropic" or "spectrum"`)
	flags.Float64Var(&f.Threshold, "threshold", 0.45, "least cosine of a candidate; the default gives spectrum data an FMR of about 1e-5")
	flags.IntVar(&f.Callers, "callers", 64, "concurrent callers")
	flags.IntVar(&f.scopes, "scopes", 0, "measure so many galleries of --gallery templates each")
	flags.IntVar(&f.churn, "churn", 0, "measure searches under so many changes a second")
	flags.StringVar(&f.kernel, "kernel", "", "force an implementation: "+strings.Join(kernel.Available(), ", ")+" (default: the first of these)")
	flags.IntVar(&f.Rounds, "rounds", 5, "rounds that the medians are taken of")
	flags.Float64Var(&f.seconds, "seconds", 1, "least time of each measurement in a round")
	flags.IntVar(&f.Check, "check", 64, "probes that are compared with the reference scan; at least 32, or all")
	flags.Uint64Var(&f.Seed, "seed", 1, "seed of the data")
	flags.BoolVar(&f.SkipBaseline, "skip-baseline", false, "leave the baseline out")
	flags.IntVar(&f.BaselineRows, "baseline-rows", 0, "most templates of the baseline, whose times are then scaled (default: as many as fit in half of the free memory)")
	flags.IntVar(&f.bufferMiB, "buffer-mib", 1024, "size of the buffer that the memory bandwidth is measured on; many times the caches")
	flags.BoolVar(&f.asJSON, "json", false, "print the result as JSON")
	flags.StringVar(&f.record, "record", "", "write the JSON document also to a file in this folder")
	flags.StringVar(&f.profile, "profile", "", "write a CPU profile of Menshen's searches to this file")
	return cmd
}

// check looks for contradictions in the flags and completes the options.
func (f *searchFlags) check(given func(name string) bool) error {
	switch {
	case f.scopes != 0 && f.churn != 0:
		return errors.New("--scopes and --churn exclude each other: run one after the other")
	case given("scopes") && f.scopes < 1:
		return fmt.Errorf("--scopes %d: at least 1", f.scopes)
	case given("churn") && f.churn < 1:
		return fmt.Errorf("--churn %d: at least 1 change a second", f.churn)
	case !(f.seconds > 0 && f.seconds <= 3600):
		return fmt.Errorf("--seconds %v: above 0, at most 3600", f.seconds)
	case f.bufferMiB < 1 || f.bufferMiB > 1<<16:
		return fmt.Errorf("--buffer-mib %d: 1 to 65536", f.bufferMiB)
	}
	if f.scopes != 0 || f.churn != 0 {
		for _, name := range []string{"profile", "skip-baseline", "baseline-rows", "callers", "buffer-mib"} {
			if given(name) {
				return fmt.Errorf("--%s belongs to neither --scopes nor --churn", name)
			}
		}
	}
	if f.scopes != 0 {
		if given("probes") {
			return errors.New("--probes does not belong to --scopes: every scope has one probe")
		}
		f.Probes = max(f.Check, 1)
	}
	if !given("check") {
		f.Check = min(f.Check, f.Probes)
	}
	if f.record != "" {
		if dir, err := os.Stat(f.record); err != nil || !dir.IsDir() {
			return fmt.Errorf("--record %s: there is no such folder", f.record)
		}
	}
	if f.kernel != "" {
		if err := kernel.Select(f.kernel); err != nil {
			return fmt.Errorf("--kernel: %w", err)
		}
	}
	f.Profile = f.profile != ""
	f.Data = search.Kind(f.data)
	f.Time = time.Duration(f.seconds * float64(time.Second))
	f.Buffer = int64(f.bufferMiB) << 20
	return f.Options.Validate()
}

func (f *searchFlags) run(ctx context.Context, commandLine []string, stdout, stderr io.Writer) error {
	started := time.Now()
	bars := phases{ctx: ctx, w: stderr}
	defer bars.stop()
	f.Progress = bars.begin
	out, err := f.measure(ctx)
	if err != nil {
		return err
	}
	bars.stop()
	environment := report.NewEnvironment(commandLine, started)
	environment.Seconds = time.Since(started).Round(time.Millisecond).Seconds()
	out.finish(environment)
	if f.record != "" {
		path := filepath.Join(f.record, f.recordName())
		if err := writeRecord(path, out); err != nil {
			return err
		}
		note(stderr, "written to %s", path)
		if environment.Commit == "unknown" || environment.Changed {
			note(stderr, "the record does not say which sources were measured: commit all of them and build with -buildvcs=true")
		}
	}
	if r, ok := out.(*scanOutput); ok && f.profile != "" {
		if err := os.WriteFile(f.profile, r.CPUProfile, 0o644); err != nil {
			return fmt.Errorf("cannot write the profile: %w", err)
		}
		note(stderr, "profile written to %s", f.profile)
	}
	if err := writeResult(stdout, f.asJSON, out, out.table()); err != nil {
		return err
	}
	return verdict(out.setting())
}

// verdict is the error of a run whose answers were not all right.
func verdict(s *search.Setting) error {
	if s.Mismatches == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d of %d; the figures are worth nothing", errMismatches, s.Mismatches, s.CheckedCount)
}

func (f *searchFlags) measure(ctx context.Context) (searchOutput, error) {
	switch {
	case f.scopes != 0:
		r, err := search.Scopes(ctx, f.Options, f.scopes)
		return &scopesOutput{ScopesResult: r}, err
	case f.churn != 0:
		r, err := search.Churn(ctx, f.Options, f.churn)
		return &churnOutput{ChurnResult: r}, err
	}
	r, err := search.Scan(ctx, f.Options)
	return &scanOutput{ScanResult: r}, err
}

// recordName is the name of the file that --record writes.
func (f *searchFlags) recordName() string {
	kind := fmt.Sprintf("p%d", f.Probes)
	switch {
	case f.scopes != 0:
		kind = fmt.Sprintf("scopes%d", f.scopes)
	case f.churn != 0:
		kind = fmt.Sprintf("churn%d", f.churn)
	}
	return fmt.Sprintf("search-%dx%d-%s-%s.json", f.Gallery, f.Dim, kind, f.Data)
}

// writeRecord writes the document whole or not at all.
func writeRecord(path string, out any) (err error) {
	var b bytes.Buffer
	if err := report.WriteJSON(&b, out); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("cannot record the result: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
			err = fmt.Errorf("cannot record the result: %w", err)
		}
	}()
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// phases shows one bar after the other.
type phases struct {
	ctx context.Context
	w   io.Writer
	bar *progress
}

func (p *phases) begin(name string, steps int) (step func()) {
	p.stop()
	p.bar = newProgress(p.ctx, p.w, name, steps)
	return p.bar.step
}

func (p *phases) stop() {
	if p.bar != nil {
		p.bar.stop()
		p.bar = nil
	}
}
