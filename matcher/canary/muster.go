package canary

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

const (
	// likeness is the cosine between a synthetic face and its probe, and
	// homeBar what is asked of a scope's own code where its threshold is higher:
	// quantising takes 0.004 at most.
	likeness = 0.95
	homeBar  = 0.9
	// candidates that one search is asked for: the scope's own and the likest
	// of the others.
	candidates = 3
	// maxSuspects are looked at again in a round, the likest first. A pair meets
	// the threshold by chance where that is low and codes are short: one pair
	// in eight at 0.1 and 128 values, one in 10^8 at 0.5.
	maxSuspects = 32
	// confirmations is how many more faces a suspected pair is asked about. Its
	// mean score is off by 1/sqrt(64*dim) by chance: nine standard deviations
	// below the lowest threshold, 0.1, at 128 values.
	confirmations = 64
)

// suspect is a pair that matched once.
type suspect struct {
	from, in int // the code of site from matched a probe of site in
	score    code.Score
}

// muster is a round over scopes whose codes have the same length. One in which a
// scope is revoked ends early and shows nothing; the next one is soon.
func (c *Canary) muster(ctx context.Context, dim int, scopes []Site) error {
	err := c.musterAll(ctx, dim, scopes)
	if errors.Is(err, code.ErrWiped) && slices.ContainsFunc(scopes, func(s Site) bool { return s.Gone() }) {
		return nil
	}
	return err
}

func (c *Canary) musterAll(ctx context.Context, dim int, scopes []Site) error {
	own, err := c.pair(dim)
	if err != nil {
		return err
	}
	r := &round{Canary: c, index: index.New(), dim: dim, sites: slices.Concat(own, scopes)}
	defer r.index.Close()
	face := c.face(dim)
	if r.enrolled, err = encodeAll(r.sites, face); err != nil {
		return err
	}
	defer r.forget()
	if err := r.enrol(len(own)); err != nil {
		return err
	}
	if err := r.reseed(face); err != nil {
		return err
	}
	probe := c.like(face)
	for i := range r.sites {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.probe(ctx, i, probe); err != nil {
			return err
		}
	}
	here, _ := r.index.Gallery(c.opt.Here.Ref())
	if _, err := here.Identify(ctx, c.opt.There, r.query(0, r.enrolled[0])); !errors.Is(err, scope.ErrNotGranted) {
		return &Alarm{Err: ErrCrossMatch, Detail: fmt.Sprintf("a grant for %s opens %s", c.opt.There.Ref(), c.opt.Here.Ref())}
	}
	if err := r.confirm(); err != nil {
		return err
	}
	return r.lost
}

// round is what a muster has at hand.
type round struct {
	*Canary
	index    *index.Index // with the two hidden galleries and no other
	dim      int
	sites    []Site
	enrolled []code.Code // of the face, for each site
	suspects []suspect
	lost     error // a scope whose own code was crowded out
}

// forget overwrites the hidden galleries and the codes.
func (r *round) forget() {
	r.index.Drop(r.opt.Here.Ref())
	r.index.Drop(r.opt.There.Ref())
	for _, c := range r.enrolled {
		clear(c.Q)
	}
}

// enrol fills the hidden galleries: the first with the face under all
// rotations, the second with another face under the canary's own.
func (r *round) enrol(own int) error {
	stranger, err := encodeAll(r.sites[:own], r.face(r.dim))
	if err != nil {
		return err
	}
	for _, fill := range []struct {
		ref   scope.Ref
		codes []code.Code
	}{{r.opt.Here.Ref(), r.enrolled}, {r.opt.There.Ref(), stranger}} {
		gallery, err := r.index.Create(fill.ref, r.dim)
		if err != nil {
			return err
		}
		change := index.Change{Epoch: 1, Inserts: make([]index.Insert, len(fill.codes))}
		for i, c := range fill.codes {
			change.Inserts[i] = index.Insert{Subject: name(i), Template: 1, Code: c}
		}
		if err := gallery.Apply(change); err != nil {
			return err
		}
	}
	return nil
}

func (r *round) query(i int, probe code.Code) index.Query {
	return index.Query{Code: probe, K: candidates, Threshold: min(r.sites[i].Threshold, homeBar), Now: time.Now()}
}

// probe asks for one scope: the likeness of the face must find the scope's own
// code in the first gallery and nothing in the second.
func (r *round) probe(ctx context.Context, i int, face []float32) error {
	site := &r.sites[i]
	probe, err := code.Encode(site.Rotation, face)
	if err != nil {
		return err
	}
	q := r.query(i, probe)
	found, err := r.identify(ctx, r.index, r.opt.Here, q)
	if err != nil {
		return err
	}
	home, others := false, 0
	for _, candidate := range found.Candidates {
		from, err := r.weigh(i, probe, candidate)
		if err != nil {
			return err
		}
		if from == i {
			home = candidate.Score >= homeBar
		} else {
			others++
		}
	}
	if !home {
		missing := &Alarm{Err: ErrDead, Ref: site.Ref, Detail: label(site) + ": the search does not find its own synthetic face"}
		if others < candidates {
			return missing
		}
		r.lost = missing // unless the others turn out to have the same rotation
	}
	for _, from := range []int{i, r.dice.IntN(len(r.sites))} {
		best, known, err := r.verify(ctx, r.index, r.opt.Here, name(from), q)
		if err != nil {
			return err
		}
		if !known || from == i && best.Score < homeBar {
			return &Alarm{Err: ErrDead, Ref: site.Ref, Detail: fmt.Sprintf("%s: the comparison with its own synthetic face gives %.3f instead of about %.2f", label(site), best.Score, likeness)}
		}
		if _, err := r.weigh(i, probe, best); err != nil {
			return err
		}
	}
	q.Threshold = homeBar
	if found, err = r.identify(ctx, r.index, r.opt.There, q); err != nil {
		return err
	}
	if len(found.Candidates) > 0 {
		return &Alarm{Err: ErrCrossMatch, Ref: site.Ref, Detail: label(site) + ": a face that is enrolled in one gallery is found in another one"}
	}
	return nil
}

