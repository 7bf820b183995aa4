package index

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/kernel"
	"github.com/menshen-io/menshen/index/scope"
)

// facePairs draws pairs of embeddings of a given cosine, of kinds that a
// rotation could treat worse than others.
var facePairs = []struct {
	name string
	draw func(r *rand.Rand, a, v []float32) // an embedding, and what the other differs by
}{
	{"isotropic", func(r *rand.Rand, a, v []float32) {
		for i := range a {
			a[i], v[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
		}
	}},
	{"falling spectrum", func(r *rand.Rand, a, v []float32) {
		for i := range a {
			sigma := 1 / (1 + 30*float64(i)/float64(len(a)))
			a[i], v[i] = float32(sigma*r.NormFloat64()), float32(sigma*r.NormFloat64())
		}
	}},
	{"no negative values", func(r *rand.Rand, a, v []float32) { // behind a ReLU
		for i := range a {
			a[i], v[i] = float32(math.Abs(r.NormFloat64())), float32(max(r.NormFloat64(), 0))
		}
	}},
	{"few values", func(r *rand.Rand, a, v []float32) { // eight of them carry everything
		clear(a)
		clear(v)
		for range 8 {
			a[r.IntN(len(a))] = float32(r.NormFloat64())
			v[r.IntN(len(v))] = float32(r.NormFloat64())
		}
		a[0], v[1] = a[0]+1, v[1]+1
	}},
	{"differing in one value", func(r *rand.Rand, a, v []float32) {
		for i := range a {
			a[i], v[i] = float32(r.NormFloat64()), 0
		}
		v[r.IntN(len(v))] = 1
	}},
	{"signs", func(r *rand.Rand, a, v []float32) { // all values of one magnitude
		for i := range a {
			a[i], v[i] = float32(1-2*r.IntN(2)), float32(1-2*r.IntN(2))
		}
	}},
}

// mix sets b to the unit vector at the cosine from a in the direction of v.
func mixAt(cosine float64, a, v, b []float32) {
	var aa, av float64
	for i := range a {
		aa += float64(a[i]) * float64(a[i])
		av += float64(a[i]) * float64(v[i])
	}
	var vv float64
	for i := range v {
		v[i] -= float32(av / aa * float64(a[i]))
		vv += float64(v[i]) * float64(v[i])
	}
	for i := range b {
		b[i] = float32(cosine*float64(a[i])/math.Sqrt(aa) + math.Sqrt(1-cosine*cosine)*float64(v[i])/math.Sqrt(vv))
	}
}

// zScatter sums up z*sqrt(dim-1) of the filter's doc comment.
type zScatter struct {
	n int
	// Pairs under one rotation hang together where embeddings have a common
	// direction; rotations do not. The mean's error is that of their means.
	rotations                    int
	rotationSquares              float64
	sum, squares, fourth, lowest float64
	beyond                       [6]int // z under -1, -2, ...
}

func (s *zScatter) add(z float64) {
	s.n++
	s.sum += z
	s.squares += z * z
	s.fourth += z * z * z * z
	s.lowest = min(s.lowest, z)
	for i := range s.beyond {
		if z < -float64(i+1) {
			s.beyond[i]++
		}
	}
}

func (s *zScatter) merge(o zScatter) {
	s.rotations, s.rotationSquares = s.rotations+o.rotations, s.rotationSquares+o.rotationSquares
	s.n, s.sum, s.squares, s.fourth = s.n+o.n, s.sum+o.sum, s.squares+o.squares, s.fourth+o.fourth
	s.lowest = min(s.lowest, o.lowest)
	for i := range s.beyond {
		s.beyond[i] += o.beyond[i]
	}
}

// TestFilterLosesNothing holds the argument in the filter's doc comment against
// pairs of embeddings whose score is the bar itself, the worst case: none may be
// ruled out, and the z of the comment must have the mean, the variance, the
// fourth moment and the tails of a coordinate on the sphere, whatever the
// embeddings are like. Each fifty pairs have another rotation.
// MENSHEN_FILTER_PAIRS sets the number of pairs of each dimension; the run of
// record had 12,000,000 each.
func TestFilterLosesNothing(t *testing.T) {
	pairs := 120_000
	if raced || testing.Short() {
		pairs = 12_000
	}
	if s := os.Getenv("MENSHEN_FILTER_PAIRS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("MENSHEN_FILTER_PAIRS: %v", err)
		}
		pairs = n
	}
	seed := isolationSeed(t)
	for _, dim := range []int{512, 128} {
		for k, kind := range facePairs {
			t.Run(fmt.Sprintf("dim=%d/%s", dim, kind.name), func(t *testing.T) {
				const group = 50
				groups := pairs / len(facePairs) / group
				parts := make([]zScatter, runtime.GOMAXPROCS(0))
				lost := make([]int, len(parts))
				var wg sync.WaitGroup
				for p := range parts {
					wg.Go(func() {
						f := newFilter(dim)
						a, v, b, scratch := make([]float32, dim), make([]float32, dim), make([]float32, dim), make([]float32, 2*dim)
						x, q := make([]int8, dim), make([]int8, dim)
						packed := make([]byte, f.stride)
						var prepared kernel.PreparedProbe
						var dot [1]int32
						for g := p; g < groups; g += len(parts) {
							r := rand.New(rand.NewPCG(seed, uint64(dim*1_000_000_000+k*100_000_000+g)))
							var secret code.RotationSeed
							for i := range secret {
								secret[i] = byte(r.Uint32())
							}
							rot, err := code.NewRotation(secret, dim)
							if err != nil {
								t.Error(err)
								return
							}
							before := parts[p].sum
							for range group {
								kind.draw(r, a, v)
								mixAt(0.2+0.75*r.Float64(), a, v, b)
								template, err1 := code.EncodeInto(x, scratch, rot, a)
								probe, err2 := code.EncodeInto(q, scratch, rot, b)
								if err1 != nil || err2 != nil {
									t.Error(err1, err2)
									return
								}
								level := f.pack(packed, template)
								if err := prepared.Prepare(q, f.bits); err != nil {
									t.Error(err)
									return
								}
								kernel.PackedRows(dot[:], &prepared, packed)
								s := float64(code.Compare(kernel.Dot(q, x), probe.Norm2, template.Norm2))
								norm := math.Sqrt(float64(probe.Norm2))
								if e := f.edge(s, norm); dot[0] < e.cut(angleOf(level)) || !e.passes(angleOf(level), dot[0]) {
									lost[p]++
								}
								c := filterCosine(f, template)
								parts[p].add((float64(dot[0])/(norm*f.length) - s*c) / math.Sqrt((1-s*s)*(1-c*c)) * math.Sqrt(float64(dim-1)))
							}
							mean := (parts[p].sum - before) / group
							parts[p].rotations++
							parts[p].rotationSquares += mean * mean
						}
					})
				}
				wg.Wait()
				var s zScatter
				for p := range parts {
					s.merge(parts[p])
					if lost[p] > 0 {
						t.Errorf("%d pairs whose score is the bar are ruled out", lost[p])
					}
				}
				n := float64(s.n)
				mean, variance := s.sum/n, s.squares/n
				t.Logf("%d pairs: z sqrt(d-1) has mean %+.5f, variance %.4f, fourth moment %.3f, lowest %.2f (ruled out: -%d), below -1, -2, ...: %v", s.n, mean, variance, s.fourth/n, s.lowest, sigmas, s.beyond)
				if s.n < group {
					t.Fatal("too few pairs")
				}
				e, few := math.Sqrt(s.rotationSquares)/float64(s.rotations), 1/math.Sqrt(float64(s.rotations))
				if math.Abs(mean) > 6*e {
					t.Errorf("the mean is %+.5f; 6 standard errors are %.5f", mean, 6*e)
				}
				if math.Abs(variance-1) > few+0.01 {
					t.Errorf("variance %.4f", variance)
				}
				if s.fourth/n > 3+6*few+0.05 {
					t.Errorf("the fourth moment is %.3f; a coordinate on the sphere has less than 3", s.fourth/n)
				}
				for i, got := range s.beyond {
					want := n * math.Erfc(float64(i+1)/math.Sqrt2) / 2 // a normal distribution's, which has more in its tail
					if float64(got) > want+10*math.Sqrt(want)+5 {
						t.Errorf("%d of %d below -%d; of a normal distribution %.1f are", got, s.n, i+1, want)
					}
				}
			})
		}
	}
}

