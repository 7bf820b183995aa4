package matcher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
)

// ErrNotKeepable: what is left of a damaged scope cannot be told from what was
// erased, so that it must not be served again.
var ErrNotKeepable = errors.New("what is left of the scope cannot be kept")

// Examination is what is left of a scope on disk. No server may have the store
// open meanwhile.
type Examination struct {
	Ref    scope.Ref
	State  scope.State
	Survey store.Survey
	// Damage is why the scope is refused; nil when it is sound.
	Damage error
	// Subjects and Templates are those of whole subjects: the record opens and
	// so does every template that it names.
	Subjects, Templates int
	// Losses are the subjects of which something is missing, in the order of
	// their ids.
	Losses []Loss
	// Vanished is how many more records are missing: whole subjects, of which not
	// even the id is left, or the ids of answered requests.
	Vanished int

	record   scopeRecord
	requests []store.Key
	returned bool // there is more than there should be
}

// Loss is a subject that is not whole.
type Loss struct {
	Subject scope.SubjectID
	Reason  string
	// Left are the records of it that are there, which keeping erases.
	Left []store.Key
}

// Examine looks at a scope in a store that no server uses. It changes nothing.
// Errors: ErrNoScope, ErrScopeRevoked, and those of the store.
func Examine(st *store.Store, ref scope.Ref) (*Examination, error) {
	b, err := st.Get(scopeKey(ref))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrNoScope, ref)
	} else if err != nil {
		return nil, err
	}
	e := &Examination{Ref: ref}
	if e.record, err = decodeRecord[scopeRecord](b); err != nil {
		return nil, err
	}
	e.State = e.record.State
	if _, err := st.Get(revocationKey(ref)); err == nil || e.State == scope.Revoked {
		return nil, fmt.Errorf("%w: %s; the next start of the server finishes its erasure", ErrScopeRevoked, ref)
	} else if !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	h := holdings{dim: e.record.Dim, subjects: make(map[scope.SubjectID]*holding)}
	if e.Survey, err = st.Survey(ref, h.add); err != nil {
		return nil, err
	}
	e.Damage = e.Survey.Sound()
	e.requests = h.requests
	missing := e.weigh(&h)
	expected, there := int(e.Survey.Head.Records), int(e.Survey.Found.Records)+missing
	e.Vanished = max(0, expected-there)
	// More than there should be, or something else instead: records that were
	// erased or replaced have come back, and nothing tells which.
	e.returned = there > expected || e.Damage != nil && missing == 0 && e.Vanished == 0 && len(e.Survey.Unreadable) == 0
	if e.Damage == nil && len(e.Losses) > 0 {
		e.Damage = fmt.Errorf("%w: %d subjects miss templates", ErrScopeDamaged, len(e.Losses))
	}
	return e, nil
}

// holdings gathers what is there by subject.
type holdings struct {
	dim      int
	subjects map[scope.SubjectID]*holding
	requests []store.Key
}

type holding struct {
	record    *subjectRecord
	templates map[scope.TemplateID]bool // true: the code is one
	broken    []store.Key               // unreadable
}

func (h *holdings) of(id scope.SubjectID) *holding {
	s, ok := h.subjects[id]
	if !ok {
		s = &holding{templates: make(map[scope.TemplateID]bool)}
		h.subjects[id] = s
	}
	return s
}

func (h *holdings) add(r store.Record) error {
	id := scope.SubjectID(r.Key.ID)
	switch r.Key.Kind {
	case store.KindSubject:
		if rec, err := decodeRecord[subjectRecord](r.Value); err == nil {
			h.of(id).record = &rec
		} else {
			h.of(id).broken = append(h.of(id).broken, r.Key)
		}
	case store.KindTemplate:
		_, err := code.ParseCode(r.Value, h.dim)
		h.of(id).templates[r.Key.Template] = err == nil
		clear(r.Value)
	case store.KindScopeRequest:
		h.requests = append(h.requests, r.Key)
	}
	return nil
}

