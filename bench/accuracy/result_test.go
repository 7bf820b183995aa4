package accuracy

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// crowd makes people with several noisy unit vectors each; a share of the images
// is not acquired.
func crowd(rng *rand.Rand, people, images, dim int, noise, lost float64) (*DataSet, *Acquired) {
	d := &DataSet{Kind: Folders, Source: "crowd"}
	a := &Acquired{}
	for p := range people {
		d.People = append(d.People, string(rune('a'+p%26)))
		centre := make([]float64, dim)
		for k := range centre {
			centre[k] = rng.NormFloat64()
		}
		for range images {
			d.Images = append(d.Images, Image{Name: "x", Person: p})
			if rng.Float64() < lost {
				a.Embeddings = append(a.Embeddings, nil)
				a.Failures = append(a.Failures, Failure{"x", "lost"})
				continue
			}
			v := make([]float32, dim)
			for k := range v {
				v[k] = float32(centre[k] + noise*rng.NormFloat64())
			}
			if err := normalise(v); err != nil {
				panic(err)
			}
			a.Embeddings = append(a.Embeddings, v)
		}
	}
	return d, a
}

func TestCompareFoldersAgainstCounting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		d, a := crowd(rng, rapid.IntRange(1, 6).Draw(t, "people"), rapid.IntRange(1, 5).Draw(t, "images"), 8, 0.5, 0.2)
		rng.Shuffle(len(d.Images), func(i, j int) { // the order of the images is no matter
			d.Images[i], d.Images[j] = d.Images[j], d.Images[i]
			a.Embeddings[i], a.Embeddings[j] = a.Embeddings[j], a.Embeddings[i]
		})
		want, lost := &Scores{}, Lost{}
		dot := func(i, j int) float32 {
			sum := 0.0
			for k, x := range a.Embeddings[i] {
				sum += float64(x) * float64(a.Embeddings[j][k])
			}
			return float32(sum)
		}
		for i := range d.Images {
			for j := i + 1; j < len(d.Images); j++ {
				mated, made := d.Images[i].Person == d.Images[j].Person, a.Embeddings[i] != nil && a.Embeddings[j] != nil
				switch {
				case mated && made:
					want.Mated = append(want.Mated, Comparison{Score: dot(i, j)})
				case made:
					want.NonMated = append(want.NonMated, Comparison{Score: dot(i, j)})
				case mated:
					lost.Mated++
				default:
					lost.NonMated++
				}
			}
		}
		want.Sort()
		got, gotLost, err := Compare(t.Context(), d, a, NewCosine(a), 3)
		if len(want.Mated)+len(want.NonMated) == 0 {
			if !errors.Is(err, ErrNothingCompared) {
				t.Errorf("got %v", err)
			}
			return
		}
		if err != nil || gotLost != lost || len(got.Mated) != len(want.Mated) || len(got.NonMated) != len(want.NonMated) {
			t.Fatalf("%v, lost %+v, %d mated, %d non-mated; want %+v, %d, %d", err, gotLost, len(got.Mated), len(got.NonMated), lost, len(want.Mated), len(want.NonMated))
		}
		for i, c := range got.Mated {
			if c.A != c.B || math.Abs(float64(c.Score-want.Mated[i].Score)) > 1e-6 {
				t.Errorf("mated %d: %+v, want score %v", i, c, want.Mated[i].Score)
			}
		}
		for i, c := range got.NonMated {
			if c.A == c.B || math.Abs(float64(c.Score-want.NonMated[i].Score)) > 1e-6 {
				t.Errorf("non-mated %d: %+v, want score %v", i, c, want.NonMated[i].Score)
			}
		}
	})
}

// line scores points on a line: the closer, the higher. Its embeddings only say
// what was acquired.
type line []float32

func (l line) Score(i, j int) float32 { return -max(l[i]-l[j], l[j]-l[i]) }

func (l line) acquired() *Acquired {
	a := &Acquired{Embeddings: make([][]float32, len(l))}
	for i, x := range l {
		if x == x {
			a.Embeddings[i] = []float32{x}
		}
	}
	return a
}

func folders(people ...int) *DataSet {
	d := &DataSet{Kind: Folders, Source: "dir", People: make([]string, slices.Max(people)+1)}
	for _, p := range people {
		d.Images = append(d.Images, Image{Name: "x", Person: p})
	}
	return d
}

