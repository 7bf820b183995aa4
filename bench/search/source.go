package search

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Kind is how the synthetic embeddings are distributed.
type Kind string

// The kinds of data.
const (
	// Isotropic embeddings have all directions alike: independent normal values.
	// Strangers' cosines have a standard deviation of 1/sqrt(dim).
	Isotropic Kind = "isotropic"
	// Spectrum embeddings vary more in some directions than in others, as those of
	// face models do: direction i has the variance (1+i/c)^-2, with c such that
	// the participation ratio (sum v)^2 / sum v^2 of the variances v is
	// Participation(dim). Strangers' cosines have a standard deviation of
	// 1/sqrt of that.
	Spectrum Kind = "spectrum"
)

// typicalParticipation is the participation ratio of Spectrum. It is chosen so
// that strangers' cosines scatter as those of a real model: MobileFaceNet (128-d)
// gave, on the 78,000 non-mated pairs of the ORL faces, a median of 0.087 and a
// 99th percentile of 0.349; (0.349-0.087)/2.326 = 0.113 = 1/sqrt(78). The mean,
// which is that of one laboratory's photographs, is left at zero.
const typicalParticipation = 80

// Participation is the participation ratio of Spectrum data: 80, and no more
// than 0.6 of the dimensions, so that 128-d data have 77.
func Participation(dim int) float64 { return min(typicalParticipation, 0.6*float64(dim)) }

// The cosine of a mated probe and its template is drawn evenly between these.
// The ORL mated pairs have theirs between 0.49 (5th percentile) and 0.95.
const (
	matedLow  = 0.5
	matedHigh = 0.9
)

// twinEvery: of so many templates one has the vector of the one before, so that
// scores tie. Every second time it belongs to the same subject as its twin, so
// that subjects with two templates occur as well.
const twinEvery = 997

// Source makes embeddings from a seed. The same number gives the same vector for
// ever, so that a gallery can be made again in parts. It is immutable.
type Source struct {
	kind  Kind
	dim   int
	seed  uint64
	sigma []float64 // standard deviations of the directions; nil: all alike
}

// NewSource makes a source of vectors of dim values.
func NewSource(kind Kind, dim int, seed uint64) *Source {
	s := &Source{kind: kind, dim: dim, seed: seed}
	if kind == Spectrum {
		s.sigma = spectrum(dim, Participation(dim))
	}
	return s
}

// spectrum returns the standard deviations of dim directions whose variances
// (1+i/c)^-2 have the participation ratio asked for, which must be above 1 and
// below dim.
func spectrum(dim int, participation float64) []float64 {
	variances := make([]float64, dim)
	fill := func(c float64) float64 {
		for i := range variances {
			f := 1 / (1 + float64(i)/c)
			variances[i] = f * f
		}
		return participationRatio(variances)
	}
	low, high := 1e-6, 1e6 // the ratio grows with c, from 1 to dim
	for range 200 {
		if c := math.Sqrt(low * high); fill(c) < participation {
			low = c
		} else {
			high = c
		}
	}
	fill(high)
	for i, v := range variances {
		variances[i] = math.Sqrt(v)
	}
	return variances
}

// participationRatio is the number of directions that a variance is spread over.
func participationRatio(variances []float64) float64 {
	var sum, squares float64
	for _, v := range variances {
		sum += v
		squares += v * v
	}
	return sum * sum / squares
}

// Describe says in a sentence what the data are.
func (s *Source) Describe() string {
	mated := fmt.Sprintf("every second probe mated, its cosine to the template even in %g..%g; 1 template in %d has the vector of another", matedLow, matedHigh, twinEvery)
	if s.kind == Spectrum {
		return fmt.Sprintf("synthetic, variances of the directions falling off as (1+i/c)^-2, participation ratio %.0f of %d; %s", Participation(s.dim), s.dim, mated)
	}
	return fmt.Sprintf("synthetic, isotropic in %d dimensions; %s", s.dim, mated)
}

// original is the number of the template whose vector template i has.
func original(i int) int {
	if i%twinEvery == 1 {
		return i - 1
	}
	return i
}

// ownerOf is the number of the subject that template i belongs to.
func ownerOf(i int) int {
	if i%(2*twinEvery) == 1 {
		return i - 1
	}
	return i
}

// Generator draws vectors of a Source. It is for one goroutine.
type Generator struct {
	*Source
	pcg    *rand.PCG
	random *rand.Rand
}

// Generator makes one.
func (s *Source) Generator() *Generator {
	pcg := rand.NewPCG(0, 0)
	return &Generator{Source: s, pcg: pcg, random: rand.New(pcg)}
}

// Streams of random numbers.
const (
	streamTemplates = 1 + iota
	streamProbes
	streamMates
	streamChurn
)

// begin starts the random numbers of one vector. The two words are mixed, since
// neighbouring seeds of a PCG begin with numbers that are not independent.
func (g *Generator) begin(stream, number uint64) {
	g.pcg.Seed(mix(g.seed+stream<<56), mix(number))
}

// mix is the finaliser of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// fill draws a vector of the source's distribution.
func (g *Generator) fill(dst []float32) {
	if g.sigma == nil {
		for i := range dst {
			dst[i] = float32(g.random.NormFloat64())
		}
		return
	}
	for i := range dst {
		dst[i] = float32(g.sigma[i] * g.random.NormFloat64())
	}
}

// Template writes template i, of norm 1, to dst, which has dim values.
func (g *Generator) Template(dst []float32, i int) {
	g.begin(streamTemplates, uint64(original(i)))
	g.fill(dst)
	normalise(dst)
}

// Probe writes probe j, of norm 1, to dst: of nobody in the gallery for a
// negative mate, and otherwise of the one who template mate is of, at a cosine
// to it between matedLow and matedHigh, which is returned.
func (g *Generator) Probe(dst []float32, j, mate int) (cosine float64) {
	if mate < 0 {
		g.begin(streamProbes, uint64(j))
		g.fill(dst)
		normalise(dst)
		return 0
	}
	template := make([]float32, len(dst))
	g.Template(template, mate)
	g.begin(streamProbes, uint64(j))
	cosine = matedLow + (matedHigh-matedLow)*g.random.Float64()
	g.fill(dst)
	// Only what is orthogonal to the template varies.
	along := dot64(dst, template)
	for i := range dst {
		dst[i] -= float32(along) * template[i]
	}
	normalise(dst)
	across := math.Sqrt(1 - cosine*cosine)
	for i := range dst {
		dst[i] = float32(cosine*float64(template[i]) + across*float64(dst[i]))
	}
	normalise(dst)
	return cosine
}

// Mates chooses for each of n probes the template that it is mated with, among
// first..first+count-1, or -1: every second one is mated, beginning with the
// first, and one mated probe in four with a template that has a twin.
func (s *Source) Mates(n, first, count int) []int {
	g := s.Generator()
	g.begin(streamMates, uint64(first))
	mates := make([]int, n)
	for j := range mates {
		mates[j] = -1
		if j%2 == 0 {
			mates[j] = first + g.random.IntN(count)
			if twin := mates[j]/twinEvery*twinEvery + 1; j%8 == 0 && twin-1 >= first && twin < first+count {
				mates[j] = twin
			}
		}
	}
	return mates
}

func dot64(a, b []float32) float64 {
	var sum float64
	for i, x := range a {
		sum += float64(x) * float64(b[i])
	}
	return sum
}

func normalise(v []float32) {
	scale := 1 / math.Sqrt(dot64(v, v))
	for i := range v {
		v[i] = float32(float64(v[i]) * scale)
	}
}
