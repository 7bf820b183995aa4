package matcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
	"github.com/menshen-io/menshen/matcher/receipt"
)

// Erasure tells what was erased.
type Erasure struct {
	Templates int
	Epoch     scope.Epoch // from which on it cannot match
	// Receipt is the id of the receipt, which is pending until the sealed bytes
	// were removed from the files.
	Receipt string
}

// order is an erasure that somebody asked for, or that is due.
type order struct {
	kind  receipt.Kind
	cause receipt.Cause
	by    requester
	// pick chooses the templates of the subject that go.
	pick func(*subjectRecord) ([]templateEntry, error)
}

// DeleteTemplate erases one template of a subject; the last one takes the
// subject with it.
func (m *Matcher) DeleteTemplate(ctx context.Context, g scope.Grant, id scope.SubjectID, n scope.TemplateID, r idempotency.Request) (Erasure, error) {
	return m.erase(ctx, g, id, r, order{kind: receipt.Template, cause: receipt.Revoked, pick: func(rec *subjectRecord) ([]templateEntry, error) {
		i := slices.IndexFunc(rec.Templates, func(t templateEntry) bool { return t.ID == n })
		if i < 0 {
			return nil, fmt.Errorf("%w: %s/subjects/%s/templates/%d", ErrNoTemplate, g.Ref(), id, n)
		}
		return rec.Templates[i : i+1], nil
	}})
}

// DeleteSubject erases a subject and all its templates. When it has returned,
// no answer that matches the subject leaves any more, durably; the sealed bytes
// follow within seconds, and then the receipt.
func (m *Matcher) DeleteSubject(ctx context.Context, g scope.Grant, id scope.SubjectID, r idempotency.Request) (Erasure, error) {
	return m.erase(ctx, g, id, r, order{kind: receipt.Subject, cause: receipt.Revoked, pick: all})
}

// WithdrawConsent erases the subject because its consent was withdrawn.
func (m *Matcher) WithdrawConsent(ctx context.Context, g scope.Grant, id scope.SubjectID, r idempotency.Request) (Erasure, error) {
	return m.erase(ctx, g, id, r, order{kind: receipt.Subject, cause: receipt.Withdrawn, pick: all})
}

func all(rec *subjectRecord) ([]templateEntry, error) { return rec.Templates, nil }

// erase carries an order of a caller out. It works in suspended and ended scopes
// too.
func (m *Matcher) erase(ctx context.Context, g scope.Grant, id scope.SubjectID, r idempotency.Request, o order) (Erasure, error) {
	o.by = requesterOf(g, m.now().UTC())
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
	done, err := m.eraseFrom(ctx, sc, id, r, o)
	if err == nil || errors.Is(err, ErrNoSubject) || errors.Is(err, ErrNoTemplate) {
		m.departed(sc) // also where another call erased it just now
	}
	return done, err
}

// eraseFrom is erase without the grant, for the sweeper.
func (m *Matcher) eraseFrom(ctx context.Context, sc *scopeEntry, id scope.SubjectID, r idempotency.Request, o order) (Erasure, error) {
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
		done := parseErased(result)
		done.Epoch = sc.gallery.Epoch()
		return done, err
	}
	rec, err := m.subjectRecord(sc, id)
	if err != nil {
		return Erasure{}, err
	}
	gone, err := o.pick(&rec)
	if err != nil {
		return Erasure{}, err
	}
	var change index.Change
	var deletes, traced []store.Key
	for _, t := range gone {
		deletes = append(deletes, templateKey(sc.ref, id, t.ID))
		change.Removes = append(change.Removes, index.Remove{Subject: id, Template: t.ID})
	}
	traced = slices.Clone(deletes)
	var puts []store.Record
	note := erasureNote{Kind: o.kind, Cause: o.cause, By: o.by, Subject: id, Templates: len(gone)}
	if o.kind == receipt.Template {
		note.Template = gone[0].ID
	}
	done := Erasure{Templates: len(gone)}
	if whole := len(gone) == len(rec.Templates); whole {
		deletes = append(deletes, subjectKey(sc.ref, id))
		note.Whole, traced = true, subjectKeys(sc.ref, id)
	} else {
		rec.Templates = slices.DeleteFunc(rec.Templates, func(t templateEntry) bool {
			return slices.ContainsFunc(change.Removes, func(r index.Remove) bool { return r.Template == t.ID })
		})
		puts = append(puts, store.Record{Key: subjectKey(sc.ref, id), Value: encode(rec)})
	}
	if err := note.trace(m.store, traced); err != nil {
		return Erasure{}, err
	}
	done.Epoch, err = m.mutateAt(sc, m.draft(ctx, sc.ref), reachable, func(epoch scope.Epoch) store.Mutation {
		note.Epoch, done.Receipt = epoch, receiptID(sc.ref, epoch)
		all := append(m.remember(requestKey, r, done.result()), puts...)
		return store.Mutation{Puts: append(all, note.record(sc.ref)), Deletes: deletes, Purge: traced}
	}, change)
	if err != nil {
		return Erasure{}, err
	}
	note.fenced = m.now().UTC()
	m.purging.add(sc.ref, note)
	return done, nil
}

// result is what a repeated call is answered with; the epoch is told as it is
// then.
func (e Erasure) result() string { return strconv.Itoa(e.Templates) + " " + e.Receipt }

// parseErased reads result back; a record that is no number says 0.
func parseErased(result string) (e Erasure) {
	count, id, _ := strings.Cut(result, " ")
	e.Templates, _ = strconv.Atoi(count)
	e.Receipt = id
	return e
}
