package matcher

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
)

// loadBatch is how many templates are put into a gallery at once while loading.
const loadBatch = 4096

// load brings every scope into memory, several at a time.
func (m *Matcher) load(ctx context.Context) error {
	records, err := m.store.List(store.Key{Kind: store.KindScope}, "", 0)
	if err != nil {
		return err
	}
	began := time.Now()
	var (
		wg    sync.WaitGroup
		slots = make(chan struct{}, runtime.GOMAXPROCS(0))
		errs  = make([]error, len(records))
	)
	for i, r := range records {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = m.loadScope(ctx, r)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	templates := 0
	for _, sc := range m.scopes {
		if sc.gallery != nil {
			templates += sc.gallery.Templates()
		}
	}
	m.log.Info("scopes loaded", "scopes", len(m.scopes), "templates", templates, "took", time.Since(began).Round(time.Millisecond))
	return ctx.Err()
}

// loadScope brings one scope into memory. A scope whose records are damaged is
// kept, refused and logged; an interrupted revocation is finished.
func (m *Matcher) loadScope(ctx context.Context, r store.Record) error {
	ref := r.Key.Ref
	rec, err := decodeRecord[scopeRecord](r.Value)
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	revoked, err := m.isRevoked(ref)
	if err != nil {
		return err
	}
	if revoked || rec.State == scope.Revoked {
		return m.loadRevoked(ctx, ref, rec)
	}
	if r, ok := m.journal.of(ref); ok {
		return m.loadJournaled(ctx, ref, rec, r)
	}
	sc, err := m.newEntry(ref, rec)
	if err == nil {
		err = m.fill(ctx, sc)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		m.log.Error("scope refused: its records are damaged; stop the server and look at it with: menshen scopes repair "+ref.String(),
			"scope", ref.String(), "error", err.Error())
		sc = bareEntry(ref, rec)
		sc.damage = err
		if left, err := m.store.Survey(ref, nil); err == nil {
			sc.left = erasureRecord{Subjects: left.Kinds[store.KindSubject], Templates: left.Kinds[store.KindTemplate]}
		}
	}
	m.mu.Lock()
	m.scopes[ref] = sc
	m.mu.Unlock()
	return nil
}

// isRevoked asks for the permanent record, which counts more than the scope's
// own state: an older copy of the scope may have come back with a restore.
func (m *Matcher) isRevoked(ref scope.Ref) (bool, error) {
	_, err := m.store.Get(revocationKey(ref))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// loadRevoked keeps what is known of a revoked scope and finishes its erasure
// where a crash interrupted it.
func (m *Matcher) loadRevoked(ctx context.Context, ref scope.Ref, rec scopeRecord) error {
	revocation, err := m.revocationOf(ctx, ref, rec)
	if err != nil {
		return err
	}
	if rec.Erasure == nil {
		rec.Erasure = &erasureRecord{}
	}
	rec.State, rec.Epoch = scope.Revoked, max(rec.Epoch, revocation.Epoch)
	if err := m.journal.free(ref); err != nil {
		m.log.Warn("a slot of the journal is not free yet", "scope", ref.String(), "error", err.Error())
	}
	sc := bareEntry(ref, rec)
	info := *sc.info.Load()
	info.revoked, info.ended = revocation.Time, revocation.Epoch
	sc.info.Store(&info)
	m.mu.Lock()
	m.scopes[ref] = sc
	m.mu.Unlock()
	if rec.Erasure.Done {
		return nil
	}
	m.log.Warn("finishing an interrupted revocation", "scope", ref.String())
	if err := m.destroy(ctx, sc); err != nil {
		// The scope matches nothing, and the maintenance tries again: no reason
		// to keep the others from being served.
		m.log.Error("the revocation is not finished; it is tried again every minute", "scope", ref.String(), "error", err.Error())
	}
	return nil
}

// loadJournaled keeps the fence of a revocation that stands in the journal
// only, and makes it durable in the store if that can write by now.
func (m *Matcher) loadJournaled(ctx context.Context, ref scope.Ref, rec scopeRecord, r revocationRecord) error {
	m.log.Warn("a revocation that the journal kept is carried out", "scope", ref.String())
	sc := bareEntry(ref, rec)
	sc.epoch.Store(uint64(max(rec.Epoch, r.Epoch)))
	info := *sc.info.Load()
	info.state, info.revoked, info.ended = scope.Revoked, r.Time, r.Epoch
	sc.info.Store(&info)
	m.mu.Lock()
	m.scopes[ref] = sc
	m.mu.Unlock()
	if err := m.finishRevocation(ctx, sc); err != nil {
		m.log.Error("the revocation is not finished; it is tried again every minute", "scope", ref.String(), "error", err.Error())
	}
	return nil
}

// revocationOf reads the permanent record of a revoked scope, and writes it
// where the scope alone says that it is revoked.
func (m *Matcher) revocationOf(ctx context.Context, ref scope.Ref, rec scopeRecord) (revocationRecord, error) {
	b, err := m.store.Get(revocationKey(ref))
	if errors.Is(err, store.ErrNotFound) {
		r := revocationRecord{Time: rec.Updated, Epoch: rec.Epoch, By: service(rec.Updated)}
		return r, m.store.Commit(ctx, store.Mutation{Puts: []store.Record{{Key: revocationKey(ref), Value: encode(r)}}, Reserve: true})
	}
	if err != nil {
		return revocationRecord{}, fmt.Errorf("the revocation of %s: %w", ref, err)
	}
	return decodeRecord[revocationRecord](b)
}

// fill reads a scope's subjects and templates into a new gallery and makes it
// searchable. The store has verified that no record is missing or altered; fill
// verifies that subjects and templates name each other.
func (m *Matcher) fill(ctx context.Context, sc *scopeEntry) error {
	f := &filler{gallery: index.NewGallery(sc.ref, sc.dim), dim: sc.dim, expires: make(map[scope.SubjectID]expected)}
	head, err := m.store.Load(sc.ref, func(r store.Record) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return f.add(r)
	})
	if err == nil {
		err = f.finish(head.Epoch)
	}
	if err != nil {
		f.gallery.Drop()
		return err
	}
	for _, note := range f.notes {
		if err := m.store.Await(note.keys(sc.ref)); err != nil {
			return err
		}
		note.fenced = m.now().UTC() // before: it stood before the crash, and so much can be vouched for
		m.purging.add(sc.ref, note)
	}
	sc.epoch.Store(max(sc.epoch.Load(), uint64(head.Epoch)))
	sc.gallery = f.gallery
	m.filing.count(sc)
	return m.index.Add(f.gallery)
}

// filler puts records into a gallery, in the store's order: all subjects come
// before the first template.
type filler struct {
	gallery *index.Gallery
	dim     int
	expires map[scope.SubjectID]expected
	batch   []index.Insert
	notes   []erasureNote // erasures whose bytes are still to be removed
}

// expected is what a subject's record says is there.
type expected struct {
	at        time.Time
	templates []templateEntry
}

func (f *filler) add(r store.Record) error {
	switch r.Key.Kind {
	case store.KindSubject:
		rec, err := decodeRecord[subjectRecord](r.Value)
		if err != nil {
			return err
		}
		f.expires[scope.SubjectID(r.Key.ID)] = expected{at: rec.Expires, templates: rec.Templates}
	case store.KindErasure:
		note, err := decodeRecord[erasureNote](r.Value)
		if err != nil {
			return err
		}
		f.notes = append(f.notes, note)
	case store.KindTemplate:
		subject := scope.SubjectID(r.Key.ID)
		want, ok := f.expires[subject]
		if !ok || len(want.templates) == 0 || want.templates[0].ID != r.Key.Template {
			return fmt.Errorf("%w: a template does not belong to its subject", ErrScopeDamaged)
		}
		c, err := code.ParseCode(r.Value, f.dim)
		clear(r.Value)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrScopeDamaged, err)
		}
		f.batch = append(f.batch, index.Insert{Subject: subject, Template: r.Key.Template, Code: c, NotAfter: want.at})
		if want.templates = want.templates[1:]; len(want.templates) == 0 {
			delete(f.expires, subject)
		} else {
			f.expires[subject] = want
		}
		if len(f.batch) == loadBatch {
			return f.flush(0)
		}
	}
	return nil
}

func (f *filler) flush(epoch scope.Epoch) error {
	err := f.gallery.Apply(index.Change{Epoch: epoch, Inserts: f.batch})
	for _, in := range f.batch {
		clear(in.Code.Q) // the gallery has its own copy, and overwrites it at the end
	}
	f.batch = f.batch[:0]
	return err
}

func (f *filler) finish(epoch scope.Epoch) error {
	if n := len(f.expires); n > 0 {
		return fmt.Errorf("%w: %d subjects miss templates", ErrScopeDamaged, n)
	}
	return f.flush(epoch)
}
