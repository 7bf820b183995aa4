package load

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Stages are how long the parts of a profile take. Zero parts get the defaults
// beside them.
type Stages struct {
	Step     time.Duration // one step of the search for the peak: 3 s
	Steady   time.Duration // at 80% of the peak, and each part of Fairness and Stalled: 10 s
	Overload time.Duration // 60 s
	Recovery time.Duration // 8 s
	Stalled  time.Duration // how long stalled clients stay, unless they are cut off before: 60 s
}

// DefaultStages are those of zero parts.
func DefaultStages() Stages {
	return Stages{Step: 3 * time.Second, Steady: 10 * time.Second, Overload: 60 * time.Second, Recovery: 8 * time.Second, Stalled: time.Minute}
}

func (s Stages) orDefaults() Stages {
	d := DefaultStages()
	for _, p := range [][2]*time.Duration{{&s.Step, &d.Step}, {&s.Steady, &d.Steady}, {&s.Overload, &d.Overload}, {&s.Recovery, &d.Recovery}, {&s.Stalled, &d.Stalled}} {
		if *p[0] == 0 {
			*p[0] = *p[1]
		}
	}
	return s
}

// steps of the search for the peak, as parts of the capacity that callers get
// who wait for their answers: such callers leave a server idle between an answer
// and the next call, or find it at its best, so the peak lies around 1.
var steps = []float64{0.8, 0.9, 1, 1.1, 1.25}

// grow is by how much the load goes on growing while the server keeps up with
// more than keepsUp of it, at most maxSteps times.
const (
	grow     = 1.25
	keepsUp  = 0.98
	maxSteps = 12
	// steadyPart of the peak is what a server should carry at ease.
	steadyPart = 0.8
	// againPart of the peak saturates a server that has not changed.
	againPart = 1.1
	// slowFactor: an answer later than so many times the 99th percentile at ease
	// is not as it was before.
	slowFactor = 2
)

// Peak finds the most answers a second that the server gives, by steps of
// growing load.
func Peak(ctx context.Context, g *Generator, r *Result, step time.Duration) (float64, error) {
	// The first calls open connections and warm the server up: the second figure
	// counts.
	if _, err := g.Capacity(ctx, capacityCallers(), step/3); err != nil {
		return 0, err
	}
	capacity, err := g.Capacity(ctx, capacityCallers(), step*2/3)
	if err != nil {
		return 0, err
	}
	r.Capacity = &capacity
	peak, rate := 0.0, 0.0
	for i := range maxSteps {
		if i < len(steps) {
			rate = steps[i] * capacity
		} else {
			rate *= grow
		}
		results, err := g.Play(ctx, Phase{fmt.Sprintf("step %.0f/s", rate), step, all(len(g.decks), rate, rate)})
		if err != nil {
			return 0, err
		}
		r.add(results...)
		s := results[0].All
		peak = max(peak, s.Goodput)
		if s.NotSent > 0 {
			r.remark("the search for the peak ended at %.0f calls a second: %d were not sent", rate, s.NotSent)
			break
		}
		if i >= len(steps)-1 && s.Goodput < keepsUp*s.Rate {
			break
		}
	}
	if peak == 0 {
		return 0, fmt.Errorf("%w: no call of any step was answered in time", ErrOptions)
	}
	r.PeakRate = &peak
	return peak, nil
}

