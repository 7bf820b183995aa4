package matcher

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// Erasure tells what was erased.
type Erasure struct {
	Templates int
	Epoch     scope.Epoch // from which on it cannot match
}

// DeleteTemplate erases one template of a subject; the last one takes the
// subject with it.
func (m *Matcher) DeleteTemplate(ctx context.Context, g scope.Grant, id scope.SubjectID, n scope.TemplateID, r idempotency.Request) (Erasure, error) {
	return m.erase(ctx, g, id, r, func(rec *subjectRecord) ([]templateEntry, error) {
		i := slices.IndexFunc(rec.Templates, func(t templateEntry) bool { return t.ID == n })
		if i < 0 {
			return nil, fmt.Errorf("%w: %s/subjects/%s/templates/%d", ErrNoTemplate, g.Ref(), id, n)
		}
		return rec.Templates[i : i+1], nil
	})
}

// DeleteSubject erases a subject and all its templates. When it has returned,
// no answer matches the subject any more.
func (m *Matcher) DeleteSubject(ctx context.Context, g scope.Grant, id scope.SubjectID, r idempotency.Request) (Erasure, error) {
	return m.erase(ctx, g, id, r, func(rec *subjectRecord) ([]templateEntry, error) { return rec.Templates, nil })
}

// WithdrawConsent erases the subject because its consent was withdrawn.
func (m *Matcher) WithdrawConsent(ctx context.Context, g scope.Grant, id scope.SubjectID, r idempotency.Request) (Erasure, error) {
	return m.DeleteSubject(ctx, g, id, r)
}

// erase removes the templates of a subject that pick chooses. It works in
// suspended and ended scopes too.
func (m *Matcher) erase(ctx context.Context, g scope.Grant, id scope.SubjectID, r idempotency.Request, pick func(*subjectRecord) ([]templateEntry, error)) (Erasure, error) {
	sc, err := m.granted(g, scope.UseErase)
	if err != nil {
		return Erasure{}, err
	}
	if err := id.Validate(); err != nil {
		return Erasure{}, err
	}
	if err := r.Validate(); err != nil {
		return Erasure{}, err
	}
	return m.eraseFrom(ctx, sc, id, r, pick)
}

// eraseFrom is erase without the grant, for the sweeper.
func (m *Matcher) eraseFrom(ctx context.Context, sc *scopeEntry, id scope.SubjectID, r idempotency.Request, pick func(*subjectRecord) ([]templateEntry, error)) (Erasure, error) {
	reachable := func() error { return sc.reachable(sc.info.Load()) }
	if err := reachable(); err != nil {
		return Erasure{}, err
	}
	unlock, err := sc.lockChange(ctx, r, id)
	if err != nil {
		return Erasure{}, err
	}
	defer unlock()
	requestKey := scopeRequestKey(sc.ref, r)
	if result, again, err := m.repeated(requestKey, r); again || err != nil {
		return Erasure{Templates: parseErased(result), Epoch: sc.gallery.Epoch()}, err
	}
	rec, err := m.subjectRecord(sc, id)
	if err != nil {
		return Erasure{}, err
	}
	gone, err := pick(&rec)
	if err != nil {
		return Erasure{}, err
	}
	var change index.Change
	var deletes []store.Key
	for _, t := range gone {
		deletes = append(deletes, templateKey(sc.ref, id, t.ID))
		change.Removes = append(change.Removes, index.Remove{Subject: id, Template: t.ID})
	}
	done := Erasure{Templates: len(gone)}
	puts := m.remember(requestKey, r, done.result())
	if len(gone) == len(rec.Templates) {
		deletes = append(deletes, subjectKey(sc.ref, id))
	} else {
		rec.Templates = slices.DeleteFunc(rec.Templates, func(t templateEntry) bool {
			return slices.ContainsFunc(change.Removes, func(r index.Remove) bool { return r.Template == t.ID })
		})
		puts = append(puts, store.Record{Key: subjectKey(sc.ref, id), Value: encode(rec)})
	}
	done.Epoch, err = m.mutate(sc, reachable, puts, deletes, change)
	return done, err
}

// result is what a repeated call is answered with; the epoch is told as it is
// then.
func (e Erasure) result() string { return strconv.Itoa(e.Templates) }

// parseErased reads result back; a record that is no number says 0.
func parseErased(result string) int {
	n, _ := strconv.Atoi(result)
	return n
}
