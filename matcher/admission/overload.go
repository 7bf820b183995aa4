package admission

import (
	"errors"
	"fmt"
	"time"
)

// ErrOverloaded: the machine has more to do than it can; the error is an
// *Overload. Nothing of the call was done.
var ErrOverloaded = errors.New("the server is busy")

// Why somebody was refused.
type Why uint8

const (
	Queue    Why = iota // it would have waited longer than is allowed
	Deadline            // its deadline passes before its turn and its work are over
	Memory              // too many bytes are held already
)

// Overload is a refusal.
type Overload struct {
	Why Why
	// RetryAfter is when there is likely to be room, different for each of
	// those who are refused together.
	RetryAfter time.Duration
}

// Error says why, and what to do.
func (o *Overload) Error() string {
	why := "more is waiting than can be answered soon"
	switch o.Why {
	case Deadline:
		why = "the answer would not be ready before the call's deadline"
	case Memory:
		why = "the probes that wait hold as much memory as they may"
	}
	return fmt.Sprintf("%v: %s; repeat the call after %v, or use the alternative", ErrOverloaded, why, o.RetryAfter.Round(time.Millisecond))
}

// Unwrap makes an Overload an ErrOverloaded.
func (o *Overload) Unwrap() error { return ErrOverloaded }
