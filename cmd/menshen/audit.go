package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func (c *cli) auditCommand() *cobra.Command {
	return group("audit", "manage", "Read the audit log, keep its checkpoints, verify it",
		`The audit log says who did what: every change and every refusal, and for scopes
that want it (scopes create --decision-audit) what gates were told. Each record is
chained to the one before by its hash, and the ends of the chains are signed.
Subjects appear as pseudonyms that change every day.

A tenant's operators and auditors read their tenant's log, a platform admin the
platform's. Keep a checkpoint away from the server now and then: with it, and the
public key that "menshen keys show" prints, "audit verify" finds every later change
of what came before.`,
		c.auditList(), c.auditWatch(), c.auditCheckpoint(), c.auditKeys(), c.auditVerify(), c.auditAcceptDamage())
}

// eventLog are the flags that name a log, and those that choose from it.
type eventLog struct {
	tenant, scope string
	decisions     bool
	kinds         []string
}

func (l *eventLog) addTenantFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.tenant, "tenant", tenantDefault(), tenantUsage+"; by default the key's own")
}

// addLogFlags adds those that name a log; usage tells what the scope is for.
func (l *eventLog) addLogFlags(cmd *cobra.Command, usage string) {
	l.addTenantFlag(cmd)
	cmd.Flags().StringVar(&l.scope, "scope", "", usage)
	cmd.Flags().BoolVar(&l.decisions, "decisions", false, "the decisions of the scope instead of the acts")
}

// addFlags adds all of them.
func (l *eventLog) addFlags(cmd *cobra.Command) {
	l.addLogFlags(cmd, "only what concerns this scope")
	cmd.Flags().StringSliceVar(&l.kinds, "kind", nil, "only these kinds: act, decision, gap, heads")
}

// names gives the parent, the scope to filter by, and the kinds.
func (l *eventLog) names() (parent, scope string, kinds []menshenv1.EventKind, err error) {
	if scope, err = scopeName(l.scope, l.tenant); err != nil {
		return "", "", nil, err
	}
	if l.decisions {
		if scope == "" {
			return "", "", nil, usagef("--decisions: every scope has a log of its own; name it with --scope")
		}
		parent, scope = scope, ""
	} else {
		parent = tenantName(l.tenant)
	}
	for _, k := range l.kinds {
		kind, ok := menshenv1.EventKind_value["EVENT_KIND_"+strings.ToUpper(k)]
		if !ok || kind == 0 {
			return "", "", nil, usagef("--kind: %q is none of act, decision, gap, heads", k)
		}
		kinds = append(kinds, menshenv1.EventKind(kind))
	}
	return parent, scope, kinds, nil
}

func (c *cli) auditList() *cobra.Command {
	var (
		l           eventLog
		since       string
		until, from string
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Print the log, oldest first",
		Long:  "Print the log, oldest first, one event a line; with --json one JSON object a line.",
		Example: `  menshen audit list --tenant acme --since 7d
  menshen audit list --scope hall-a --decisions --from 2026-11-21T00:00:00Z
  menshen audit list --kind gap --json`,
		Args: exactly(),
	}
	l.addFlags(cmd)
	cmd.Flags().StringVar(&since, "since", "", "only the last 12h, 7d, ...")
	cmd.Flags().StringVar(&from, "from", "", "only from this time on: 2026-12-31T18:00:00+08:00")
	cmd.Flags().StringVar(&until, "until", "", "only before this time")
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, _ []string) error {
		parent, scope, kinds, err := l.names()
		if err != nil {
			return err
		}
		now := time.Now()
		req := &menshenv1.ListEventsRequest{Parent: parent, Scope: scope, Kinds: kinds, PageSize: pageSize}
		if req.StartTime, err = parseInstant("from", from, now); err != nil {
			return err
		}
		if req.EndTime, err = parseInstant("until", until, now); err != nil {
			return err
		}
		if since != "" {
			if from != "" {
				return usagef("give --since or --from, not both")
			}
			d, err := parseDuration("since", since)
			if err != nil {
				return err
			}
			req.StartTime = timestamppb.New(now.Add(-d))
		}
		return eachPage(func(token string) (string, error) {
			req.PageToken = token
			resp, err := menshenv1.NewAuditServiceClient(conn).ListEvents(ctx, req)
			for _, e := range resp.GetEvents() {
				if err := c.printEvent(e); err != nil {
					return "", err
				}
			}
			return resp.GetNextPageToken(), err
		})
	})
}

func (c *cli) auditWatch() *cobra.Command {
	var (
		l     eventLog
		after int64
	)
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Print events as they are written, until interrupted",
		Long: `Print events as they are written, until interrupted. --after N goes on behind an
event that was seen; it is the number in the second column. It ends with an error when
the server stops or the key is revoked.`,
		Example: "  menshen audit watch --tenant acme\n  menshen audit watch --after 1742 --json",
		Args:    exactly(),
	}
	l.addFlags(cmd)
	cmd.Flags().Int64Var(&after, "after", -1, "begin behind this position; 0 from the oldest (default: only what is new)")
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, _ []string) error {
		parent, scope, kinds, err := l.names()
		if err != nil {
			return err
		}
		req := &menshenv1.WatchEventsRequest{Parent: parent, Scope: scope, Kinds: kinds}
		if after >= 0 {
			position := uint64(after)
			req.AfterPosition = &position
		}
		stream, err := menshenv1.NewAuditServiceClient(conn).WatchEvents(ctx, req)
		for err == nil {
			var resp *menshenv1.WatchEventsResponse
			if resp, err = stream.Recv(); err == nil {
				err = c.printEvent(resp.Event)
			}
		}
		if ctx.Err() != nil || errors.Is(err, io.EOF) {
			return nil // interrupted
		}
		return err
	})
}

