package matcher

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/auth"
	"github.com/menshen-io/menshen/matcher/canary"
)

// watched is a world with two halls and the canary that watches it.
func watched(t *testing.T) (*world, *canary.Canary, []scope.Ref) {
	w := newWorld(t)
	refs := []scope.Ref{hallA, {Tenant: "gym", Scope: "north"}}
	for _, ref := range refs {
		w.create(ref)
		w.enroll(ref, "anna", vectorOf(1, 0))
	}
	here, there := auth.CanaryGrants()
	c, err := canary.New(canary.Options{Sites: w.CanarySites, Here: here, There: there, Dim: testDim, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	return w, c, refs
}

// TestCanaryInAHouse lets the canary look at a real house: no alarm, through
// enrolments and a revocation, and nothing of it to be seen.
func TestCanaryInAHouse(t *testing.T) {
	w, c, refs := watched(t)
	ctx := context.Background()
	before := w.store.Stats().Mutations
	for range 20 {
		must(t, c.Round(ctx))
	}
	if s, err := w.Scope(ctx, grant(hallA)); err != nil || s.Subjects != 1 || s.Templates != 1 {
		t.Errorf("the canary is counted: %d subjects, %d templates, %v", s.Subjects, s.Templates, err)
	}
	if after := w.store.Stats().Mutations; after != before {
		t.Errorf("the canary stored something: %d mutations", after-before)
	}
	if n := len(w.CanarySites(1)); n != 1 {
		t.Errorf("%d sites, want 1", n)
	}
	rounds := make(chan error)
	go func() {
		for range 200 {
			if err := c.Round(ctx); err != nil {
				rounds <- err
				return
			}
		}
		rounds <- nil
	}()
	if _, err := w.RevokeScope(ctx, grant(refs[1]), request()); err != nil {
		t.Error(err)
	}
	must(t, <-rounds)
	if n := len(w.CanarySites(10)); n != 1 {
		t.Errorf("%d sites after a revocation, want 1", n)
	}
}

// TestCanaryDies injects faults into the house.
func TestCanaryDies(t *testing.T) {
	for name, c := range map[string]struct {
		inject func(a, b *scopeEntry)
		want   []error
	}{
		"one rotation for two scopes": {func(a, b *scopeEntry) { a.rotation = b.rotation }, []error{canary.ErrCrossMatch, canary.ErrMisplaced}},
		"galleries swapped":           {func(a, b *scopeEntry) { a.gallery, b.gallery = b.gallery, a.gallery }, []error{canary.ErrMisplaced}},
		"rotations swapped":           {func(a, b *scopeEntry) { a.rotation, b.rotation = b.rotation, a.rotation }, []error{canary.ErrMisplaced}},
	} {
		t.Run(name, func(t *testing.T) {
			w, watch, refs := watched(t)
			a, err := w.entry(refs[0])
			must(t, err)
			b, err := w.entry(refs[1])
			must(t, err)
			c.inject(a, b)
			for round := 0; err == nil && round < 50; round++ {
				err = watch.Round(context.Background())
			}
			found := false
			for _, want := range c.want {
				found = found || errors.Is(err, want)
			}
			if !found {
				t.Errorf("%v; want one of %v", err, c.want)
			}
		})
	}
}
