package matcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// CreateScope opens the scope that the grant names, with a key, a secret
// rotation and a gallery of its own. An id that was ever used is refused.
func (m *Matcher) CreateScope(ctx context.Context, g scope.Grant, s Settings, r idempotency.Request) (Scope, error) {
	ref := g.Ref()
	if err := g.Check(ref, scope.UseManage); err != nil {
		return Scope{}, err
	}
	unlockRequest, err := m.lockTenantRequest(ctx, ref.Tenant, r)
	if err != nil {
		return Scope{}, err
	}
	defer unlockRequest()
	unlock, err := m.creating.acquire(ctx, scopesOf(ref.Tenant))
	if err != nil {
		return Scope{}, err
	}
	defer unlock()
	if m.isClosed(ref.Tenant) {
		return Scope{}, fmt.Errorf("%w: no scope can be made in tenants/%s", ErrTenantClosed, ref.Tenant)
	}
	requestKey := tenantRequestKey(ref.Tenant, r)
	if _, again, err := m.repeated(requestKey, r); err != nil {
		return Scope{}, err
	} else if again {
		sc, err := m.entry(ref)
		if err != nil {
			return Scope{}, err
		}
		return sc.view(), nil
	}
	if _, err := m.book(); err != nil {
		return Scope{}, err
	}
	if _, err := m.entry(ref); err == nil {
		return Scope{}, fmt.Errorf("%w: %s; ids are never used twice, choose another", ErrScopeExists, ref)
	} else if !errors.Is(err, ErrNoScope) {
		return Scope{}, err
	}
	if n := m.countScopes(ref.Tenant); n >= MaxScopes {
		return Scope{}, fmt.Errorf("%w: the tenant has %d, revoked ones included", ErrTooManyScopes, n)
	}
	now := m.now().UTC()
	var v checks
	s = s.withPreset(&v, now).withDefaults(m.model.Threshold)
	s.checkEnd(&v, now)
	if s.check(&v); v.err() != nil {
		return Scope{}, v.err()
	}
	return m.openScope(ctx, ref, scopeRecord{
		Settings: s, State: scope.Active, ModelID: m.model.ID, Dim: m.model.Dim,
		Epoch: 1, Created: now, Updated: now,
	}, m.remember(requestKey, r, string(ref.Scope)))
}

// MaxScopes bounds the scopes of a tenant, revoked ones included: their ids are
// remembered for ever, and every one's key is rewritten with each new one.
const MaxScopes = 100_000

func (m *Matcher) countScopes(tenant scope.TenantID) (n int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for ref := range m.scopes {
		if ref.Tenant == tenant {
			n++
		}
	}
	return n
}

// openScope makes the key durable, then the record, then the scope known. A key
// without a record, left by a crash in between, was never used and is taken.
func (m *Matcher) openScope(ctx context.Context, ref scope.Ref, rec scopeRecord, remember []store.Record) (Scope, error) {
	if err := m.keyring.Create(ref); err != nil && !errors.Is(err, keyring.ErrExists) {
		return Scope{}, err
	}
	sc, err := m.newEntry(ref, rec)
	if err != nil {
		return Scope{}, err
	}
	puts := append(remember, store.Record{Key: scopeKey(ref), Value: encode(rec)})
	if err := m.store.Commit(context.WithoutCancel(ctx), store.Mutation{Ref: ref, Epoch: rec.Epoch, Puts: puts}); err != nil {
		return Scope{}, err
	}
	if sc.gallery, err = m.index.Create(ref, rec.Dim); err != nil {
		return Scope{}, err
	}
	m.mu.Lock()
	m.scopes[ref] = sc
	m.mu.Unlock()
	return sc.view(), nil
}

// newEntry builds a scope that is not revoked in memory, without its gallery.
func (m *Matcher) newEntry(ref scope.Ref, rec scopeRecord) (*scopeEntry, error) {
	sc := bareEntry(ref, rec)
	keys, err := m.keyring.Keys(ref)
	if err != nil {
		return nil, err
	}
	err = keys.WithDecoySeed(func(seed *[32]byte) error {
		sc.decoys.seed = *seed
		return nil
	})
	if err == nil {
		err = keys.WithRotationSeed(func(seed *[32]byte) (err error) {
			sc.rotation, err = code.NewRotation(*seed, rec.Dim)
			return err
		})
	}
	return sc, err
}

// bareEntry builds a scope in memory that holds no secret and no gallery.
func bareEntry(ref scope.Ref, rec scopeRecord) *scopeEntry {
	sc := &scopeEntry{ref: ref, dim: rec.Dim, modelID: rec.ModelID, created: rec.Created}
	sc.epoch.Store(uint64(rec.Epoch))
	sc.info.Store(&scopeInfo{settings: rec.Settings, state: rec.State, updated: rec.Updated, erasure: rec.Erasure})
	return sc
}

// Scope returns one scope; every role that may use it may read its settings.
func (m *Matcher) Scope(ctx context.Context, g scope.Grant) (Scope, error) {
	sc, err := m.granted(g, scope.UseSettings)
	if err != nil {
		return Scope{}, err
	}
	return sc.view(), ctx.Err()
}

