package rpc

import (
	"math"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/menshen-io/menshen/matcher/admission"
)

// A prepared answer says what one made for the call would, with a delay that is
// as long or up to a quarter longer.
func TestBusyAnswers(t *testing.T) {
	var b busy
	for _, why := range []admission.Why{admission.Queue, admission.Deadline, admission.Memory} {
		for _, after := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 6 * time.Millisecond, 333 * time.Millisecond, 7 * time.Second, 12500 * time.Millisecond} {
			o := &admission.Overload{Why: why, RetryAfter: after}
			got := status.Convert(b.answer(o))
			var reason string
			var retry time.Duration
			for _, d := range got.Details() {
				switch d := d.(type) {
				case *errdetails.RetryInfo:
					retry = d.GetRetryDelay().AsDuration()
				case *errdetails.ErrorInfo:
					reason = d.GetReason()
				}
			}
			least := max(after, firstRung)
			if got.Code() != codes.ResourceExhausted || reason != "OVERLOADED" || retry < least-time.Microsecond || float64(retry) > float64(least)*rungStep+1 {
				t.Errorf("%v after %v: %v, %s, %v", why, after, got, reason, retry)
			}
			if want := (&admission.Overload{Why: why, RetryAfter: retry}).Error(); got.Message() != want {
				t.Errorf("%v: %q, want %q", why, got.Message(), want)
			}
			if again := b.answer(o); status.Convert(again) != got {
				t.Errorf("%v after %v was made twice", why, after)
			}
		}
	}
}

func TestBusyAllocatesNothing(t *testing.T) {
	var b busy
	o := &admission.Overload{Why: admission.Queue, RetryAfter: time.Second}
	b.answer(o)
	least := math.Inf(1) // goroutines of other tests' servers allocate beside it
	for range 5 {
		least = min(least, testing.AllocsPerRun(100, func() { _ = b.answer(o) }))
	}
	if least != 0 {
		t.Errorf("%v allocations for an answer that is there", least)
	}
}
