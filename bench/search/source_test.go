package search

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/menshen-io/menshen/index/scope"
)

func TestSpectrum(t *testing.T) {
	for _, dim := range []int{64, 128, 512, 1024} {
		sigma := spectrum(dim, Participation(dim))
		variances := make([]float64, dim)
		for i, s := range sigma {
			variances[i] = s * s
		}
		if got, want := participationRatio(variances), Participation(dim); math.Abs(got-want) > 0.01 {
			t.Errorf("%d dimensions: participation ratio %v, want %v", dim, got, want)
		}
		if !slices.IsSortedFunc(sigma, func(a, b float64) int { return int(math.Copysign(1, b-a)) }) || sigma[dim-1] <= 0 {
			t.Errorf("%d dimensions: the spectrum does not fall: %v to %v", dim, sigma[0], sigma[dim-1])
		}
	}
	if got := participationRatio([]float64{1, 1, 0, 0}); got != 2 {
		t.Errorf("two equal directions of four count as %v", got)
	}
}

// Strangers' cosines scatter around 0 by 1/sqrt of the directions that the data
// are spread over; norms are 1.
func TestStrangers(t *testing.T) {
	const people = 300
	for _, c := range []struct {
		kind    Kind
		dim     int
		spread  float64
		percent float64
	}{
		{Isotropic, 128, 128, 3}, {Isotropic, 512, 512, 3}, {Spectrum, 128, 76.8, 6}, {Spectrum, 512, 80, 6},
	} {
		t.Run(fmt.Sprintf("%s/%d", c.kind, c.dim), func(t *testing.T) {
			g := NewSource(c.kind, c.dim, 7).Generator()
			vectors := make([][]float32, people)
			for i := range vectors {
				vectors[i] = make([]float32, c.dim)
				g.Template(vectors[i], i*twinEvery) // originals
				if norm := dot64(vectors[i], vectors[i]); math.Abs(norm-1) > 1e-5 {
					t.Fatalf("vector %d has the norm %v", i, norm)
				}
			}
			var sum, squares, n float64
			for i := range vectors {
				for j := range i {
					x := dot64(vectors[i], vectors[j])
					sum, squares, n = sum+x, squares+x*x, n+1
				}
			}
			sd, want := math.Sqrt(squares/n), 1/math.Sqrt(c.spread)
			if math.Abs(sum/n) > 0.01 || math.Abs(sd/want-1) > c.percent/100 {
				t.Errorf("cosines of mean %.4f and deviation %.4f, want 0 and %.4f", sum/n, sd, want)
			}
		})
	}
}

func TestProbes(t *testing.T) {
	const n, first, count = 400, 5000, 3000
	for _, kind := range []Kind{Isotropic, Spectrum} {
		s := NewSource(kind, 256, 3)
		g := s.Generator()
		mates := s.Mates(n, first, count)
		probe, template := make([]float32, 256), make([]float32, 256)
		mated, twins := 0, 0
		low, high := 1.0, 0.0
		for j, mate := range mates {
			cosine := g.Probe(probe, j, mate)
			if norm := dot64(probe, probe); math.Abs(norm-1) > 1e-5 {
				t.Fatalf("probe %d has the norm %v", j, norm)
			}
			if mate < 0 {
				continue
			}
			mated++
			if mate < first || mate >= first+count {
				t.Fatalf("probe %d is mated with %d", j, mate)
			}
			if original(mate) != mate {
				twins++
			}
			g.Template(template, mate)
			got := dot64(probe, template)
			if math.Abs(got-cosine) > 1e-5 || got < matedLow-1e-5 || got > matedHigh+1e-5 {
				t.Errorf("probe %d: cosine %v, said to be %v", j, got, cosine)
			}
			low, high = min(low, got), max(high, got)
		}
		if mated != n/2 || twins < n/20 {
			t.Errorf("%s: %d of %d probes are mated, %d with twins", kind, mated, n, twins)
		}
		if low > matedLow+0.05 || high < matedHigh-0.05 {
			t.Errorf("%s: mated cosines are from %v to %v only", kind, low, high)
		}
	}
}

// The same number gives the same vector, from any generator, in any order; twins
// share one, and seeds and kinds do not.
func TestSourceRepeats(t *testing.T) {
	const dim = 64
	draw := func(s *Source, numbers ...int) (v []float32) {
		g := s.Generator()
		v = make([]float32, dim)
		for _, i := range numbers {
			g.Template(v, i)
		}
		return v
	}
	s := NewSource(Spectrum, dim, 1)
	if !slices.Equal(draw(s, 5), draw(NewSource(Spectrum, dim, 1), 9, 2, 5)) {
		t.Error("vector 5 depends on what was drawn before")
	}
	if !slices.Equal(draw(s, twinEvery), draw(s, twinEvery+1)) {
		t.Error("twins differ")
	}
	for name, other := range map[string][]float32{
		"a neighbour": draw(s, 6), "another seed": draw(NewSource(Spectrum, dim, 2), 5), "another kind": draw(NewSource(Isotropic, dim, 1), 5),
	} {
		if slices.Equal(draw(s, 5), other) {
			t.Errorf("%s has the same vector", name)
		}
	}
}

// Names are valid and unique; of twins, every second pair is one subject.
func TestNames(t *testing.T) {
	e, err := newEnrolment(NewSource(Isotropic, 64, 1), 0, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	type name struct {
		subject  scope.SubjectID
		template scope.TemplateID
	}
	seen := make(map[name]int)
	subjects := make(map[scope.SubjectID]bool)
	const n = 50_000
	ascending := true
	var last scope.SubjectID
	for i := range n {
		subject, template := e.name(i)
		if err := subject.Validate(); err != nil || len(subject) != 11 || template < 1 {
			t.Fatalf("template %d: %q %d, %v", i, subject, template, err)
		}
		if before, ok := seen[name{subject, template}]; ok {
			t.Fatalf("templates %d and %d have one name", before, i)
		}
		seen[name{subject, template}] = i
		subjects[subject] = true
		ascending = ascending && subject >= last
		last = subject
	}
	if want := n - (n+2*twinEvery-2)/(2*twinEvery); len(subjects) != want {
		t.Errorf("%d subjects of %d templates, want %d", len(subjects), n, want)
	}
	if ascending {
		t.Error("ids are in the order of rows: ties would not be tried")
	}
}
