// Package canary checks all the time that scopes do not match each other.
//
// In every round it draws a synthetic face and encodes it under the rotations
// of all scopes, or of some hundreds drawn by chance, and of two that nobody
// else has. The codes go into a hidden gallery in memory. The same face, a little
// changed, is then probed once for each scope, by the search and the comparison
// that answer gates: it must find the code of that scope and no other, and
// nothing in a second gallery that does not hold it. A few rotations a round
// are drawn anew from the keyring and compared with those in use, and every
// scope's gallery is asked whose it is.
//
// Noticed is: two scopes with the same rotation, or with rotations that are not
// independent; a rotation that is not its scope's; a gallery that stands in
// another scope's place; a search or a comparison that finds what it must not,
// or no longer finds what it must; a grant that opens a gallery which it does
// not name.
//
// Not noticed is what concerns single templates: the canary looks at no real
// template and searches no real gallery, since a search across scopes is what
// this service does not do. A template that was stored in the wrong scope is
// not its business: it does not open there, and would match nobody.
//
// It stores nothing, counts as nobody and stands in no answer. A round takes a
// few milliseconds for a hundred scopes and is followed by a thousand times as
// long a pause, so that the cost is bounded by a thousandth of a core.
package canary

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// What a canary dies of. An *Alarm wraps one of them.
var (
	// ErrCrossMatch: what was encoded for one scope matches in another.
	ErrCrossMatch = errors.New("a synthetic face of one scope matches in another")
	// ErrDead: the search or the comparison does not find what it must, or
	// reports what is not so; or the check could not be carried out.
	ErrDead = errors.New("the search is broken")
	// ErrMisplaced: a scope uses a gallery or a rotation that is not its own.
	ErrMisplaced = errors.New("a scope uses what is not its own")
)

// Alarm says what was found.
type Alarm struct {
	Err error     // one of the errors above
	Ref scope.Ref // the scope; zero where it is one of the canary's own
	// Other is the second scope of a cross match.
	Other  scope.Ref
	Detail string
}

func (a *Alarm) Error() string { return fmt.Sprintf("%v: %s", a.Err, a.Detail) }

// Unwrap makes errors.Is see the kind.
func (a *Alarm) Unwrap() error { return a.Err }

// Site is what the canary sees of a scope.
type Site struct {
	Ref scope.Ref
	// Gallery is the one that the scope holds, Listed the one that the index
	// gives for Ref.
	Gallery, Listed *index.Gallery
	Rotation        *code.Rotation
	// Threshold is the lowest score that is a match in the scope.
	Threshold code.Threshold
	// Seed shows use what Rotation is to be drawn from, out of the keyring.
	Seed func(use func(seed *[32]byte) error) error
	// Gone reports whether the scope was revoked since; what is odd about it
	// is then no alarm.
	Gone func() bool
}

// Options wire a Canary. All are required.
type Options struct {
	// Sites gives at most so many scopes, drawn by chance where there are more.
	Sites func(limit int) []Site
	// Here and There are grants for two hidden galleries: matcher/auth mints
	// them, for names that no scope has.
	Here, There scope.Grant
	// Dim is the length of a code for the canary's own scopes.
	Dim    int
	Logger *slog.Logger
}

const (
	// maxSites bounds a round: 14 ms for 512 scopes of 512 values, 2.3 ms for
	// 100, 25 ms for 1,000. With more scopes than that every pair meets in time:
	// of 10,000, about every hour.
	maxSites = 512
	// reseeds is how many rotations a round draws anew.
	reseeds = 4
	// share is the part of a core that the canary may take: one in so many.
	share = 1000
	// ownThreshold is that of the canary's own scopes.
	ownThreshold code.Threshold = 0.5
	// leastPause and mostPause stand between two rounds.
	leastPause = time.Second
	mostPause  = time.Minute
)

// Canary is the check. It is for one goroutine.
type Canary struct {
	opt  Options
	dice *rand.Rand
	own  map[int][]Site // two of each length, so that a pair is there without any scope

	// What answers gates; tests put broken ones here.
	identify func(context.Context, *index.Index, scope.Grant, index.Query) (index.Result, error)
	verify   func(context.Context, *index.Index, scope.Grant, scope.SubjectID, index.Query) (index.Candidate, bool, error)
}

// New makes a canary with two secret rotations of its own.
func New(opt Options) (*Canary, error) {
	c := &Canary{opt: opt, dice: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), own: make(map[int][]Site)}
	c.identify = func(ctx context.Context, x *index.Index, g scope.Grant, q index.Query) (index.Result, error) {
		return x.Identify(ctx, g, q)
	}
	c.verify = func(ctx context.Context, x *index.Index, g scope.Grant, id scope.SubjectID, q index.Query) (index.Candidate, bool, error) {
		best, found, _, err := x.Verify(ctx, g, id, q)
		return best, found, err
	}
	if _, err := c.pair(opt.Dim); err != nil {
		return nil, fmt.Errorf("isolation canary: %w", err)
	}
	return c, nil
}

// pair gives the canary's own scopes with codes of that length.
func (c *Canary) pair(dim int) ([]Site, error) {
	if c.own[dim] == nil {
		for range 2 {
			rotation, err := code.NewRotation(newSeed(), dim)
			if err != nil {
				return nil, err
			}
			c.own[dim] = append(c.own[dim], Site{Rotation: rotation, Threshold: ownThreshold})
		}
	}
	return c.own[dim], nil
}

// Run makes a round after the other until ctx ends (nil) or one fails (the
// *Alarm, which it has logged).
func (c *Canary) Run(ctx context.Context) error {
	for {
		began := time.Now()
		err := c.Round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			c.opt.Logger.Error("ALARM: the isolation canary has died: take this server out of service and keep its log; "+
				"restart it; if the alarm comes again, suspend the scopes that it names and report it as a fault",
				"error", err.Error())
			return err
		}
		pause := min(max(share*time.Since(began), leastPause), mostPause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// Round makes one round: nil, an *Alarm, or the error of ctx.
func (c *Canary) Round(ctx context.Context) error {
	byDim := map[int][]Site{c.opt.Dim: nil}
	for _, s := range c.opt.Sites(maxSites) {
		if err := s.own(); err != nil {
			return err
		}
		dim := s.Rotation.Dim()
		byDim[dim] = append(byDim[dim], s)
	}
	for dim, sites := range byDim {
		err := c.muster(ctx, dim, sites)
		var alarm *Alarm
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !errors.As(err, &alarm):
			return &Alarm{Err: ErrDead, Detail: err.Error()}
		case err != nil:
			return err
		}
	}
	return nil
}

// own asks whose the scope's gallery is.
func (s *Site) own() error {
	say := ""
	switch {
	case s.Gallery.Ref() != s.Ref:
		say = "holds the gallery of " + s.Gallery.Ref().String()
	case s.Listed != nil && s.Listed.Ref() != s.Ref:
		say = "is led to the gallery of " + s.Listed.Ref().String()
	case s.Listed != s.Gallery:
		say = "holds another gallery than the one that is searched"
	case s.Gallery.Dim() != s.Rotation.Dim():
		say = fmt.Sprintf("has a gallery of %d values and a rotation of %d", s.Gallery.Dim(), s.Rotation.Dim())
	}
	if say == "" || s.Gone() {
		return nil
	}
	return &Alarm{Err: ErrMisplaced, Ref: s.Ref, Detail: s.Ref.String() + " " + say}
}
