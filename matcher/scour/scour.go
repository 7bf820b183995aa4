// Package scour takes what is no longer used out of the process's memory.
//
// Go hands memory that was freed on as it is, and overwrites it when it is used
// again, which may be never. Memory collects the garbage and gives whole free pages back
// to the system, which empties them; and it has every thread of Go's write its signal
// frame anew, in which the vector registers stand as they were when the thread was
// interrupted last.
//
// It does not reach small objects in pages that others still use: their owners
// overwrite them. Nor does it reach memory that is in use, swap, or what the kernel holds.
package scour

import (
	"runtime/debug"
	"time"
)

// Memory does it, and tells how long it took. Others go on meanwhile, beside a
// garbage collection, and get the memory that they need next from the system: do it
// after something was destroyed, and not all the time. Safe for concurrent use.
func Memory() time.Duration {
	began := time.Now()
	debug.FreeOSMemory() // collects first
	refreshFrames()
	return time.Since(began)
}
