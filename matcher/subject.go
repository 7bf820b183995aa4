package matcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
)

// Subject is a person inside one scope, under a pseudonym.
type Subject struct {
	Ref        scope.Ref
	ID         scope.SubjectID
	Consent    Consent
	CreateTime time.Time
	ExpireTime time.Time // from then on it matches nothing
	Templates  []Template
}

// Template describes a stored template; the code never leaves the service.
type Template struct {
	ID         scope.TemplateID
	ModelID    string
	CreateTime time.Time
}

// Subject returns one subject.
func (m *Matcher) Subject(ctx context.Context, g scope.Grant, id scope.SubjectID) (Subject, error) {
	sc, err := m.granted(g, scope.UseRead)
	if err != nil {
		return Subject{}, err
	}
	if err := id.Validate(); err != nil {
		return Subject{}, err
	}
	if err := sc.reachable(sc.info.Load()); err != nil {
		return Subject{}, err
	}
	rec, err := m.subjectRecord(sc, id)
	if err != nil {
		return Subject{}, err
	}
	return sc.subject(id, rec), ctx.Err()
}

// Subjects returns up to limit subjects with ids after the given one, ordered by
// id.
func (m *Matcher) Subjects(ctx context.Context, g scope.Grant, after scope.SubjectID, limit int) ([]Subject, error) {
	sc, err := m.granted(g, scope.UseRead)
	if err != nil {
		return nil, err
	}
	if err := sc.reachable(sc.info.Load()); err != nil {
		return nil, err
	}
	records, err := m.store.List(store.Key{Kind: store.KindSubject, Ref: sc.ref}, string(after), limit)
	if err != nil {
		return nil, err
	}
	subjects := make([]Subject, len(records))
	for i, r := range records {
		rec, err := decodeRecord[subjectRecord](r.Value)
		if err != nil {
			return nil, err
		}
		subjects[i] = sc.subject(scope.SubjectID(r.Key.ID), rec)
	}
	return subjects, ctx.Err()
}

// subjectRecord reads a subject from the store.
func (m *Matcher) subjectRecord(sc *scopeEntry, id scope.SubjectID) (subjectRecord, error) {
	b, err := m.store.Get(subjectKey(sc.ref, id))
	if errors.Is(err, store.ErrNotFound) {
		return subjectRecord{}, fmt.Errorf("%w: %s/subjects/%s", ErrNoSubject, sc.ref, id)
	}
	if err != nil {
		return subjectRecord{}, err
	}
	return decodeRecord[subjectRecord](b)
}

// subject puts a record into the form that callers see.
func (sc *scopeEntry) subject(id scope.SubjectID, rec subjectRecord) Subject {
	s := Subject{
		Ref: sc.ref, ID: id, Consent: rec.Consent, CreateTime: rec.Created, ExpireTime: rec.Expires,
		Templates: make([]Template, len(rec.Templates)),
	}
	for i, t := range rec.Templates {
		s.Templates[i] = Template{ID: t.ID, ModelID: sc.modelID, CreateTime: t.Created}
	}
	return s
}
