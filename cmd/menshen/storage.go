package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/keyring/kms"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/audit"
)

// Names inside the data directory: the keyring's file, the store's folder,
// those of the receipts and of the audit log, and the journal of revocations.
const (
	keyringName  = "keyring"
	recordsName  = "records"
	receiptsName = "receipts"
	journalName  = "journal"
	auditName    = "audit"
)

// Errors of a data directory.
var (
	errNotFolder  = errors.New("the data directory is not a folder")
	errOpenFolder = errors.New("the data directory is open to others")
	errNotSetUp   = errors.New("the data directory has not been set up")
	errRootKey    = errors.New("no root key")
	errRootFolder = errors.New("no folder for the root key")
	errNoAdmin    = errors.New("nobody can manage this server: it has no admin key")
)

// storage is an open data directory: the keys, and the records that they seal.
type storage struct {
	keeper  *kms.Keeper // nil: the root key is sealed by no service
	keyring *keyring.Keyring
	store   *store.Store
	audit   *audit.Log
}

// openStorage opens the data directory under the root key. With create, the
// folder, the root key and the keyring are made where all of them are missing;
// what is there already is never replaced.
func openStorage(ctx context.Context, cfg config.Config, create bool, log *slog.Logger) (_ *storage, err error) {
	syscall.Umask(0o077) // what the server writes is nobody else's, whatever the shell says
	fresh, err := survey(cfg.DataDir, create)
	if err != nil {
		return nil, err
	}
	s := &storage{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := s.openKeyring(ctx, cfg, create && fresh, fresh, log); err != nil {
		return nil, err
	}
	s.store, err = store.Open(ctx, store.Options{
		Dir: cfg.DataDir, Keyring: s.keyring, Logger: log, MinFreeBytes: uint64(cfg.Store.MinFree), ReserveBytes: int64(cfg.Store.MinFree / 4),
	})
	return s, err
}

// close closes what was opened, the log first and the keys last.
func (s *storage) close() error {
	var errs []error
	errs = append(errs, s.closeAudit())
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.keyring != nil {
		errs = append(errs, s.keyring.Close())
	}
	if s.keeper != nil {
		errs = append(errs, s.keeper.Close())
	}
	return errors.Join(errs...)
}

// survey checks the data directory and tells whether nothing has been stored in it
// yet, which is an error unless it may be made.
func survey(dir string, create bool) (fresh bool, err error) {
	if err := prepareFolder(dir, create); err != nil {
		return false, err
	}
	fresh, err = untouched(dir, filepath.Join(dir, keyringName))
	if err == nil && fresh && !create {
		err = fmt.Errorf("%w: %s holds no keyring", errNotSetUp, dir)
	}
	return fresh, err
}

// prepareFolder checks that dir is a folder, and makes it if it may.
func prepareFolder(dir string, create bool) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("%w: %s is a file", errNotFolder, dir)
	case err == nil && info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%w: others may write to %s (mode %v); run chmod 700 %s", errOpenFolder, dir, info.Mode().Perm(), dir)
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist) && create:
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the data directory: %w", err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no folder %s", errNotSetUp, dir)
	}
	return fmt.Errorf("%w: %w", errNotFolder, err)
}

// untouched reports whether nothing has been stored in dir yet: it has neither
// a keyring nor records. Records without a keyring are no fresh start: the
// keyring has been lost.
func untouched(dir, ringFile string) (bool, error) {
	for _, name := range []string{ringFile, filepath.Join(dir, recordsName)} {
		_, err := os.Stat(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}

// openKeyring opens the keyring under the root key; either is made if it may be.
func (s *storage) openKeyring(ctx context.Context, cfg config.Config, createRoot, createRing bool, log *slog.Logger) error {
	var keeper keyring.Keeper // stays nil without a service
	if cfg.RootKeyURL != "" {
		k, err := kms.Open(ctx, cfg.RootKeyURL)
		if err != nil {
			return fmt.Errorf("--root-key-url: %w", err)
		}
		s.keeper, keeper = k, k
	}
	root, err := openRoot(cfg.RootKeyFile, keeper, createRoot, log)
	if err != nil {
		return err
	}
	s.keyring, err = keyring.Open(filepath.Join(cfg.DataDir, keyringName), root, keyring.Options{Create: createRing})
	return err
}

// openRoot loads the root key, or makes one if it may.
func openRoot(path string, keeper keyring.Keeper, create bool, log *slog.Logger) (*keyring.Root, error) {
	root, err := keyring.LoadRoot(path, keeper)
	if !errors.Is(err, fs.ErrNotExist) {
		return root, err
	}
	if !create {
		return nil, fmt.Errorf("%w: %w", errRootKey, err)
	}
	if root, err = keyring.CreateRoot(path, keeper); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errRootFolder, err)
	} else if err != nil {
		return nil, fmt.Errorf("make the root key: %w", err)
	}
	log.Info("made a root key; keep a copy of it apart from the data", "file", path)
	return root, nil
}
