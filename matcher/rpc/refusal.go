package rpc

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/menshen-io/menshen/matcher/admission"
)

// busy holds the answers to calls that the limiter refuses by their headers. Under
// ten times the load they are most of all answers, so they are made once for each
// of a few delays and not for each call: a third of a refusal's cost was its text
// and details. The delay is rounded up to the next rung; since neighbours in time
// get the same answer, the connection's header table holds it and a refusal takes
// some twenty bytes.
type busy struct {
	answers [3][rungs]atomic.Pointer[error] // by admission.Why
}

// The rungs of the ladder: 5 ms, a quarter more each, up to more than the longest
// delay that the limiter gives.
const (
	rungs     = 37
	firstRung = 5 * time.Millisecond
	rungStep  = 1.25
)

// answer is what the caller is told.
func (b *busy) answer(o *admission.Overload) error {
	i := rungOf(o.RetryAfter)
	if int(o.Why) >= len(b.answers) {
		return toStatus(o).Err()
	}
	place := &b.answers[o.Why][i]
	if said := place.Load(); said != nil {
		return *said
	}
	said := toStatus(&admission.Overload{Why: o.Why, RetryAfter: rung(i)}).Err()
	place.Store(&said)
	return said
}

// rungOf is the lowest rung that is not below a delay, or the last.
func rungOf(d time.Duration) int {
	i := math.Ceil(math.Log(float64(max(d, firstRung))/float64(firstRung)) / math.Log(rungStep))
	return min(int(i), rungs-1)
}

func rung(i int) time.Duration {
	return time.Duration(float64(firstRung) * math.Pow(rungStep, float64(i)))
}
