// Package matcher is the product: it enrols subjects into scopes, answers
// gates, and ends purposes.
//
// A call arrives with a scope.Grant that matcher/auth minted; the package takes
// the scope from it and never from the request. Commands are checked, become
// mutations of one ordered log per scope, are made durable by the store, then
// applied to the gallery, then acknowledged, in that order, so that an
// acknowledged change survives a crash and an unacknowledged one is never half
// there.
//
// Promises: a search sees the granted scope's gallery and nothing else; a scope
// that is suspended, over, revoked or damaged matches nothing, and this is
// checked again after scoring, just before the answer; a subject that is not
// enrolled, was withdrawn or has expired is answered like a stranger, after the
// same work. What it does not do: authenticate callers (matcher/auth), know
// protobuf or status codes (matcher/rpc), or decide where records are kept
// (index/store).
package matcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/admission"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/pipeline"
)

// Perception turns pictures into embeddings, one stage a method.
// *pipeline.Pipeline is the real one; tests use a fake. Safe for concurrent
// use.
type Perception interface {
	// Measure tells by a picture's header what decoding it costs, or why it is
	// refused.
	Measure(data []byte) (decode.Cost, error)
	// Decode reads a JPEG or PNG.
	Decode(ctx context.Context, data []byte) (*decode.Image, error)
	// Observe decodes a camera image and finds its faces. The scene is to be
	// released.
	Observe(ctx context.Context, data []byte) (*pipeline.Scene, error)
	// Crop aligns face i of the scene.
	Crop(ctx context.Context, scene *pipeline.Scene, i int) (*align.Crop, error)
	// Embed runs the embedder on one crop.
	Embed(ctx context.Context, crop *align.Crop) ([]float32, error)
	// EmbedderManifest describes the embedder.
	EmbedderManifest() models.Manifest
}

// Options wire a Matcher. Everything without a default is required.
type Options struct {
	Store      *store.Store
	Keyring    *keyring.Keyring
	Index      *index.Index
	Perception Perception
	Logger     *slog.Logger
	// Receipts is the folder of the ledger of receipts, outside the store.
	Receipts string
	// Journal is the file of revocations that the store could not write.
	Journal string
	// Version is the server's, as receipts name it; empty means "unknown".
	Version string
	// Failpoint, when set, is called at each step of an erasure with the step's
	// name. Tests end the process there.
	Failpoint func(step string)
	// Clock tells the time; nil means time.Now. Tests set it.
	Clock func() time.Time
	// MaxFaces bounds how many faces of one image Identify searches for; 0
	// means DefaultMaxFaces.
	MaxFaces int
	// SweepEvery is how long what has expired, and matches nothing any more, waits
	// until it is erased; 0 means DefaultSweepEvery.
	SweepEvery time.Duration
	// Admission decides when a call may use the machine; nil means a limiter
	// with its defaults.
	Admission *admission.Limiter
	// Audit keeps the decisions of the scopes that want it. Nil: none are kept, and a
	// scope that requires it is answered with errors.
	Audit Recorder
	// Acts, when set, is told what the service does of its own accord, to write it
	// down: erasing in a scope what expired or was used up, and a tenant's crossing of a threshold of
	// the filing meter (then without a scope). It must not block.
	Acts func(ref scope.Ref, action string)
}

// DefaultThreshold is the score threshold of new scopes where the model's
// manifest has no calibrated one. Embedders of the ArcFace family reach a false
// match rate of about 1e-4 there on public sets (MobileFaceNet on the ORL faces:
// 0.494).
const DefaultThreshold code.Threshold = 0.5

// Model is what the matcher needs to know of the embedder.
type Model struct {
	ID        string // "name@hash"
	Dim       int    // length of an embedding
	Threshold code.Threshold
}

// DefaultMaxFaces is the most faces of one image that are searched for.
const DefaultMaxFaces = 16

