package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/bench/cost"
	"github.com/menshen-io/menshen/bench/report"
)

const costHelp = `cost measures what sealing and auditing take away. It builds the menshen of the
source tree four times, as it is and with sealing, auditing or both left out, into a
temporary folder, starts all four on loopback, and lets them enrol in turns. Then it
verifies in two scopes of the server as it is: one demands a record of every
decision, the other keeps none. Probes are embeddings, which leave the least to
hide behind; with pictures the models take nearly all of the time.

What is printed (keys of --json), each the median of the rounds' ratios:

  enrol_cost     part of the bulk enrolments a second that sealing and auditing take:
                 0.05 means 95 with them where there are 100 without
  sealing_cost   likewise of sealing alone, auditing_cost of auditing alone
  verify_cost    part of the verifications a second that a record of every decision
                 takes; all of them match, which costs the log most

It needs Go and the sources, and must not be run beside anything else. The client
shares the machine with the servers.

--record DIR writes the JSON document also to a file there, for bench/results.

Exit status: 0 measured, 1 failed, 2 bad flags, 130 interrupted.`

const costExamples = `  menshen-bench cost
  menshen-bench cost --embedder mobilefacenet.onnx --rounds 40 --record bench/results`

type costFlags struct {
	cost.Options
	asJSON bool
	record string
}

// costOutput is the JSON document of the subcommand.
type costOutput struct {
	*cost.Result
	Environment report.Environment `json:"environment"`
}

func newCost(commandLine []string) *cobra.Command {
	var f costFlags
	cmd := &cobra.Command{
		Use:     "cost",
		Short:   "Measure what sealing and auditing take of enrolment and of Verify",
		Long:    costHelp,
		Example: costExamples,
		Args:    flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := f.Validate()
			if err == nil {
				err = checkRecord(f.record)
			}
			if err != nil {
				return usageError{cmd.CommandPath(), err}
			}
			return f.run(cmd.Context(), commandLine, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.Source, "source", ".", "a folder of Menshen's source tree")
	flags.IntVar(&f.Rounds, "rounds", 21, "rounds that the medians are taken of")
	flags.DurationVar(&f.Slice, "slice", 500*time.Millisecond, "how long a server enrols in a round, and two scopes are verified in")
	flags.StringVar(&f.Embedder, "embedder", "", "face embedder, for its dimension (default: the built-in reference model)")
	flags.StringVar(&f.Runtime, "runtime-library", "", "path of the ONNX Runtime library (default: the usual places)")
	flags.BoolVar(&f.asJSON, "json", false, "print the result as JSON")
	flags.StringVar(&f.record, "record", "", "write the JSON document also to a file in this folder")
	return cmd
}

func (f *costFlags) run(ctx context.Context, commandLine []string, stdout, stderr io.Writer) error {
	started := time.Now()
	bars := phases{ctx: ctx, w: stderr}
	defer bars.stop()
	f.Progress = bars.begin
	result, err := cost.Run(ctx, f.Options)
	if err != nil {
		return err
	}
	bars.stop()
	out := &costOutput{result, report.NewEnvironment(commandLine, started)}
	out.Environment.Seconds = time.Since(started).Round(time.Millisecond).Seconds()
	if f.record != "" {
		path := filepath.Join(f.record, fmt.Sprintf("cost-%d.json", out.Dim))
		if err := report.WriteJSONFile(path, out); err != nil {
			return err
		}
		note(stderr, "written to %s", path)
	}
	return writeResult(stdout, f.asJSON, out, out.table())
}

func (o *costOutput) table() *report.Table {
	t := &report.Table{}
	t.Add("model", fmt.Sprintf("%s, %d values", o.Model, o.Dim))
	t.Add("cpu", fmt.Sprintf("%s, %d cores shared with the client", o.Environment.CPU, o.Environment.Cores))
	t.Add()
	enrol := func(of func(cost.EnrolRound) float64) string {
		return short(cost.Median(o.EnrolRounds, of)) + " a second"
	}
	t.Add("enrol_cost", short(o.EnrolCost), fmt.Sprintf("%s as it is, %s without both", enrol(func(r cost.EnrolRound) float64 { return r.AsItIs }), enrol(func(r cost.EnrolRound) float64 { return r.WithoutBoth })))
	t.Add("sealing_cost", short(o.SealingCost), enrol(func(r cost.EnrolRound) float64 { return r.WithoutSealing })+" without sealing")
	t.Add("auditing_cost", short(o.AuditingCost), enrol(func(r cost.EnrolRound) float64 { return r.WithoutAuditing })+" without auditing")
	t.Add("verify_cost", short(o.VerifyCost), fmt.Sprintf("%s a second recorded, %s not", short(cost.Median(o.VerifyRounds, func(r cost.VerifyRound) float64 { return r.Required })), short(cost.Median(o.VerifyRounds, func(r cost.VerifyRound) float64 { return r.Off }))))
	return t
}
