package search

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/kernel"
	"github.com/menshen-io/menshen/index/scope"
)

// small returns a gallery with probes, and its reference scan.
func small(t *testing.T, kind Kind, n, probes int, threshold float64) (*engine, *Reference) {
	t.Helper()
	ctx := context.Background()
	enrolled, err := newEnrolment(NewSource(kind, 64, 5), 0, 0, n)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{enrolment: enrolled, gallery: index.NewGallery(enrolled.ref, 64)}
	if err := enrolled.fill(ctx, e.gallery, func() {}); err != nil {
		t.Fatal(err)
	}
	if e.probes, err = enrolled.probes(probes); err != nil {
		t.Fatal(err)
	}
	e.ask(threshold)
	r, err := newReference(ctx, enrolled, nil, e.probes, codeThreshold(threshold), func() {})
	if err != nil {
		t.Fatal(err)
	}
	return e, r
}

func (e *engine) search(t *testing.T, p int) index.Result {
	t.Helper()
	got, err := e.gallery.Identify(context.Background(), e.grant(), e.queries[p])
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A gallery agrees with the reference: few and many candidates, ties and subjects
// with two templates among them.
func TestReferenceAgrees(t *testing.T) {
	for _, threshold := range []float64{-1, 0, 0.45, 0.99} {
		e, r := small(t, Spectrum, 3000, 40, threshold)
		ties := 0
		for p := range e.probes {
			got := e.search(t, p)
			if !r.Agrees(p, got, false) {
				t.Errorf("threshold %v, probe %d: got %+v, want %+v", threshold, p, got, r.Answers[p])
			}
			for i := 1; i < len(got.Candidates); i++ {
				if got.Candidates[i].Score == got.Candidates[i-1].Score {
					ties++
				}
			}
		}
		if threshold == 0.45 {
			if ties == 0 {
				t.Error("no two candidates tie: their order was not tried")
			}
			if share := found(e.enrolment, r); share != 1 {
				t.Errorf("%v of the mates are candidates", share)
			}
			if want := int64(40*3000 - 20); r.Comparisons > want || r.Comparisons < want-20 || r.FalseMatch == 0 {
				t.Errorf("%d false matches in %d comparisons", r.FalseMatch, r.Comparisons)
			}
		}
	}
}

// A wrong answer is noticed, whatever is wrong with it.
func TestReferenceCatches(t *testing.T) {
	e, r := small(t, Spectrum, 3000, 40, 0.2)
	// Probe 2 is mated, and not with a twin.
	right := e.search(t, 2)
	if len(right.Candidates) < 3 {
		t.Fatalf("%d candidates are too few to be wrong in many ways", len(right.Candidates))
	}
	for name, spoil := range map[string]func(*index.Result){
		"an id":        func(r *index.Result) { r.Candidates[1].Subject += "0" },
		"a template":   func(r *index.Result) { r.Candidates[1].Template++ },
		"order":        func(r *index.Result) { slices.Reverse(r.Candidates[:2]) },
		"one bit":      func(r *index.Result) { s := &r.Candidates[2].Score; *s = code.Score(math.Nextafter(float64(*s), 2)) },
		"one too few":  func(r *index.Result) { r.Candidates = r.Candidates[:len(r.Candidates)-1] },
		"one too many": func(r *index.Result) { r.Candidates = append(r.Candidates, r.Candidates[0]) },
		"none":         func(r *index.Result) { r.Candidates = nil },
		"best":         func(r *index.Result) { r.Best = index.NoScore },
	} {
		wrong := right
		wrong.Candidates = slices.Clone(right.Candidates)
		spoil(&wrong)
		check := &checker{reference: r}
		check.check(2, right, false)
		check.check(2, wrong, false)
		if check.checked.Load() != 2 || check.wrong.Load() != 1 {
			t.Errorf("%s: %d of %d answers found wrong", name, check.wrong.Load(), check.checked.Load())
		}
	}

	// A gallery that lost a template, and one that kept a removed one.
	mate := e.probes[2].mate
	subject, template := e.name(mate)
	if err := e.gallery.Apply(index.Change{Epoch: 2, Removes: []index.Remove{{Subject: subject, Template: template}}}); err != nil {
		t.Fatal(err)
	}
	if r.Agrees(2, e.search(t, 2), false) {
		t.Error("a gallery that lost a template was not noticed")
	}
	var numbers []int
	for i := range e.count {
		if i != mate {
			numbers = append(numbers, i)
		}
	}
	without, err := newReference(context.Background(), e.enrolment, numbers, e.probes, codeThreshold(0.2), func() {})
	if err != nil {
		t.Fatal(err)
	}
	for p := range e.probes {
		if !without.Agrees(p, e.search(t, p), false) {
			t.Errorf("probe %d: a reference without the removed template differs", p)
		}
	}
	if without.Agrees(2, right, false) {
		t.Error("an answer with a removed template was not noticed")
	}
}

// A large gallery may leave out a best score below the threshold, and none else.
func TestBestScore(t *testing.T) {
	const n = index.SmallGallery + 500
	e, r := small(t, Spectrum, n, 20, 0.62)
	check := &checker{reference: r}
	if err := e.verify(context.Background(), check); err != nil {
		t.Fatal(err)
	}
	if check.wrong.Load() != 0 || check.checked.Load() != 40 {
		t.Errorf("%d of %d answers are wrong", check.wrong.Load(), check.checked.Load())
	}
	below := 0
	for p, want := range r.Answers {
		lacking := index.Result{Candidates: want.Candidates, Best: index.NoScore}
		if r.Agrees(p, lacking, true) {
			t.Errorf("probe %d: a best score that was asked for may be missing", p)
		}
		if len(want.Candidates) == 0 {
			below++
		}
		if r.Agrees(p, lacking, false) != (len(want.Candidates) == 0) {
			t.Errorf("probe %d, %d candidates: a missing best score is judged wrongly", p, len(want.Candidates))
		}
		other := index.Result{Candidates: want.Candidates, Best: want.Best - 0.1}
		if r.Agrees(p, other, false) {
			t.Errorf("probe %d: another best score was not noticed", p)
		}
	}
	if below == 0 || below == len(r.Answers) {
		t.Fatalf("%d of the answers are empty: both kinds are needed", below)
	}
	_, few := small(t, Spectrum, 100, 20, 0.62)
	for p, want := range few.Answers {
		if few.Agrees(p, index.Result{Candidates: want.Candidates, Best: index.NoScore}, false) {
			t.Errorf("probe %d: the best score of a small gallery may be missing", p)
		}
	}
}

// The list that is cut as it grows is that of sorting everything.
func TestCut(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var all, kept []index.Candidate
	for range 20_000 {
		c := index.Candidate{Subject: scope.SubjectID(rune('a' + random.IntN(26))), Template: 1, Score: code.Score(float64(random.IntN(1000)) / 1000)}
		all, kept = append(all, c), append(kept, c)
		if len(kept) == cutAt {
			kept = cut(kept)
		}
	}
	if got, want := cut(kept), cut(all); !slices.Equal(got, want) || len(want) != Top {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPlainDot(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for n := range 70 {
		a, b := make([]int8, n), make([]int8, n)
		for i := range a {
			a[i], b[i] = int8(random.IntN(256)-128), int8(random.IntN(256)-128)
		}
		if got, want := plainDot(a, b), kernel.Dot(a, b); got != want {
			t.Errorf("%d values: %d, the kernel says %d", n, got, want)
		}
	}
}
