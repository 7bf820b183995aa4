package matcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// scopeEntry is one scope in memory.
//
// Lock order: commands (one settings or state change at a time) before mu. mu
// covers the assignment of epochs and the hand-over to the store's queue, so
// that the order of the log is the order of the epochs. It is held while the
// store's queue is full, so what must not wait for the disk (the fence, reading
// a scope) does without it. The store's completion callback touches the gallery
// only and takes neither.
type scopeEntry struct {
	ref     scope.Ref
	dim     int
	modelID string
	created time.Time

	// info is replaced as a whole; readers take one consistent view.
	info atomic.Pointer[scopeInfo]

	gallery  *index.Gallery // nil for a revoked or damaged scope
	rotation *code.Rotation // nil likewise
	decoys   decoys
	damage   error         // why the scope is refused; nil when it is sound
	left     erasureRecord // of a damaged scope: what could be counted on disk

	commands sync.Mutex
	mu       sync.Mutex
	epoch    atomic.Uint64 // the last one assigned; assigned under mu
	subjects keyedLock     // one change of a subject, or of a request id, at a time
	erasures erasures      // what was erased lately, for the fence
	// departures are the matches that passed the fence and have not left yet.
	departures departures
	shredded   atomic.Pointer[time.Time] // when this process destroyed the key
	counted    int                       // its subjects as the filing meter counts them; guarded by that
}

// scopeInfo is what changes by command. Immutable once published.
type scopeInfo struct {
	settings Settings
	state    scope.State
	updated  time.Time
	revoked  time.Time
	ended    scope.Epoch    // of the revocation
	erasure  *erasureRecord // set once the revocation is durable
	// journaled: the revocation stands in the journal only, the store could not write it.
	journaled bool
}

func (sc *scopeEntry) currentState() scope.State { return sc.info.Load().state }

// usable returns nil when matching and enrolling are allowed now.
func (sc *scopeEntry) usable(now time.Time) error {
	info := sc.info.Load()
	if err := sc.reachable(info); err != nil {
		return err
	}
	switch {
	case info.state == scope.Suspended:
		return fmt.Errorf("%w: %s; use the alternative until the operator resumes it", ErrScopeSuspended, sc.ref)
	case info.state != scope.Active:
		return fmt.Errorf("%w: %s is in an unknown state", ErrScopeDamaged, sc.ref)
	case !now.Before(info.settings.EndTime):
		return fmt.Errorf("%w: %s ended at %s", ErrScopeEnded, sc.ref, info.settings.EndTime.UTC().Format(time.RFC3339))
	}
	return nil
}

// reachable returns nil when the scope's records can be read and erased:
// whatever its state, unless it is revoked or damaged.
func (sc *scopeEntry) reachable(info *scopeInfo) error {
	if info.state == scope.Revoked {
		return fmt.Errorf("%w: %s since %s", ErrScopeRevoked, sc.ref, info.revoked.UTC().Format(time.RFC3339))
	}
	if sc.damage != nil {
		return fmt.Errorf("%w: %s: %w; stop the server and run: menshen scopes repair %s", ErrScopeDamaged, sc.ref, sc.damage, sc.ref)
	}
	return nil
}

// decoys draw the codes that stand for subjects that are not there, until they are
// wiped.
type decoys struct {
	mu   sync.RWMutex
	seed code.RotationSeed
	gone bool
}

// into draws the decoy of a subject into a workspace. Error: code.ErrWiped.
func (d *decoys) into(w *workspace, id scope.SubjectID) (code.Code, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.gone {
		return code.Code{}, code.ErrWiped
	}
	return code.DecoyInto(w.decoy(), w.values, &w.stream, &d.seed, string(id)), nil
}

func (d *decoys) wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.seed[:])
	d.gone = true
}

// wipe overwrites the secrets of the scope. What encodes meanwhile ends first.
func (sc *scopeEntry) wipe() {
	sc.rotation.Wipe()
	sc.decoys.wipe()
}

// afterRevocation gives the reason for a gallery or a rotation that is gone: the
// scope was revoked while the search was on its way. Other errors stay.
func (sc *scopeEntry) afterRevocation(err error) error {
	if errors.Is(err, index.ErrDropped) || errors.Is(err, index.ErrNoGallery) || errors.Is(err, code.ErrWiped) {
		if over := sc.reachable(sc.info.Load()); over != nil {
			return over
		}
	}
	return err
}

// view describes the scope to callers.
func (sc *scopeEntry) view() Scope {
	info := sc.info.Load()
	v := Scope{
		Ref: sc.ref, Settings: info.settings, State: info.state, ModelID: sc.modelID,
		CreateTime: sc.created, UpdateTime: info.updated, RevokeTime: info.revoked,
	}
	if info.state == scope.Revoked && info.erasure == nil {
		// Fenced, and not durable yet: it may be revoked, it is not for sure.
		v.State, v.RevokeTime = scope.Suspended, time.Time{}
	}
	v.Epoch = sc.currentEpoch()
	if info.state != scope.Revoked && sc.gallery != nil {
		v.Subjects, v.Templates = sc.gallery.Subjects(), sc.gallery.Templates()
	}
	return v
}

// nextEpoch assigns the scope's next epoch.
func (sc *scopeEntry) nextEpoch() scope.Epoch {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	return scope.Epoch(sc.epoch.Add(1))
}

// currentEpoch is the last epoch that was assigned.
func (sc *scopeEntry) currentEpoch() scope.Epoch { return scope.Epoch(sc.epoch.Load()) }

// keyedLock serialises work on the same key. The zero keyedLock is ready.
type keyedLock struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// acquire waits until nobody holds the key and takes it. The returned func
// gives it back and must be called once.
func (l *keyedLock) acquire(ctx context.Context, key string) (release func(), err error) {
	for {
		l.mu.Lock()
		busy, taken := l.held[key]
		if !taken {
			if l.held == nil {
				l.held = make(map[string]chan struct{})
			}
			mine := make(chan struct{})
			l.held[key] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, key)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