// Scopes returns up to limit scopes of a tenant with ids after the given one,
// ordered by id.
func (m *Matcher) Scopes(ctx context.Context, g scope.TenantGrant, after scope.ScopeID, limit int, showRevoked bool) ([]Scope, error) {
	if err := g.Check(g.Tenant()); err != nil {
		return nil, err
	}
	m.mu.RLock()
	var entries []*scopeEntry
	for ref, sc := range m.scopes {
		if ref.Tenant == g.Tenant() && ref.Scope > after && (showRevoked || sc.currentState() != scope.Revoked) {
			entries = append(entries, sc)
		}
	}
	m.mu.RUnlock()
	slices.SortFunc(entries, func(a, b *scopeEntry) int { return cmp.Compare(a.ref.Scope, b.ref.Scope) })
	scopes := make([]Scope, 0, min(limit, len(entries)))
	for _, sc := range entries[:min(limit, len(entries))] {
		scopes = append(scopes, sc.view())
	}
	return scopes, ctx.Err()
}

// Updated is a scope after a change of its settings.
type Updated struct {
	Scope
	// NoticeChanged: people are told something else than before; the notice has
	// another version.
	NoticeChanged bool
}

// UpdateScope changes the settings that the patch names. A repeated request does
// not tell NoticeChanged again.
func (m *Matcher) UpdateScope(ctx context.Context, g scope.Grant, patch SettingsPatch, r idempotency.Request) (u Updated, err error) {
	u.Scope, err = m.command(ctx, g, r, func(info *scopeInfo) error {
		var v checks
		before := info.settings
		info.settings = patch.apply(before, m.now(), &v)
		info.settings.check(&v)
		u.NoticeChanged = before.CurrentNotice() != info.settings.CurrentNotice()
		return v.err()
	})
	return u, err
}

// SuspendScope stops matching and enrolment until ResumeScope. When it has
// returned, nothing of the scope matches. Suspending twice changes nothing.
func (m *Matcher) SuspendScope(ctx context.Context, g scope.Grant, r idempotency.Request) (Scope, error) {
	return m.command(ctx, g, r, func(info *scopeInfo) error {
		info.state = scope.Suspended
		return nil
	})
}

// ResumeScope ends a suspension. Resuming an active scope changes nothing.
func (m *Matcher) ResumeScope(ctx context.Context, g scope.Grant, r idempotency.Request) (Scope, error) {
	return m.command(ctx, g, r, func(info *scopeInfo) error {
		info.state = scope.Active
		return nil
	})
}

// command changes a scope's settings or state: check, make durable, publish. It
// may use the disk's reserve: suspending must work when nothing else does, and
// the record is small.
func (m *Matcher) command(ctx context.Context, g scope.Grant, r idempotency.Request, change func(*scopeInfo) error) (Scope, error) {
	sc, err := m.granted(g, scope.UseManage)
	if err != nil {
		return Scope{}, err
	}
	unlock, err := m.lockCommand(ctx, sc, r)
	if err != nil {
		return Scope{}, err
	}
	defer unlock()
	requestKey := tenantRequestKey(sc.ref.Tenant, r)
	if _, again, err := m.repeated(requestKey, r); err != nil {
		return Scope{}, err
	} else if again {
		return sc.view(), nil
	}
	info := *sc.info.Load()
	if err := sc.reachable(&info); err != nil {
		return Scope{}, err
	}
	if err := change(&info); err != nil {
		return Scope{}, err
	}
	info.updated = m.now().UTC()
	puts := m.remember(requestKey, r, string(sc.ref.Scope))
	puts = append(puts, store.Record{Key: scopeKey(sc.ref), Value: encode(sc.record(&info, sc.nextEpoch()))})
	if err := m.store.Commit(context.WithoutCancel(ctx), store.Mutation{Puts: puts, Reserve: true}); err != nil {
		return Scope{}, err
	}
	sc.info.Store(&info)
	m.departed(sc)
	return sc.view(), nil
}

// lockCommand makes sure that no other command changes the scope, and that
// nobody in the tenant carries out the same request, meanwhile. Order: request,
// then scope.
func (m *Matcher) lockCommand(ctx context.Context, sc *scopeEntry, r idempotency.Request) (unlock func(), err error) {
	unlockRequest, err := m.lockTenantRequest(ctx, sc.ref.Tenant, r)
	if err != nil {
		return nil, err
	}
	sc.commands.Lock()
	return func() { sc.commands.Unlock(); unlockRequest() }, nil
}

// lockTenantRequest makes sure that the request is carried out by one call at a
// time; it does nothing where no id was given.
func (m *Matcher) lockTenantRequest(ctx context.Context, tenant scope.TenantID, r idempotency.Request) (unlock func(), err error) {
	if !r.Given() {
		return func() {}, nil
	}
	return m.creating.acquire(ctx, "request "+string(tenant)+" "+r.ID)
}

// record is the scope as the store keeps it.
func (sc *scopeEntry) record(info *scopeInfo, epoch scope.Epoch) scopeRecord {
	return scopeRecord{
		Settings: info.settings, State: info.state, ModelID: sc.modelID, Dim: sc.dim,
		Epoch: epoch, Created: sc.created, Updated: info.updated, Erasure: info.erasure,
	}
}
