package accuracy

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
)

// Replicates is how many bootstrap samples an interval is taken from: enough for
// percentiles at 2.5 and 97.5 to settle in the second digit.
const Replicates = 1000

// maxBootstrapPairs bounds the lists of pairs that are drawn again pair by pair
// (a replicate costs a random number per pair): 1000 replicates of 50,000 pairs
// took 1.5 s on four busy cores. Larger lists get Wilson's interval, which is
// as good for so many pairs. Folders draw people, which costs little.
const maxBootstrapPairs = 50_000

// spread is what the bootstrap knows of the figures: one value per replicate in
// which the figure exists.
type spread struct {
	eer   []float64
	fnmr  [][]float64 // by target
	rank1 []float64
}

// resampler draws one bootstrap sample: how often each unit (person or pair)
// is in it.
type resampler struct {
	people      []int // acquired images of each person; nil when pairs are drawn
	mated, rest int   // pairs drawn: how many of either kind
}

// canBootstrap says whether the size of the data allows it, and makes sense of it.
func (r resampler) canBootstrap() bool {
	if r.people != nil {
		return len(r.people) >= 10
	}
	return r.mated >= 10 && r.rest >= 10 && r.mated+r.rest <= maxBootstrapPairs
}

// weights is one drawn sample.
type weights struct {
	unit            []int32 // by person, or by pair
	mated, nonMated int64   // the weight of all comparisons together
}

// of is how often a comparison is in the sample. A comparison between two people
// is there once for every combination of their copies; copies of one person are
// not compared with each other, for that would be the same image twice.
func (w *weights) of(c Comparison) int64 {
	if c.A == c.B {
		return int64(w.unit[c.A])
	}
	return int64(w.unit[c.A]) * int64(w.unit[c.B])
}

func (r resampler) draw(s *Scores, rng *rand.Rand, w *weights) {
	clear(w.unit)
	w.mated, w.nonMated = 0, 0
	if r.people == nil {
		for range s.Mated {
			w.unit[s.Mated[rng.IntN(len(s.Mated))].A]++
		}
		for range s.NonMated {
			w.unit[s.NonMated[rng.IntN(len(s.NonMated))].A]++
		}
		w.mated, w.nonMated = int64(len(s.Mated)), int64(len(s.NonMated))
		return
	}
	for range r.people {
		w.unit[rng.IntN(len(r.people))]++
	}
	images := int64(0)
	for person, k := range r.people {
		times, n := int64(w.unit[person]), int64(k)
		w.mated += times * n * (n - 1) / 2
		w.nonMated += times * n * images
		images += times * n
	}
}

// bootstrap draws samples of the units and returns how the figures vary. The
// samples depend on the seed and their number alone, not on the workers.
func bootstrap(ctx context.Context, s *Scores, r resampler, targets []Target, hits []Hits, seed uint64, workers int) (*spread, error) {
	units := len(r.people)
	if r.people == nil {
		units = r.mated + r.rest
	}
	type row struct {
		eer, rank1 float64
		fnmr       []float64
	}
	rows := make([]row, Replicates)
	err := eachIndex(ctx, Replicates, workers, func(_ context.Context, i int) error {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		w := weights{unit: make([]int32, units)}
		r.draw(s, rng, &w)
		rows[i].eer, rows[i].fnmr = s.weighted(&w, targets)
		rows[i].rank1 = weightedRate(hits, w.unit)
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := &spread{fnmr: make([][]float64, len(targets))}
	keep := func(to *[]float64, x float64) {
		if !math.IsNaN(x) {
			*to = append(*to, x)
		}
	}
	for _, one := range rows {
		keep(&out.eer, one.eer)
		keep(&out.rank1, one.rank1)
		for k := range targets {
			keep(&out.fnmr[k], one.fnmr[k])
		}
	}
	return out, nil
}

func weightedRate(hits []Hits, unit []int32) float64 {
	got, all := 0, 0
	for person, h := range hits {
		got += int(unit[person]) * h.Hits
		all += int(unit[person]) * h.Probes
	}
	if all == 0 {
		return math.NaN()
	}
	return float64(got) / float64(all)
}

// weighted returns the EER and the FNMR at each target (from easy to hard) of a
// sample, by the same rules as EqualErrorRate and AtFMR. It walks down from the
// highest score, so that it ends where FNMR is below FMR and the easiest target
// is reached: with a working model, after a small part of the comparisons. A
// sample without mated or without non-mated comparisons gives NaN.
func (s *Scores) weighted(w *weights, targets []Target) (eer float64, fnmr []float64) {
	fnmr = make([]float64, len(targets))
	for k := range fnmr {
		fnmr[k] = math.NaN()
	}
	if w.mated == 0 || w.nonMated == 0 {
		return math.NaN(), fnmr
	}
	mated, nonMated := float64(w.mated), float64(w.nonMated)
	open := len(targets) - 1 // the hardest target that is not yet decided
	misses, falseMatches := w.mated, int64(0)
	eer, crossed := math.NaN(), false
	m, n := len(s.Mated)-1, len(s.NonMated)-1
	for (open >= 0 || !crossed) && (m >= 0 || n >= 0) {
		t := float32(math.Inf(-1))
		if m >= 0 {
			t = s.Mated[m].Score
		}
		if n >= 0 {
			t = max(t, s.NonMated[n].Score)
		}
		missesAbove, falseAbove := misses, falseMatches
		for ; m >= 0 && s.Mated[m].Score == t; m-- {
			misses -= w.of(s.Mated[m])
		}
		for ; n >= 0 && s.NonMated[n].Score == t; n-- {
			falseMatches += w.of(s.NonMated[n])
		}
		if misses == missesAbove && falseMatches == falseAbove {
			continue // a score of nobody in this sample
		}
		// The threshold above was the last one to allow at most 1 in OneIn.
		for open >= 0 && falseMatches > w.nonMated/int64(targets[open].OneIn) {
			fnmr[open] = float64(missesAbove) / mated
			open--
		}
		gap := float64(falseMatches)/nonMated - float64(misses)/mated
		if !crossed && gap > 0 {
			crossed = true
			gapAbove := float64(missesAbove)/mated - float64(falseAbove)/nonMated
			part := gap / (gap + gapAbove)
			eer = float64(falseMatches)/nonMated + part*float64(falseAbove-falseMatches)/nonMated
		}
	}
	for ; open >= 0; open-- {
		fnmr[open] = float64(misses) / mated
	}
	return eer, fnmr
}

// percentiles returns the 2.5th and the 97.5th percentile of the replicates, or
// false when there are too few of them.
func percentiles(values []float64) ([2]float64, bool) {
	if len(values) < Replicates/2 {
		return [2]float64{}, false
	}
	slices.Sort(values)
	at := func(p float64) float64 { return values[int(math.Round(p*float64(len(values)-1)))] }
	return [2]float64{at(0.025), at(0.975)}, true
}
