package search

import (
	"bytes"
	"context"
	"sync"
	"time"
	"unsafe"

	"github.com/menshen-io/menshen/index/kernel"
)

// Limits measures what the machine can do at most. Both figures are the best
// seen so far: what disturbs can only lower them.
type Limits struct {
	buffer []uint64

	Bandwidth float64 // bytes a second that all cores together read from memory
	MACs      float64 // int8 multiply-adds a second, all cores together
	Method    string  // how MACs was measured
}

// newLimits takes a buffer of so many bytes, which should be many times the
// caches, and writes to all of it: memory that was never written is not read from
// memory.
func newLimits(ctx context.Context, size int64) (*Limits, error) {
	l := &Limits{buffer: make([]uint64, size/8)}
	err := parallel(ctx, len(l.buffer), 1<<17, func(_, start, end int) error {
		for i := start; i < end; i++ {
			l.buffer[i] = 0x0101010101010101
		}
		return nil
	})
	return l, err
}

// measure takes both limits once more.
func (l *Limits) measure(ctx context.Context) error {
	for _, read := range readers {
		began := time.Now()
		err := parallel(ctx, len(l.buffer), 1<<17, func(_, start, end int) error {
			if read(l.buffer[start:end]) {
				return errUnexpected
			}
			return nil
		})
		if err != nil {
			return err
		}
		l.Bandwidth = max(l.Bandwidth, float64(8*len(l.buffer))/time.Since(began).Seconds())
	}
	macs, method := peakMACs()
	l.MACs, l.Method = max(l.MACs, macs), method
	return ctx.Err()
}

// readers read words, all of which are 0x01..., and report whether one is not.
// Which is faster depends on the CPU.
var readers = []func([]uint64) bool{
	// The runtime's vector code looks for a byte that is not there.
	func(words []uint64) bool {
		return bytes.IndexByte(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 8*len(words)), 2) >= 0
	},
	// A word at a time, in four chains.
	func(words []uint64) bool {
		var a, b, c, d uint64
		for ; len(words) >= 8; words = words[8:] {
			a |= words[0] | words[4]
			b |= words[1] | words[5]
			c |= words[2] | words[6]
			d |= words[3] | words[7]
		}
		return (a|b|c|d)&0xfe != 0
	},
}

// peakTime is how long the multiply-adds are counted; a call of peakRounds takes
// microseconds with the fastest implementation and milliseconds with the slowest.
const (
	peakTime   = 50 * time.Millisecond
	peakRounds = 1000
)

// peakMACs measures int8 multiply-adds a second on all cores, on values in
// registers, with the instruction that the kernel in use builds on.
func peakMACs() (perSecond float64, method string) {
	counts := make([]int, workers())
	var group sync.WaitGroup
	began := time.Now()
	for w := range counts {
		group.Go(func() {
			for time.Since(began) < peakTime {
				counts[w] += kernel.Peak(peakRounds)
			}
		})
	}
	group.Wait()
	took := time.Since(began).Seconds()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / took, kernel.Implementation() + " multiply-adds on registers, all cores"
}
