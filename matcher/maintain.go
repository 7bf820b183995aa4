package matcher

import (
	"context"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// maintainEvery is how often old request ids are dropped. They are kept for
// idempotency.Retention, so an hour more matters to nobody.
const maintainEvery = time.Hour

// maintain runs until ctx ends.
func (m *Matcher) maintain(ctx context.Context) {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n, err := m.dropOldRequests(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("old request ids could not be dropped; the next round tries again", "error", err.Error())
		} else if n > 0 {
			m.log.Debug("old request ids dropped", "count", n)
		}
	}
}

// dropOldRequests deletes the records of request ids that nobody will repeat any
// more, and returns how many.
func (m *Matcher) dropOldRequests(ctx context.Context) (int, error) {
	n, err := m.dropRequestsUnder(ctx, nil, store.Key{Kind: store.KindRequest})
	if err != nil {
		return n, err
	}
	m.mu.RLock()
	entries := make([]*scopeEntry, 0, len(m.scopes))
	for _, sc := range m.scopes {
		if sc.gallery != nil && sc.currentState() != scope.Revoked {
			entries = append(entries, sc)
		}
	}
	m.mu.RUnlock()
	for _, sc := range entries {
		k, err := m.dropRequestsUnder(ctx, sc, store.Key{Kind: store.KindScopeRequest, Ref: sc.ref})
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}

// dropRequestsUnder goes through the request ids of one space: that of sc, or
// the system's where sc is nil.
func (m *Matcher) dropRequestsUnder(ctx context.Context, sc *scopeEntry, prefix store.Key) (dropped int, err error) {
	const page = 1000
	for after := ""; ; {
		records, err := m.store.List(prefix, after, page)
		if err != nil || len(records) == 0 {
			return dropped, err
		}
		after = prefix.Cursor(records[len(records)-1].Key)
		var old []store.Key
		for _, r := range records {
			if idempotency.Expired(r.Value, m.now()) {
				old = append(old, r.Key)
			}
		}
		if len(old) == 0 {
			continue
		}
		if sc == nil {
			err = m.store.Commit(ctx, store.Mutation{Deletes: old})
		} else {
			_, err = m.mutate(sc, func() error { return sc.reachable(sc.info.Load()) }, nil, old, index.Change{})
		}
		if err != nil {
			return dropped, err
		}
		dropped += len(old)
	}
}
