package matcher

import (
	"errors"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// mutate makes one change of a scope's gallery: it gives the change the scope's
// next epoch, hands the records to the store, applies the change to the gallery
// once they are durable, and returns the epoch. allowed is asked under the lock
// that orders epochs, so that a revocation that came first wins. A change that
// only erases may use the disk's reserve. act, if there is one, becomes durable with
// the change.
//
// It waits for the disk whatever becomes of the caller: a change that was
// handed over cannot be taken back.
func (m *Matcher) mutate(sc *scopeEntry, act *drafted, allowed func() error, puts []store.Record, deletes []store.Key, change index.Change) (scope.Epoch, error) {
	return m.mutateAt(sc, act, allowed, func(scope.Epoch) store.Mutation {
		return store.Mutation{Puts: puts, Deletes: deletes}
	}, change)
}

// mutateAt is mutate for records that hold the epoch: at gives them.
func (m *Matcher) mutateAt(sc *scopeEntry, act *drafted, allowed func() error, at func(scope.Epoch) store.Mutation, change index.Change) (scope.Epoch, error) {
	durable := make(chan error, 1)
	sc.mu.Lock()
	if err := allowed(); err != nil {
		sc.mu.Unlock()
		return 0, err
	}
	change.Epoch = scope.Epoch(sc.epoch.Add(1))
	mutation := at(change.Epoch)
	mutation.Ref, mutation.Epoch, mutation.Reserve = sc.ref, change.Epoch, len(change.Inserts) == 0
	mutation.Post = act.at(change.Epoch)
	m.store.Submit(mutation, func(err error) {
		if err == nil {
			act.durable()
			err = sc.gallery.Apply(change)
			m.filing.count(sc)
			sc.erasures.note(change.Removes)
		}
		durable <- err
	})
	sc.mu.Unlock()
	err := <-durable
	if errors.Is(err, index.ErrDropped) {
		// A revocation overtook the change between the disk and the gallery.
		return 0, sc.reachable(sc.info.Load())
	}
	return change.Epoch, err
}

// repeated looks a request id up. It returns the result of the first call and
// true when this call repeats it, and ErrReused when it carries other content.
// Ids of calls inside a scope are kept in the scope's own space and vanish with
// it; system calls give the tenant as their space.
func (m *Matcher) repeated(key store.Key, r idempotency.Request) (result string, again bool, err error) {
	if !r.Given() {
		return "", false, nil
	}
	if err := r.Validate(); err != nil {
		return "", false, err
	}
	stored, err := m.store.Get(key)
	if errors.Is(err, store.ErrNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	if idempotency.Expired(stored, m.now()) {
		return "", false, nil
	}
	result, err = idempotency.Match(stored, r)
	return result, err == nil, err
}

// remember is the record that makes a later call with the same id a repetition;
// nothing where no id was given.
func (m *Matcher) remember(key store.Key, r idempotency.Request, result string) []store.Record {
	if !r.Given() {
		return nil
	}
	return []store.Record{{Key: key, Value: idempotency.Record(r, result, m.now())}}
}

// scopeRequestKey is where the id of a call that changes subjects is kept.
func scopeRequestKey(ref scope.Ref, r idempotency.Request) store.Key {
	return store.Key{Kind: store.KindScopeRequest, Ref: ref, ID: r.Key("")}
}

// tenantRequestKey is where the id of a call that changes scopes is kept: ids
// of different tenants never meet.
func tenantRequestKey(tenant scope.TenantID, r idempotency.Request) store.Key {
	return store.Key{Kind: store.KindRequest, ID: r.Key("scopes of " + string(tenant))}
}
