// Command menshen-bench measures Menshen: what it can do, and how surely.
//
// Each subcommand is a suite of its own and stands in a file of its own. Results
// go to standard output, as a table or with --json as one JSON document and
// nothing else; notes and progress go to standard error. The exit status is 0
// when the measurement was made, 2 when what was asked for cannot be (flags,
// data set, models), 130 when it was interrupted, and 1 for any other failure.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/menshen-io/menshen/bench/accuracy"
	"github.com/menshen-io/menshen/bench/cost"
	"github.com/menshen-io/menshen/bench/inference"
	"github.com/menshen-io/menshen/bench/load"
	"github.com/menshen-io/menshen/bench/report"
	"github.com/menshen-io/menshen/bench/revoke"
	"github.com/menshen-io/menshen/bench/search"
	"github.com/menshen-io/menshen/bench/target"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/detect"
	"github.com/menshen-io/menshen/models/embed"
	"github.com/menshen-io/menshen/models/pipeline"
)

func main() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) }

// run is main with its surroundings as arguments; it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	// The first interrupt asks for a clean end; after that, the default applies
	// again and a second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := newRoot(args)
	root.SetArgs(args[1:])
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled):
		fmt.Fprintln(stderr, "menshen-bench: interrupted; nothing was written")
		if errors.Is(err, errLeft) {
			fmt.Fprintf(stderr, "menshen-bench: %v\n", err)
		}
		return exitInterrupted
	}
	fmt.Fprintf(stderr, "menshen-bench: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", usage.command)
	}
	return exitStatus(err)
}

func newRoot(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "menshen-bench",
		Short:         "Measure Menshen",
		Long:          "menshen-bench measures Menshen: what it can do, and how surely.",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{cmd.CommandPath(), fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{cmd.CommandPath(), err}
	})
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newAccuracy(args), newSearch(args), newLoad(args), newInference(args), newRevoke(args), newCost(args), newEcho())
	return root
}

// version is the commit that the binary was built from.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				return setting.Value
			}
		}
	}
	return "unknown"
}

const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

// usageError is a fault in the command line.
type usageError struct {
	command string
	err     error
}

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// inputFaults are the errors that a change of flags, data or model files mends.
var inputFaults = []error{
	accuracy.ErrDataSet, accuracy.ErrMissing, search.ErrOptions, load.ErrOptions, inference.ErrOptions, revoke.ErrOptions, cost.ErrOptions, cost.ErrSource, target.ErrAddress, target.ErrPhotos,
	models.ErrUnknownModel, models.ErrManifest, models.ErrModelName, models.ErrUnrecognised, models.ErrAbsent,
	models.ErrHashMismatch, models.ErrNotModel, models.ErrModelShape,
	pipeline.ErrWrongKind, detect.ErrOptions, embed.ErrNotEmbedder,
}

func exitStatus(err error) int {
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	for _, fault := range inputFaults {
		if errors.Is(err, fault) {
			return exitUsage
		}
	}
	return exitFailed
}

// note prints a line for the person at the terminal.
func note(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "note: "+format+"\n", args...)
}

// writeResult writes a result as JSON or as a table.
func writeResult(w io.Writer, asJSON bool, result any, table *report.Table) error {
	if asJSON {
		return report.WriteJSON(w, result)
	}
	_, err := table.WriteTo(w)
	return err
}
