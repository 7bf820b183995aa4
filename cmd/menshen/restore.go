package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher"
)

// restoreFlags are those of menshen restore besides the data directory's.
type restoreFlags struct {
	in, identity    string
	keep            []string
	keepFile        string
	missingReceipts bool
	tornReceipts    bool
	least           uint64
}

func (c *cli) restoreCommand() *cobra.Command {
	cfg := config.Default()
	var r restoreFlags
	cmd := &cobra.Command{
		Use:     "restore --in FILE --identity KEYFILE --data-dir DIR --root-key-file FILE",
		GroupID: "server",
		Short:   "Restore the records of a data directory from a backup",
		Long: `Restore the records of a data directory that has lost them. The server must be
stopped, and the directory must hold today's keyring and receipts, the newest of
each, and no records: a damaged folder "records" is to be moved away first.

A backup is older than what ended after it, and nothing of that comes back:
  revoked scopes      stay revoked: the keyring has no key for them;
  erased subjects     and templates are left out, as the receipts say; so is who
                      has expired, and everybody in scopes for single use;
  credentials         all come back revoked, since a backup does not know which were
                      revoked later; --keep-credential names those that still hold;
  scopes              that were active come back suspended, since their end or
                      retention may have been shortened: look at the settings,
                      then "menshen scopes resume".

What the receipts do not tell is lost: whoever was erased after their copy was made
comes back. Receipts whose last line is incomplete, as a crash or a cut copy leaves
it, are refused: bring their newest copy, or, if no copy is whole, say
--accept-torn-receipts. Give the number of the newest receipt that anybody keeps ("number" of
"menshen receipts get") with --receipts-reach, and look at the time of the last one
that is printed. An erasure in the seconds before a total loss, whose receipt left
the machine in no copy, cannot be known: ask those who erased lately.

A directory whose restore was interrupted is refused by the server; run the same
command again. Afterwards make an admin key: menshen init --add-admin.`,
		Example: `  menshen restore --in menshen-monday.backup --identity backup-identity.txt --data-dir /var/lib/menshen --root-key-file /etc/menshen/root.key
  menshen init --add-admin --data-dir /var/lib/menshen --root-key-file /etc/menshen/root.key --out admin.key`,
		Args: exactly(),
	}
	f := cmd.Flags()
	f.StringVar(&r.in, "in", "", "the backup (required)")
	f.StringVar(&r.identity, "identity", "", "file of an age identity or SSH private key that it was made for (required)")
	f.StringArrayVar(&r.keep, "keep-credential", nil, "a credential that keeps its life, tenants/T/credentials/C or credentials/C (may be repeated)")
	f.StringVar(&r.keepFile, "keep-credentials", "", "file of such names, one a line")
	f.BoolVar(&r.missingReceipts, "accept-missing-receipts", false, "accept destroyed scopes without a receipt: their revocation was interrupted")
	f.BoolVar(&r.tornReceipts, "accept-torn-receipts", false, "accept receipts whose last line is incomplete, and cut it off: whoever was erased in it or after it comes back")
	f.Uint64Var(&r.least, "receipts-reach", 0, "number of the newest receipt that you know of: a ledger that ends before it is refused")
	f.StringVar(&cfg.DataDir, "data-dir", os.Getenv("MENSHEN_DATA_DIR"), "folder of the keyring and the receipts (required) [MENSHEN_DATA_DIR]")
	f.StringVar(&cfg.RootKeyFile, "root-key-file", os.Getenv("MENSHEN_ROOT_KEY_FILE"), "file of the root key (required) [MENSHEN_ROOT_KEY_FILE]")
	f.StringVar(&cfg.RootKeyURL, "root-key-url", os.Getenv("MENSHEN_ROOT_KEY_URL"), "the key that the file is sealed under, hashivault://NAME [MENSHEN_ROOT_KEY_URL]")
	f.BoolVar(&c.json, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if r.in == "" || r.identity == "" {
			return usagef("%s: give --in and --identity; see \"%s --help\"", cmd.CommandPath(), cmd.CommandPath())
		}
		keep, err := r.kept()
		if err != nil {
			return err
		}
		return c.withKeys(cmd.Context(), &cfg, func(s *storage) error {
			err := c.restore(cmd.Context(), cfg, r, s.keyring, keep)
			if err == nil {
				s.noteOffline(cfg, actRestore, scope.Ref{}, newLogger(config.Log{Level: "warn", Format: "text"}, c.stderr))
			}
			return err
		})
	}
	return cmd
}

