package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sort"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// epochStart is a time that tests count from.
var epochStart = time.Date(2026, 5, 1, 9, 0, 0, 0, time.UTC)

const allUses = scope.UseVerify | scope.UseIdentify

// grantFor mints a grant to search ref.
func grantFor(ref scope.Ref) scope.Grant { return scope.Mint(ref, allUses, "cred-test") }

// checked returns a gallery that is checked when the test ends.
func checked(t testing.TB, ref scope.Ref, dim int) *Gallery {
	g := NewGallery(ref, dim)
	t.Cleanup(func() {
		if err := g.Check(); err != nil {
			t.Errorf("at the end of the test: %v", err)
		}
	})
	return g
}

// gaussian draws an embedding of random direction.
func gaussian(r *rand.Rand, dim int) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

func rotation(t testing.TB, seed byte, dim int) *code.Rotation {
	t.Helper()
	rot, err := code.NewRotation(code.RotationSeed{seed}, dim)
	if err != nil {
		t.Fatal(err)
	}
	return rot
}

func encode(t testing.TB, rot *code.Rotation, embedding []float32) code.Code {
	t.Helper()
	c, err := code.Encode(rot, embedding)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// model is the gallery as plainly as it can be said.
type model struct {
	epoch    scope.Epoch
	subjects map[scope.SubjectID]*modelSubject
}

type modelSubject struct {
	notAfter  time.Time
	templates map[scope.TemplateID]code.Code
}

func newModel() *model { return &model{subjects: make(map[scope.SubjectID]*modelSubject)} }

func (m *model) clone() *model {
	out := newModel()
	out.epoch = m.epoch
	for id, s := range m.subjects {
		c := &modelSubject{notAfter: s.notAfter, templates: make(map[scope.TemplateID]code.Code)}
		for n, t := range s.templates {
			c.templates[n] = t
		}
		out.subjects[id] = c
	}
	return out
}

// apply returns the model after the changes, or nil when one is not possible.
func (m *model) apply(changes []Change) *model {
	out := m.clone()
	for _, c := range changes {
		if c.Epoch < out.epoch {
			return nil
		}
		out.epoch = c.Epoch
		for _, r := range c.Removes {
			s := out.subjects[r.Subject]
			if s == nil {
				continue
			}
			delete(s.templates, r.Template)
			if r.Template == 0 || len(s.templates) == 0 {
				delete(out.subjects, r.Subject)
			}
		}
		for _, in := range c.Inserts {
			s := out.subjects[in.Subject]
			if s == nil {
				s = &modelSubject{templates: make(map[scope.TemplateID]code.Code)}
				out.subjects[in.Subject] = s
			}
			if _, ok := s.templates[in.Template]; ok {
				return nil
			}
			s.notAfter = in.NotAfter
			s.templates[in.Template] = in.Code
		}
	}
	return out
}

func (s *modelSubject) live(now time.Time) bool {
	return s.notAfter.IsZero() || now.Before(s.notAfter)
}

func (m *model) templates() int {
	n := 0
	for _, s := range m.subjects {
		n += len(s.templates)
	}
	return n
}

// best gives the subject's best template for a probe.
func (s *modelSubject) best(id scope.SubjectID, probe code.Code) Candidate {
	best := Candidate{Subject: id, Score: NoScore}
	for n, t := range s.templates {
		score, err := code.Similarity(probe, t)
		if err != nil {
			panic(err)
		}
		if score > best.Score || score == best.Score && n < best.Template {
			best.Template, best.Score = n, score
		}
	}
	return best
}

// identifyIn is what a gallery answers: it knows no best score below the
// threshold where it need not compare all.
func (m *model) identifyIn(g *Gallery, q Query) Result {
	r := m.identify(q)
	if !q.WantBest && m.templates() > g.small && float64(r.Best) < float64(q.Threshold) {
		r.Best = NoScore
	}
	return r
}

// identify compares with everything, sorts everything, cuts last.
func (m *model) identify(q Query) Result {
	r := Result{Best: NoScore, Epoch: m.epoch, Scanned: m.templates()}
	for id, s := range m.subjects {
		if !s.live(q.Now) {
			continue
		}
		c := s.best(id, q.Code)
		r.Best = max(r.Best, c.Score)
		if float64(c.Score) >= float64(q.Threshold) {
			r.Candidates = append(r.Candidates, c)
		}
	}
	sort.Slice(r.Candidates, func(i, j int) bool {
		a, b := r.Candidates[i], r.Candidates[j]
		if a.Score != b.Score {
			return a.Score > b.Score
		}
		return a.Subject < b.Subject
	})
	if len(r.Candidates) > q.K {
		r.Candidates = r.Candidates[:q.K]
	}
	return r
}

// past searches a snapshot that the caller holds.
func past(g *Gallery, snap *snapshot, q Query) Result {
	x := g.scanner()
	s, w := x.newSearch(&q), newScratch()
	defer x.done(s)
	snap.hold()
	s.prepare(g.filter)
	s.enter(snap, g.small)
	for _, v := range snap.shards {
		w.shard(v, g.filter, []*search{s})
	}
	return s.result(nil)
}

func sameResult(a, b Result) bool {
	if len(a.Candidates) == 0 && len(b.Candidates) == 0 {
		a.Candidates, b.Candidates = nil, nil
	}
	a.Work, b.Work = Work{}, Work{} // which differs between equal answers
	return reflect.DeepEqual(a, b)
}

// TestAgainstModel applies random changes, searches at random times, and keeps
// old snapshots leased while the gallery moves on. Few distinct codes make ties
// common; small shards make growth and compaction common.
func TestAgainstModel(t *testing.T) {
	const dim = code.MinDim
	rot := rotation(t, 1, dim)
	var pool []code.Code
	r := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		pool = append(pool, encode(t, rot, gaussian(r, dim)))
	}
	ref := scope.Ref{Tenant: "hall", Scope: "fair-1"}
	workers, alone := newCrew(3), newCrew(3)
	alone.compactor.close()
	defer workers.close()
	defer alone.close()
	defer workers.compactor.close()
	rapid.Check(t, func(rt *rapid.T) {
		g := NewGallery(ref, dim)
		g.shardRows = rapid.SampledFrom([]int{1, 5, 16, 64, 200}).Draw(rt, "shardRows")
		g.filterRows = rapid.SampledFrom([]int{1, 16, shardRows}).Draw(rt, "filterRows")
		g.small = rapid.SampledFrom([]int{0, 20, SmallGallery}).Draw(rt, "small")
		g.stepRows = rapid.SampledFrom([]int{1, 7, stepRows}).Draw(rt, "stepRows")
		g.crew.Store(rapid.SampledFrom([]*crew{workers, alone}).Draw(rt, "crew"))
		m := newModel()
		type held struct {
			snap *snapshot
			m    *model
		}
		var leases []held

		ids := rapid.Custom(func(t *rapid.T) scope.SubjectID {
			return scope.SubjectID(fmt.Sprintf("v-%d", rapid.IntRange(0, 30).Draw(t, "subject")))
		})
		codes := rapid.SampledFrom(pool)
		times := rapid.Custom(func(t *rapid.T) time.Time {
			return epochStart.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "hour")) * time.Hour)
		})
		query := func(rt *rapid.T) Query {
			return Query{
				Code:      codes.Draw(rt, "probe"),
				K:         rapid.IntRange(1, 12).Draw(rt, "k"),
				Threshold: code.Threshold(rapid.SampledFrom([]float64{-1, -0.05, 0, 0.1, 0.999, 1}).Draw(rt, "threshold")),
				Now:       times.Draw(rt, "now"),
				WantBest:  rapid.Bool().Draw(rt, "wantBest"),
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"apply": func(rt *rapid.T) {
				var changes []Change
				epoch := m.epoch
				for range rapid.IntRange(1, 3).Draw(rt, "changes") {
					epoch += scope.Epoch(rapid.IntRange(0, 1).Draw(rt, "step"))
					c := Change{Epoch: epoch}
					if rapid.IntRange(0, 40).Draw(rt, "late") == 40 && epoch > 0 {
						c.Epoch = epoch - 1
					}
					for range rapid.IntRange(0, 6).Draw(rt, "removes") {
						c.Removes = append(c.Removes, Remove{ids.Draw(rt, "id"), scope.TemplateID(rapid.IntRange(0, 3).Draw(rt, "template"))})
					}
					for range rapid.IntRange(0, 6).Draw(rt, "inserts") {
						in := Insert{Subject: ids.Draw(rt, "id"), Template: scope.TemplateID(rapid.IntRange(1, 12).Draw(rt, "template")), Code: codes.Draw(rt, "code")}
						if rapid.Bool().Draw(rt, "ends") {
							in.NotAfter = times.Draw(rt, "notAfter")
						}
						c.Inserts = append(c.Inserts, in)
					}
					changes = append(changes, c)
				}
				next, err := m.apply(changes), g.Apply(changes...)
				switch {
				case next == nil && err == nil:
					rt.Fatal("impossible changes were applied")
				case next == nil && !errors.Is(err, ErrDuplicate) && !errors.Is(err, ErrEpoch):
					rt.Fatalf("impossible changes gave another error: %v", err)
				case next != nil && err != nil:
					rt.Fatalf("possible changes refused: %v", err)
				case next != nil:
					m = next
				}
			},
			"identify": func(rt *rapid.T) {
				q := query(rt)
				got, err := g.Identify(context.Background(), grantFor(ref), q)
				if err != nil {
					rt.Fatal(err)
				}
				if want := m.identifyIn(g, q); !sameResult(got, want) {
					rt.Fatalf("k %d threshold %v:\n got %+v\nwant %+v", q.K, q.Threshold, got, want)
				}
			},
			"identify all": func(rt *rapid.T) {
				queries := make([]Query, rapid.IntRange(0, 12).Draw(rt, "queries"))
				for i := range queries {
					queries[i] = query(rt)
				}
				got, err := g.IdentifyAll(context.Background(), grantFor(ref), queries)
				if err != nil || len(got) != len(queries) {
					rt.Fatal(len(got), err)
				}
				for i, q := range queries {
					if want := m.identifyIn(g, q); !sameResult(got[i], want) {
						rt.Fatalf("query %d of %d, k %d threshold %v:\n got %+v\nwant %+v", i+1, len(queries), q.K, q.Threshold, got[i], want)
					}
				}
			},
			"verify": func(rt *rapid.T) {
				q, id := query(rt), ids.Draw(rt, "id")
				got, found, epoch, err := g.Verify(context.Background(), grantFor(ref), id, q)
				if err != nil {
					rt.Fatal(err)
				}
				want, wantFound := Candidate{Subject: id, Score: NoScore}, false
				if s := m.subjects[id]; s != nil && s.live(q.Now) {
					want, wantFound = s.best(id, q.Code), true
				}
				if got != want || found != wantFound || epoch != m.epoch {
					rt.Fatalf("got %+v %v %d, want %+v %v %d", got, found, epoch, want, wantFound, m.epoch)
				}
				if g.Live(id, q.Now) != wantFound || g.Contains(id, want.Template, q.Now) != wantFound || g.Contains(id, 99, q.Now) {
					rt.Fatal("Live or Contains disagrees with Verify")
				}
			},
			"lease": func(rt *rapid.T) {
				if snap, err := g.acquire(); err != nil {
					rt.Fatal(err)
				} else {
					leases = append(leases, held{snap, m})
				}
			},
			"search the past": func(rt *rapid.T) {
				if len(leases) == 0 {
					rt.Skip("nothing held")
				}
				i := rapid.IntRange(0, len(leases)-1).Draw(rt, "held")
				q, h := query(rt), leases[i]
				if got, want := past(g, h.snap, q), h.m.identifyIn(g, q); !sameResult(got, want) {
					rt.Fatalf("a leased snapshot changed:\n got %+v\nwant %+v", got, want)
				}
				h.snap.release()
				leases = append(leases[:i], leases[i+1:]...)
			},
			"": func(rt *rapid.T) {
				if err := g.Check(); err != nil {
					rt.Fatal(err)
				}
				if g.Subjects() != len(m.subjects) || g.Templates() != m.templates() || g.Epoch() != m.epoch {
					rt.Fatalf("%d subjects, %d templates, epoch %d; want %d, %d, %d", g.Subjects(), g.Templates(), g.Epoch(), len(m.subjects), m.templates(), m.epoch)
				}
			},
		})
		for _, h := range leases {
			h.snap.release()
		}
		workers.compactor.wait()
		if len(g.sparse) > 0 {
			rt.Fatalf("the slots %v are sparse still", g.sparse)
		}
		if s := g.current.Load(); !s.settled.Load() || s.holds.Load() != 1 {
			rt.Fatalf("with no lease out: settled %v, holds %d", s.settled.Load(), s.holds.Load())
		}
		if err := g.Check(); err != nil {
			rt.Fatal(err)
		}
	})
}
