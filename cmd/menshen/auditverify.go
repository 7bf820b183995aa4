package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
	"github.com/menshen-io/menshen/cmd/menshen/internal/screen"
	"github.com/menshen-io/menshen/matcher/audit"
	"github.com/menshen-io/menshen/matcher/signing"
)

func (c *cli) auditVerify() *cobra.Command {
	var (
		keys, checkpoints []string
		chain             string
	)
	cmd := &cobra.Command{
		Use:   "verify DIR --public-key KEY",
		Short: "Check a log offline: every hash, link and checkpoint",
		Long: `Check the folder of an audit log (DATA-DIR/audit of a stopped server, or a copy)
offline: every hash, every link, the checkpoints beside the chains, and those that
were kept elsewhere. Without one of the latter, who can write the files can have
changed what came after the last checkpoint beside them, and who also has the
signing key anything.

Enrolments and erasures reach the log within a second of being carried out, from the
records of the server, where they are as durable. What a server that did not stop in
order had not brought there yet is written at its next start; the report says so.

Exit status: 0 the log is as it was written; 5 it is not, and the report says where;
1 it could not be read; 2 wrong usage.`,
		Example: `  menshen audit verify /var/lib/menshen/audit --public-key menshen.pub --checkpoint acme.json
  menshen audit verify handed-over/ --chain tenants/acme/acts --public-key menshen-ed25519:...`,
		Args: exactly("DIR"),
	}
	cmd.Flags().StringArrayVar(&keys, "public-key", nil, "a key of \"menshen keys show\", or a file of such, one a line; may be given several times (required)")
	cmd.Flags().StringArrayVar(&checkpoints, "checkpoint", nil, "a checkpoint that was kept elsewhere; may be given several times")
	cmd.Flags().StringVar(&chain, "chain", "", "DIR is the folder of this one chain, such as tenants/acme/acts")
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		public, err := readPublicKeys(keys)
		if err != nil {
			return err
		}
		var docs [][]byte
		for _, path := range checkpoints {
			doc, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			docs = append(docs, doc)
		}
		if _, err := os.ReadDir(args[0]); err != nil {
			return err
		}
		var report audit.Report
		if chain == "" {
			report, err = audit.Verify(args[0], public, docs...)
		} else {
			report, err = audit.VerifyChain(args[0], chain, public, docs...)
		}
		if err != nil && !errors.Is(err, audit.ErrDamaged) {
			return err
		}
		if len(report.Chains) == 0 && err == nil {
			return fmt.Errorf("%s holds no audit log; name the folder audit of a data directory", args[0])
		}
		if err := c.printReport(report); err != nil {
			return err
		}
		if err != nil {
			return exitStatus(exitDamaged)
		}
		return nil
	}
	return cmd
}

// readPublicKeys reads keys, and files of keys.
func readPublicKeys(texts []string) (signing.PublicKeys, error) {
	if len(texts) == 0 {
		return nil, usagef("give --public-key: the text that \"menshen keys show\" prints, or a file of it")
	}
	all := signing.NewPublicKeys()
	for _, text := range texts {
		if content, err := os.ReadFile(text); err == nil {
			text = string(content)
		}
		keys, err := signing.ParsePublicKeys(text)
		if err != nil {
			return nil, usagef("--public-key: %v", err)
		}
		for id, key := range keys {
			all[id] = key
		}
	}
	return all, nil
}

