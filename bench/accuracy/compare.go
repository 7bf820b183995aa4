package accuracy

import (
	"context"
	"fmt"
	"math"

	"github.com/viterin/vek/vek32"
)

// Scorer scores two acquired images of a data set by their indices. It is called
// from many goroutines, only with images that were acquired.
type Scorer interface {
	Score(i, j int) float32
}

// Cosine scores embeddings by their cosine, -1 to 1, in float32.
type Cosine struct{ unit [][]float32 }

// NewCosine scores what was acquired; it shares the embeddings.
func NewCosine(a *Acquired) Cosine { return Cosine{a.Embeddings} }

// Score is the cosine of the two images.
func (c Cosine) Score(i, j int) float32 {
	return min(max(vek32.Dot(c.unit[i], c.unit[j]), -1), 1)
}

// Lost counts comparisons that could not be made because of an image without a
// face.
type Lost struct{ Mated, NonMated int }

// Compare scores all comparisons of the data set between acquired images. The
// scores come back sorted.
func Compare(ctx context.Context, d *DataSet, a *Acquired, scorer Scorer, workers int) (*Scores, Lost, error) {
	var s *Scores
	var lost Lost
	var err error
	if d.Kind == Folders {
		s, lost, err = compareFolders(ctx, d, a, scorer, workers)
	} else {
		s, lost, err = comparePairs(ctx, d, a, scorer, workers)
	}
	if err != nil {
		return nil, lost, err
	}
	if len(s.Mated)+len(s.NonMated) == 0 {
		return nil, lost, fmt.Errorf("%w: of %d images, %d gave no face", ErrNothingCompared, len(d.Images), len(a.Failures))
	}
	s.Sort()
	return s, lost, nil
}

func comparePairs(ctx context.Context, d *DataSet, a *Acquired, scorer Scorer, workers int) (*Scores, Lost, error) {
	s, lost := &Scores{}, Lost{}
	missing := float32(math.NaN())
	scores := make([]float32, len(d.Pairs))
	err := eachIndex(ctx, (len(d.Pairs)+rowBlock-1)/rowBlock, workers, func(_ context.Context, block int) error {
		for k := block * rowBlock; k < min((block+1)*rowBlock, len(d.Pairs)); k++ {
			p := d.Pairs[k]
			scores[k] = missing
			if a.Embeddings[p.A] != nil && a.Embeddings[p.B] != nil {
				scores[k] = scorer.Score(int(p.A), int(p.B))
			}
		}
		return nil
	})
	if err != nil {
		return nil, lost, err
	}
	for k, p := range d.Pairs {
		made := !math.IsNaN(float64(scores[k]))
		unit := int32(len(s.Mated) + len(s.NonMated))
		c := Comparison{Score: scores[k], A: unit, B: unit}
		switch {
		case p.Mated && made:
			s.Mated = append(s.Mated, c)
		case p.Mated:
			lost.Mated++
		case made:
			s.NonMated = append(s.NonMated, c)
		default:
			lost.NonMated++
		}
	}
	return s, lost, nil
}

// rowBlock is how many pairs a worker scores between two looks at the context.
const rowBlock = 1024

func compareFolders(ctx context.Context, d *DataSet, a *Acquired, scorer Scorer, workers int) (*Scores, Lost, error) {
	var there []int // acquired images, in the order of people
	of, acquired := make([]int, len(d.People)), make([]int, len(d.People))
	for i, img := range d.Images {
		of[img.Person]++
		if a.Embeddings[i] != nil {
			there = append(there, i)
			acquired[img.Person]++
		}
	}
	mated, nonMated := countComparisons(acquired)
	allMated, allNonMated := countComparisons(of)
	lost := Lost{Mated: allMated - mated, NonMated: allNonMated - nonMated}
	s := &Scores{Mated: make([]Comparison, mated), NonMated: make([]Comparison, nonMated)}

	// Row r compares image there[r] with all later ones: first the rest of its own
	// person, then the others. Each row's place in the results is known beforehand.
	matedAt, nonMatedAt := make([]int, len(there)), make([]int, len(there))
	m, n := 0, 0
	rest := append([]int(nil), acquired...)
	for r, i := range there {
		matedAt[r], nonMatedAt[r] = m, n
		person := d.Images[i].Person
		rest[person]--
		m += rest[person]
		n += len(there) - 1 - r - rest[person]
	}
	err := eachIndex(ctx, len(there), workers, func(_ context.Context, r int) error {
		m, n := matedAt[r], nonMatedAt[r]
		i := there[r]
		for _, j := range there[r+1:] {
			c := Comparison{Score: scorer.Score(i, j), A: int32(d.Images[i].Person), B: int32(d.Images[j].Person)}
			if c.A == c.B {
				s.Mated[m] = c
				m++
			} else {
				s.NonMated[n] = c
				n++
			}
		}
		return nil
	})
	return s, lost, err
}

// countComparisons returns how many mated and non-mated comparisons there are
// between all images of people who have that many each.
func countComparisons(images []int) (mated, nonMated int) {
	before := 0
	for _, k := range images {
		mated += k * (k - 1) / 2
		nonMated += k * before
		before += k
	}
	return mated, nonMated
}

// Hits counts closed-set identification of one person.
type Hits struct {
	Probes int // images that had another one of the same person to find
	Hits   int // of them, those that were nearest to one of the same person
}

// RankOne identifies every acquired image among all the others (leave one out)
// and returns the outcome per person. A person with a single acquired image is
// only there to be mistaken for. A stranger's image that ties with the best one
// of the same person is a miss. Only for folders.
func RankOne(ctx context.Context, d *DataSet, a *Acquired, scorer Scorer, workers int) ([]Hits, error) {
	type outcome struct{ probe, hit bool }
	outcomes := make([]outcome, len(d.Images))
	err := eachIndex(ctx, len(d.Images), workers, func(_ context.Context, i int) error {
		if a.Embeddings[i] == nil {
			return nil
		}
		own, others := float32(math.Inf(-1)), float32(math.Inf(-1))
		for j := range d.Images {
			switch {
			case j == i || a.Embeddings[j] == nil:
			case d.Images[j].Person == d.Images[i].Person:
				own = max(own, scorer.Score(i, j))
				outcomes[i].probe = true
			default:
				others = max(others, scorer.Score(i, j))
			}
		}
		outcomes[i].hit = outcomes[i].probe && own > others
		return nil
	})
	if err != nil {
		return nil, err
	}
	hits := make([]Hits, len(d.People))
	for i, o := range outcomes {
		if o.probe {
			hits[d.Images[i].Person].Probes++
		}
		if o.hit {
			hits[d.Images[i].Person].Hits++
		}
	}
	return hits, nil
}
