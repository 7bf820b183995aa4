package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/audit"
	"github.com/menshen-io/menshen/matcher/signing"
)

// errAuditMissing: the keyring knows of an audit log that is not there.
var errAuditMissing = errors.New("the audit log is missing")

// Who acts in the audit log when nobody asked: the server.
const (
	actorServer = "menshen"
	roleService = "SERVICE"
)

const day = 24 * time.Hour

// openAudit opens the audit log of a data directory whose keyring is open, or
// begins one. The keyring remembers that there is one: a log that was removed as a
// whole does not come back as an empty one. accept begins damaged and missing chains
// anew.
func (s *storage) openAudit(cfg config.Config, accept bool, log *slog.Logger) error {
	state, err := s.keyring.Pseudonyms()
	if err != nil {
		return err
	}
	defer func() { clear(state) }()
	dir, begun := filepath.Join(cfg.DataDir, auditName), len(state) > 0
	if !begun {
		state = audit.NewPseudonymState(time.Now())
	} else if _, err := os.Stat(filepath.Join(dir, audit.ActsOf(""))); errors.Is(err, fs.ErrNotExist) && !accept {
		return fmt.Errorf("%w: %s holds none, and the keyring says that there was one", errAuditMissing, dir)
	}
	pseudonyms, err := audit.NewPseudonyms(state, s.keyring.SavePseudonyms)
	if err != nil {
		return err
	}
	key, retired, err := signingKeys(s.keyring)
	if err != nil {
		return err
	}
	s.audit, err = audit.Open(audit.Options{
		Dir: dir, Key: key, Keys: retired, Pseudonyms: pseudonyms,
		KeepActs: time.Duration(cfg.Audit.KeepDays) * day, LinkableFor: time.Duration(cfg.Audit.LinkableDays) * day,
		MinFree: func() uint64 { return uint64(cfg.Store.MinFree) }, AcceptDamage: accept, Logger: log,
	})
	if err != nil {
		return err
	}
	if s.store != nil {
		if err := s.audit.Attach(context.Background(), s.store); err != nil {
			return err
		}
	}
	action := "OpenLog"
	if accept {
		action = "AcceptDamage"
	}
	s.note(log, action, "")
	if begun {
		return nil
	}
	// Last, so that the keyring never speaks of a log that was not begun.
	return s.keyring.SavePseudonyms(state)
}

// signingKeys gives the key that signs, and the public ones of those before it.
func signingKeys(k *keyring.Keyring) (*signing.Key, signing.PublicKeys, error) {
	s, err := k.Signing()
	if err != nil {
		return nil, nil, err
	}
	defer clear(s.Seed[:])
	retired := signing.NewPublicKeys()
	for _, b := range s.Retired {
		public := signing.NewPublicKey(b)
		retired[public.ID()] = public
	}
	return signing.KeyFromSeed(&s.Seed), retired, nil
}

// note writes an act of the server itself. A server whose disk is full has to start
// and to stop nevertheless.
func (s *storage) note(log *slog.Logger, action, resource string) {
	err := s.audit.Insist(context.Background(), audit.Event{
		Credential: actorServer, Role: roleService, Action: action, Resource: resource, Outcome: "OK",
	})
	if err != nil {
		log.Error("an act of the server could not be written to the audit log yet", "action", action, "error", err.Error())
	}
}

// Acts of commands that run while the server is stopped.
const (
	actRestore = "Restore"
	actRotate  = "RotateRootKey"
	actSign    = "RotateSigningKey"
	actKeep    = "RepairKeep"
	actErase   = "RepairErase"
)

// noteOffline writes the act of a command that ran while the server is stopped, after
// it was done: into the platform's log, and for a scope into its tenant's too. A log
// that cannot be written is told and keeps nothing from being repaired.
func (s *storage) noteOffline(cfg config.Config, action string, ref scope.Ref, log *slog.Logger) {
	err := error(nil)
	if s.audit == nil {
		err = s.openAudit(cfg, false, log)
	}
	e := audit.Event{Credential: actorServer, Role: roleService, Action: action, Outcome: "OK"}
	if ref != (scope.Ref{}) {
		e.Resource = ref.String()
	}
	if err == nil {
		err = s.audit.Insist(context.Background(), e)
	}
	if err == nil && ref.Tenant != "" {
		e.Tenant, e.Scope = ref.Tenant, ref.Scope
		err = s.audit.Insist(context.Background(), e)
	}
	if err != nil {
		log.Error("it is done, but could not be written to the audit log; look at that with: menshen audit verify", "action", action, "error", err.Error())
	}
}

// own writes an act of the server that the matcher tells of. It does not wait for the
// disk: the matcher may hold locks.
func (s *storage) own(log *slog.Logger) func(ref scope.Ref, action string) {
	return func(ref scope.Ref, action string) {
		e := audit.Event{Tenant: ref.Tenant, Scope: ref.Scope, Credential: actorServer, Role: roleService, Action: action, Outcome: "OK", Resource: "tenants/" + string(ref.Tenant)}
		if ref.Scope != "" {
			e.Resource = ref.String()
		}
		go func() {
			if err := s.audit.Insist(context.Background(), e); err != nil {
				log.Error("an act of the server could not be written to the audit log yet", "action", action, "resource", e.Resource, "error", err.Error())
			}
		}()
	}
}

// tendAudit looks after the log every minute until end, which waits for it.
func (s *storage) tendAudit(keep func(scope.Ref) time.Duration, log *slog.Logger) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Minute)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if _, err := s.audit.Tend(ctx, keep); err != nil && ctx.Err() == nil {
					log.Error("looking after the audit log failed; it is tried again every minute", "error", err.Error())
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// closeAudit closes the log where one is open.
func (s *storage) closeAudit() error {
	if s.audit == nil {
		return nil
	}
	return s.audit.Close()
}
