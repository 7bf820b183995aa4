package load

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/menshen-io/menshen/bench/target"
)

// ErrOptions: a measurement that cannot be made as asked for; the text says what
// to change.
var ErrOptions = errors.New("cannot measure that")

// Share is one part of a mix.
type Share struct {
	Kind   target.Kind
	Weight float64
}

// Mix is what is asked, by share.
type Mix []Share

// ParseMix reads verify:crop=0.8,identify:image=0.2; a weight that is left out is
// 1. Error: ErrOptions.
func ParseMix(text string) (Mix, error) {
	var m Mix
	for part := range strings.SplitSeq(text, ",") {
		name, weight, given := strings.Cut(strings.TrimSpace(part), "=")
		kind, err := target.ParseKind(name)
		if err != nil {
			return nil, fmt.Errorf("%w: the mix: %w", ErrOptions, err)
		}
		s := Share{kind, 1}
		if given {
			if s.Weight, err = strconv.ParseFloat(weight, 64); err != nil || !(s.Weight > 0) || math.IsInf(s.Weight, 0) {
				return nil, fmt.Errorf("%w: the mix: %q is not a weight above 0", ErrOptions, weight)
			}
		}
		for _, other := range m {
			if other.Kind == kind {
				return nil, fmt.Errorf("%w: the mix names %s twice", ErrOptions, kind)
			}
		}
		m = append(m, s)
	}
	return m, nil
}

func (m Mix) String() string {
	parts := make([]string, len(m))
	for i, s := range m {
		parts[i] = fmt.Sprintf("%s=%g", s.Kind, s.Weight)
	}
	return strings.Join(parts, ",")
}

// Needs reports whether the mix has a probe.
func (m Mix) Needs(probe string) bool {
	for _, s := range m {
		if s.Kind.Probe == probe {
			return true
		}
	}
	return false
}

// deck hands out the requests of a mix, in the order that a seed draws.
type deck struct {
	random *rand.Rand
	ends   []float64 // upper ends of the shares, up to 1
	piles  [][]target.Request
	next   []int
}

func newDeck(m Mix, piles [][]target.Request, seed uint64) *deck {
	d := &deck{random: rand.New(rand.NewPCG(seed, 0x6465636b)), piles: piles, next: make([]int, len(piles))}
	total := 0.0
	for _, s := range m {
		total += s.Weight
	}
	sum := 0.0
	for _, s := range m {
		sum += s.Weight
		d.ends = append(d.ends, sum/total)
	}
	return d
}

// draw returns the next request. It is for one goroutine and allocates nothing.
func (d *deck) draw() *target.Request {
	pile := 0
	if len(d.piles) > 1 {
		for x := d.random.Float64(); pile < len(d.ends)-1 && x >= d.ends[pile]; {
			pile++
		}
	}
	p := d.piles[pile]
	r := &p[d.next[pile]%len(p)]
	d.next[pile]++
	return r
}
