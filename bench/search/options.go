package search

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-io/menshen/index/code"
)

// ErrOptions: a measurement that cannot be made as asked for; the text says what
// to change.
var ErrOptions = errors.New("cannot measure that")

// Top is the number of candidates that every search asks for.
const Top = 5

// Options says what is measured. Every field must be set; see Validate.
type Options struct {
	Gallery   int // templates; of each scope in Scopes
	Dim       int
	Probes    int // at once; half of them mated
	Data      Kind
	Threshold float64 // on the cosine scale
	Seed      uint64
	Rounds    int           // the figures are medians of as many rounds
	Time      time.Duration // of each measurement in a round, at least
	Callers   int           // that search at the same time
	Check     int           // probes that are compared with the reference scan
	Buffer    int64         // bytes that the memory bandwidth is measured on

	SkipBaseline bool
	Profile      bool // take a CPU profile of Scan's searches
	BaselineRows int  // at most; 0 is as many as fit in half of the free memory

	// Progress, where not nil, is called when a phase of steps steps begins; the
	// function that it returns is called after each, from any goroutine.
	Progress func(phase string, steps int) (step func())
}

// Validate wraps ErrOptions when the fields make no sense.
func (o *Options) Validate() error {
	fault := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrOptions}, args...)...)
	}
	switch {
	case o.Gallery < 1 || o.Gallery > maxGallery:
		return fault("a gallery of %d templates; 1 to %d are possible", o.Gallery, maxGallery)
	case code.CheckDim(o.Dim) != nil:
		return fault("%d dimensions; %d to %d are possible", o.Dim, code.MinDim, code.MaxDim)
	case o.Probes < 1 || o.Probes > maxProbes:
		return fault("%d probes; 1 to %d are possible", o.Probes, maxProbes)
	case o.Data != Isotropic && o.Data != Spectrum:
		return fault("data %q; there are %q and %q", o.Data, Isotropic, Spectrum)
	case !(o.Threshold >= -1 && o.Threshold <= 1):
		return fault("threshold %v; cosines are -1 to 1", o.Threshold)
	case o.Rounds < 1 || o.Rounds > 1000:
		return fault("%d rounds; 1 to 1000 are possible", o.Rounds)
	case o.Time <= 0 || o.Time > time.Hour:
		return fault("%v a measurement; more than nothing, at most an hour", o.Time)
	case o.Callers < 1 || o.Callers > 4096:
		return fault("%d callers; 1 to 4096 are possible", o.Callers)
	case o.Check < min(leastChecked, o.Probes) || o.Check > o.Probes:
		return fault("%d of %d probes to be checked; at least %d must be, all where there are fewer, and no more than there are", o.Check, o.Probes, leastChecked)
	case o.Buffer < 1<<20 || o.Buffer > 1<<36:
		return fault("a buffer of %d bytes; 1 MiB to 64 GiB are possible", o.Buffer)
	case o.BaselineRows < 0:
		return fault("%d rows for the baseline", o.BaselineRows)
	}
	return nil
}

const (
	maxGallery   = 100_000_000 // subject ids have nine digits
	maxProbes    = 1 << 16
	leastChecked = 32
)

// phase begins a phase of the progress.
func (o *Options) phase(name string, steps int) (step func()) {
	if o.Progress == nil {
		return func() {}
	}
	return o.Progress(name, steps)
}

// workers is how many goroutines work where all cores should.
func workers() int { return runtime.GOMAXPROCS(0) }

// parallel calls work for the blocks start..end-1 of n items on all cores, each
// worker with its own number, until all are done, one fails or ctx ends.
func parallel(ctx context.Context, n, block int, work func(worker, start, end int) error) error {
	var next atomic.Int64
	var failed atomic.Bool
	errs := make([]error, workers())
	var group sync.WaitGroup
	for w := range errs {
		group.Go(func() {
			for !failed.Load() {
				start := int(next.Add(int64(block))) - block
				if start >= n {
					return
				}
				err := ctx.Err()
				if err == nil {
					err = work(w, start, min(start+block, n))
				}
				if err != nil {
					errs[w] = err
					failed.Store(true)
				}
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// round3 keeps three digits after the point of what is printed in ms or us, and
// at least four that count.
func round3(x float64) float64 {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return 0
	}
	digits := math.Max(3, 3-math.Floor(math.Log10(math.Abs(x))))
	scale := math.Pow(10, math.Min(digits, 12))
	return math.Round(x*scale) / scale
}
