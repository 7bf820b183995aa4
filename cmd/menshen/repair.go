package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher"
)

func (c *cli) scopesRepair() *cobra.Command {
	cfg := config.Default()
	var tenant string
	var keep, erase, yes bool
	cmd := &cobra.Command{
		Use:   "repair SCOPE",
		Short: "Look at a scope that is damaged on disk, and keep what is whole or erase it",
		Long: `Look at a scope whose records were lost or altered on disk, which the server
refuses to serve. The server must be stopped. Without --keep and --erase nothing is
changed: what is there, what is missing and what does not open is shown.

--keep makes what is whole the scope's content. Subjects of which anything is missing
are erased, request ids are forgotten, and the next start serves the scope. Before
that, consider restoring the data directory from its copy. It is refused where records
seem to have come back that were erased before.

--erase ends the scope for ever, as "menshen scopes revoke" does.

At a terminal, the scope's id must be typed to confirm; elsewhere --yes is required.`,
		Example: `  menshen scopes repair tenants/acme/scopes/hall-a --data-dir /var/lib/menshen --root-key-file /etc/menshen/root.key
  menshen scopes repair hall-a --tenant acme --keep --data-dir /var/lib/menshen --root-key-file /etc/menshen/root.key`,
		Args: exactly("SCOPE"),
	}
	f := cmd.Flags()
	f.StringVar(&tenant, "tenant", tenantDefault(), tenantUsage)
	f.StringVar(&cfg.DataDir, "data-dir", os.Getenv("MENSHEN_DATA_DIR"), "folder of the store and the keyring (required) [MENSHEN_DATA_DIR]")
	f.StringVar(&cfg.RootKeyFile, "root-key-file", os.Getenv("MENSHEN_ROOT_KEY_FILE"), "file of the root key (required) [MENSHEN_ROOT_KEY_FILE]")
	f.StringVar(&cfg.RootKeyURL, "root-key-url", os.Getenv("MENSHEN_ROOT_KEY_URL"), "the key that the file is sealed under, hashivault://NAME [MENSHEN_ROOT_KEY_URL]")
	f.BoolVar(&keep, "keep", false, "keep the subjects that are whole, erase the others")
	f.BoolVar(&erase, "erase", false, "erase the scope for ever")
	f.BoolVar(&yes, "yes", false, "do not ask")
	f.BoolVar(&c.json, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if keep && erase {
			return usagef("give --keep or --erase, not both")
		}
		name, err := scopeName(args[0], tenant)
		if err != nil {
			return err
		}
		ref, err := parseScope(name)
		if err != nil {
			return err
		}
		r := repair{cli: c, cfg: &cfg, ref: ref, keep: keep, erase: erase, yes: yes}
		return c.withStorage(cmd.Context(), &cfg, r.run)
	}
	return cmd
}

// parseScope reads tenants/T/scopes/S.
func parseScope(name string) (scope.Ref, error) {
	parts := strings.Split(name, "/")
	if len(parts) == 4 && parts[0] == "tenants" && parts[2] == "scopes" {
		ref := scope.Ref{Tenant: scope.TenantID(parts[1]), Scope: scope.ScopeID(parts[3])}
		if err := ref.Validate(); err != nil {
			return scope.Ref{}, usagef("%v", err)
		}
		return ref, nil
	}
	return scope.Ref{}, usagef("scope %q: write tenants/T/scopes/S", name)
}

