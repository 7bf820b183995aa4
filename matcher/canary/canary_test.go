package canary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/auth"
)

// halls makes scopes as a matcher has them, in an index of their own.
func halls(t testing.TB, n, dim int, threshold code.Threshold) []Site {
	t.Helper()
	x := index.New()
	t.Cleanup(x.Close)
	sites := make([]Site, n)
	for i := range sites {
		seed := newSeed()
		rotation, err := code.NewRotation(seed, dim)
		if err != nil {
			t.Fatal(err)
		}
		ref := scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprintf("hall-%d", i))}
		gallery, err := x.Create(ref, dim)
		if err != nil {
			t.Fatal(err)
		}
		sites[i] = Site{Ref: ref, Gallery: gallery, Listed: gallery, Rotation: rotation, Threshold: threshold,
			Seed: shows(seed, nil), Gone: func() bool { return false }}
	}
	return sites
}

// shows is a keyring that holds the seed, or fails.
func shows(seed code.RotationSeed, err error) func(func(*[32]byte) error) error {
	return func(use func(*[32]byte) error) error {
		if err != nil {
			return err
		}
		return use((*[32]byte)(&seed))
	}
}

func newCanary(t testing.TB, dim int, sites []Site) *Canary {
	t.Helper()
	here, there := auth.CanaryGrants()
	c, err := New(Options{Sites: func(limit int) []Site { return sites[:min(limit, len(sites))] },
		Here: here, There: there, Dim: dim, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestQuiet: sound scopes give no alarm, whatever their number, length of codes
// and threshold.
func TestQuiet(t *testing.T) {
	for _, c := range []struct {
		n, dim    int
		threshold code.Threshold
		rounds    int
	}{
		{0, 512, 0.5, 50}, {1, 512, 0.5, 50}, {2, 128, 0.5, 50}, {40, 512, 1, 20}, {40, 512, 0.3, 20}, {300, 128, 0.4, 5}, {60, 128, 0.1, 5}, {3, 96, 0.5, 20},
	} {
		t.Run(fmt.Sprintf("%d scopes of %d values at %v", c.n, c.dim, c.threshold), func(t *testing.T) {
			canary := newCanary(t, c.dim, halls(t, c.n, c.dim, c.threshold))
			for range c.rounds {
				if err := canary.Round(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestOtherLength(t *testing.T) {
	sites := append(halls(t, 1, 128, 0.5), halls(t, 2, 512, 0.5)...)
	c := newCanary(t, 512, sites)
	if err := c.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	sites[1].Rotation = sites[2].Rotation
	if err := c.Round(t.Context()); !errors.Is(err, ErrCrossMatch) && !errors.Is(err, ErrMisplaced) {
		t.Errorf("beside scopes of another length: %v", err)
	}
}

// TestFaults injects what the canary is there for.
func TestFaults(t *testing.T) {
	none := func(context.Context, *index.Index, scope.Grant, index.Query) (index.Result, error) {
		return index.Result{}, nil
	}
	for name, c := range map[string]struct {
		n      int
		inject func(*Canary, []Site)
		want   error
		says   string
	}{
		"a rotation used twice": {20, func(_ *Canary, s []Site) { s[3].Rotation, s[3].Seed = s[11].Rotation, s[11].Seed }, ErrCrossMatch, "hall-3"},
		"one rotation for all": {20, func(_ *Canary, s []Site) {
			for i := range s {
				s[i].Rotation, s[i].Seed = s[0].Rotation, s[0].Seed
			}
		}, ErrCrossMatch, "mean score"},
		"a rotation that is not the key's": {1, func(_ *Canary, s []Site) { s[0].Seed = shows(newSeed(), nil) }, ErrMisplaced, "hall-0"},
		"a key that cannot be read": {1, func(_ *Canary, s []Site) {
			s[0].Seed = shows(code.RotationSeed{}, errors.New("no key"))
		}, ErrDead, "no key"},
		"galleries swapped":              {2, func(_ *Canary, s []Site) { s[0].Gallery, s[1].Gallery = s[1].Gallery, s[0].Gallery }, ErrMisplaced, "hall-1"},
		"galleries swapped in the index": {2, func(_ *Canary, s []Site) { s[0].Listed, s[1].Listed = s[1].Listed, s[0].Listed }, ErrMisplaced, "hall-1"},
		"a gallery that is not searched": {1, func(_ *Canary, s []Site) { s[0].Listed = nil }, ErrMisplaced, "another gallery"},
		"a gallery of another length":    {2, func(_ *Canary, s []Site) { s[0].Rotation, _ = code.NewRotation(newSeed(), 64) }, ErrMisplaced, "64"},
		"a search that finds nobody":     {2, func(c *Canary, _ []Site) { c.identify = none }, ErrDead, "does not find"},
		"a search that fails": {2, func(c *Canary, _ []Site) {
			c.identify = func(context.Context, *index.Index, scope.Grant, index.Query) (index.Result, error) {
				return index.Result{}, errors.New("out of order")
			}
		}, ErrDead, "out of order"},
		"a kernel that scores everybody high": {4, func(c *Canary, _ []Site) {
			c.identify = func(ctx context.Context, x *index.Index, g scope.Grant, q index.Query) (index.Result, error) {
				q.Threshold = -1
				found, err := x.Identify(ctx, g, q)
				for i := range found.Candidates {
					found.Candidates[i].Score = 0.99
				}
				return found, err
			}
		}, ErrDead, "where the codes give"},
		"a search that names strangers": {2, func(c *Canary, _ []Site) {
			c.identify = func(context.Context, *index.Index, scope.Grant, index.Query) (index.Result, error) {
				return index.Result{Candidates: []index.Candidate{{Subject: "anna", Score: 0.9}}}, nil
			}
		}, ErrDead, "not enrolled"},
		"a search of all galleries": {2, func(c *Canary, _ []Site) {
			c.identify = func(ctx context.Context, x *index.Index, _ scope.Grant, q index.Query) (index.Result, error) {
				return x.Identify(ctx, c.opt.Here, q)
			}
		}, ErrCrossMatch, "another one"},
		"a comparison that knows nobody": {2, func(c *Canary, _ []Site) {
			c.verify = func(_ context.Context, _ *index.Index, _ scope.Grant, id scope.SubjectID, _ index.Query) (index.Candidate, bool, error) {
				return index.Candidate{Subject: id, Score: index.NoScore}, false, nil
			}
		}, ErrDead, "comparison"},
		"a comparison that says yes": {2, func(c *Canary, _ []Site) {
			c.verify = func(_ context.Context, _ *index.Index, _ scope.Grant, id scope.SubjectID, _ index.Query) (index.Candidate, bool, error) {
				return index.Candidate{Subject: id, Score: 1}, true, nil
			}
		}, ErrDead, "where the codes give"},
		"grants that open everything": {2, func(c *Canary, _ []Site) { c.opt.There = c.opt.Here }, ErrDead, "exists already"},
	} {
		t.Run(name, func(t *testing.T) {
			sites := halls(t, c.n, 256, 0.5)
			canary := newCanary(t, 256, sites)
			if err := canary.Round(t.Context()); err != nil {
				t.Fatalf("before: %v", err)
			}
			c.inject(canary, sites)
			var err error
			for round := 0; err == nil && round < 50; round++ { // rotations are drawn anew by chance
				err = canary.Round(t.Context())
			}
			var alarm *Alarm
			if !errors.Is(err, c.want) || !errors.As(err, &alarm) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %v with %q", err, c.want, c.says)
			}
		})
	}
}

// TestRevoked: what is odd about a scope that is being revoked is no alarm.
func TestRevoked(t *testing.T) {
	sites := halls(t, 2, 128, 0.5)
	sites[0].Listed = nil
	sites[0].Seed = shows(code.RotationSeed{}, errors.New("destroyed"))
	sites[0].Gone = func() bool { return true }
	c := newCanary(t, 128, sites)
	for range 20 {
		if err := c.Round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRun(t *testing.T) {
	sites := halls(t, 2, 128, 0.5)
	c := newCanary(t, 128, sites)
	var log bytes.Buffer
	c.opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Run(ctx); err != nil || log.Len() > 0 {
		t.Errorf("a sound house, until its context ended: %v, log %q", err, log.String())
	}
	sites[0].Rotation, sites[0].Seed = sites[1].Rotation, sites[1].Seed
	if err := c.Run(t.Context()); !errors.Is(err, ErrCrossMatch) {
		t.Errorf("with a fault: %v", err)
	}
	for _, word := range []string{"ALARM", "take this server out of service", "fair/scopes/hall-0", "fair/scopes/hall-1"} {
		if !strings.Contains(log.String(), word) {
			t.Errorf("the alarm does not say %q: %s", word, log.String())
		}
	}
}

// BenchmarkRound is the cost of a round; pauses make it a thousandth of a core.
func BenchmarkRound(b *testing.B) {
	for _, n := range []int{0, 100, maxSites} {
		b.Run(fmt.Sprintf("scopes=%d", n), func(b *testing.B) {
			c := newCanary(b, 512, halls(b, n, 512, 0.4))
			b.ReportAllocs()
			for b.Loop() {
				if err := c.Round(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
