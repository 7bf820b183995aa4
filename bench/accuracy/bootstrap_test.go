package accuracy

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// peopleScores makes the scores of all comparisons between people who have the
// given number of images.
func peopleScores(images []int, score func(a, b int) float32) *Scores {
	s := &Scores{}
	var owner []int
	for person, k := range images {
		for range k {
			owner = append(owner, person)
		}
	}
	for i, a := range owner {
		for _, b := range owner[i+1:] {
			c := Comparison{score(a, b), int32(a), int32(b)}
			if a == b {
				s.Mated = append(s.Mated, c)
			} else {
				s.NonMated = append(s.NonMated, c)
			}
		}
	}
	s.Sort()
	return s
}

// repeated writes a drawn sample out: every comparison as often as it is in it.
func repeated(s *Scores, w *weights) *Scores {
	out := &Scores{}
	for _, c := range s.Mated {
		for range w.of(c) {
			out.Mated = append(out.Mated, c)
		}
	}
	for _, c := range s.NonMated {
		for range w.of(c) {
			out.NonMated = append(out.NonMated, c)
		}
	}
	out.Sort()
	return out
}

func TestWeightedAgainstRepeating(t *testing.T) {
	targets := []Target{{"a", 2}, {"b", 5}, {"c", 50}}
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		steps := float32(rapid.SampledFrom([]int{4, 1000}).Draw(t, "steps"))
		shift := float32(rapid.SampledFrom([]float64{0, 0.3, 1}).Draw(t, "shift"))
		var s *Scores
		var r resampler
		if rapid.Bool().Draw(t, "people") {
			r.people = rapid.SliceOfN(rapid.IntRange(0, 4), 2, 6).Draw(t, "images")
			s = peopleScores(r.people, func(a, b int) float32 {
				v := float32(math.Floor(float64(rng.Float32()*steps))) / steps
				if a == b {
					v += shift
				}
				return v
			})
		} else {
			s = drawScores(t)
			r.mated, r.rest = len(s.Mated), len(s.NonMated)
		}
		units := max(len(r.people), r.mated+r.rest)
		w := weights{unit: make([]int32, units)}
		r.draw(s, rng, &w)
		sample := repeated(s, &w)
		if int(w.mated) != len(sample.Mated) || int(w.nonMated) != len(sample.NonMated) {
			t.Fatalf("weights %d and %d, there are %d and %d", w.mated, w.nonMated, len(sample.Mated), len(sample.NonMated))
		}
		eer, fnmr := s.weighted(&w, targets)
		if w.mated == 0 || w.nonMated == 0 {
			if !math.IsNaN(eer) || !math.IsNaN(fnmr[0]) {
				t.Fatalf("rates from nothing: %v, %v", eer, fnmr)
			}
			return
		}
		if want, _ := sample.EqualErrorRate(); !near(eer, want) {
			t.Errorf("EER %v, want %v", eer, want)
		}
		for k, target := range targets {
			if want := sample.AtFMR(target).FNMR; !near(fnmr[k], want) {
				t.Errorf("FNMR at 1/%d: %v, want %v", target.OneIn, fnmr[k], want)
			}
		}
	})
}

func TestBootstrapDoesNotDependOnWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	images := make([]int, 12)
	hits := make([]Hits, 12)
	for i := range images {
		images[i], hits[i] = 3, Hits{3, i % 4}
	}
	s := peopleScores(images, func(a, b int) float32 {
		if a == b {
			return rng.Float32() + 0.5
		}
		return rng.Float32()
	})
	r := resampler{people: images}
	one, err := bootstrap(t.Context(), s, r, Targets(), hits, 7, 1)
	if err != nil {
		t.Fatal(err)
	}
	many, err := bootstrap(t.Context(), s, r, Targets(), hits, 7, 4)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(one, many) {
		t.Error("one worker and four give different samples")
	}
	other, err := bootstrap(t.Context(), s, r, Targets(), hits, 8, 4)
	if err != nil {
		t.Fatal(err)
	}
	if reflect.DeepEqual(one, other) {
		t.Error("the seed makes no difference")
	}
}

// With independent pairs the bootstrap interval must come close to Wilson's.
func TestBootstrapOfIndependentPairs(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var mated, nonMated []float32
	for range 2000 {
		mated = append(mated, float32(rng.NormFloat64()+2.5))
		nonMated = append(nonMated, float32(rng.NormFloat64()))
	}
	s := scoresOf(mated, nonMated)
	draws, err := bootstrap(t.Context(), s, resampler{mated: 2000, rest: 2000}, Targets()[:1], nil, 1, 4)
	if err != nil {
		t.Fatal(err)
	}
	point := s.AtFMR(Targets()[0])
	ci, ok := percentiles(draws.fnmr[0])
	wilson := Wilson(point.Misses, 2000)
	// The bootstrap lets the threshold vary too, so it is the wider of the two.
	if !ok || ci[0] > point.FNMR || ci[1] < point.FNMR || ci[1]-ci[0] < wilson[1]-wilson[0] || ci[1]-ci[0] > 6*(wilson[1]-wilson[0]) {
		t.Errorf("FNMR %v: bootstrap %v, Wilson %v", point.FNMR, ci, wilson)
	}
	eer, _ := s.EqualErrorRate()
	ci, ok = percentiles(draws.eer)
	if !ok || ci[0] > eer || ci[1] < eer || ci[1]-ci[0] > 0.05 {
		t.Errorf("EER %v: bootstrap %v", eer, ci)
	}
	if _, ok := percentiles(draws.rank1); ok {
		t.Error("rank-1 from pairs")
	}
}
