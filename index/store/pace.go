package store

import (
	"runtime"
	"time"
)

// pace makes long work in one goroutine give way to those who wait for a
// processor, after each slice. Go takes a processor from a goroutine after 10 ms
// only, which is ten times what a gate's call takes. The zero pace is ready. Not for
// several goroutines.
type pace struct {
	calls int
	began time.Time // of the slice
}

// The slice is a small part of a gate's call, and the clock is looked at often
// enough to keep it. Resting after each, on top, made the erasure twice as long and
// others wait no less: ARCHITECTURE.md.
const (
	paceSlice = 250 * time.Microsecond
	paceCalls = 64
)

// step is called after each small piece of work.
func (p *pace) step() {
	if p.calls++; p.calls%paceCalls == 0 {
		p.rest()
	}
}

// rest ends a slice that has lasted long enough.
func (p *pace) rest() {
	if now := time.Now(); p.began.IsZero() {
		p.began = now
	} else if now.Sub(p.began) >= paceSlice {
		runtime.Gosched() // behind those who wait already
		p.began = time.Now()
	}
}
