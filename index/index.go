package index

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// Errors of the set of galleries.
var (
	// ErrExists: the scope has a gallery already.
	ErrExists = errors.New("gallery exists already")
	// ErrNoGallery: the scope has no gallery here.
	ErrNoGallery = errors.New("no such gallery")
)

// Index is the galleries of all scopes. It can name and hold them, but it
// offers no search over more than the one gallery of the grant. It is safe for
// concurrent use.
type Index struct {
	mu        sync.RWMutex
	galleries map[scope.Ref]*Gallery
	crew      *crew
}

// Options are the settings of an Index.
type Options struct {
	// Workers is how many goroutines search; 0 is one for each processor that Go
	// may use. They start with the first search of a gallery that is not small.
	Workers int
}

// New makes an empty index, with the first of options or the defaults.
func New(options ...Options) *Index {
	var o Options
	if len(options) > 0 {
		o = options[0]
	}
	if o.Workers < 1 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	return &Index{galleries: make(map[scope.Ref]*Gallery), crew: newCrew(o.Workers)}
}

// Close ends the workers when they have finished what they have begun, and the
// compactor at once. The galleries stay; callers then search by themselves, and
// changes reclaim rows by themselves. An index that is forgotten with all its
// galleries is closed some time later.
func (x *Index) Close() {
	x.crew.compactor.close()
	x.crew.close()
}

// Create adds an empty gallery for codes of dim values. It wraps ErrExists,
// scope.ErrBadID or code.ErrDimension.
func (x *Index) Create(ref scope.Ref, dim int) (*Gallery, error) {
	g := NewGallery(ref, dim)
	if err := x.Add(g); err != nil {
		return nil, err
	}
	return g, nil
}

// Add makes a gallery searchable that was filled before, so that no search sees
// a part of it. It wraps ErrExists, scope.ErrBadID, code.ErrDimension or
// ErrDropped.
func (x *Index) Add(g *Gallery) error {
	if err := g.ref.Validate(); err != nil {
		return err
	}
	if err := code.CheckDim(g.dim); err != nil {
		return fmt.Errorf("gallery of %s: %w", g.ref, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if g.Dropped() {
		return g.droppedError()
	}
	if x.galleries[g.ref] != nil {
		return fmt.Errorf("%w: %s", ErrExists, g.ref)
	}
	x.galleries[g.ref] = g
	if old := g.crew.Load(); old == nil || old.workers == 0 {
		g.crew.Store(x.crew)
	}
	return nil
}

// Gallery returns the gallery of one scope.
func (x *Index) Gallery(ref scope.Ref) (*Gallery, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	g, ok := x.galleries[ref]
	return g, ok
}

// Drop destroys the gallery of a scope as Gallery.Drop does, takes it out of
// the index and reports whether there was one. When two calls meet, both return
// after the gallery is destroyed.
func (x *Index) Drop(ref scope.Ref) bool {
	g, ok := x.Gallery(ref)
	if !ok {
		return false
	}
	g.Drop() // before it is taken out: who finds none may rely on its being gone
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.galleries[ref] == g {
		delete(x.galleries, ref)
	}
	return true
}

// Each calls fn for the galleries there are when it begins, in the order of
// their references, until fn returns false. fn may change the index.
func (x *Index) Each(fn func(*Gallery) bool) {
	x.mu.RLock()
	all := slices.Collect(maps.Values(x.galleries))
	x.mu.RUnlock()
	slices.SortFunc(all, func(a, b *Gallery) int { return strings.Compare(a.ref.String(), b.ref.String()) })
	for _, g := range all {
		if !fn(g) {
			return
		}
	}
}

// Identify searches the gallery of the grant's scope and no other. Errors are
// those of Gallery.Identify, and ErrNoGallery.
func (x *Index) Identify(ctx context.Context, grant scope.Grant, q Query) (Result, error) {
	g, err := x.granted(grant, scope.UseIdentify)
	if err != nil {
		return Result{}, err
	}
	return g.Identify(ctx, grant, q)
}

// IdentifyInto is Identify as Gallery.IdentifyInto does it.
func (x *Index) IdentifyInto(ctx context.Context, grant scope.Grant, q Query, buf []Candidate) (Result, error) {
	g, err := x.granted(grant, scope.UseIdentify)
	if err != nil {
		return Result{}, err
	}
	return g.IdentifyInto(ctx, grant, q, buf)
}

// IdentifyAll searches for many probes at once in the gallery of the grant's
// scope. Errors are those of Gallery.IdentifyAll, and ErrNoGallery.
func (x *Index) IdentifyAll(ctx context.Context, grant scope.Grant, queries []Query) ([]Result, error) {
	g, err := x.granted(grant, scope.UseIdentify)
	if err != nil {
		return nil, err
	}
	return g.IdentifyAll(ctx, grant, queries)
}

// Verify compares with one subject in the gallery of the grant's scope. Errors
// are those of Gallery.Verify, and ErrNoGallery.
func (x *Index) Verify(ctx context.Context, grant scope.Grant, id scope.SubjectID, q Query) (best Candidate, found bool, epoch scope.Epoch, err error) {
	g, err := x.granted(grant, scope.UseVerify)
	if err != nil {
		return Candidate{Subject: id, Score: NoScore}, false, 0, err
	}
	return g.Verify(ctx, grant, id, q)
}

// granted finds the one gallery that the grant speaks of. Who holds no grant
// for the use is not told whether there is a gallery.
func (x *Index) granted(grant scope.Grant, use scope.Use) (*Gallery, error) {
	if err := grant.Check(grant.Ref(), use); err != nil {
		return nil, err
	}
	g, ok := x.Gallery(grant.Ref())
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNoGallery, grant.Ref())
	}
	return g, nil
}
