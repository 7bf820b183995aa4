package accuracy

import (
	"context"
	"fmt"
)

// Result is what a measurement found. Rates are fractions of 1. A pointer is nil
// (null in JSON) where the data cannot give the figure; the maps have one key
// per Target.
type Result struct {
	DataSet string `json:"data_set"` // the list or the folder, as given
	Kind    Kind   `json:"kind"`

	Images int `json:"images"`
	People int `json:"people,omitempty"` // folders with an image; folders only

	// Images from which no face was acquired: not an image, no face found.
	FailureToAcquire     int     `json:"failure_to_acquire"`
	FailureToAcquireRate float64 `json:"failure_to_acquire_rate"` // of the images
	// Images with more than one face, of which the dominant one was taken.
	MultipleFaces int `json:"multiple_faces"`

	// Comparisons that were made, and those that could not be for want of a face.
	Pairs               int `json:"pairs"`
	Mated               int `json:"mated"`
	NonMated            int `json:"non_mated"`
	PairsNotCompared    int `json:"pairs_not_compared"`
	MatedNotCompared    int `json:"mated_not_compared"`
	NonMatedNotCompared int `json:"non_mated_not_compared"`

	// The threshold that decides most of the compared pairs rightly, and their
	// share. Chosen on the same pairs, so the share is an optimistic one; it
	// depends on how many of the pairs are mated.
	BestThreshold *float64    `json:"best_threshold"`
	Accuracy      *float64    `json:"accuracy"`
	AccuracyCI95  *[2]float64 `json:"accuracy_ci95"`

	// Where FMR and FNMR cross.
	EER          *float64    `json:"eer"`
	EERThreshold *float64    `json:"eer_threshold"`
	EERCI95      *[2]float64 `json:"eer_ci95"`

	// FNMR at a false match rate of at most the key, where the number of non-mated
	// pairs supports that rate by the rule of 3; otherwise null and a note.
	FNMR          map[string]*float64    `json:"fnmr"`
	FNMRCI95      map[string]*[2]float64 `json:"fnmr_ci95"`
	FNMRThreshold map[string]*float64    `json:"fnmr_threshold"` // match if score >= threshold
	FNMRMeasured  map[string]*float64    `json:"fnmr_fmr"`       // the FMR at that threshold
	// The same with every mated pair that could not be compared as a non-match.
	FNMRWithFailures map[string]*float64 `json:"fnmr_with_failures"`
	FNMRNote         map[string]string   `json:"fnmr_note,omitempty"`

	// Identification among all other images, folders only.
	Rank1       *float64    `json:"rank1,omitempty"`
	Rank1CI95   *[2]float64 `json:"rank1_ci95,omitempty"`
	Rank1Probes int         `json:"rank1_probes,omitempty"`

	MatedScores    map[string]float64 `json:"mated_scores,omitempty"`     // percentiles
	NonMatedScores map[string]float64 `json:"non_mated_scores,omitempty"` // percentiles

	CIMethod string    `json:"ci_method"`
	Notes    []string  `json:"notes"`
	Failures []Failure `json:"failures"`
}

// Settings are what Evaluate can be told.
type Settings struct {
	Seed    uint64 // of the bootstrap
	Workers int
}

// Evaluate compares what was acquired and computes the figures. The scores come
// back too, for a plot; their two parts can be empty.
func Evaluate(ctx context.Context, d *DataSet, a *Acquired, scorer Scorer, set Settings) (*Result, *Scores, error) {
	s, lost, err := Compare(ctx, d, a, scorer, set.Workers)
	if err != nil {
		return nil, nil, err
	}
	r := &Result{
		DataSet: d.Source, Kind: d.Kind, Images: len(d.Images), People: len(d.People),
		FailureToAcquire:     len(a.Failures),
		FailureToAcquireRate: float64(len(a.Failures)) / float64(len(d.Images)),
		MultipleFaces:        a.MultipleFaces,
		Pairs:                len(s.Mated) + len(s.NonMated), Mated: len(s.Mated), NonMated: len(s.NonMated),
		PairsNotCompared: lost.Mated + lost.NonMated, MatedNotCompared: lost.Mated, NonMatedNotCompared: lost.NonMated,
		FNMR: map[string]*float64{}, FNMRCI95: map[string]*[2]float64{}, FNMRThreshold: map[string]*float64{},
		FNMRMeasured: map[string]*float64{}, FNMRWithFailures: map[string]*float64{}, FNMRNote: map[string]string{},
		Notes: append([]string{}, d.Notes...), Failures: append([]Failure{}, a.Failures...),
	}
	var hits []Hits
	if r.Mated == 0 || r.NonMated == 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("there are %d mated and %d non-mated pairs: accuracy, EER and FNMR need both kinds", r.Mated, r.NonMated))
	}
	if d.Kind == Folders {
		if hits, err = RankOne(ctx, d, a, scorer, set.Workers); err != nil {
			return nil, nil, err
		}
	}
	vary, err := r.intervals(ctx, d, a, s, hits, set)
	if err != nil {
		return nil, nil, err
	}
	r.errorRates(s, lost, vary)
	r.rankOne(hits, vary)
	if r.Mated > 0 {
		r.MatedScores = percentileMap(s.Mated, []string{"p1", "p5", "p50"}, []float64{1, 5, 50})
	}
	if r.NonMated > 0 {
		r.NonMatedScores = percentileMap(s.NonMated, []string{"p50", "p99", "p99.9"}, []float64{50, 99, 99.9})
	}
	if r.MultipleFaces > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d images show several faces; the dominant one was taken", r.MultipleFaces))
	}
	return r, s, nil
}