// Overload finds the peak, sends 80% of it, then times it, then 80% again.
func Overload(ctx context.Context, g *Generator, times float64, stages Stages) (*Result, error) {
	stages = stages.orDefaults()
	r := &Result{Profile: "overload"}
	peak, err := Peak(ctx, g, r, stages.Step)
	if err != nil {
		return nil, err
	}
	n := len(g.decks)
	ease := all(n, steadyPart*peak, steadyPart*peak)
	before, err := g.Play(ctx, Phase{"80%", stages.Steady, ease})
	if err != nil {
		return nil, err
	}
	r.add(before...)
	steady := before[0].All
	if steady.P99MS == 0 {
		return nil, errors.Join(ErrOptions, errors.New("no call at 80% of the peak was answered"))
	}
	if s := g.Seconds(); len(s) > 0 && s[len(s)-1].ServerRSSMB != nil {
		r.MemorySteadyMB = s[len(s)-1].ServerRSSMB
	}
	g.Slow(time.Duration(slowFactor * steady.P99MS * float64(time.Millisecond)))
	over := fmt.Sprintf("%gx", times)
	played, err := g.Play(ctx,
		Phase{over, stages.Overload, all(n, times*peak, times*peak)},
		Phase{"recovery", stages.Recovery, ease})
	if err != nil {
		return nil, err
	}
	r.add(played...)
	flood := played[0].All
	r.GoodputRatio = ratio(flood.Goodput, peak)
	r.P99Ratio = ratio(flood.P99MS, steady.P99MS)
	if flood.Refused > 0 {
		r.RefusalP99MS = ptr(flood.RefusalP99MS)
	} else {
		r.remark("nothing was refused under overload: the server sheds no load, or the load did not reach it")
	}
	r.RecoveryS = recovery(played[1].windows)
	again, err := g.Play(ctx, Phase{"peak again", stages.Step, all(n, againPart*peak, againPart*peak)})
	if err != nil {
		return nil, err
	}
	r.add(again...)
	r.PeakAfter = ptr(again[0].All.Goodput)
	r.finish(g, over)
	return r, nil
}

// normal is how many of the calls of two seconds must be answered, and not
// slowly, to be as before. At ease 99% are quicker than half the bar.
const normal = 0.97

// recovery is when the first two seconds began that were as before; nil if none.
func recovery(windows []window) *float64 {
	need := int(2 * time.Second / windowLength)
	for i := 0; i+need <= len(windows); i++ {
		good := true
		for _, w := range windows[i : i+need] {
			if float64(w.ok-w.slow) < normal*float64(w.due) {
				good = false
				break
			}
		}
		if good {
			return ptr((time.Duration(i) * windowLength).Seconds())
		}
	}
	return nil
}

// Fairness compares the other tenants' latencies while one sends times its share
// with theirs before. The share of a tenant is the peak over the number of
// tenants; everybody else sends part of it throughout. The flooding tenant is
// the last.
func Fairness(ctx context.Context, g *Generator, times, part float64, stages Stages) (*Result, error) {
	n := len(g.decks)
	if n < 2 {
		return nil, fmt.Errorf("%w: fairness needs at least two tenants", ErrOptions)
	}
	stages = stages.orDefaults()
	r := &Result{Profile: "fairness"}
	peak, err := Peak(ctx, g, r, stages.Step)
	if err != nil {
		return nil, err
	}
	share := peak / float64(n)
	quiet := all(n, part*peak, part*peak)
	loud := all(n, part*peak, part*peak)
	loud[n-1].From, loud[n-1].To = times*share, times*share
	played, err := g.Play(ctx, Phase{"alike", stages.Steady, quiet}, Phase{"one floods", stages.Steady, loud})
	if err != nil {
		return nil, err
	}
	r.add(played...)
	before, during := others(played[0]), others(played[1])
	r.FairnessP99Ratio = ratio(during.P99MS, before.P99MS)
	r.OthersAnswered = ratio(during.Goodput, during.Rate)
	flood := played[1].Flows[n-1]
	before.Tenant, during.Tenant, flood.Tenant = "others", "others", "flooding"
	r.Phases = append(r.Phases, before, during, flood)
	r.finish(g, "one floods")
	return r, nil
}

// others sums up the flows of all but the last tenant.
func others(p PhaseResult) Summary {
	sum := newTally()
	for _, t := range p.tallies[:len(p.tallies)-1] {
		sum.merge(t)
	}
	return sum.summary(p.Phase.Name, p.Phase.Length)
}