// kept reads the names of the credentials that are to be kept.
func (r *restoreFlags) kept() (map[string]bool, error) {
	out := map[string]bool{}
	for _, name := range r.keep {
		out[name] = true
	}
	if r.keepFile != "" {
		f, err := os.Open(r.keepFile)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if name := strings.TrimSpace(lines.Text()); name != "" {
				out[name] = true
			}
		}
		if err := lines.Err(); err != nil {
			return nil, err
		}
	}
	for name := range out {
		if !strings.Contains("/"+name, "/credentials/") {
			return nil, usagef("%q is no credential: write tenants/T/credentials/C or credentials/C", name)
		}
	}
	return out, nil
}

func (c *cli) restore(ctx context.Context, cfg config.Config, r restoreFlags, k *keyring.Keyring, keep map[string]bool) error {
	syscall.Umask(0o077)
	in, err := openBackup(r.in, r.identity)
	if err != nil {
		return err
	}
	defer in.Close()
	missing := map[string]bool{}
	for name := range keep {
		missing[name] = true
	}
	done, err := matcher.Restore(ctx, matcher.RestoreOptions{
		Store:    store.Options{Dir: cfg.DataDir, Keyring: k, MinFreeBytes: uint64(cfg.Store.MinFree)},
		Receipts: filepath.Join(cfg.DataDir, receiptsName),
		Keep: func(key store.Key) bool {
			name := credentialNameOf(key)
			delete(missing, name)
			return keep[name]
		},
		MissingReceipts: r.missingReceipts, TornReceipts: r.tornReceipts, Least: r.least,
	}, in)
	if errors.Is(err, context.Canceled) {
		return &advised{err, "it was stopped by a signal; nothing is served from a half restore: run it again"}
	} else if err != nil {
		return err
	}
	return c.printRestoration(cfg, done, missing)
}

// restorationInfo is a restore as JSON.
type restorationInfo struct {
	Finished    bool     `json:"finished_earlier"`
	Records     uint64   `json:"records"`
	Scopes      int      `json:"scopes"`
	Receipts    uint64   `json:"receipts"`
	LeftOut     int      `json:"subjects_left_out"`
	Credentials int      `json:"credentials_revoked"`
	Kept        int      `json:"credentials_kept"`
	Suspended   []string `json:"scopes_suspended"`
	Revoked     []string `json:"scopes_revoked_since"`
	Lost        []string `json:"scopes_not_in_backup"`
	Damaged     []string `json:"scopes_damaged"`
}

func (c *cli) printRestoration(cfg config.Config, done matcher.Restoration, missing map[string]bool) error {
	names := func(refs []scope.Ref) []string {
		out := []string{}
		for _, ref := range refs {
			out = append(out, ref.String())
		}
		return out
	}
	info := restorationInfo{
		Finished: done.Finished, Records: done.Records, Scopes: done.Scopes, Receipts: done.Receipts, LeftOut: done.Subjects,
		Credentials: done.Credentials, Kept: done.Kept, Suspended: names(done.Suspended), Revoked: names(done.Revoked),
		Lost: names(done.Lost), Damaged: names(done.Damaged),
	}
	for name := range missing {
		fmt.Fprintf(c.stderr, "menshen: warning: %s is not in the backup\n", name)
	}
	if c.json {
		return c.printJSON(info)
	}
	if info.Finished {
		_, err := fmt.Fprintf(c.stderr, "menshen: an earlier restore was complete but for its last step; %s is ready\n", cfg.DataDir)
		return err
	}
	t := newTable("SCOPE", "STATE")
	for _, group := range []struct {
		names []string
		state string
	}{
		{info.Suspended, "suspended: look at its settings, then resume it"},
		{info.Revoked, "revoked after the backup, stays revoked"},
		{info.Lost, "made after the backup, its records are lost"},
		{info.Damaged, "damaged when the backup was made; see menshen scopes repair"},
	} {
		for _, name := range group.names {
			t.row(name, group.state)
		}
	}
	if err := c.printTable(t, "no scope was active"); err != nil {
		return err
	}
	if !done.Newest.IsZero() {
		fmt.Fprintf(c.stderr, "menshen: the last receipt is number %d of %s: who was erased after it came back\n", done.Receipts, done.Newest.Format(time.RFC3339))
	}
	_, err := fmt.Fprintf(c.stderr, "menshen: %s: %d records of %d scopes; by %d receipts and their time %d subjects left out; %d credentials revoked, %d kept\n",
		cfg.DataDir, info.Records, info.Scopes, info.Receipts, info.LeftOut, info.Credentials, info.Kept)
	return err
}
