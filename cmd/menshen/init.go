package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
	"github.com/menshen-io/menshen/matcher/auth"
)

func (c *cli) initCommand() *cobra.Command {
	cfg := config.Default()
	var out, name, certificate string
	var add bool
	cmd := &cobra.Command{
		Use:     "init --data-dir DIR --root-key-file FILE",
		GroupID: "server",
		Short:   "Prepare a data directory: root key, keyring, first admin key",
		Long: `Prepare a data directory for "menshen serve": make the folder, the root key (if the
file does not exist), the keyring, and the first platform admin's API key, which
is printed once.

Keep the root key apart from the data directory and from its backups: whoever has
both can read the templates, and without it nobody can. The server replaces the
file each time that a scope is destroyed, so that older copies of the keyring open
no more: its folder must be writable by the server's user.

--add-admin makes a further admin key in a data directory that is set up already,
for the case that the first one is lost. The server must be stopped for that.

--client-certificate makes the admin known by a client certificate instead of a
key, for a server that runs with --tls-client-auth certificate (or either).`,
		Example: `  menshen init --data-dir /var/lib/menshen --root-key-file /etc/menshen/root.key
  menshen init --data-dir /var/lib/menshen --root-key-file /etc/menshen/root.key --out admin.key
  menshen init --data-dir /var/lib/menshen --root-key-file /etc/menshen/root.key --add-admin`,
		Args: exactly(),
	}
	f := cmd.Flags()
	f.StringVar(&cfg.DataDir, "data-dir", os.Getenv("MENSHEN_DATA_DIR"), "folder of the store and the keyring (required) [MENSHEN_DATA_DIR]")
	f.StringVar(&cfg.RootKeyFile, "root-key-file", os.Getenv("MENSHEN_ROOT_KEY_FILE"), "file of the root key; made where it is missing (required) [MENSHEN_ROOT_KEY_FILE]")
	f.StringVar(&cfg.RootKeyURL, "root-key-url", os.Getenv("MENSHEN_ROOT_KEY_URL"), "seal the root key file under this key of a key management service, hashivault://NAME [MENSHEN_ROOT_KEY_URL]")
	f.StringVar(&out, "out", "", "write the admin key to this new file (mode 0600) instead of printing it")
	f.StringVar(&name, "display-name", "first admin", "a note for people about the admin key")
	f.StringVar(&certificate, "client-certificate", "", clientCertificateUsage+"; no key is made")
	f.BoolVar(&add, "add-admin", false, "make a further admin key")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var missing []string
		if cfg.DataDir == "" {
			missing = append(missing, "--data-dir")
		}
		if cfg.RootKeyFile == "" {
			missing = append(missing, "--root-key-file")
		}
		if len(missing) > 0 {
			return usagef("%s: give %s; for a server to try things out, \"menshen serve --dev\" needs no init", cmd.CommandPath(), strings.Join(missing, " and "))
		}
		if certificate != "" && out != "" {
			return usagef("--client-certificate makes no key; leave --out out")
		}
		if err := cfg.Complete(); err != nil {
			return err
		}
		return advise(cfg, c.initialise(cmd.Context(), cfg, name, certificate, out, add))
	}
	return cmd
}

// initialise sets a data directory up and makes an admin key.
func (c *cli) initialise(ctx context.Context, cfg config.Config, name, certificate, out string, add bool) (err error) {
	log := newLogger(config.Log{Level: "warn", Format: "text"}, c.stderr)
	st, err := openStorage(ctx, cfg, !add, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	authority, err := auth.Open(ctx, auth.Options{Store: st.store, Proof: auth.ByEither})
	if err != nil {
		return err
	}
	if authority.HasAdmin() && !add {
		return &advised{fmt.Errorf("%s is set up already and has an admin key", cfg.DataDir), "if the key is lost, make a further one with --add-admin"}
	}
	if err := st.openAudit(cfg, false, log); err != nil {
		return err
	}
	file, err := createKeyFile(out)
	if err != nil {
		return err
	}
	credential, key, err := authority.BootstrapAdmin(ctx, name, certificate)
	if err != nil {
		return errors.Join(err, file.discard())
	}
	st.note(log, "BootstrapAdmin", "credentials/"+string(credential.ID))
	if err := file.write(key); err != nil {
		return fmt.Errorf("the admin key could not be kept (%w); make another with --add-admin and revoke credentials/%s", err, credential.ID)
	}
	fmt.Fprintf(c.stderr, "menshen: %s is ready; root key in %s\n", cfg.DataDir, cfg.RootKeyFile)
	if cfg.RootKeyInside() {
		fmt.Fprintf(c.stderr, "menshen: warning: the root key lies inside the data directory: whoever copies one has both; keep it elsewhere\n")
	}
	if certificate != "" {
		fmt.Fprintf(c.stderr, "menshen: admin (credentials/%s): whoever shows the client certificate %s\n", credential.ID, credential.ClientCertificate)
		return nil
	}
	if out != "" {
		fmt.Fprintf(c.stderr, "menshen: admin key (credentials/%s): written to %s\n", credential.ID, out)
		return nil
	}
	fmt.Fprintf(c.stderr, "menshen: admin key (credentials/%s); it cannot be shown again:\n", credential.ID)
	_, err = fmt.Fprintln(c.stdout, key)
	return err
}