// filterCosine is the cosine of a code and its coarse copy, by the definition.
func filterCosine(f *filter, c code.Code) float64 {
	packed := make([]byte, f.stride)
	f.pack(packed, c)
	var prepared kernel.PreparedProbe
	_ = prepared.Prepare(c.Q, f.bits)
	var along [1]int32
	kernel.PackedRows(along[:], &prepared, packed)
	return float64(along[0]) / (f.length * math.Sqrt(float64(c.Norm2)))
}

// TestPack compares levels and lengths with their definitions, for codes of all
// shapes.
func TestPack(t *testing.T) {
	r := rand.New(rand.NewPCG(51, 1))
	for _, dim := range []int{64, 65, 100, 128, 383, 384, 512, 1000} {
		f := newFilter(dim)
		for round := range 200 {
			c := code.Code{Q: make([]int8, dim)}
			for i := range c.Q {
				switch round % 5 {
				case 0:
					c.Q[i] = int8(min(max(40*r.NormFloat64(), -127), 127))
				case 1:
					c.Q[i] = int8(r.IntN(255) - 127)
				case 2:
					c.Q[i] = int8(r.IntN(3) - 1) // ties, zeros
				case 3:
					c.Q[i] = 0
				case 4:
					c.Q[i] = 127
				}
			}
			c.Q[r.IntN(dim)] = -127
			c.Norm2 = kernel.Dot(c.Q, c.Q)
			packed := make([]byte, f.stride)
			level := f.pack(packed, c)
			// The product with a unit vector gives each level.
			length := 0.0
			for i := range dim {
				var p kernel.PreparedProbe
				var dot [1]int32
				unit := make([]int8, dim)
				unit[i] = 1
				if err := p.Prepare(unit, f.bits); err != nil {
					t.Fatal(err)
				}
				kernel.PackedRows(dot[:], &p, packed)
				length += float64(dot[0]) * float64(dot[0])
				if q := c.Q[i]; q > 0 && dot[0] < 0 || q < 0 && dot[0] > 0 {
					t.Fatalf("dim %d: value %d of %d got the level %d", dim, i, q, dot[0])
				}
				if round > 5 {
					break
				}
			}
			if round <= 5 && math.Abs(math.Sqrt(length)-f.length) > 1e-9 {
				t.Fatalf("dim %d: the coarse copy has the length %v, not %v", dim, math.Sqrt(length), f.length)
			}
			cosine := filterCosine(f, c)
			if low := (levelBase + float64(level)) / levelSteps; level > 0 && (low > cosine || low < cosine-1.1/levelSteps && level < 255) || level == 0 && cosine > 0.51 {
				t.Fatalf("dim %d: a cosine of %v got the level %d", dim, cosine, level)
			}
		}
	}
}

