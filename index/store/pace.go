package store

import (
	"runtime"
	"time"
)

// pace makes long work in one goroutine give way to those who wait for a
// processor: it rests after each slice as long as that took. Go takes a processor
// from a goroutine after 10 ms only, which is ten times what a gate's call takes.
// The zero pace is ready. Not for several goroutines.
type pace struct {
	calls int
	began time.Time // of the slice
}

// The slice, and how often the clock is looked at, as measured: erasing a million
// templates on 4 cores that were all busy took others' 99th percentile to 2.2 times
// of what it was without; see ARCHITECTURE.md for the figures with it.
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
	if p.began.IsZero() {
		p.began = time.Now()
		return
	}
	took := time.Since(p.began)
	if took < paceSlice {
		return
	}
	time.Sleep(took)
	runtime.Gosched() // behind those who wait already
	p.began = time.Now()
}