// intervals runs the bootstrap where the data allow it, and says how the
// intervals come about. It returns nil where they are all Wilson's.
func (r *Result) intervals(ctx context.Context, d *DataSet, a *Acquired, s *Scores, hits []Hits, set Settings) (*spread, error) {
	draw := resampler{mated: r.Mated, rest: r.NonMated}
	unit := fmt.Sprintf("%d pairs; pairs that share a person or an image are not independent, so the intervals are too narrow where the list has them", r.Pairs)
	if d.Kind == Folders {
		draw.people = make([]int, len(d.People))
		for i, img := range d.Images {
			if a.Embeddings[i] != nil {
				draw.people[img.Person]++
			}
		}
		unit = fmt.Sprintf("%d people, which allows for the dependence between comparisons of one person", len(d.People))
	}
	if !draw.canBootstrap() || r.Mated == 0 || r.NonMated == 0 {
		r.CIMethod = "95%: Wilson score interval, which takes the comparisons as independent; those of one person are not, so the intervals are too narrow"
		return nil, nil
	}
	r.CIMethod = fmt.Sprintf("95%%: bootstrap, %d replicates (seed %d) over %s. Wilson score interval for accuracy, and where a rate is 0 or 1", Replicates, set.Seed, unit)
	return bootstrap(ctx, s, draw, Targets(), hits, set.Seed, set.Workers)
}

func (r *Result) errorRates(s *Scores, lost Lost, vary *spread) {
	if r.Mated > 0 && r.NonMated > 0 {
		best, right := s.Best()
		accuracy, interval := float64(right)/float64(r.Pairs), Wilson(right, r.Pairs)
		r.BestThreshold, r.Accuracy, r.AccuracyCI95 = &best, &accuracy, &interval
		rate, threshold := s.EqualErrorRate()
		r.EER, r.EERThreshold = &rate, &threshold
		if vary != nil && rate > 0 && rate < 1 {
			if ci, ok := percentiles(vary.eer); ok {
				r.EERCI95 = &ci
			}
		}
	}
	for k, target := range Targets() {
		key := target.Label
		r.FNMR[key], r.FNMRCI95[key], r.FNMRThreshold[key] = nil, nil, nil
		r.FNMRMeasured[key], r.FNMRWithFailures[key] = nil, nil
		switch {
		case r.NonMated < target.Needs():
			r.FNMRNote[key] = fmt.Sprintf("not supported by %d non-mated pairs: an FMR of %s needs at least %d (rule of 3)", r.NonMated, key, target.Needs())
			continue
		case r.Mated == 0:
			r.FNMRNote[key] = "not supported by 0 mated pairs"
			continue
		}
		point := s.AtFMR(target)
		all := float64(point.Misses+lost.Mated) / float64(r.Mated+lost.Mated)
		ci := Wilson(point.Misses, r.Mated)
		if vary != nil && point.Misses > 0 && point.Misses < r.Mated {
			if drawn, ok := percentiles(vary.fnmr[k]); ok {
				ci = drawn
			}
		}
		r.FNMR[key], r.FNMRCI95[key] = &point.FNMR, &ci
		r.FNMRThreshold[key], r.FNMRMeasured[key] = &point.Threshold, &point.FMR
		r.FNMRWithFailures[key] = &all
	}
}

func (r *Result) rankOne(hits []Hits, vary *spread) {
	if hits == nil {
		return
	}
	found := 0
	for _, h := range hits {
		r.Rank1Probes += h.Probes
		found += h.Hits
	}
	if r.Rank1Probes == 0 {
		r.Notes = append(r.Notes, "rank1 is not there: nobody has two images with a face")
		return
	}
	rate := float64(found) / float64(r.Rank1Probes)
	ci := Wilson(found, r.Rank1Probes)
	if vary != nil && found > 0 && found < r.Rank1Probes {
		if drawn, ok := percentiles(vary.rank1); ok {
			ci = drawn
		}
	}
	r.Rank1, r.Rank1CI95 = &rate, &ci
}

func percentileMap(c []Comparison, keys []string, at []float64) map[string]float64 {
	m := make(map[string]float64, len(keys))
	for i, key := range keys {
		m[key] = Percentile(c, at[i])
	}
	return m
}