// weigh tells whole subjects from others and returns how many records are
// known to be missing.
func (e *Examination) weigh(h *holdings) (missing int) {
	for _, u := range e.Survey.Unreadable {
		if u.Key.Kind == store.KindSubject || u.Key.Kind == store.KindTemplate {
			s := h.of(scope.SubjectID(u.Key.ID))
			s.broken = append(s.broken, u.Key)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(h.subjects)) {
		s := h.subjects[id]
		reason, absent := s.judge(id, e.Ref)
		missing += absent
		if reason == "" {
			e.Subjects++
			e.Templates += len(s.templates)
			continue
		}
		loss := Loss{Subject: id, Reason: reason, Left: slices.Clone(s.broken)}
		if s.record != nil {
			loss.Left = append(loss.Left, subjectKey(e.Ref, id))
		}
		for _, n := range slices.Sorted(maps.Keys(s.templates)) {
			loss.Left = append(loss.Left, templateKey(e.Ref, id, n))
		}
		e.Losses = append(e.Losses, loss)
	}
	return missing
}

// judge says what is wrong with a subject, "" when it is whole, and how many of
// its records are known to be missing.
func (s *holding) judge(id scope.SubjectID, ref scope.Ref) (reason string, absent int) {
	broken := func(k store.Key) bool { return slices.Contains(s.broken, k) }
	if s.record == nil {
		if broken(subjectKey(ref, id)) {
			return "its record does not open", 0
		}
		return "its record is missing", 1
	}
	var gone, bad []string
	for _, t := range s.record.Templates {
		good, there := s.templates[t.ID]
		switch {
		case broken(templateKey(ref, id, t.ID)) || there && !good:
			bad = append(bad, fmt.Sprint(t.ID))
		case !there:
			gone = append(gone, fmt.Sprint(t.ID))
		}
	}
	var said []string
	if len(gone) > 0 {
		said = append(said, "templates missing: "+strings.Join(gone, ", "))
	}
	if len(bad) > 0 {
		said = append(said, "templates that do not open: "+strings.Join(bad, ", "))
	}
	if extra := len(s.templates) + len(gone) + len(bad) - len(s.record.Templates); len(said) == 0 && extra > 0 {
		said = append(said, plural(extra, "template")+" that its record does not name")
	}
	return strings.Join(said, "; "), len(gone)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Keep makes what is whole the scope's content: subjects of which something is
// missing are erased, request ids are forgotten, and the count is made to agree.
// The next start serves the scope. It refuses with ErrNotKeepable where nothing
// opens, and where records are there that were erased or replaced before: nothing
// tells them from the others.
func (e *Examination) Keep(ctx context.Context, st *store.Store) error {
	if e.Survey.Sealed {
		return fmt.Errorf("%w: the keyring holds no key of %s, so that none of its records opens; erase it", ErrNotKeepable, e.Ref)
	}
	if e.returned {
		return fmt.Errorf("%w: %s holds records that were erased or replaced before, and nothing tells them from the others; restore the data directory from its copy, or erase the scope",
			ErrNotKeepable, e.Ref)
	}
	drop := slices.Clone(e.requests)
	for _, loss := range e.Losses {
		for _, k := range loss.Left {
			if !slices.ContainsFunc(e.Survey.Unreadable, func(u store.Unreadable) bool { return u.Key == k }) {
				drop = append(drop, k)
			}
		}
	}
	_, err := st.Recount(ctx, e.Survey, drop)
	return err
}

// Erase ends the scope as RevokeScope does: the revocation is made durable and
// the key destroyed, so that no record of the scope opens any more. The next
// start of the server removes the records, searches the files for them and writes
// the receipt.
func (e *Examination) Erase(ctx context.Context, st *store.Store, ring *keyring.Keyring) error {
	now := time.Now().UTC()
	rec := e.record
	rec.State, rec.Updated, rec.Epoch = scope.Revoked, now, max(rec.Epoch, e.Survey.Head.Epoch)+1
	rec.Erasure = &erasureRecord{Subjects: e.Survey.Kinds[store.KindSubject], Templates: e.Survey.Kinds[store.KindTemplate]}
	err := st.Commit(ctx, store.Mutation{Reserve: true, Puts: []store.Record{
		{Key: scopeKey(e.Ref), Value: encode(rec)},
		{Key: revocationKey(e.Ref), Value: encode(revocationRecord{Time: now, By: service(now), Epoch: rec.Epoch})},
	}})
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRevocationNotDurable, e.Ref, err)
	}
	if err := ring.Destroy(e.Ref); err != nil {
		return fmt.Errorf("%w: destroying the key of %s failed: %w; the next start of the server tries again", ErrErasureUnfinished, e.Ref, err)
	}
	return nil
}
