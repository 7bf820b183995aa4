package matcher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
	"github.com/menshen-io/menshen/matcher/receipt"
)

// The rounds of the maintenance. What has expired stopped matching at that
// instant; within a round it is erased too. Request ids are kept for
// idempotency.Retention, so an hour more matters to nobody.
const (
	DefaultSweepEvery = time.Minute
	requestsEvery     = time.Hour
)

// maintain runs until ctx ends.
func (m *Matcher) maintain(ctx context.Context, sweepEvery time.Duration) {
	sweep, requests := time.NewTicker(sweepEvery), time.NewTicker(requestsEvery)
	defer sweep.Stop()
	defer requests.Stop()
	for {
		var done int
		var err error
		var what string
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			what = "expired subjects and ended scopes"
			done, err = m.sweep(ctx)
			m.keepReserve()
		case <-requests.C:
			what = "old request ids"
			done, err = m.dropOldRequests(ctx)
		}
		if err != nil && ctx.Err() == nil {
			m.log.Warn("the maintenance could not erase everything; the next round tries again", "what", what, "error", err.Error())
		}
		if done > 0 {
			m.log.Info("the maintenance erased", "what", what, "count", done)
		}
	}
}

// keepReserve takes the room again that was given up on a full disk.
func (m *Matcher) keepReserve() {
	if err := errors.Join(m.keyring.KeepReserve(), m.store.KeepReserve()); err != nil {
		m.log.Warn("the reserve on the disk could not be made; it is tried again every minute", "error", err.Error())
	}
}

// entries lists the scopes there are.
func (m *Matcher) entries() []*scopeEntry {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Collect(maps.Values(m.scopes))
}

// sweep erases the subjects that have expired and all subjects of scopes that
// have ended, and finishes revocations that are not finished. It goes on after
// an error and returns all of them.
func (m *Matcher) sweep(ctx context.Context) (erased int, err error) {
	var errs []error
	for _, sc := range m.entries() {
		if ctx.Err() != nil {
			return erased, ctx.Err()
		}
		info := sc.info.Load()
		switch {
		case info.state == scope.Revoked:
			err = m.finishRevocation(ctx, sc)
		case sc.reachable(info) != nil:
			continue // damaged: nothing of it can be read
		default:
			var n int
			n, err = m.sweepScope(ctx, sc)
			erased += n
			if n > 0 {
				m.acts(sc.ref, "EraseExpired")
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", sc.ref, err))
		}
	}
	return erased, errors.Join(errs...)
}

// finishRevocation goes on with a revocation that is not durable, or not wholly
// erased.
func (m *Matcher) finishRevocation(ctx context.Context, sc *scopeEntry) error {
	sc.commands.Lock()
	defer sc.commands.Unlock()
	if info := sc.info.Load(); info.erasure == nil || info.journaled {
		if err := m.revoke(ctx, sc, service(m.now().UTC()), nil); err != nil {
			return err
		}
	}
	if sc.info.Load().erasure.Done {
		return nil
	}
	return m.destroy(ctx, sc)
}

// errNotOver: the subject was enrolled anew since it was found expired.
var errNotOver = errors.New("not expired")

// sweepScope erases what is over in one scope.
func (m *Matcher) sweepScope(ctx context.Context, sc *scopeEntry) (erased int, err error) {
	over := func(rec *subjectRecord) ([]templateEntry, error) {
		now := m.now()
		if now.Before(rec.Expires) && now.Before(sc.info.Load().settings.EndTime) {
			return nil, errNotOver
		}
		return rec.Templates, nil
	}
	for {
		ids, err := m.overdue(sc)
		if err != nil || len(ids) == 0 {
			return erased, err
		}
		before := erased
		for _, id := range ids {
			if ctx.Err() != nil {
				return erased, ctx.Err()
			}
			_, err := m.eraseFrom(ctx, sc, id, idempotency.Request{}, order{kind: receipt.Subjects, cause: receipt.Expired, by: service(m.now().UTC()), pick: over})
			switch {
			case err == nil:
				erased++
			case !errors.Is(err, errNotOver) && !errors.Is(err, ErrNoSubject):
				return erased, err
			}
		}
		if erased == before {
			return erased, nil
		}
	}
}

// overdue finds some of the subjects whose time is over: the expired ones, and
// once the scope has ended all.
func (m *Matcher) overdue(sc *scopeEntry) (ids []scope.SubjectID, err error) {
	const some = 1000
	now := m.now()
	if now.Before(sc.info.Load().settings.EndTime) {
		return sc.gallery.Expired(now, some), nil
	}
	records, err := m.store.List(store.Key{Kind: store.KindSubject, Ref: sc.ref}, "", some)
	for _, r := range records {
		ids = append(ids, scope.SubjectID(r.Key.ID))
	}
	return ids, err
}

// dropOldRequests deletes the records of request ids that nobody will repeat any
// more, and returns how many. It goes on after an error and returns all of them.
func (m *Matcher) dropOldRequests(ctx context.Context) (dropped int, err error) {
	dropped, err = m.dropRequestsUnder(ctx, nil, store.Key{Kind: store.KindRequest})
	errs := []error{err}
	for _, sc := range m.entries() {
		if sc.reachable(sc.info.Load()) != nil {
			continue
		}
		n, err := m.dropRequestsUnder(ctx, sc, store.Key{Kind: store.KindScopeRequest, Ref: sc.ref})
		dropped += n
		errs = append(errs, err)
	}
	return dropped, errors.Join(errs...)
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
			_, err = m.mutate(sc, nil, func() error { return sc.reachable(sc.info.Load()) }, nil, old, index.Change{})
		}
		if err != nil {
			return dropped, err
		}
		dropped += len(old)
	}
}
