package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"syscall"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/audit"
	"github.com/menshen-io/menshen/models/pipeline"
)

// advised is an error with what to do next, which is printed below it.
type advised struct {
	err  error
	next string
}

func (a *advised) Error() string { return a.err.Error() }
func (a *advised) Unwrap() error { return a.err }

// advise adds the next step to an error of opening a server or a data
// directory, where the package that noticed it could not know what to type.
func advise(cfg config.Config, err error) error {
	if err == nil {
		return nil
	}
	if next := nextStep(cfg, err); next != "" {
		return &advised{err, next}
	}
	return err
}

func nextStep(cfg config.Config, err error) string {
	var network *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return "it was stopped by a signal before it was ready"
	case errors.As(err, &network):
		return nextForListener(cfg, err)
	case errors.Is(err, errNotFolder):
		return "name a folder with --data-dir"
	case errors.Is(err, errNotSetUp):
		return fmt.Sprintf("set it up first: menshen init --data-dir %s --root-key-file %s", cfg.DataDir, cfg.RootKeyFile)
	case errors.Is(err, errNoAdmin):
		return fmt.Sprintf("make the first key: menshen init --data-dir %s --root-key-file %s", cfg.DataDir, cfg.RootKeyFile)
	case errors.Is(err, errRootFolder):
		return fmt.Sprintf("make the folder first, as the user that runs the server: mkdir -p -m 700 %s", filepath.Dir(cfg.RootKeyFile))
	case errors.Is(err, errRootKey) && errors.Is(err, fs.ErrNotExist):
		return "restore the root key from its copy, or name it with --root-key-file; without it the stored records stay unreadable"
	case errors.Is(err, audit.ErrDamaged), errors.Is(err, errAuditMissing):
		return fmt.Sprintf("keep a copy of %[1]s and look: menshen audit verify %[1]s --public-key KEY; once it is clear what happened: menshen audit accept-damage --data-dir %[2]s --root-key-file %[3]s",
			filepath.Join(cfg.DataDir, auditName), cfg.DataDir, cfg.RootKeyFile)
	case errors.Is(err, audit.ErrLocked):
		return ""
	case errors.Is(err, keyring.ErrRootKeyFixed):
		return fmt.Sprintf("let the user that runs this write to %s; the public keys alone can be had from a running server: menshen audit keys", filepath.Dir(cfg.RootKeyFile))
	case errors.Is(err, store.ErrDamaged), errors.Is(err, matcher.ErrOldRecords):
		return fmt.Sprintf("restore the whole of %[1]s from its copy; or keep %[2]s elsewhere, remove it from there, and bring the records back from a backup: menshen restore --in FILE --identity KEYFILE --data-dir %[1]s --root-key-file %[3]s",
			cfg.DataDir, filepath.Join(cfg.DataDir, recordsName), cfg.RootKeyFile)
	case errors.Is(err, keyring.ErrLocked), errors.Is(err, store.ErrLocked), errors.Is(err, store.ErrReadOnlyDir):
		return "" // they say it themselves
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Sprintf("the user that runs the server must be able to write %s (and to read the root key and the models); change the owner or the mode, or name another folder", cfg.DataDir)
	case errors.Is(err, pipeline.ErrEvaluationModel):
		return "name a real embedder with --embedder (\"menshen models list\"), or try things out with --dev"
	}
	return nextForFolder(cfg, err)
}

func nextForListener(cfg config.Config, err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("another program listens on %s; stop it, or choose another port with --listen (port 0 picks a free one)", cfg.Listen)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine has no such address; \"ip address\" lists those it has"
	case errors.Is(err, fs.ErrPermission):
		return "ports below 1024 need a privilege; choose a higher one with --listen"
	}
	return "choose another address with --listen"
}

func nextForFolder(cfg config.Config, err error) string {
	var path *fs.PathError
	if errors.As(err, &path) && (errors.Is(err, syscall.ENOTDIR) || path.Op == "mkdir") {
		return fmt.Sprintf("%s cannot be a data directory; name a folder that can be made with --data-dir", cfg.DataDir)
	}
	return ""
}
