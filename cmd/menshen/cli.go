package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/menshen-io/menshen/cmd/menshen/internal/client"
	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
)

// Exit statuses of the program.
const (
	exitOK             = 0
	exitError          = 1
	exitUsage          = 2
	exitNoMatch        = 3
	exitUseAlternative = 4
	exitDamaged        = 5
)

// errUsage: the command line makes no sense. Wrapped errors end the program
// with exitUsage.
var errUsage = errors.New("usage")

// usagef makes an error about the command line.
func usagef(format string, args ...any) error {
	return usageError{fmt.Sprintf(format, args...)}
}

type usageError struct{ text string }

func (e usageError) Error() string        { return e.text }
func (e usageError) Is(target error) bool { return target == errUsage }

// exitStatus ends the program with a status and prints nothing: all that there
// is to say has been printed.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// cli is one run of the program: its streams and what the flags of all
// commands have in common.
type cli struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	json   bool // --json: of the commands that have it

	reload atomic.Pointer[func()] // what SIGHUP does; nil: it ends the command
}

// hangUp answers SIGHUP: a server reads its certificates again, everything else
// ends, as when the terminal is closed.
func (c *cli) hangUp(end func()) {
	if reload := c.reload.Load(); reload != nil {
		(*reload)()
		return
	}
	end()
}

// run executes the command line and returns the exit status.
func (c *cli) run(ctx context.Context, args []string) int {
	root := c.rootCommand()
	root.SetArgs(args)
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	err := root.ExecuteContext(ctx)
	var status exitStatus
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	}
	failure := client.Explain(err)
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || failure.Code == codes.Canceled.String()) {
		asked := failure.Code != ""
		failure = client.Failure{Message: "interrupted"}
		if asked {
			failure.Next = "what was asked of the server may or may not have been done: look, or repeat the command; one with a --request-id is carried out once"
		}
	}
	var a *advised
	if errors.As(err, &a) {
		failure.Next = a.next
	}
	if c.json || slices.Contains(args, "--json") { // a bad flag before it ends the reading of flags
		failure.WriteJSON(c.stderr)
	} else {
		failure.WriteText(c.stderr)
	}
	if errors.Is(err, errUsage) || errors.Is(err, client.ErrUsage) || errors.Is(err, config.ErrInvalid) || errors.Is(err, config.ErrUnknownKey) || errors.Is(err, config.ErrBadValue) {
		return exitUsage
	}
	return exitError
}

func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "menshen",
		Short: "Face matching for gates: what is enrolled for one purpose matches nowhere else",
		Long: `Menshen answers a gate's question: is this the person, and may they pass?
A template that is enrolled for one purpose at one site can never match anywhere
else, and when the purpose ends the template is gone.

Start here:
  menshen demo                 see it work, with synthetic faces
  menshen serve --dev          a server on this machine, to try things out
  menshen init --help          set up a real server

Exit status: 0 success, for verify and identify a match; 1 error; 2 wrong usage;
3 no match (NO_MATCH); 4 use the alternative (USE_ALTERNATIVE); 5 for audit
verify, the log is not as it was written.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE:          groupRun,

		SuggestionsMinimumDistance: suggestionDistance,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if args := cmd.Flags().Args(); cmd.HasSubCommands() && len(args) > 0 {
			return groupRun(cmd, args) // the flag is no flag of the group, since the command is none
		}
		return usagef("%v; see \"%s --help\"", err, cmd.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: "server", Title: "Run a server:"},
		&cobra.Group{ID: "manage", Title: "Manage what it holds (over gRPC):"},
		&cobra.Group{ID: "faces", Title: "Work with faces (over gRPC):"},
		&cobra.Group{ID: "offline", Title: "Without a server:"},
	)
	root.AddCommand(
		c.serveCommand(), c.initCommand(), c.keysCommand(), c.demoCommand(),
		c.tenantsCommand(), c.scopesCommand(), c.credentialsCommand(), c.subjectsCommand(), c.receiptsCommand(), c.backupCommand(), c.restoreCommand(),
		c.auditCommand(), c.recordsCommand(),
		c.enrollCommand(), c.verifyCommand(), c.identifyCommand(),
		c.modelsCommand(), c.detectCommand(), c.versionCommand(),
	)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.GroupID == "" && (cmd.Name() == "help" || cmd.Name() == "completion") {
			cmd.GroupID = "offline"
		}
	}
	return root
}

// suggestionDistance is how many letters a misspelt command may be off to get a
// suggestion.
const suggestionDistance = 2

// groupRun is the Run of a command that only has subcommands.
func groupRun(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	text := fmt.Sprintf("%q is not a command of %s", args[0], cmd.CommandPath())
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	} else {
		text += ";"
	}
	return usagef("%s see \"%s --help\"", text, cmd.CommandPath())
}

// group makes a command that only has subcommands.
func group(use, groupID, short, long string, subcommands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, GroupID: groupID, Short: short, Long: long, Args: cobra.ArbitraryArgs, RunE: groupRun}
	cmd.SuggestionsMinimumDistance = suggestionDistance
	cmd.AddCommand(subcommands...)
	return cmd
}

// exactly checks the number of arguments and names them in the error.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(names) == 0 {
			return usagef("%s takes no arguments; see \"%s --help\"", cmd.CommandPath(), cmd.CommandPath())
		}
		return usagef("%s takes %s, got %d arguments; see \"%s --help\"", cmd.CommandPath(), strings.Join(names, " "), len(args), cmd.CommandPath())
	}
}

// atLeastOne checks that there is an argument of the given name.
func atLeastOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return nil
		}
		return usagef("%s takes at least one %s; see \"%s --help\"", cmd.CommandPath(), name, cmd.CommandPath())
	}
}

// remote makes the RunE of a command that calls a server: it adds the
// connection flags to cmd and dials before run is called.
func (c *cli) remote(cmd *cobra.Command, run func(ctx context.Context, conn *grpc.ClientConn, args []string) error) *cobra.Command {
	var opt client.Options
	opt.AddFlags(cmd.Flags())
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conn, err := opt.Dial(c.stdin, c.stderr)
		if err != nil {
			return err
		}
		defer conn.Close()
		return run(cmd.Context(), conn, args)
	}
	return cmd
}
