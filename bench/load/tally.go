package load

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc/codes"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// Histograms hold microseconds up to two minutes, three digits of them: what is
// longer counts as two minutes.
const (
	longest = 2 * time.Minute
	digits  = 3
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, longest.Microseconds(), digits)
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	// Values are within the histogram's range, so that no error is possible.
	_ = h.RecordValue(min(max(d.Microseconds(), 1), longest.Microseconds()))
}

func quantile(h *hdrhistogram.Histogram, percent float64) float64 {
	return float64(h.ValueAtPercentile(percent)) / 1e3
}

// tally counts calls. The zero tally is made ready by newTally.
type tally struct {
	due, notSent int64
	outcomes     [4]int64 // of OK, by pb.Outcome
	refused      int64
	errors       [17]int64 // by code
	answered     *hdrhistogram.Histogram
	refusals     *hdrhistogram.Histogram
	lag          *hdrhistogram.Histogram // from due to sent
}

func newTally() *tally {
	return &tally{answered: newHistogram(), refusals: newHistogram(), lag: newHistogram()}
}

// add counts a call that has ended; took and lag count from when it was due.
func (t *tally) add(r Reply, took, lag time.Duration) {
	record(t.lag, lag)
	switch {
	case r.Code == codes.OK:
		if o := int(r.Outcome); o >= 0 && o < len(t.outcomes) {
			t.outcomes[o]++
		} else {
			t.outcomes[pb.Outcome_OUTCOME_UNSPECIFIED]++
		}
		record(t.answered, took)
	case r.Code == codes.ResourceExhausted:
		t.refused++
		record(t.refusals, took-lag)
	default:
		t.errors[min(int(r.Code), len(t.errors)-1)]++
	}
}

// ok is how many were answered.
func (t *tally) ok() int64 {
	sum := int64(0)
	for _, n := range t.outcomes {
		sum += n
	}
	return sum
}

// merge adds what other counted.
func (t *tally) merge(other *tally) {
	t.due += other.due
	t.notSent += other.notSent
	t.refused += other.refused
	for i, n := range other.outcomes {
		t.outcomes[i] += n
	}
	for i, n := range other.errors {
		t.errors[i] += n
	}
	t.answered.Merge(other.answered)
	t.refusals.Merge(other.refusals)
	t.lag.Merge(other.lag)
}

func (t *tally) reset() {
	answered, refusals, lag := t.answered, t.refusals, t.lag
	answered.Reset()
	refusals.Reset()
	lag.Reset()
	*t = tally{answered: answered, refusals: refusals, lag: lag}
}

// Counts are the ends of calls.
type Counts struct {
	Offered     int64            `json:"offered"`
	Sent        int64            `json:"sent"`
	NotSent     int64            `json:"not_sent"` // the generator was at its limit
	Match       int64            `json:"match"`
	NoMatch     int64            `json:"no_match"`
	Alternative int64            `json:"use_alternative"`
	Refused     int64            `json:"refused"` // RESOURCE_EXHAUSTED
	Errors      map[string]int64 `json:"errors"`  // other codes, by name
}

func (t *tally) counts() Counts {
	c := Counts{
		Offered: t.due, Sent: t.due - t.notSent, NotSent: t.notSent,
		Match: t.outcomes[pb.Outcome_OUTCOME_MATCH], NoMatch: t.outcomes[pb.Outcome_OUTCOME_NO_MATCH],
		Alternative: t.outcomes[pb.Outcome_OUTCOME_USE_ALTERNATIVE], Refused: t.refused, Errors: map[string]int64{},
	}
	for code, n := range t.errors {
		if n > 0 {
			c.Errors[codes.Code(code).String()] = n
		}
	}
	if n := t.outcomes[pb.Outcome_OUTCOME_UNSPECIFIED]; n > 0 {
		c.Errors["no decision"] = n
	}
	return c
}

// Summary is what became of the calls that were due in a phase.
type Summary struct {
	Phase   string  `json:"phase"`
	Tenant  string  `json:"tenant,omitempty"`
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"rate"` // offered, calls a second
	Goodput float64 `json:"goodput"`
	Counts
	P50MS        float64 `json:"p50_ms"` // of answered calls, from when they were due
	P90MS        float64 `json:"p90_ms"`
	P99MS        float64 `json:"p99_ms"`
	P999MS       float64 `json:"p999_ms"`
	MaxMS        float64 `json:"max_ms"`
	RefusalP50MS float64 `json:"refusal_p50_ms"` // of refused calls, from when they were sent
	RefusalP99MS float64 `json:"refusal_p99_ms"`
	LagP99MS     float64 `json:"lag_p99_ms"` // of the generator: from due to sent
}

func (t *tally) summary(phase string, length time.Duration) Summary {
	s := length.Seconds()
	return Summary{
		Phase: phase, Seconds: s, Counts: t.counts(),
		Rate: float64(t.due) / s, Goodput: float64(t.ok()) / s,
		P50MS: quantile(t.answered, 50), P90MS: quantile(t.answered, 90), P99MS: quantile(t.answered, 99),
		P999MS: quantile(t.answered, 99.9), MaxMS: float64(t.answered.Max()) / 1e3,
		RefusalP50MS: quantile(t.refusals, 50), RefusalP99MS: quantile(t.refusals, 99), LagP99MS: quantile(t.lag, 99),
	}
}
