package models

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// slice is the slice of processor time that a run asks for, in ns: 50 ms instead
// of the 3 ms of everybody else. To Linux (from 6.12 on; before, it does nothing)
// a long slice means that who computes can wait: a thread that wakes up to read a
// message, to refuse a call or to send an answer comes before it, while a run's
// share of the machine stays the same. It takes no privilege, as undoing a higher
// nice value would.
//
// Ten times too many calls with camera images, 4 cores of an EPYC Zen 5, 99th
// percentile of the time to a refusal: 13.1 ms; with twice as many Ps as cores
// 8.1; with both 6.1 to 6.8; with this alone 13.4; with nice 5 and the Ps 5.0 to
// 5.6. One P more than cores (cmd/menshen) does as well: 5.9 and 6.4.
//
// A run with helping threads has the machine to itself, and nobody to let go first:
// it does not ask. Asking back for the usual slice at its end cost 35 us, since the
// system then puts a helping thread that still spins on the run's core; Verify from a
// crop by one caller took 1.44 ms instead of 1.52 without (10th percentiles).
const slice = 50_000_000

// patience makes the thread of a run one that can wait. The zero value, of a
// thread with a scheduling policy of its own, does nothing.
type patience struct {
	attr *unix.SchedAttr
}

// newPatience keeps what the process runs with: its nice value stays.
func newPatience() patience {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return patience{}
	}
	return patience{attr}
}

// begin ties the goroutine to its thread, which can wait until end.
func (p patience) begin() {
	if p.attr != nil {
		runtime.LockOSThread()
		p.set(slice)
	}
}

func (p patience) end() {
	if p.attr != nil {
		p.set(0) // the system's own
		runtime.UnlockOSThread()
	}
}

// set asks for a slice. Where the system refuses, the run is as before.
func (p patience) set(ns uint64) {
	p.attr.Runtime = ns
	_ = unix.SchedSetAttr(0, p.attr, 0)
}
