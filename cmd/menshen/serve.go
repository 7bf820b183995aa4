package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/kernel"
	"github.com/menshen-io/menshen/matcher/auth"
)

func (c *cli) serveCommand() *cobra.Command {
	var configFile, addressFile string
	var printConfig bool
	cmd := &cobra.Command{
		Use:     "serve",
		GroupID: "server",
		Short:   "Run the server",
		Long: `Run the gRPC server until SIGINT or SIGTERM; then calls under way may finish, and
a second signal ends it at once. Certificates are read anew when their files change,
and on SIGHUP.

Settings come from the defaults, then the YAML file of --config (or MENSHEN_CONFIG),
then MENSHEN_* variables, then flags; a later one wins, and a name that is not a
setting is an error. --print-config shows all settings and where they came from.

--dev is for trying things out on one machine: it listens on loopback in plain
text, keeps its data in menshen/dev in your cache folder unless --data-dir says
otherwise, makes its own root key, and prints an admin key once. The key is also
kept in admin.key in the data directory; in the default one, the other commands
of this machine find it by themselves. Without --embedder it uses the built-in
reference model, which is for evaluation only: it must not decide about people.

Without --dev it wants a data directory and a root key from "menshen init", a real
embedder, TLS, and --allow-public on an address outside loopback and private
networks. With --tls-client-ca, --tls-client-auth says what callers show:
  both         an API key, and a certificate of that authority (the default)
  either       an API key, or a certificate that a credential is bound to
  certificate  a certificate that a credential is bound to; no API keys
See "menshen credentials create --client-certificate".`,
		Example: `  menshen serve --dev
  menshen serve --dev --detector yunet-2023mar --embedder sface-2021dec
  menshen serve --config /etc/menshen/menshen.yaml
  menshen serve --data-dir /var/lib/menshen --root-key-file /etc/menshen/root.key \
    --listen 10.0.0.5:7443 --tls-cert server.pem --tls-key server.key \
    --detector yunet-2023mar --embedder sface-2021dec
  menshen serve --config menshen.yaml --print-config`,
		Args: exactly(),
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&configFile, "config", os.Getenv("MENSHEN_CONFIG"), "YAML file of settings [MENSHEN_CONFIG]")
	loader := config.NewLoader(cmd.Flags())
	cmd.Flags().BoolVar(&printConfig, "print-config", false, "print all settings and their sources, and stop")
	cmd.Flags().StringVar(&addressFile, "address-file", "", "write the address that is really listened on to this file once the server is ready; for scripts that use port 0")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loader.Load(configFile, os.Environ())
		if err != nil {
			return err
		}
		if printConfig {
			if err := loader.Print(c.stdout, cfg); err != nil {
				return err
			}
			return cfg.Validate()
		}
		return c.serve(cmd.Context(), cfg, addressFile)
	}
	return cmd
}

// serve opens a server, says so, and runs it until ctx is done.
func (c *cli) serve(ctx context.Context, cfg config.Config, addressFile string) (err error) {
	started := time.Now()
	log := newLogger(cfg.Log, c.stderr)
	if !cfg.Dev {
		if err := forbidDumps(); err != nil {
			log.Warn("core dumps cannot be prevented by the server; switch them off in the system", "error", err.Error())
		}
	}
	s, err := openServer(ctx, cfg, log)
	if err != nil {
		return advise(cfg, err)
	}
	defer func() { err = errors.Join(err, s.close()) }()
	tended := make(chan struct{})
	tending, rest := context.WithCancel(ctx)
	go func() {
		defer close(tended)
		s.tender(runtime.GOMAXPROCS(0)).tend(tending)
	}()
	defer func() { rest(); <-tended }()
	if cfg.Dev {
		err = c.welcome(ctx, s)
	} else {
		err = s.checkAdmin()
	}
	if err != nil {
		return advise(cfg, err)
	}
	if !cfg.Dev || s.security != nil { // a plain --dev server ends with its terminal
		reload := s.reload
		c.reload.Store(&reload)
	}
	s.announce(started)
	if addressFile != "" {
		if err := os.WriteFile(addressFile, []byte(s.address()+"\n"), 0o644); err != nil {
			return fmt.Errorf("--address-file: %w", err)
		}
	}
	if err := s.run(ctx); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// newLogger writes the server's log to stderr.
func newLogger(cfg config.Log, stderr io.Writer) *slog.Logger {
	level := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}[cfg.Level]
	opt := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(stderr, opt))
	}
	return slog.New(slog.NewTextHandler(stderr, opt))
}

// announce logs what the operator should know, and at last that it is ready.
func (s *server) announce(started time.Time) {
	for _, note := range s.pipeline.Notes() {
		s.log.Warn(note)
	}
	if !s.cfg.Dev && s.cfg.RootKeyInside() {
		s.log.Warn("the root key lies inside the data directory: whoever copies one has both; keep it elsewhere", "root_key_file", s.cfg.RootKeyFile)
	}
	models := []string{}
	for _, m := range s.pipeline.Info() {
		models = append(models, m.ID)
	}
	scopes, subjects, templates := 0, 0, 0
	s.index.Each(func(g *index.Gallery) bool {
		scopes++
		subjects += g.Subjects()
		templates += g.Templates()
		return true
	})
	s.log.Info("ready",
		"address", s.address(), "tls", s.cfg.TLS.CertFile != "", "models", strings.Join(models, ","),
		"runtime", s.pipeline.RuntimeVersion(), "kernel", kernel.Implementation(),
		"scopes", scopes, "subjects", subjects, "templates", templates,
		"took", time.Since(started).Round(time.Millisecond), "version", buildVersion())
}

// checkAdmin refuses to run a server that nobody can manage and that holds
// nothing. One whose admin keys have all been revoked or have expired goes on:
// its gates must not stop for that.
func (s *server) checkAdmin() error {
	if s.authority.HasAdmin() {
		return nil
	}
	if len(s.storage.keyring.List()) == 0 {
		return errNoAdmin
	}
	s.log.Warn("no admin key is valid any more; stop the server and make one: menshen init --add-admin")
	return nil
}

// welcome makes sure that a --dev server has an admin key that its data
// directory holds too, and prints what there is to know.
func (c *cli) welcome(ctx context.Context, s *server) error {
	path := filepath.Join(s.cfg.DataDir, config.AdminKeyName)
	how := "plain text"
	if s.security != nil {
		how = "TLS"
	}
	fmt.Fprintf(c.stderr, "menshen: development server: this machine only, %s, data in %s\n", how, s.cfg.DataDir)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the admin key: %w", err)
	}
	if caller, err := s.authority.Authenticate(strings.TrimSpace(string(data))); err == nil && caller.Role() == auth.PlatformAdmin {
		fmt.Fprintf(c.stderr, "menshen: admin key: in %s\n", path)
		return nil
	}
	credential, key, err := s.authority.BootstrapAdmin(ctx, "development admin", "")
	if err != nil {
		return err
	}
	s.storage.note(s.log, "BootstrapAdmin", "credentials/"+string(credential.ID))
	if err := replaceKeyFile(path, key); err != nil {
		return fmt.Errorf("keep the admin key: %w", err)
	}
	fmt.Fprintf(c.stderr, "menshen: admin key: %s\n         also in %s\n", key, path)
	return nil
}

// replaceKeyFile writes a key to path with mode 0600, whole or not at all.
func replaceKeyFile(path, key string) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := createKeyFile(temp)
	if err != nil {
		return err
	}
	if err := file.write(key); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
