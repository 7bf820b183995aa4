package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// history is what a gallery was after each change, by epoch.
type history struct {
	mu     sync.Mutex
	models map[scope.Epoch]*model
	acked  atomic.Uint64 // the epoch of the last Apply that has returned
}

// want is what a search that saw an epoch must give.
func (h *history) want(g *Gallery, epoch scope.Epoch, q Query) Result {
	h.mu.Lock()
	m := h.models[epoch]
	h.mu.Unlock()
	if m == nil {
		return Result{}
	}
	return m.identifyIn(g, q)
}

// TestStress changes and drops galleries of an index from one side and searches
// them from all others: one by one, in batches, with deadlines, verifications
// between. Each result must be, to the last bit, what the simple model gives for
// the epoch that it names; that must not lie before the last change that was
// acknowledged before the search; and nothing is found once Drop has returned.
// Shards are emptied a few rows at a time meanwhile, and in the last round the
// index is closed halfway. MENSHEN_STRESS=50 makes fifty times as many rounds.
func TestStress(t *testing.T) {
	const dim, people = 64, 240
	rounds, changes := 4, 250
	if raced {
		rounds, changes = 2, 120
	}
	if more, err := strconv.Atoi(os.Getenv("MENSHEN_STRESS")); err == nil {
		rounds *= more
	}
	seed := rand.Uint64() // what is asserted is exact
	t.Logf("seed %d", seed)
	rot := rotation(t, 1, dim)
	r := rand.New(rand.NewPCG(seed, 1))
	faces := make([]code.Code, 40) // fewer than people: ties
	for i := range faces {
		faces[i] = encode(t, rot, gaussian(r, dim))
	}
	x := New(Options{Workers: 3})
	defer x.Close()
	for round := range rounds {
		ref := scope.Ref{Tenant: "hall", Scope: scope.ScopeID(fmt.Sprintf("day-%d", round))}
		g := NewGallery(ref, dim)
		g.shardRows, g.filterRows, g.small, g.stepRows = 32, 16, 10, 1+3*(round%3)
		h := &history{models: map[scope.Epoch]*model{0: newModel()}}
		if err := x.Add(g); err != nil {
			t.Fatal(err)
		}
		var stop, gone atomic.Bool
		var searches, late atomic.Int64
		var wg sync.WaitGroup
		for caller := range 6 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(100*round+caller+2)))
				query := func() Query {
					return Query{
						Code: faces[r.IntN(len(faces))], K: 1 + r.IntN(8), WantBest: r.IntN(3) == 0,
						Threshold: []code.Threshold{0.9, 0.6, 0.3, -1}[r.IntN(4)], Now: epochStart.Add(time.Duration(r.IntN(4)) * time.Hour),
					}
				}
				judge := func(before uint64, q Query, got Result) {
					if uint64(got.Epoch) < before {
						t.Errorf("a search begun after epoch %d saw epoch %d", before, got.Epoch)
					}
					if want := h.want(g, got.Epoch, q); !sameResult(got, want) {
						t.Errorf("epoch %d, k %d, threshold %v:\n got %+v\nwant %+v", got.Epoch, q.K, q.Threshold, got, want)
					}
					searches.Add(1)
				}
				for !stop.Load() && !t.Failed() {
					ended, before := gone.Load(), h.acked.Load()
					ctx, cancel := context.Background(), func() {}
					var err error
					switch r.IntN(9) {
					case 0:
						var queries []Query
						for range 1 + r.IntN(24) {
							queries = append(queries, query())
						}
						var all []Result
						if all, err = x.IdentifyAll(ctx, grantFor(ref), queries); err == nil {
							for i := range all {
								judge(before, queries[i], all[i])
							}
						}
					case 1:
						id := subjectID(r.IntN(people))
						q := query()
						var best Candidate
						var found bool
						var epoch scope.Epoch
						if best, found, epoch, err = x.Verify(ctx, grantFor(ref), id, q); err == nil {
							h.mu.Lock()
							s := h.models[epoch].subjects[id]
							h.mu.Unlock()
							if live := s != nil && s.live(q.Now); found != live || live && best != s.best(id, q.Code) || uint64(epoch) < before {
								t.Errorf("epoch %d: verification of %s: %+v, %v", epoch, id, best, found)
							}
						}
					case 8:
						id, template, now := subjectID(r.IntN(people)), scope.TemplateID(r.IntN(4)), epochStart.Add(time.Duration(r.IntN(4))*time.Hour)
						first := g.Epoch()
						has := g.Contains(id, template, now)
						if last := g.Epoch(); g.Dropped() {
							if err = ErrDropped; ended && has {
								t.Errorf("%s is there after Drop", id)
							}
						} else if first == last { // then it was that of the answer
							h.mu.Lock()
							s := h.models[first].subjects[id]
							h.mu.Unlock()
							want := s != nil && s.live(now)
							if want && template > 0 {
								_, want = s.templates[template]
							}
							if has != want || uint64(first) < before {
								t.Errorf("epoch %d: template %d of %s there: %v, want %v", first, template, id, has, want)
							}
						}
					case 2:
						ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(300))*time.Microsecond)
						fallthrough
					default:
						q := query()
						var got Result
						if got, err = x.Identify(ctx, grantFor(ref), q); err == nil {
							judge(before, q, got)
						}
					}
					cancel()
					switch {
					case err == nil && ended:
						t.Error("begun after Drop had returned, and no error")
					case errors.Is(err, context.DeadlineExceeded) && ctx != context.Background():
						late.Add(1)
					case err != nil && !errors.Is(err, ErrDropped) && !errors.Is(err, ErrNoGallery):
						t.Error(err)
					case err != nil && ended:
						return
					}
				}
			})
		}
		m := newModel()
		for i := range changes {
			if i == changes/2 && round == rounds-1 {
				x.Close()
			}
			epoch := m.epoch + 1
			var batch []Change
			for range 1 + r.IntN(3) {
				c := Change{Epoch: epoch}
				removes := r.IntN(12)
				if i%25 == 24 {
					removes = people
				}
				for range removes {
					c.Removes = append(c.Removes, Remove{subjectID(r.IntN(people)), scope.TemplateID(r.IntN(3))})
				}
				for range r.IntN(16) {
					in := Insert{Subject: subjectID(r.IntN(people)), Template: scope.TemplateID(1 + r.IntN(3)), Code: faces[r.IntN(len(faces))]}
					if r.IntN(3) == 0 {
						in.NotAfter = epochStart.Add(time.Duration(1+r.IntN(3)) * time.Hour)
					}
					c.Removes = append(c.Removes, Remove{in.Subject, in.Template})
					c.Inserts = append(c.Inserts, in)
				}
				if next := m.apply([]Change{c}); next != nil { // not twice the same template
					m, batch = next, append(batch, c)
				}
			}
			if len(batch) == 0 {
				continue
			}
			// Known before it can be seen.
			h.mu.Lock()
			h.models[epoch] = m
			h.mu.Unlock()
			if err := g.Apply(batch...); err != nil {
				t.Fatal(err)
			}
			h.acked.Store(uint64(epoch))
			// Where there is one processor, all changes could be made in one turn.
			for i%25 == 24 && searches.Load() < int64(i) && !t.Failed() {
				runtime.Gosched()
			}
		}
		if err := g.Check(); err != nil {
			t.Error(err)
		}
		shards := g.current.Load().shards
		time.Sleep(5 * time.Millisecond)
		if !x.Drop(ref) {
			t.Error("the gallery was not there to drop")
		}
		gone.Store(true)
		for _, v := range shards {
			if v.shard != nil && !v.wiped(0, v.capacity()) {
				t.Error("codes are left after Drop")
			}
		}
		wg.Wait()
		stop.Store(true)
		t.Logf("%d searches met %d changes and a drop; %d came too late for their deadline", searches.Load(), m.epoch, late.Load())
		if searches.Load() < 100 {
			t.Errorf("%d searches are too few to show anything", searches.Load())
		}
	}
	noGoroutines(t)
}
