package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
	"github.com/menshen-io/menshen/cmd/menshen/internal/transport"
	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/kernel"
	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/admission"
	"github.com/menshen-io/menshen/matcher/auth"
	"github.com/menshen-io/menshen/matcher/canary"
	"github.com/menshen-io/menshen/matcher/rpc"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/pipeline"
)

// server is a Menshen with everything that it holds, in the order in which it
// is opened. `menshen serve` runs one until a signal, `menshen demo` one beside
// its gates.
type server struct {
	cfg       config.Config
	log       *slog.Logger
	listener  net.Listener
	storage   *storage
	index     *index.Index
	pipeline  *pipeline.Pipeline
	matcher   *matcher.Matcher
	authority *auth.Authority
	security  *transport.Security // nil in plain text
	rpc       *rpc.Server
	canary    *canary.Canary

	endTending func() // of the audit log
}

// openServer opens everything that cfg names. On an error everything that was
// opened is closed again. The port is bound and the models are opened first: where
// one is taken or the other wrong, nothing in the data directory is touched.
func openServer(ctx context.Context, cfg config.Config, log *slog.Logger) (_ *server, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Kernel != "" {
		if err := kernel.Select(cfg.Kernel); err != nil {
			return nil, err
		}
	}
	s := &server{cfg: cfg, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()

	var secured credentials.TransportCredentials // stays nil for plain text
	if cfg.TLS.CertFile != "" {
		s.security, err = transport.Open(transport.Options{
			Cert: cfg.TLS.CertFile, Key: cfg.TLS.KeyFile, ClientCA: cfg.TLS.ClientCAFile, Proof: cfg.TLS.Proof(), Logger: log,
		})
		if err != nil {
			return nil, err
		}
		secured = s.security.Credentials()
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, err
	}
	s.listener = rpc.Bound(listener, cfg.Limits.Connections, cfg.Limits.ConnectionsPerAddress, log)
	if !cfg.Dev {
		if _, err := survey(cfg.DataDir, false); err != nil {
			return nil, err
		}
	}
	limits := decode.Limits{MaxBytes: int(cfg.Limits.ImageBytes), MaxPixels: int64(cfg.Limits.ImagePixels)}
	s.pipeline, err = pipeline.Open(ctx, pipeline.Options{
		Detector:             cfg.Models.Detector,
		Embedder:             cfg.Models.Embedder,
		ModelDir:             cfg.Models.Dir,
		RuntimeLibrary:       cfg.Models.Runtime,
		Production:           !cfg.Dev,
		InferenceConcurrency: cfg.Models.Concurrency,
		InferenceThreads:     cfg.Models.IntraOp,
		Provider:             models.Provider(cfg.Models.Provider),
		Measurements:         models.MeasurementDir(),
		Remeasure:            cfg.Models.Remeasure,
		Limits:               limits,
		Logger:               log,
	})
	if err != nil {
		return nil, err
	}
	if s.storage, err = openStorage(ctx, cfg, cfg.Dev, log); err != nil {
		return nil, err
	}
	s.index = index.New()
	limiter := admission.New(admission.Options{
		TenantShare: float64(cfg.Limits.TenantPercent) / 100, MaxBytes: int64(cfg.Limits.ProbeBytes),
	})
	if err := s.storage.openAudit(cfg, false, log); err != nil {
		return nil, err
	}
	s.matcher, err = matcher.New(ctx, matcher.Options{
		Store: s.storage.store, Keyring: s.storage.keyring, Index: s.index, Perception: s.pipeline, Logger: log,
		SweepEvery: cfg.SweepEvery, Admission: limiter, Audit: s.storage.audit, Acts: s.storage.own(log),
		Receipts: filepath.Join(cfg.DataDir, receiptsName), Journal: filepath.Join(cfg.DataDir, journalName), Version: buildVersion(),
	})
	if err != nil {
		return nil, err
	}
	s.endTending = s.storage.tendAudit(s.matcher.AuditRetention, log)
	s.authority, err = auth.Open(ctx, auth.Options{Store: s.storage.store, ScopeExists: s.matcher.Exists, Proof: cfg.TLS.Proof()})
	if err != nil {
		return nil, err
	}
	s.rpc, err = rpc.New(rpc.Options{
		Matcher:         s.matcher,
		Authority:       s.authority,
		Audit:           s.storage.audit,
		Logger:          log,
		Credentials:     secured,
		MaxMessageBytes: int(cfg.Limits.MessageBytes),
		ArrivingBytes:   int64(cfg.Limits.ArrivingBytes),
		StallLimit:      cfg.Limits.StallTime,
		ArrivalRate:     int(cfg.Limits.ArrivalRate),
		OpenReflection:  cfg.Dev,
		Info: rpc.Info{
			Version:        buildVersion(),
			RuntimeVersion: s.pipeline.RuntimeVersion(),
			Kernel:         kernel.Implementation(),
			Models:         s.pipeline.Info(),
			Images:         limits,
			Start:          time.Now(),
		},
	})
	if err != nil {
		return nil, err
	}
	here, there := auth.CanaryGrants()
	s.canary, err = canary.New(canary.Options{
		Sites: s.matcher.CanarySites, Here: here, There: there, Dim: s.matcher.Model().Dim, Logger: log,
	})
	return s, err
}

// reload reads again what may change while the server runs.
func (s *server) reload() {
	if s.security == nil {
		s.log.Info("nothing to reload: the server speaks plain text")
		return
	}
	s.security.Reload()
}

// address is where the server listens, with the port that it really has.
func (s *server) address() string { return s.listener.Addr().String() }

// tender is that of the server on so many cores.
func (s *server) tender(cores int) *tender {
	return &tender{
		cores: cores, runs: s.pipeline.Runs(), extra: s.pipeline.Extra(), ran: s.pipeline.Ran, hold: s.pipeline.Hold,
		asked: func() (admitted, refused int64) {
			stats := s.matcher.Admission().Stats()
			return stats.Admitted, stats.Refused
		},
	}
}

// lookEvery is how often the health of the store is looked at.
const lookEvery = time.Second

// run serves until ctx is done, then drains: load balancers get the drain delay
// to notice, and calls under way may finish within the drain timeout. It returns
// nil after a drain.
func (s *server) run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.rpc.Serve(s.listener) }()
	var watch sync.WaitGroup
	watching, endWatch := context.WithCancel(ctx)
	watch.Go(func() {
		if s.canary.Run(watching) != nil {
			s.rpc.Condemn()
		}
	})
	defer watch.Wait()
	defer endWatch()
	if s.security != nil {
		secure, end := context.WithCancel(context.WithoutCancel(ctx)) // until the last call has ended
		defer end()
		watch.Go(func() { s.security.Run(secure) })
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for ctx.Err() == nil {
		select {
		case err := <-served:
			return fmt.Errorf("the listener on %s failed: %w", s.address(), err)
		case <-look.C:
			s.rpc.SetWritable(s.storage.store.Writable())
		case <-ctx.Done():
		}
	}
	s.log.Info("leaving; a second signal stops at once", "delay", s.cfg.DrainDelay)
	s.rpc.Leave(context.WithoutCancel(ctx), s.cfg.DrainDelay)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	s.log.Info("draining", "timeout", s.cfg.DrainTimeout)
	s.rpc.Drain(drain)
	if drain.Err() != nil {
		s.log.Warn("calls were still under way when the drain timeout was over; they were cut off")
	}
	return <-served
}

// close closes what is open, the last first.
func (s *server) close() error {
	var errs []error
	if s.rpc != nil {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		s.rpc.Drain(now)
	}
	if s.endTending != nil {
		s.endTending()
	}
	if s.matcher != nil {
		errs = append(errs, s.matcher.Close())
	}
	if s.index != nil {
		s.index.Close()
	}
	if s.pipeline != nil {
		s.pipeline.Close()
	}
	if s.storage != nil {
		errs = append(errs, s.storage.close())
	}
	if s.listener != nil {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
