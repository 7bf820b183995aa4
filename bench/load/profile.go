package load

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Result is what a profile found. Figures that a profile does not measure are
// nil.
type Result struct {
	Profile string `json:"profile"`

	// PeakRate is the most answers a second in a step of growing load; of
	// Overload. Capacity, from which the steps begin, is what callers get who wait
	// for their answers.
	PeakRate *float64 `json:"peak_rate"`
	// PeakAfter is the same, of one step at the load of the peak at the end of
	// Overload: if it differs much, the machine was not the same throughout.
	PeakAfter *float64 `json:"peak_after"`
	Capacity  *float64 `json:"capacity"`
	// GoodputRatio is answers a second under overload over PeakRate.
	GoodputRatio *float64 `json:"goodput_ratio"`
	// P99Ratio is the 99th percentile of what was answered under overload over
	// that at 80% of the peak.
	P99Ratio *float64 `json:"p99_ratio"`
	// RefusalP99MS is the 99th percentile of refusals under overload, from when
	// they were sent.
	RefusalP99MS *float64 `json:"refusal_p99_ms"`
	// MemoryPeakMB is the most that the server had in memory; MemorySteadyMB what
	// it had at the end of the 80% phase.
	MemoryPeakMB   *float64 `json:"memory_peak_mb"`
	MemorySteadyMB *float64 `json:"memory_steady_mb"`
	// RecoveryS is the time from the end of the overload to the first of two
	// seconds in which all went as at 80% before; nil where there were none.
	RecoveryS *float64 `json:"recovery_s"`
	// FairnessP99Ratio is the others' 99th percentile beside a tenant at many
	// times its share, over theirs before. OthersAnswered is the share of their
	// calls that were answered meanwhile.
	FairnessP99Ratio *float64 `json:"fairness_p99_ratio"`
	OthersAnswered   *float64 `json:"others_answered"`
	// StalledP99Ratio is the healthy clients' 99th percentile beside stalled ones,
	// over that before. HealthyAnswered is the share of their calls that were
	// answered meanwhile; StalledOpen how many of the stalled connections the
	// server still had at the end.
	StalledP99Ratio *float64 `json:"stalled_p99_ratio"`
	HealthyAnswered *float64 `json:"healthy_answered"`
	StalledOpened   *int     `json:"stalled_opened"`
	StalledOpen     *int     `json:"stalled_open"`
	// StalledKinds is what became of the stalled clients, by kind.
	StalledKinds []StalledKind `json:"stalled_kinds,omitempty"`

	// ServerCPU and ClientCPU are cores, on average over the busiest phase;
	// ClientShare is the generator's part of both.
	ServerCPU   *float64 `json:"server_cpu"`
	ClientCPU   *float64 `json:"client_cpu"`
	ClientShare *float64 `json:"client_cpu_share"`
	// OtherCPU is the most that the rest of the machine used in a phase, in cores.
	OtherCPU *float64 `json:"other_cpu"`
	// NotSent is how many calls the generator did not send, over all phases: if
	// it is not 0, the load was less than it says.
	NotSent int64 `json:"not_sent"`

	Phases  []Summary `json:"phases"`
	Series  []Second  `json:"series"`
	Remarks []string  `json:"remarks"`
}

// add takes up what was played.
func (r *Result) add(results ...PhaseResult) {
	for _, p := range results {
		r.Phases = append(r.Phases, p.All)
		r.NotSent += p.All.NotSent
	}
}

