// Package history checks what many clients of one gate saw, and when their
// answers left the server, against what an erasure promises: once it has been
// answered, no match leaves any more.
//
// What is erased is a flag that falls once. Clients read it, by matching or by not
// matching, while one call lets it fall. Such a history is linearisable
// (Herlihy and Wing, 1990) exactly when no read that began after somebody knew
// that the flag had fallen saw it standing, and none saw it fallen before the call
// that lets it fall began. Linearisable is not enough for who was told "deleted": a
// match that was found before and is handed out afterwards is in order there, and
// an error here. The package is for tests; it measures nothing.
package history

import (
	"fmt"
	"sync"
	"time"
)

// Flag is the history of one erasure. The zero Flag is ready. Safe for concurrent
// use. Times are to carry Go's monotonic clock.
type Flag struct {
	mu        sync.Mutex
	reads     int
	matches   int
	lastMatch time.Time // the latest beginning of a read that matched
	lastLeft  time.Time // the latest time at which a match had left the server
	told      time.Time // when the erasure's answer was leaving it
	firstGone time.Time // the earliest end of a read that did not match
	erase     [2]time.Time
}

// Read notes a read: when it began, and whether it matched. It has ended now.
func (f *Flag) Read(began time.Time, matched bool) {
	ended := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	if !matched {
		if f.firstGone.IsZero() || ended.Before(f.firstGone) {
			f.firstGone = ended
		}
		return
	}
	f.matches++
	if began.After(f.lastMatch) {
		f.lastMatch = began
	}
}

// Left notes that an answer that matches has left the server.
func (f *Flag) Left() {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastLeft = now
}

// Told notes that the answer to the erasure leaves the server.
func (f *Flag) Told() {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = now
}

// Erased notes the erasure, which has ended now.
func (f *Flag) Erased(began time.Time) {
	ended := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.erase = [2]time.Time{began, ended}
}

// Check returns an error when the history is not linearisable, or a match left
// the server after the answer to the erasure.
func (f *Flag) Check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.erase[1].IsZero():
		return fmt.Errorf("nothing was erased")
	case f.lastLeft.IsZero() != (f.matches == 0) || f.told.IsZero():
		return fmt.Errorf("it was not seen what left the server: a match at %v, the erasure's answer at %v", f.lastLeft, f.told)
	case f.lastLeft.After(f.told):
		return fmt.Errorf("a match left the server %v after the erasure's answer", f.lastLeft.Sub(f.told))
	case f.lastMatch.After(f.erase[1]):
		return fmt.Errorf("a call that began %v after the erasure was answered matched", f.lastMatch.Sub(f.erase[1]))
	case !f.firstGone.IsZero() && f.lastMatch.After(f.firstGone):
		return fmt.Errorf("a call matched that began %v after another was told that there is no match", f.lastMatch.Sub(f.firstGone))
	case !f.firstGone.IsZero() && f.firstGone.Before(f.erase[0]):
		return fmt.Errorf("a call did not match %v before the erasure began", f.erase[0].Sub(f.firstGone))
	}
	return nil
}

// Reads counts the reads, and those that matched.
func (f *Flag) Reads() (all, matches int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads, f.matches
}
