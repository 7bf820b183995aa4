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

// The slice is a small part of a gate's call, and the clock is looked at often
// enough to keep it. Erasing a million templates takes 3.0 to 5.2 s so, instead of
// 1.7 to 2.1; what others feel is in ARCHITECTURE.md.
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