func TestRankOneByHand(t *testing.T) {
	nan := float32(math.NaN())
	d := folders(0, 0, 0, 1, 1, 2, 3, 3)
	// Person 0 at 0, 1 and 5; person 1 at 6 and 9; person 2 alone at 7; person 3 at
	// 20, the other image not acquired.
	l := line{0, 1, 5, 6, 9, 7, 20, nan}
	hits, err := RankOne(t.Context(), d, l.acquired(), l, 2)
	// 0 and 1 find each other; 5 is nearest to 6, 6 as near to 5 as to 7, 9 to 7.
	want := []Hits{{3, 2}, {2, 0}, {0, 0}, {0, 0}}
	if err != nil || !reflect.DeepEqual(hits, want) {
		t.Errorf("%v, %v, want %v", hits, err, want)
	}
	tie := line{0, 2, 4}
	hits, err = RankOne(t.Context(), folders(0, 0, 1), tie.acquired(), tie, 1)
	if err != nil || hits[0] != (Hits{2, 1}) {
		t.Errorf("a tie with a stranger: %v, %v; want one miss", hits, err)
	}
}

func TestEvaluatePairsByHand(t *testing.T) {
	nan := float32(math.NaN())
	d := &DataSet{Kind: Pairs, Source: "list.csv", Images: make([]Image, 5), Pairs: []Pair{
		{0, 1, true}, {2, 3, true}, {0, 2, false}, {1, 3, false}, {0, 4, true}, {1, 4, false},
	}}
	l := line{0, 1, 10, 14, nan} // mated -1 and -4; non-mated -10 and -13; two not compared
	a := l.acquired()
	a.Failures = []Failure{{"x", "no face found"}}
	r, s, err := Evaluate(t.Context(), d, a, l, Settings{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	if r.Images != 5 || r.FailureToAcquire != 1 || r.FailureToAcquireRate != 0.2 || r.Pairs != 4 || r.Mated != 2 || r.NonMated != 2 || r.PairsNotCompared != 2 || r.MatedNotCompared != 1 || r.NonMatedNotCompared != 1 {
		t.Errorf("counts %+v", r)
	}
	if *r.Accuracy != 1 || *r.BestThreshold != -7 || *r.EER != 0 || *r.EERThreshold != -4 || len(s.Mated) != 2 {
		t.Errorf("accuracy %v at %v, EER %v at %v", *r.Accuracy, *r.BestThreshold, *r.EER, *r.EERThreshold)
	}
	for _, target := range Targets() {
		if v, ok := r.FNMR[target.Label]; !ok || v != nil || !strings.HasPrefix(r.FNMRNote[target.Label], "not supported by 2 non-mated pairs") {
			t.Errorf("FNMR at %s from two pairs: %v, %q", target.Label, v, r.FNMRNote[target.Label])
		}
	}
	if r.Rank1 != nil {
		t.Error("rank-1 from pairs")
	}
	text, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(text), `"fnmr":{"1e-2":null,"1e-3":null,"1e-4":null}`) {
		t.Errorf("JSON %s, %v", text, err)
	}
}

// The rule of 3 is met by exactly 3/FMR pairs, and not by one less.
func TestEvaluateRuleOfThree(t *testing.T) {
	for _, tt := range []struct {
		nonMated int
		want     bool
	}{{299, false}, {300, true}} {
		l := make(line, tt.nonMated+1)
		d := &DataSet{Kind: Pairs, Images: make([]Image, len(l)), Pairs: []Pair{{0, 0, true}}}
		for i := range tt.nonMated {
			l[i+1] = float32(i + 1)
			d.Pairs = append(d.Pairs, Pair{0, int32(i + 1), false})
		}
		d.Pairs = append(d.Pairs, Pair{0, 3, true}) // ties with the third stranger
		r, _, err := Evaluate(t.Context(), d, l.acquired(), l, Settings{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		got := r.FNMR["1e-2"]
		if (got != nil) != tt.want {
			t.Fatalf("%d pairs: FNMR %v, note %q", tt.nonMated, got, r.FNMRNote["1e-2"])
		}
		if !tt.want {
			continue
		}
		// Three of 300 may match: the strangers at -1, -2 and -3, and the mated pair.
		if *got != 0 || *r.FNMRThreshold["1e-2"] != -3 || *r.FNMRMeasured["1e-2"] != 0.01 || *r.FNMRCI95["1e-2"] != Wilson(0, 2) {
			t.Errorf("FNMR %v at %v, FMR %v, interval %v", *got, *r.FNMRThreshold["1e-2"], *r.FNMRMeasured["1e-2"], *r.FNMRCI95["1e-2"])
		}
		if r.FNMR["1e-3"] != nil || !strings.Contains(r.FNMRNote["1e-3"], "needs at least 3000 (rule of 3)") {
			t.Errorf("1e-3: %v, %q", r.FNMR["1e-3"], r.FNMRNote["1e-3"])
		}
	}
}

func TestEvaluateFolders(t *testing.T) {
	d, a := crowd(rand.New(rand.NewPCG(5, 6)), 30, 8, 32, 1.0, 0.03)
	r, s, err := Evaluate(t.Context(), d, a, NewCosine(a), Settings{Seed: 1, Workers: 4})
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := Evaluate(t.Context(), d, a, NewCosine(a), Settings{Seed: 1, Workers: 1})
	if err != nil || !reflect.DeepEqual(r, again) {
		t.Errorf("four workers and one differ (%v)", err)
	}
	if r.Pairs+r.PairsNotCompared != 240*239/2 || r.Mated+r.MatedNotCompared != 30*28 || r.People != 30 {
		t.Errorf("%d + %d pairs, %d + %d mated", r.Pairs, r.PairsNotCompared, r.Mated, r.MatedNotCompared)
	}
	if !strings.Contains(r.CIMethod, "30 people") {
		t.Errorf("method %q", r.CIMethod)
	}
	point := s.AtFMR(Targets()[0])
	if *r.FNMR["1e-2"] != point.FNMR || point.FNMR == 0 {
		t.Errorf("FNMR %v, want %v, above 0", *r.FNMR["1e-2"], point.FNMR)
	}
	if got, want := *r.FNMRWithFailures["1e-2"], float64(point.Misses+r.MatedNotCompared)/(30*28); !near(got, want) || got <= point.FNMR {
		t.Errorf("with failures %v, want %v", got, want)
	}
	for name, x := range map[string]struct {
		value *float64
		ci    *[2]float64
	}{
		"fnmr": {r.FNMR["1e-2"], r.FNMRCI95["1e-2"]}, "eer": {r.EER, r.EERCI95}, "rank1": {r.Rank1, r.Rank1CI95}, "accuracy": {r.Accuracy, r.AccuracyCI95},
	} {
		if x.value == nil || x.ci == nil || x.ci[0] > *x.value || x.ci[1] < *x.value || x.ci[0] == x.ci[1] {
			t.Errorf("%s: %v within %v", name, x.value, x.ci)
		}
	}
}

func TestEvaluateOneKind(t *testing.T) {
	l := line{0, 1, 2}
	r, s, err := Evaluate(t.Context(), folders(0, 0, 0), l.acquired(), l, Settings{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r.Mated != 3 || r.Accuracy != nil || r.EER != nil || len(s.NonMated) != 0 || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "3 mated and 0 non-mated") {
		t.Errorf("%+v", r)
	}
	r, _, err = Evaluate(t.Context(), folders(0, 1, 2), l.acquired(), l, Settings{Workers: 1})
	if err != nil || r.NonMated != 3 || r.EER != nil || r.Rank1 != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// What the product keeps of a face must decide as the embeddings do.
func TestTemplates(t *testing.T) {
	d, a := crowd(rand.New(rand.NewPCG(7, 8)), 30, 6, 128, 1.2, 0.05)
	cosine, _, err := Evaluate(t.Context(), d, a, NewCosine(a), Settings{Workers: 4})
	if err != nil {
		t.Fatal(err)
	}
	templates, err := NewTemplates(a, 1)
	if err != nil {
		t.Fatal(err)
	}
	coded, _, err := Evaluate(t.Context(), d, a, templates, Settings{Workers: 4})
	if err != nil {
		t.Fatal(err)
	}
	off := templates.Deviation()
	if off.Largest == 0 || off.Largest > 0.005 || off.RMS == 0 || off.RMS > 0.0015 || off.RMS > off.Largest {
		t.Errorf("deviation %+v", off)
	}
	if diff := math.Abs(*coded.FNMR["1e-2"] - *cosine.FNMR["1e-2"]); diff > 0.01 || *cosine.FNMR["1e-2"] == 0 {
		t.Errorf("FNMR %v with templates, %v without", *coded.FNMR["1e-2"], *cosine.FNMR["1e-2"])
	}
}