// TestCutIsOrdered: a higher score or level never lowers the cut, and margin 1
// is the inequality of Cauchy and Schwarz, which no three vectors break.
func TestCutIsOrdered(t *testing.T) {
	for _, dim := range []int{64, 128, 512} {
		f := newFilter(dim)
		for score := 0.0; score < 1; score += 0.01 {
			for level := 1; level < 255; level++ {
				e, higher := f.edge(score, 900), f.edge(score+0.01, 900)
				c := e.cut(angleOf(uint8(level)))
				if c > e.cut(angleOf(uint8(level+1))) || c > higher.cut(angleOf(uint8(level))) {
					t.Fatalf("dim %d: the cut falls after score %v, level %d", dim, score, level)
				}
				if e.passes(angleOf(uint8(level)), c-1) || !e.passes(angleOf(uint8(level)), c+2) {
					t.Fatalf("dim %d: what passes score %v, level %d, is not what its cut lets through", dim, score, level)
				}
			}
			if e := f.edge(score, 900); e.cut(angleOf(0)) > -1<<30 || !e.passes(angleOf(0), -1<<30) {
				t.Fatal("level 0 rules rows out")
			}
		}
		f.margin = 1
		r := rand.New(rand.NewPCG(52, uint64(dim)))
		for range 3000 {
			x, q := randomCode(r, dim), randomCode(r, dim)
			for i := range q.Q {
				if r.IntN(2) == 0 {
					q.Q[i] = x.Q[i]
				}
			}
			q.Norm2 = kernel.Dot(q.Q, q.Q)
			packed := make([]byte, f.stride)
			level := f.pack(packed, x)
			var p kernel.PreparedProbe
			var dot [1]int32
			if err := p.Prepare(q.Q, f.bits); err != nil {
				t.Fatal(err)
			}
			kernel.PackedRows(dot[:], &p, packed)
			s := float64(code.Compare(kernel.Dot(q.Q, x.Q), q.Norm2, x.Norm2))
			if e := f.edge(max(s, 0), math.Sqrt(float64(q.Norm2))); s >= 0 && !e.passes(angleOf(level), dot[0]) {
				t.Fatalf("dim %d: margin 1 rules out a row of the score asked for, %v", dim, s)
			}
		}
	}
}