func (c *cli) auditCheckpoint() *cobra.Command {
	var (
		l   eventLog
		out string
	)
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "Have the end of the log signed, to be kept elsewhere",
		Long: `Have the end of the log signed as it stands now, and print the document. Keep it, byte
by byte, where who runs the server cannot reach it.`,
		Example: "  menshen audit checkpoint --tenant acme --out acme-2026-11-21.json\n  menshen audit checkpoint --scope hall-a --decisions",
		Args:    exactly(),
	}
	l.addLogFlags(cmd, "the scope whose decisions are meant, with --decisions")
	cmd.Flags().StringVar(&out, "out", "", "write the document to this new file instead of printing it")
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, _ []string) error {
		if l.scope != "" && !l.decisions {
			return usagef("--scope: a checkpoint is of a whole log; add --decisions for the scope's own")
		}
		parent, _, _, err := l.names()
		if err != nil {
			return err
		}
		resp, err := menshenv1.NewAuditServiceClient(conn).GetCheckpoint(ctx, &menshenv1.GetCheckpointRequest{Parent: parent})
		if err != nil {
			return err
		}
		if out == "" {
			_, err := c.stdout.Write(resp.Document)
			return err
		}
		if err := writeNew(out, resp.Document); err != nil {
			return err
		}
		fmt.Fprintf(c.stderr, "menshen: %s vouches for the first %s; signed with %s\n", out,
			plural(int64(resp.Position), "record", "records"), strings.Join(resp.PublicKeys[:min(1, len(resp.PublicKeys))], ""))
		return nil
	})
}

func (c *cli) auditKeys() *cobra.Command {
	var l eventLog
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Show the public keys that receipts and checkpoints are signed with",
		Long: `Show the public keys that the running server signs receipts and checkpoints with, the
present one first and those before it after it, one a line: the file that
"menshen receipts verify" and "menshen audit verify" take. Compare it with what the
operator told you by another way.`,
		Example: "  menshen audit keys --tenant acme > keys.txt",
		Args:    exactly(),
	}
	l.addTenantFlag(cmd)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, _ []string) error {
		parent, _, _, err := l.names()
		if err != nil {
			return err
		}
		resp, err := menshenv1.NewAuditServiceClient(conn).GetCheckpoint(ctx, &menshenv1.GetCheckpointRequest{Parent: parent})
		if err != nil {
			return err
		}
		if c.json {
			return c.printJSON(resp.PublicKeys)
		}
		_, err = fmt.Fprintln(c.stdout, strings.Join(resp.PublicKeys, "\n"))
		return err
	})
}

// createNew creates a file that must not exist yet.
func createNew(path string, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s exists already; name a new file", path)
	}
	return f, err
}

// writeNew writes a file that must not exist yet.
func writeNew(path string, content []byte) error {
	f, err := createNew(path, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

// printEvent writes an event in one line.
func (c *cli) printEvent(e *menshenv1.Event) error {
	if c.json {
		raw, err := messageJSON(e)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.stdout, "%s\n", raw)
		return err
	}
	_, err := fmt.Fprintf(c.stdout, "%s  %6d  %s\n", timeText(e.Time), e.Position, oneLine(eventText(e)))
	return err
}

func eventText(e *menshenv1.Event) string {
	var parts []string
	add := func(format string, value any) {
		if value != "" && value != uint64(0) {
			parts = append(parts, fmt.Sprintf(format, value))
		}
	}
	switch what := e.Content.(type) {
	case *menshenv1.Event_Act:
		a := what.Act
		parts = append(parts, fmt.Sprintf("%-16s %-15s %-16s %s", a.Credential, a.Role, a.Action, a.Outcome))
		add("%s", a.Resource)
		add("subject %s", a.Subject)
		add("request %s", a.RequestId)
		add("(and %d more like it)", a.Suppressed)
		if a.Late {
			parts = append(parts, "(written late)")
		}
	case *menshenv1.Event_Decision:
		d := what.Decision
		parts = append(parts, fmt.Sprintf("%-16s %-15s %-16s %s", d.Credential, "GATE", d.Call, d.Outcome))
		add("%s", d.Margin)
		add("subject %s", d.Subject)
		add("decision %s", d.DecisionId)
	case *menshenv1.Event_Gap:
		parts = append(parts, "GAP "+what.Gap.Cause)
		add("%d missing", what.Gap.Lost)
		add("%s", what.Gap.Detail)
	default:
		parts = append(parts, strings.TrimPrefix(e.Kind.String(), "EVENT_KIND_"))
	}
	return strings.Join(parts, "  ")
}