// weigh holds a reported score against the codes, multiplied out one value after
// the other, and notes a match of another scope's code as a suspicion.
func (r *round) weigh(i int, probe code.Code, candidate index.Candidate) (from int, err error) {
	from, err = strconv.Atoi(string(candidate.Subject))
	if err != nil || from < 0 || from >= len(r.sites) {
		return 0, &Alarm{Err: ErrDead, Ref: r.sites[i].Ref, Detail: "the search names somebody who was not enrolled"}
	}
	if score := compare(probe, r.enrolled[from]); math.Abs(float64(score-candidate.Score)) > 1e-9 {
		return 0, &Alarm{Err: ErrDead, Ref: r.sites[i].Ref, Detail: fmt.Sprintf("%s: a score of %.4f is reported where the codes give %.4f", label(&r.sites[i]), candidate.Score, score)}
	}
	if from != i && r.sites[i].Threshold.Admits(candidate.Score) {
		r.suspects = append(r.suspects, suspect{from: from, in: i, score: candidate.Score})
	}
	return from, nil
}

// compare is the score without the kernels.
func compare(a, b code.Code) code.Score {
	var dot int32
	for i, x := range a.Q {
		dot += int32(x) * int32(b.Q[i])
	}
	return code.Compare(dot, a.Norm2, b.Norm2)
}

// reseed draws some rotations anew from the keyring: they must give the codes
// that those in use gave.
func (r *round) reseed(face []float32) error {
	for range reseeds {
		i := r.dice.IntN(len(r.sites))
		site := &r.sites[i]
		if site.Seed == nil {
			continue // the canary's own
		}
		var again code.Code
		err := site.Seed(func(seed *[32]byte) error {
			rotation, err := code.NewRotation(*seed, site.Rotation.Dim())
			if err != nil {
				return err
			}
			defer rotation.Wipe()
			again, err = code.Encode(rotation, face)
			return err
		})
		if err != nil && site.Gone() {
			continue
		} else if err != nil {
			return err
		}
		if !slices.Equal(again.Q, r.enrolled[i].Q) && !site.Gone() {
			return &Alarm{Err: ErrMisplaced, Ref: site.Ref, Detail: label(site) + " uses a rotation that is not drawn from its key"}
		}
	}
	return nil
}

// confirm asks the suspected pairs about more faces.
func (r *round) confirm() error {
	slices.SortFunc(r.suspects, func(a, b suspect) int {
		return cmp.Compare(b.score, a.score)
	})
	for _, s := range r.suspects[:min(maxSuspects, len(r.suspects))] {
		pair := []Site{r.sites[s.from], r.sites[s.in]}
		sum := 0.0
		for range confirmations {
			codes, err := encodeAll(pair, r.face(r.dim))
			if err != nil {
				return err
			}
			sum += float64(compare(codes[0], codes[1]))
		}
		if mean := code.Score(sum / confirmations); pair[1].Threshold.Admits(mean) {
			return &Alarm{Err: ErrCrossMatch, Ref: pair[0].Ref, Other: pair[1].Ref,
				Detail: fmt.Sprintf("%s in %s, with a mean score of %.3f over %d faces", label(&pair[0]), label(&pair[1]), mean, confirmations)}
		}
	}
	return nil
}

func encodeAll(sites []Site, face []float32) ([]code.Code, error) {
	codes := make([]code.Code, len(sites))
	for i := range sites {
		var err error
		if codes[i], err = code.Encode(sites[i].Rotation, face); err != nil {
			return nil, err
		}
	}
	return codes, nil
}

// name is a site's subject in the hidden gallery.
func name(i int) scope.SubjectID { return scope.SubjectID(strconv.Itoa(i)) }

func label(s *Site) string {
	if s.Ref == (scope.Ref{}) {
		return "the canary's own scope"
	}
	return s.Ref.String()
}

// face draws a synthetic embedding: of every direction alike, or, every second
// time, with most of it in few directions, as real embedders have it.
func (c *Canary) face(dim int) []float32 {
	v := make([]float32, dim)
	even := c.dice.IntN(2) == 0
	for i := range v {
		x := c.dice.NormFloat64()
		if !even {
			// Deviations 1/(1+i/c) with c = 80 at 512 values: the participation
			// ratio of about 80 that public embedders show.
			x /= 1 + float64(i)/(float64(dim)*80/512)
		}
		v[i] = float32(x)
	}
	return v
}

// like draws a vector whose cosine with v is likeness, nearly.
func (c *Canary) like(v []float32) []float32 {
	var norm float64
	for _, x := range v {
		norm += float64(x) * float64(x)
	}
	spread := math.Sqrt(norm/float64(len(v))) * math.Sqrt(1/(likeness*likeness)-1)
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = x + float32(spread*c.dice.NormFloat64())
	}
	return out
}

func newSeed() (seed code.RotationSeed) {
	crand.Read(seed[:]) // never fails: crypto/rand
	return seed
}