// randomCode is a code of a random direction without a rotation.
func randomCode(r *rand.Rand, dim int) code.Code {
	v := gaussian(r, dim)
	most := float32(0)
	for _, x := range v {
		most = max(most, x, -x)
	}
	c := code.Code{Q: make([]int8, dim)}
	for i, x := range v {
		c.Q[i] = int8(math.RoundToEven(float64(x) * 127 / float64(most)))
	}
	c.Norm2 = kernel.Dot(c.Q, c.Q)
	return c
}

// unevenPairs have their energy in one or a few values, the worst that a rotation
// meets: a few rounds of Walsh-Hadamard transforms see structure that random
// vectors do not have.
var unevenPairs = []struct {
	name string
	draw func(r *rand.Rand, a, v []float32)
}{
	{"one value each", func(_ *rand.Rand, a, v []float32) { a[0], v[len(v)-1] = 1, 1 }},
	{"one value and all", func(_ *rand.Rand, a, v []float32) {
		a[0] = 1
		for i := range v {
			v[i] = 1
		}
	}},
	{"one value and any", func(r *rand.Rand, a, v []float32) {
		a[0] = 1
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
	}},
	{"two values", func(_ *rand.Rand, a, v []float32) { a[0], a[1], v[0], v[1] = 1, 1, 1, -1 }},
	{"four values", func(_ *rand.Rand, a, v []float32) {
		copy(a, []float32{1, 1, 1, 1})
		copy(v, []float32{1, -1, 1, -1})
	}},
	{"one value above many", func(r *rand.Rand, a, v []float32) {
		for i := range a {
			a[i], v[i] = 1e-3, 1e-3*float32(r.NormFloat64())
		}
		a[0], v[1] = 1, 1
	}},
}

// TestFilterKeepsUnevenEmbeddings searches with such embeddings at the very score
// that they have, up to 0.99999, each time under another rotation: whatever the
// number of values is, they are found. With the filter at every number of values,
// 8% of some were lost at 513.
func TestFilterKeepsUnevenEmbeddings(t *testing.T) {
	rotations := 200
	if raced || testing.Short() {
		rotations = 20
	}
	seed := isolationSeed(t)
	for _, dim := range []int{65, 128, 160, 257, 512, 513, 640} {
		t.Run(fmt.Sprintf("dim=%d", dim), func(t *testing.T) {
			lost := make(map[string]int)
			for round := range rotations {
				r := rand.New(rand.NewPCG(seed, uint64(dim*1000+round)))
				var secret code.RotationSeed
				for i := range secret {
					secret[i] = byte(r.Uint32())
				}
				rot, err := code.NewRotation(secret, dim)
				if err != nil {
					t.Fatal(err)
				}
				ref := scope.Ref{Tenant: "hall", Scope: "fair-1"}
				g := NewGallery(ref, dim)
				g.filterRows, g.small = 1, 0
				var enrolled Change
				var queries []Query
				var kinds []string
				for _, kind := range unevenPairs {
					for i, cosine := range []float64{0.2 + 0.6*r.Float64(), 0.8 + 0.15*r.Float64(), 1 - math.Pow(10, -2-3*r.Float64())} {
						a, v, b := make([]float32, dim), make([]float32, dim), make([]float32, dim)
						kind.draw(r, a, v)
						mixAt(cosine, a, v, b)
						template, probe := encode(t, rot, a), encode(t, rot, b)
						if i == 1 {
							template, probe = probe, template
						}
						score, err := code.Similarity(probe, template)
						if err != nil {
							t.Fatal(err)
						}
						enrolled.Inserts = append(enrolled.Inserts, Insert{Subject: subjectID(len(kinds)), Template: 1, Code: template})
						queries = append(queries, Query{Code: probe, K: MaxK, Threshold: code.Threshold(score), Now: epochStart})
						kinds = append(kinds, kind.name)
					}
				}
				if err := g.Apply(enrolled); err != nil {
					t.Fatal(err)
				}
				for i, q := range queries {
					got, err := g.Identify(t.Context(), grantFor(ref), q)
					if err != nil {
						t.Fatal(err)
					}
					if !slices.ContainsFunc(got.Candidates, func(c Candidate) bool { return c.Subject == subjectID(i) }) {
						lost[kinds[i]]++
					}
					if want := g.filter.pays(float64(q.Threshold)); (got.Work.Glanced > 0) != want {
						t.Fatalf("%d rows glanced at; the filter is used: %v", got.Work.Glanced, want)
					}
				}
			}
			if len(lost) > 0 {
				t.Errorf("lost in %d rotations: %v", rotations, lost)
			}
		})
	}
}
