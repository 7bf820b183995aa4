package store

import (
	"fmt"
	"runtime/debug"
	"sync"
)

// gate counts who is inside and, once closed, lets nobody in any more.
type gate struct {
	mu     sync.Mutex
	shut   bool
	inside sync.WaitGroup
}

// enter reports whether the caller may go in; if so it has to leave.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return false
	}
	g.inside.Add(1)
	return true
}

func (g *gate) leave() { g.inside.Done() }

// close shuts the gate and waits until all have left.
func (g *gate) close() {
	g.mu.Lock()
	g.shut = true
	g.mu.Unlock()
	g.inside.Wait()
}

// guard turns a panic of Badger over damaged files into ErrDamaged, and a fault
// in a file that it mapped into memory (the disk is full, or a file was cut)
// into ErrFault, as far as it happens in this goroutine.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			if fault, ok := p.(interface{ Addr() uintptr }); ok && fault != nil {
				err = fmt.Errorf("%w: make room on the disk; if there is room, restore the data directory from its copy", ErrFault)
				return
			}
			err = fmt.Errorf("%w: the database gave up: %v; restore the data directory from its copy", ErrDamaged, p)
		}
	}()
	return f()
}