// Matcher is the service without its transport. Safe for concurrent use.
type Matcher struct {
	store      *store.Store
	keyring    *keyring.Keyring
	index      *index.Index
	perception Perception
	log        *slog.Logger
	now        func() time.Time
	maxFaces   int
	model      Model
	admission  *admission.Limiter
	version    string
	failpoint  func(string)
	receipts   receipts
	filing     *filing
	purging    purging
	journal    *journal
	audit      Recorder // nil: none
	acts       func(scope.Ref, string)

	mu     sync.RWMutex // guards scopes, ended and closed
	scopes map[scope.Ref]*scopeEntry
	ended  map[scope.TenantID]bool // tenants closed since the start
	closed bool

	backingUp  atomic.Bool
	creating   keyedLock // one creation of a scope id at a time
	workspaces sync.Pool // of *workspace

	stop context.CancelFunc // ends the maintenance goroutine
	done sync.WaitGroup

	destroyed chan struct{} // holds one while there is something to scour
}

// New loads every scope from the store, finishes revocations that a crash
// interrupted, and returns a Matcher that is ready to answer. A scope whose
// records are damaged is kept and refused call by call; it does not keep the
// others from being served.
func New(ctx context.Context, opt Options) (*Matcher, error) {
	if opt.Store == nil || opt.Keyring == nil || opt.Index == nil || opt.Perception == nil || opt.Logger == nil || opt.Receipts == "" || opt.Journal == "" {
		return nil, errors.New("matcher: Store, Keyring, Index, Perception, Logger, Receipts and Journal are required")
	}
	if opt.Version == "" {
		opt.Version = "unknown"
	}
	if opt.Failpoint == nil {
		opt.Failpoint = func(string) {}
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Acts == nil {
		opt.Acts = func(scope.Ref, string) {}
	}
	if opt.MaxFaces == 0 {
		opt.MaxFaces = DefaultMaxFaces
	}
	if opt.SweepEvery == 0 {
		opt.SweepEvery = DefaultSweepEvery
	}
	if opt.Admission == nil {
		opt.Admission = admission.New(admission.Options{})
	}
	m := &Matcher{
		store: opt.Store, keyring: opt.Keyring, index: opt.Index, perception: opt.Perception,
		log: opt.Logger, now: opt.Clock, maxFaces: opt.MaxFaces, admission: opt.Admission, audit: opt.Audit,
		version: opt.Version, failpoint: opt.Failpoint,
		acts: opt.Acts, filing: newFiling(opt.Logger, opt.Acts),
		scopes: make(map[scope.Ref]*scopeEntry), ended: make(map[scope.TenantID]bool),
		destroyed: make(chan struct{}, 1),
	}
	manifest := opt.Perception.EmbedderManifest()
	m.model = Model{ID: manifest.ID(), Dim: manifest.Output.Dimension, Threshold: code.Threshold(manifest.Threshold)}
	if m.model.Threshold == 0 {
		m.model.Threshold = DefaultThreshold
	}
	var err error
	if m.journal, err = openJournal(opt.Journal, opt.Keyring.System()); err != nil {
		return nil, err
	}
	if err := m.openLedger(opt.Receipts); err != nil {
		return nil, errors.Join(err, m.journal.close())
	}
	if err := m.load(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("load scopes: %w", err), m.closeLedger())
	}
	m.keepReserve()
	m.filing.start()
	run, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.done.Go(func() { m.maintain(run, opt.SweepEvery) })
	m.done.Go(func() { m.keepPurging(run) })
	m.done.Go(func() { m.keepScouring(run) })
	return m, nil
}

// Close refuses further calls and ends the maintenance. The store, the keyring
// and the models belong to the caller.
func (m *Matcher) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	m.done.Wait()
	return m.closeLedger()
}

// Model describes the embedder that the server runs.
func (m *Matcher) Model() Model { return m.model }

// MaxFaces is the most faces of one image that Identify searches for.
func (m *Matcher) MaxFaces() int { return m.maxFaces }

// Exists reports whether a scope of this name is known and not revoked. It is
// for wiring credentials to scopes, not for answering callers.
func (m *Matcher) Exists(ref scope.Ref) bool {
	sc, err := m.entry(ref)
	return err == nil && sc.currentState() != scope.Revoked
}

// entry finds a scope by name.
func (m *Matcher) entry(ref scope.Ref) (*scopeEntry, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, ErrClosed
	}
	sc, ok := m.scopes[ref]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNoScope, ref)
	}
	return sc, nil
}

// granted finds the scope that the grant speaks of, provided that it permits
// the use.
func (m *Matcher) granted(g scope.Grant, use scope.Use) (*scopeEntry, error) {
	if err := g.Check(g.Ref(), use); err != nil {
		return nil, err
	}
	return m.entry(g.Ref())
}
