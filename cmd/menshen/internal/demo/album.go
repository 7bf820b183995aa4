package demo

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/menshen-io/menshen/bench/faces"
	"github.com/menshen-io/menshen/models/align"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// album draws pictures of people and keeps those that will be shown again:
// drawing a face takes longer than embedding it. Safe for concurrent use.
type album struct {
	people *faces.Generator
	mu     sync.Mutex
	kept   map[shot]*align.Crop
}

// shot is one picture of a person of the population.
type shot struct{ person, number int }

// The shots: what is enrolled, and what a gate sees.
const (
	enrollmentShot = 0
	gateShot       = 1
)

func newAlbum(seed uint64) *album {
	return &album{people: faces.New(seed), kept: map[shot]*align.Crop{}}
}

// crop returns a picture, which must not be changed.
func (a *album) crop(s shot, keep bool) *align.Crop {
	a.mu.Lock()
	c := a.kept[s]
	a.mu.Unlock()
	if c != nil {
		return c
	}
	c = a.people.Crop(s.person, s.number)
	if keep {
		a.mu.Lock()
		a.kept[s] = c
		a.mu.Unlock()
	}
	return c
}

// portrait is a probe and whom it shows.
type portrait struct {
	person int
	probe  *menshenv1.Probe
}

// portrait makes a probe of a picture: an aligned face crop, raw RGB.
func (a *album) portrait(s shot, keep bool) portrait {
	return portrait{s.person, &menshenv1.Probe{Kind: &menshenv1.Probe_Crop{Crop: &menshenv1.FaceCrop{
		Pixels: &menshenv1.FaceCrop_Rgb{Rgb: a.crop(s, keep).Pix},
	}}}}
}

// portraits makes probes of n people in a row, on all CPUs, and keeps them.
func (a *album) portraits(ctx context.Context, from, n, number int) ([]portrait, error) {
	out := make([]portrait, n)
	err := parallel(ctx, n, func(i int) error {
		out[i] = a.portrait(shot{from + i, number}, true)
		return nil
	})
	return out, err
}

// parallel calls work for 0 to n-1 on all CPUs, until one call fails or ctx is
// done. It returns when no call runs any more.
func parallel(ctx context.Context, n int, work func(i int) error) error {
	var (
		next  atomic.Int64
		once  sync.Once
		first error
		group sync.WaitGroup
	)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := work(i); err != nil {
					once.Do(func() { first = err; stop() })
					return
				}
			}
		})
	}
	group.Wait()
	if first == nil {
		first = ctx.Err()
	}
	return first
}
