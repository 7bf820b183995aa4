package kernel

import (
	"fmt"
	"strings"
	"sync/atomic"
)

// variant is one implementation of everything in this package.
type variant uint32

// From the slowest to the fastest of each architecture.
const (
	undecided variant = iota
	reference
	avx2
	neon
	avx512vnni
	variants
)

func (v variant) String() string {
	switch v {
	case reference:
		return "reference"
	case avx2:
		return "avx2"
	case neon:
		return "neon"
	case avx512vnni:
		return "avx512vnni"
	}
	return "undecided"
}

// active is what the exported functions run on, once somebody asked.
var active atomic.Uint32

// current decides on the first call; calls that meet here decide alike.
func current() variant {
	if v := variant(active.Load()); v != undecided {
		return v
	}
	active.CompareAndSwap(uint32(undecided), uint32(best()))
	return variant(active.Load())
}

func best() variant {
	for v := variants - 1; v > reference; v-- {
		if len(lacking(v)) == 0 {
			return v
		}
	}
	return reference
}

// Implementation names what this package runs on.
func Implementation() string { return current().String() }

// Available names the implementations that this build and this CPU can run,
// the fastest first; "reference" is always the last.
func Available() []string {
	var names []string
	for v := variants - 1; v >= reference; v-- {
		if len(lacking(v)) == 0 {
			names = append(names, v.String())
		}
	}
	return names
}

// Select makes this package run on the implementation of that name, for all
// callers from their next call on; results are the same. It is meant for start,
// from the operator's configuration. The error says what the name could be, or
// what the machine lacks for it; nothing changes then.
func Select(name string) error {
	for v := reference; v < variants; v++ {
		if v.String() != name {
			continue
		}
		if lack := lacking(v); len(lack) > 0 {
			return fmt.Errorf("kernel: %s does not run here, for want of %s; choose one of: %s",
				name, strings.Join(lack, ", "), strings.Join(Available(), ", "))
		}
		active.Store(uint32(v))
		return nil
	}
	return fmt.Errorf("kernel: no implementation is called %q; choose one of: %s", name, strings.Join(Available(), ", "))
}

// features pairs what a variant needs with whether the machine has it.
type feature struct {
	name string
	have bool
}

func missing(needs ...feature) []string {
	var lack []string
	for _, f := range needs {
		if !f.have {
			lack = append(lack, f.name)
		}
	}
	return lack
}