// withStorage opens the data directory of a stopped server.
func (c *cli) withStorage(ctx context.Context, cfg *config.Config, do func(context.Context, *storage) error) (err error) {
	if cfg.DataDir == "" || cfg.RootKeyFile == "" {
		return usagef("give --data-dir and --root-key-file, the same as for menshen serve")
	}
	if err := cfg.Complete(); err != nil {
		return err
	}
	s, err := openStorage(ctx, *cfg, false, newLogger(config.Log{Level: "warn", Format: "text"}, c.stderr))
	if err != nil {
		return advise(*cfg, err)
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return do(ctx, s)
}

// repair is one run of the command.
type repair struct {
	*cli
	cfg              *config.Config
	ref              scope.Ref
	keep, erase, yes bool
}

// damageReport is what the command prints with --json.
type damageReport struct {
	Scope      string       `json:"scope"`
	Sound      bool         `json:"sound"`
	Reason     string       `json:"reason,omitempty"`
	Expected   uint64       `json:"records_expected"`
	Found      uint64       `json:"records_found"`
	Unreadable int          `json:"records_unreadable"`
	Vanished   int          `json:"records_vanished"` // of which no id is left
	Subjects   int          `json:"subjects_whole"`
	Templates  int          `json:"templates_whole"`
	Losses     []lossReport `json:"subjects_damaged"`
	Done       string       `json:"done"` // nothing, kept or erased
}

type lossReport struct {
	Subject string `json:"subject"`
	Reason  string `json:"reason"`
}

func (r *repair) run(ctx context.Context, s *storage) error {
	found, err := matcher.Examine(s.store, r.ref)
	if err != nil {
		return err
	}
	report := describeDamage(found)
	if !r.json {
		if err := r.show(report); err != nil {
			return err
		}
	}
	if (r.keep && !report.Sound || r.erase) && !r.yes {
		if err := r.confirm(report); err != nil {
			return err
		}
	}
	switch {
	case r.erase:
		report.Done, err = "erased", found.Erase(ctx, s.store, s.keyring)
	case r.keep && !report.Sound:
		report.Done, err = "kept", found.Keep(ctx, s.store)
	}
	if err != nil {
		return err
	}
	log := newLogger(config.Log{Level: "warn", Format: "text"}, r.stderr)
	switch report.Done {
	case "kept":
		s.noteOffline(*r.cfg, actKeep, r.ref, log)
	case "erased":
		s.noteOffline(*r.cfg, actErase, r.ref, log)
	}
	if r.json {
		return r.printJSON(report)
	}
	switch report.Done {
	case "kept":
		_, err = fmt.Fprintf(r.stdout, "kept %s and %s of %s; the next start serves it\n", plural(int64(report.Subjects), "subject", "subjects"),
			plural(int64(report.Templates), "template", "templates"), report.Scope)
	case "erased":
		_, err = fmt.Fprintf(r.stdout, "erased %s: its key is destroyed; the next start removes the records and writes the receipt\n", report.Scope)
	default:
		if !report.Sound {
			_, err = fmt.Fprintf(r.stderr, "menshen: nothing was changed; restore the data directory from its copy, or give --keep or --erase\n")
		}
	}
	return err
}

func describeDamage(e *matcher.Examination) damageReport {
	d := damageReport{
		Scope: e.Ref.String(), Sound: e.Damage == nil, Expected: e.Survey.Head.Records, Found: e.Survey.Found.Records,
		Unreadable: len(e.Survey.Unreadable), Vanished: e.Vanished, Subjects: e.Subjects, Templates: e.Templates,
		Losses: []lossReport{}, Done: "nothing",
	}
	if e.Damage != nil {
		d.Reason = e.Damage.Error()
	}
	for _, l := range e.Losses {
		d.Losses = append(d.Losses, lossReport{string(l.Subject), l.Reason})
	}
	return d
}

func (r *repair) show(d damageReport) error {
	state := "sound: nothing is missing"
	if !d.Sound {
		state = "damaged: " + d.Reason
	}
	if err := r.printFields("scope", d.Scope, "state", state,
		"records", fmt.Sprintf("%d expected, %d found, %d of them do not open", d.Expected, d.Found, d.Unreadable),
		"whole", fmt.Sprintf("%s with %s", plural(int64(d.Subjects), "subject", "subjects"), plural(int64(d.Templates), "template", "templates")),
		"without a trace", plural(int64(d.Vanished), "record", "records")); err != nil || len(d.Losses) == 0 {
		return err
	}
	t := newTable("DAMAGED SUBJECT", "WHAT IS WRONG")
	for _, l := range d.Losses {
		t.row(l.Subject, l.Reason)
	}
	return r.printTable(t, "")
}

// confirm wants the scope's id typed.
func (r *repair) confirm(d damageReport) error {
	what := fmt.Sprintf("%s will be erased, %s kept", plural(int64(len(d.Losses)), "subject", "subjects"), plural(int64(d.Subjects), "subject", "subjects"))
	if r.erase {
		what = "The whole scope will be erased for ever"
	}
	return r.cli.confirm(deed{"repair", "repairing", "changed", d.Scope}, func() (string, error) { return what, nil })
}
