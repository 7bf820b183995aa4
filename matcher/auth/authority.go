package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// Storage keeps the records; *store.Store does. The methods promise what those
// of *store.Store promise.
type Storage interface {
	Get(key store.Key) ([]byte, error)
	List(prefix store.Key, after string, limit int) ([]store.Record, error)
	Commit(ctx context.Context, m store.Mutation) error
}

// Options wire an Authority.
type Options struct {
	// Store is required.
	Store Storage
	// ScopeExists tells whether a scope can be named in a new credential. Nil
	// means that there are no scopes, as before the server first runs.
	ScopeExists func(scope.Ref) bool
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
	// Proof is what callers must show; 0 means ByKey.
	Proof Proof
}

// entry is a credential with what is kept of its secret. Entries are replaced,
// never changed: readers may hold one.
type entry struct {
	Credential
	hasKey bool
	secret digest
}

// Authority knows the tenants and credentials. Safe for concurrent use: reads
// take a read lock for a map lookup, commands run one at a time and are durable
// before they are seen.
type Authority struct {
	store       Storage
	scopeExists func(scope.Ref) bool
	now         func() time.Time
	proof       Proof
	nobody      *entry // compared with when an id is unknown

	command sync.Mutex // held over a whole command; before mu

	mu          sync.RWMutex
	tenants     map[scope.TenantID]Tenant
	tenantIDs   []scope.TenantID // sorted
	credentials map[CredentialID]*entry
	byTenant    map[scope.TenantID][]CredentialID // sorted; "" for platform admins
	bound       map[Identity]*entry               // the last that was bound and not revoked
}

// Open loads all tenants and credentials. A record that cannot be read is an
// error (ErrRecord, or the store's): serving without it could mean to forget a
// revocation.
func Open(ctx context.Context, opt Options) (*Authority, error) {
	if opt.Store == nil {
		return nil, errors.New("auth: Options.Store is required")
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.ScopeExists == nil {
		opt.ScopeExists = func(scope.Ref) bool { return false }
	}
	if opt.Proof == 0 {
		opt.Proof = ByKey
	}
	_, unguessable := newKey(newID())
	a := &Authority{
		store: opt.Store, scopeExists: opt.ScopeExists, now: opt.Clock, proof: opt.Proof, nobody: &entry{secret: unguessable},
		tenants: make(map[scope.TenantID]Tenant), credentials: make(map[CredentialID]*entry),
		byTenant: make(map[scope.TenantID][]CredentialID), bound: make(map[Identity]*entry),
	}
	if err := a.load(ctx); err != nil {
		return nil, fmt.Errorf("load tenants and credentials: %w", err)
	}
	return a, nil
}

func (a *Authority) load(ctx context.Context) error {
	err := a.each(ctx, store.KindTenant, func(r store.Record) error {
		t, err := decodeTenant(r.Key, r.Value)
		if err == nil {
			a.addTenant(t)
		}
		return err
	})
	if err != nil {
		return err
	}
	return a.each(ctx, store.KindCredential, func(r store.Record) error {
		e, err := decodeCredential(r.Key, r.Value)
		if err != nil {
			return err
		}
		t, known := a.tenants[e.Tenant]
		if !known && e.Role.OfTenant() {
			return fmt.Errorf("%w: credential %s belongs to tenant %s, which is not stored", ErrRecord, e.ID, e.Tenant)
		}
		a.addCredential(e.endedWith(t))
		return nil
	})
}

// pageLen is how many records are read from the store at a time.
const pageLen = 1000

// each visits all records of a kind, ordered by key.
func (a *Authority) each(ctx context.Context, kind store.Kind, visit func(store.Record) error) error {
	all := store.Key{Kind: kind}
	for after := ""; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		page, err := a.store.List(all, after, pageLen)
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := visit(r); err != nil {
				return err
			}
		}
		if len(page) < pageLen {
			return nil
		}
		after = all.Cursor(page[len(page)-1].Key)
	}
}

// addTenant and addCredential expect mu held, or no other goroutine.
func (a *Authority) addTenant(t Tenant) {
	a.tenants[t.ID] = t
	if i, found := slices.BinarySearch(a.tenantIDs, t.ID); !found {
		a.tenantIDs = slices.Insert(a.tenantIDs, i, t.ID)
	}
}

func (a *Authority) addCredential(e *entry) {
	a.credentials[e.ID] = e
	a.bind(e)
	ids := a.byTenant[e.Tenant]
	if i, found := slices.BinarySearch(ids, e.ID); !found {
		a.byTenant[e.Tenant] = slices.Insert(ids, i, e.ID)
	}
}

// Check tells whether a caller's credential is still good: ErrUnauthenticated
// once it is revoked or expired. Streams ask before every message.
func (a *Authority) Check(c Caller) error {
	e := a.entry(c.id)
	if e == nil || !e.live(a.now()) {
		return ErrUnauthenticated
	}
	return nil
}

func (a *Authority) entry(id CredentialID) *entry {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.credentials[id]
}

// HasAdmin reports whether somebody can manage the platform.
func (a *Authority) HasAdmin() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.anotherAdmin("")
}

// anotherAdmin reports whether a live platform admin other than id exists whom
// the server's proof lets in; mu is held.
func (a *Authority) anotherAdmin(id CredentialID) bool {
	now := a.now()
	for _, other := range a.byTenant[""] {
		if e := a.credentials[other]; other != id && e.live(now) && a.proof.accepts(e) {
			return true
		}
	}
	return false
}

// remembered looks up an earlier call with the same request id. found is false
// when there is none, when it is forgotten, or when no id was given.
func (a *Authority) remembered(c Caller, r idempotency.Request) (result string, found bool, err error) {
	if err := r.Validate(); err != nil {
		return "", false, err
	}
	if !r.Given() {
		return "", false, nil
	}
	stored, err := a.store.Get(requestKey(c.tenant, r))
	if errors.Is(err, store.ErrNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	if idempotency.Expired(stored, a.now()) {
		return "", false, nil
	}
	result, err = idempotency.Match(stored, r)
	return result, err == nil, err
}

// commit makes a change durable together with the record of its request. It
// waits for the end even when the caller goes away: what became durable must
// be seen. urgent changes go through on a full disk. Request records past their
// retention are removed by the matcher's maintenance, with its own.
func (a *Authority) commit(ctx context.Context, c Caller, r idempotency.Request, result string, urgent bool, put store.Record) error {
	m := store.Mutation{Puts: []store.Record{put}, Reserve: urgent}
	if r.Given() {
		m.Puts = append(m.Puts, store.Record{Key: requestKey(c.tenant, r), Value: idempotency.Record(r, result, a.now())})
	}
	return a.store.Commit(context.WithoutCancel(ctx), m)
}