// finish completes the result from what the generator saw.
func (r *Result) finish(g *Generator, busiest string) {
	r.Series = g.Seconds()
	if peak := g.MemoryPeak(); peak > 0 {
		r.MemoryPeakMB = ptr(float64(peak) / (1 << 20))
	}
	var server, client float64
	n, known := 0, true
	for _, s := range r.Series {
		if s.Phase != busiest {
			continue
		}
		if s.ClientCPU == nil {
			continue
		}
		n++
		client += *s.ClientCPU
		if s.ServerCPU == nil {
			known = false
		} else {
			server += *s.ServerCPU
		}
	}
	if n > 0 {
		r.ClientCPU = ptr(client / float64(n))
		if known {
			r.ServerCPU = ptr(server / float64(n))
			if client+server > 0 {
				r.ClientShare = ptr(client / (client + server))
			}
		}
	}
	r.lookAround()
	if r.NotSent > 0 {
		r.remark("THE GENERATOR WAS THE LIMIT: %d calls that were due were not sent, since as many as allowed were under way; the load was less than it says", r.NotSent)
	}
}

// disturbing is how many cores others may use before the figures suffer.
const disturbing = 0.2

// lookAround finds the phase in which others used most.
func (r *Result) lookAround() {
	sums, counts := map[string]float64{}, map[string]float64{}
	for _, s := range r.Series {
		if s.OtherCPU != nil {
			sums[s.Phase] += *s.OtherCPU
			counts[s.Phase]++
		}
	}
	worst := ""
	for phase, sum := range sums {
		if mean := sum / counts[phase]; r.OtherCPU == nil || mean > *r.OtherCPU {
			r.OtherCPU, worst = &mean, phase
		}
	}
	if r.OtherCPU != nil && *r.OtherCPU > disturbing {
		r.remark("THE MACHINE WAS NOT ALONE: others used %.2f cores in the phase %s", *r.OtherCPU, worst)
	}
}

func (r *Result) remark(format string, args ...any) {
	r.Remarks = append(r.Remarks, fmt.Sprintf(format, args...))
}

func ptr[T any](x T) *T { return &x }

// ratio is nil where there is nothing to divide by.
func ratio(a, b float64) *float64 {
	if b == 0 || math.IsNaN(a/b) {
		return nil
	}
	return ptr(a / b)
}

// all lets every tenant send its part of a rate.
func all(tenants int, from, to float64) []Flow {
	flows := make([]Flow, tenants)
	for i := range flows {
		flows[i] = Flow{Tenant: i, From: from / float64(tenants), To: to / float64(tenants)}
	}
	return flows
}

// Constant sends at one rate.
func Constant(ctx context.Context, g *Generator, rate float64, length time.Duration) (*Result, error) {
	return play(ctx, g, "constant", "constant", Phase{"constant", length, all(len(g.decks), rate, rate)})
}

// Step sends at rates one after the other, each for length.
func Step(ctx context.Context, g *Generator, rates []float64, length time.Duration) (*Result, error) {
	var phases []Phase
	for _, rate := range rates {
		phases = append(phases, Phase{fmt.Sprintf("%g/s", rate), length, all(len(g.decks), rate, rate)})
	}
	busiest := ""
	if len(phases) > 0 {
		busiest = phases[len(phases)-1].Name
	}
	return play(ctx, g, "step", busiest, phases...)
}

// DoorsOpen is how a hall fills: few before the doors open, then a ramp to the
// rush within a tenth of the time, the rush for four tenths, and then it settles
// to a quarter of it.
func DoorsOpen(ctx context.Context, g *Generator, rush float64, length time.Duration) (*Result, error) {
	part := func(tenths int) time.Duration { return length * time.Duration(tenths) / 10 }
	n := len(g.decks)
	return play(ctx, g, "doors-open", "rush",
		Phase{"before", part(1), all(n, rush/20, rush/20)},
		Phase{"doors open", part(1), all(n, rush/20, rush)},
		Phase{"rush", part(4), all(n, rush, rush)},
		Phase{"thinning", part(2), all(n, rush, rush/4)},
		Phase{"settled", part(2), all(n, rush/4, rush/4)},
	)
}

func play(ctx context.Context, g *Generator, profile, busiest string, phases ...Phase) (*Result, error) {
	r := &Result{Profile: profile}
	results, err := g.Play(ctx, phases...)
	if err != nil {
		return nil, err
	}
	r.add(results...)
	r.finish(g, busiest)
	return r, nil
}
