package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/signing"
)

func (c *cli) keysCommand() *cobra.Command {
	cfg := config.Default()
	cmd := group("keys", "server", "Look after the keys of a data directory",
		`Look after the keys of a data directory. The server must be stopped.

The root key opens the keyring, the keyring holds the keys of tenants and scopes,
and a scope's key opens its records. Each time that a scope is destroyed the root
key moves on to its next generation and the root key file is replaced, so that no
copy of the keyring that was made before opens any more: keep the newest copy of the
keyring only. A copy of the root key file stays good, since later generations are
computed from earlier ones, until "menshen keys rotate".`,
		c.keysShowCommand(&cfg), c.keysCopyCommand(&cfg), c.keysRotateCommand(&cfg))
	f := cmd.PersistentFlags()
	f.StringVar(&cfg.DataDir, "data-dir", os.Getenv("MENSHEN_DATA_DIR"), "folder of the store and the keyring (required) [MENSHEN_DATA_DIR]")
	f.StringVar(&cfg.RootKeyFile, "root-key-file", os.Getenv("MENSHEN_ROOT_KEY_FILE"), "file of the root key (required) [MENSHEN_ROOT_KEY_FILE]")
	f.StringVar(&cfg.RootKeyURL, "root-key-url", os.Getenv("MENSHEN_ROOT_KEY_URL"), "the key that the file is sealed under, hashivault://NAME [MENSHEN_ROOT_KEY_URL]")
	return cmd
}

// withKeyring opens the keyring of a stopped server.
func (c *cli) withKeyring(ctx context.Context, cfg *config.Config, do func(*keyring.Keyring) error) error {
	return c.withKeys(ctx, cfg, func(s *storage) error { return do(s.keyring) })
}

// withKeys is withKeyring for what opens more of the data directory itself.
func (c *cli) withKeys(ctx context.Context, cfg *config.Config, do func(*storage) error) (err error) {
	if cfg.DataDir == "" || cfg.RootKeyFile == "" {
		return usagef("give --data-dir and --root-key-file, the same as for menshen serve")
	}
	if err := cfg.Complete(); err != nil {
		return err
	}
	log := newLogger(config.Log{Level: "warn", Format: "text"}, c.stderr)
	s := &storage{}
	if err := s.openKeyring(ctx, *cfg, false, false, log); err != nil {
		return errors.Join(advise(*cfg, err), s.close())
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return do(s)
}

// keysInfo is what may be told of keys.
type keysInfo struct {
	Generation uint64    `json:"root_generation"`
	Scopes     int       `json:"scopes"`
	Signing    string    `json:"signing_key"`
	Drawn      time.Time `json:"signing_key_drawn"`
	Public     string    `json:"signing_public_key"`
	Retired    []string  `json:"retired_public_keys"`
}

func describeKeys(k *keyring.Keyring) (keysInfo, error) {
	s, err := k.Signing()
	if err != nil {
		return keysInfo{}, err
	}
	defer clear(s.Seed[:])
	own := ed25519.NewKeyFromSeed(s.Seed[:]).Public().(ed25519.PublicKey)
	public := signing.NewPublicKey([ed25519.PublicKeySize]byte(own))
	info := keysInfo{
		Generation: k.Generation(), Scopes: len(k.List()), Signing: string(public.ID()), Drawn: s.Drawn,
		Public: public.String(), Retired: []string{},
	}
	for _, r := range s.Retired {
		info.Retired = append(info.Retired, signing.NewPublicKey(r).String())
	}
	return info, nil
}

func (c *cli) keysShowCommand(cfg *config.Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show generations and public keys, never a secret",
		Example: "  menshen keys show --data-dir /var/lib/menshen --root-key-file /etc/menshen/root.key",
		Args:    exactly(),
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		err := c.withKeyring(cmd.Context(), cfg, func(k *keyring.Keyring) error {
			info, err := describeKeys(k)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(info)
			}
			t := newTable("KEY", "VALUE")
			t.row("root key", fmt.Sprintf("generation %d", info.Generation))
			t.row("scopes", fmt.Sprintf("%d with a key", info.Scopes))
			t.row("signing key", fmt.Sprintf("%s, drawn %s", info.Signing, info.Drawn.Format(time.RFC3339)))
			t.row("public key", info.Public)
			for _, r := range info.Retired {
				t.row("retired public key", r)
			}
			return c.printTable(t, "")
		})
		if errors.Is(err, keyring.ErrLocked) {
			return &advised{err, "a running server shows its public keys itself: menshen audit keys"}
		}
		return err
	}
	return cmd
}

func (c *cli) keysCopyCommand(cfg *config.Config) *cobra.Command {
	return &cobra.Command{
		Use:   "copy FILE",
		Short: "Copy the keyring for safekeeping",
		Long: `Copy the keyring, sealed as it is, into a new file. It opens under the root key of
its generation and of earlier ones; make a new copy after every scope that is
created or destroyed, and throw the older ones away.`,
		Example: "  menshen keys copy --data-dir /var/lib/menshen --root-key-file /etc/menshen/root.key /mnt/safe/keyring",
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withKeyring(cmd.Context(), cfg, func(k *keyring.Keyring) error {
				if err := copyNew(filepath.Join(cfg.DataDir, keyringName), args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(c.stderr, "menshen: %s holds the keyring of root key generation %d\n", args[0], k.Generation())
				return err
			})
		},
	}
}

// copyNew copies a file to a name that is not taken, durably, for the owner alone.
func copyNew(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := createNew(to, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, out.Close())
		if err != nil {
			os.Remove(to)
		}
	}()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Sync()
}

func (c *cli) keysRotateCommand(cfg *config.Config) *cobra.Command {
	var signingToo bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Draw a new root key, and with --signing a new signing key",
		Long: `Draw a new root key, seal the keyring under it and replace the root key file. Do it
when somebody may have seen the root key: unlike the next generation that a
destroyed scope leads to, the new key cannot be computed from any copy of the old
one. Keep a new copy of the root key file and of the keyring afterwards; the old
ones are worth nothing. Records stay as they are.

--signing draws a new key for receipts and checkpoints too. What was signed before
stays verifiable: its public key is kept and shown by "menshen keys show".`,
		Example: "  menshen keys rotate --data-dir /var/lib/menshen --root-key-file /etc/menshen/root.key",
		Args:    exactly(),
	}
	cmd.Flags().BoolVar(&signingToo, "signing", false, "draw a new signing key too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.withKeys(cmd.Context(), cfg, func(s *storage) error {
			k, log := s.keyring, newLogger(config.Log{Level: "warn", Format: "text"}, c.stderr)
			if signingToo {
				if err := k.RotateSigning(); err != nil {
					return err
				}
			}
			if err := k.Rotate(); err != nil {
				return err
			}
			if signingToo {
				s.noteOffline(*cfg, actSign, scope.Ref{}, log)
			}
			s.noteOffline(*cfg, actRotate, scope.Ref{}, log)
			_, err := fmt.Fprintf(c.stderr, "menshen: the root key is of generation %d now; keep a new copy of %s and of the keyring, apart from each other, and throw the old copies away\n",
				k.Generation(), cfg.RootKeyFile)
			return err
		})
	}
	return cmd
}