// printReport writes what a verification found.
func (c *cli) printReport(r audit.Report) error {
	if c.json {
		if r.Findings == nil {
			r.Findings = []audit.Finding{} // [] is what a script can count
		}
		return c.printJSON(r)
	}
	t := newTable("CHAIN", "RECORDS", "VOUCHED FOR", "FROM", "TO", "GAPS")
	instant := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return at.Format(time.RFC3339)
	}
	for _, chain := range r.Chains {
		t.row(chain.Chain, records(chain.Pruned, chain.Position), "up to "+strconv.FormatUint(chain.Signed, 10),
			instant(chain.Oldest), instant(chain.Newest), strconv.Itoa(len(chain.Gaps)))
	}
	if err := c.printTable(t, "no chains"); err != nil {
		return err
	}
	for _, chain := range r.Chains {
		for _, g := range chain.Gaps {
			fmt.Fprintf(c.stdout, "gap: %s record %d, %s: %s, %d missing %s\n", chain.Chain, g.Position, g.Time.Format(time.RFC3339), g.Gap.Cause, g.Gap.Lost, oneLine(g.Gap.Detail))
		}
	}
	for _, h := range r.Unchecked {
		fmt.Fprintf(c.stdout, "not checked: %s record %d: its time was over, and it was dropped\n", h.Chain, h.Position)
	}
	if r.Unclosed {
		fmt.Fprintln(c.stdout, "not closed: its server runs, or did not stop in order; acts of the last second may wait in its records until it starts again")
	}
	for _, f := range r.Findings {
		fmt.Fprintf(c.stdout, "FOUND: %s\n", oneLine(f.String()))
	}
	if n := len(r.Findings); n > 0 {
		_, err := fmt.Fprintf(c.stdout, "NOT as it was written: %s\n", plural(int64(n), "finding", "findings"))
		return err
	}
	_, err := fmt.Fprintln(c.stdout, "as it was written")
	return err
}

// records names the positions that a chain holds.
func records(pruned, last uint64) string {
	if pruned == last {
		return "none"
	}
	return fmt.Sprintf("%d to %d", pruned+1, last)
}

func (c *cli) auditAcceptDamage() *cobra.Command {
	cfg := config.Default()
	var yes bool
	cmd := &cobra.Command{
		Use:   "accept-damage",
		Short: "Set damaged parts of the log aside and begin them anew, so that the server starts",
		Long: `A server does not start with an audit log that is not as it was written: somebody
has to look first. Keep a copy of the folder, run "menshen audit verify", find out
what happened. Then this sets the damaged chains aside, begins new ones whose
first record says so, and lets the server start. What was set aside stays where it
is, and "audit verify" goes on to report it. The server must be stopped.`,
		Example: "  menshen audit accept-damage --data-dir /var/lib/menshen --root-key-file /etc/menshen/root.key",
		Args:    exactly(),
	}
	f := cmd.Flags()
	f.StringVar(&cfg.DataDir, "data-dir", os.Getenv("MENSHEN_DATA_DIR"), "folder of the store, the keyring and the log (required) [MENSHEN_DATA_DIR]")
	f.StringVar(&cfg.RootKeyFile, "root-key-file", os.Getenv("MENSHEN_ROOT_KEY_FILE"), "file of the root key (required) [MENSHEN_ROOT_KEY_FILE]")
	f.StringVar(&cfg.RootKeyURL, "root-key-url", os.Getenv("MENSHEN_ROOT_KEY_URL"), "the key that the file is sealed under, hashivault://NAME [MENSHEN_ROOT_KEY_URL]")
	f.BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.acceptDamage(cmd.Context(), &cfg, yes)
	}
	return cmd
}

func (c *cli) acceptDamage(ctx context.Context, cfg *config.Config, yes bool) error {
	return c.withKeys(ctx, cfg, func(s *storage) error {
		log := newLogger(config.Log{Level: "warn", Format: "text"}, c.stderr)
		err := s.openAudit(*cfg, false, log)
		if err == nil {
			_, err = fmt.Fprintln(c.stderr, "menshen: the audit log opens; there is nothing to accept")
			return err
		}
		if !errors.Is(err, audit.ErrDamaged) && !errors.Is(err, errAuditMissing) {
			return err
		}
		fmt.Fprintf(c.stderr, "%v\n", err)
		if !yes {
			if !screen.Terminal(c.stdin) {
				return usagef("there is no terminal to ask at; give --yes if the damage was looked into")
			}
			fmt.Fprint(c.stderr, "Type accept to set this aside and begin anew: ")
			line, _ := bufio.NewReader(c.stdin).ReadString('\n')
			if strings.TrimSpace(line) != "accept" {
				return errors.New("nothing was changed")
			}
		}
		if err := s.openAudit(*cfg, true, log); err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.stderr, "menshen: done; the server starts again. Keep what was set aside, and take new checkpoints")
		return err
	})
}
