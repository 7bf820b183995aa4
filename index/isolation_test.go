package index

import (
	"errors"
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
	"github.com/menshen-io/menshen/index/scope"
)

// isolationSeed chooses the scopes and faces of the isolation tests: the same in
// every run, since their bounds are those of chance; MENSHEN_TEST_SEED chooses
// others.
func isolationSeed(t *testing.T) uint64 {
	seed := uint64(20260501)
	if s := os.Getenv("MENSHEN_TEST_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("MENSHEN_TEST_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("MENSHEN_TEST_SEED=%d", seed)
	return seed
}

// site is a scope with its gallery and everybody's code there.
type site struct {
	ref   scope.Ref
	codes []code.Code // by face
}

func faceID(i int) scope.SubjectID { return scope.SubjectID(fmt.Sprintf("face-%d", i)) }

// sites enrols the same faces in n scopes of random tenants.
func sites(t *testing.T, x *Index, seed uint64, n, faces, dim int) []site {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	embeddings := make([][]float32, faces)
	for i := range embeddings {
		embeddings[i] = gaussian(r, dim)
		switch i % 4 { // embeddings are not all isotropic
		case 1:
			for j := range embeddings[i] {
				embeddings[i][j] = float32(math.Abs(float64(embeddings[i][j])))
			}
		case 2:
			clear(embeddings[i][dim/8:])
		}
	}
	out := make([]site, n)
	var wg sync.WaitGroup
	for s := range out {
		var secret code.RotationSeed
		for i := range secret {
			secret[i] = byte(r.Uint32())
		}
		out[s].ref = scope.Ref{
			Tenant: scope.TenantID(fmt.Sprintf("tenant-%d", r.IntN(max(2, n/4)))),
			Scope:  scope.ScopeID(fmt.Sprintf("scope-%x-%d", r.Uint32(), s)),
		}
		g, err := x.Create(out[s].ref, dim)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			rot, err := code.NewRotation(secret, dim)
			if err != nil {
				t.Error(err)
				return
			}
			change := Change{Epoch: 1}
			for i, e := range embeddings {
				c, err := code.Encode(rot, e)
				if err != nil {
					t.Error(err)
					return
				}
				out[s].codes = append(out[s].codes, c)
				change.Inserts = append(change.Inserts, Insert{Subject: faceID(i), Template: 1, Code: c})
			}
			if err := g.Apply(change); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return out
}

// scatter sums up scores.
type scatter struct {
	n                      int
	sum, squares, extreme  float64
	matches, beyond3Sigmas int

	// Faces resemble one another, so the scores of one pair of scopes hang
	// together; different pairs do not. The mean's error is that of these means.
	pairs       int
	pairSquares float64
}

func (s *scatter) add(score code.Score, dim int, threshold code.Threshold) {
	v := float64(score)
	s.n++
	s.sum += v
	s.squares += v * v
	s.extreme = max(s.extreme, math.Abs(v))
	if threshold.Admits(score) {
		s.matches++
	}
	if math.Abs(v)*math.Sqrt(float64(dim)) > 3 {
		s.beyond3Sigmas++
	}
}

// merge adds the scores of one pair of scopes, or of several.
func (s *scatter) merge(o scatter) {
	s.n += o.n
	s.sum += o.sum
	s.squares += o.squares
	s.extreme = max(s.extreme, o.extreme)
	s.matches += o.matches
	s.beyond3Sigmas += o.beyond3Sigmas
	s.pairs += o.pairs
	s.pairSquares += o.pairSquares
}

// endPair closes the sums of one pair of scopes.
func (s *scatter) endPair() {
	s.pairs = 1
	s.pairSquares = s.sum / float64(s.n) * (s.sum / float64(s.n))
}

// TestIsolation is the promise of scopes, measured: the same face, enrolled
// under the same pseudonym in many scopes of many tenants, is verified in every
// other scope with the code of its own, more than a million times, through the
// index and with valid grants for the place where it does not belong. It must
// never match, and its scores must be those of strangers: around 0, scattered by
// 1/sqrt(dim), with no more than a normal distribution's share far out.
//
// The thresholds lie where strangers, whose scores follow (1-s^2)^((dim-3)/2),
// come once in 1e15 comparisons (512 values, 0.35) and once in 1e11 (128 values,
// 0.55). Short embeddings isolate less: of 128 values, strangers reach 0.494,
// the fixtures embedder's threshold at FMR 1e-4, once in 1e9 comparisons.
func TestIsolation(t *testing.T) {
	for _, tc := range []struct {
		dim, scopes, faces int
		threshold          code.Threshold
	}{
		{512, 64, 500, 0.35}, // 2016 pairs of scopes: 1,008,000 comparisons
		{128, 24, 400, 0.55},
	} {
		if raced {
			tc.scopes = 12
		}
		t.Run(fmt.Sprintf("dim=%d", tc.dim), func(t *testing.T) {
			x := New()
			all := sites(t, x, isolationSeed(t), tc.scopes, tc.faces, tc.dim)
			parts := make([]scatter, runtime.GOMAXPROCS(0))
			var wg sync.WaitGroup
			for p := range parts {
				wg.Go(func() {
					for from := p; from < len(all); from += len(parts) {
						// Each pair of scopes once: the score is the same both ways.
						for to := range from {
							var pair scatter
							grant := grantFor(all[to].ref)
							for i, c := range all[from].codes {
								best, found, _, err := x.Verify(t.Context(), grant, faceID(i), Query{Code: c, Now: epochStart})
								if err != nil || !found {
									t.Errorf("face %d of %s in %s: found %v, %v", i, all[from].ref, all[to].ref, found, err)
									return
								}
								pair.add(best.Score, tc.dim, tc.threshold)
							}
							pair.endPair()
							parts[p].merge(pair)
						}
					}
				})
			}
			wg.Wait()
			var s scatter
			for _, p := range parts {
				s.merge(p)
			}
			n := float64(s.n)
			mean, sd, want := s.sum/n, math.Sqrt(s.squares/n), 1/math.Sqrt(float64(tc.dim))
			far := float64(s.beyond3Sigmas) / n
			t.Logf("%d comparisons of one face in two scopes: mean %+.6f, sd %.5f (strangers: 0, %.5f), largest %.3f, beyond 3 sigma %.4f (normal: 0.0027), at or over %v: %d",
				s.n, mean, sd, want, s.extreme, far, tc.threshold, s.matches)
			if wantN := tc.scopes * (tc.scopes - 1) / 2 * tc.faces; s.n != wantN {
				t.Errorf("%d comparisons were made, not %d", s.n, wantN)
			}
			if s.matches != 0 {
				t.Errorf("%d of %d matched at %v", s.matches, s.n, tc.threshold)
			}
			if e := math.Sqrt(s.pairSquares) / float64(s.pairs); math.Abs(mean) > 6*e {
				t.Errorf("the mean is %+.6f; more than 6 standard errors of %.6f from 0", mean, e)
			}
			if math.Abs(sd/want-1) > 0.05 {
				t.Errorf("the scatter is %.5f; strangers' is %.5f", sd, want)
			}
			if far > 0.005 {
				t.Errorf("%.4f of the scores lie beyond 3 sigma; 0.0027 would be normal", far)
			}
			// And at home each face is found, or the test shows nothing.
			for _, s := range all[:4] {
				for i := 0; i < tc.faces; i += 37 {
					r, err := x.Identify(t.Context(), grantFor(s.ref), Query{Code: s.codes[i], K: 1, Threshold: 0.99, Now: epochStart})
					if err != nil || len(r.Candidates) != 1 || r.Candidates[0].Subject != faceID(i) {
						t.Fatalf("face %d is not found at home, %s: %+v, %v", i, s.ref, r, err)
					}
				}
			}
		})
	}
}

// TestIsolationOfSearches identifies faces of one scope in another where all of
// them are enrolled: nothing matches, and the own face is no likelier to come
// first than chance allows.
func TestIsolationOfSearches(t *testing.T) {
	const dim, faces = 512, 200
	x, n := New(), 8
	if raced {
		n = 3
	}
	all := sites(t, x, isolationSeed(t), n, faces, dim)
	searches, first := 0, 0
	for from := range all {
		for to := range all {
			if from == to {
				continue
			}
			for i, c := range all[from].codes {
				r, err := x.Identify(t.Context(), grantFor(all[to].ref), Query{Code: c, K: 1, Threshold: -1, Now: epochStart})
				if err != nil || r.Scanned != faces || len(r.Candidates) != 1 {
					t.Fatalf("%+v, %v", r, err)
				}
				if r.Best >= 0.35 {
					t.Errorf("face %d of %s scores %v in %s", i, all[from].ref, r.Best, all[to].ref)
				}
				searches++
				if r.Candidates[0].Subject == faceID(i) {
					first++
				}
			}
		}
	}
	t.Logf("%d searches of %d faces each, the own face first in %d; chance gives %d", searches, faces, first, searches/faces)
	chance := float64(searches) / faces
	if float64(first) > chance+7*math.Sqrt(chance) {
		t.Errorf("the own face came first in %d of %d searches", first, searches)
	}
}

// TestMovedCode: a code that is copied from one scope's gallery into another's
// matches nobody there: not the face it came from, whose probes are encoded
// with the other scope's rotation, and not under a grant of its old scope.
func TestMovedCode(t *testing.T) {
	const dim, faces = 512, 300
	x := New()
	all := sites(t, x, isolationSeed(t), 2, faces, dim)
	from, to := all[0], all[1]
	g, _ := x.Gallery(to.ref)
	if err := g.Apply(Change{Epoch: 2, Removes: []Remove{{Subject: faceID(0)}}, Inserts: []Insert{{Subject: "moved", Template: 1, Code: from.codes[0]}}}); err != nil {
		t.Fatal(err)
	}
	// The person at the gate of the second scope, and everybody else there.
	for i, c := range to.codes {
		best, found, _, err := x.Verify(t.Context(), grantFor(to.ref), "moved", Query{Code: c, Now: epochStart})
		if err != nil || !found || best.Score >= 0.35 {
			t.Errorf("face %d scores %v against the moved code; found %v, %v", i, best.Score, found, err)
		}
	}
	r, err := x.Identify(t.Context(), grantFor(to.ref), Query{Code: to.codes[0], K: 5, Threshold: 0.35, Now: epochStart})
	if err != nil || len(r.Candidates) != 0 {
		t.Errorf("the moved face is found: %+v, %v", r, err)
	}
	// A grant of the old scope does not reach the copy.
	if _, err := g.Identify(t.Context(), grantFor(from.ref), Query{Code: from.codes[0], K: 1, Threshold: 0.9, Now: epochStart}); !errors.Is(err, scope.ErrNotGranted) {
		t.Errorf("a grant of %s reads %s: %v", from.ref, to.ref, err)
	}
	r, err = x.Identify(t.Context(), grantFor(from.ref), Query{Code: from.codes[0], K: MaxK, Threshold: 0.9, Now: epochStart})
	if err != nil || !slices.Equal(r.Candidates, []Candidate{{faceID(0), 1, 1}}) {
		t.Errorf("a grant of %s finds %+v, %v", from.ref, r, err)
	}
}
