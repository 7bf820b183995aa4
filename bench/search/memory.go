package search

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

var errUnexpected = errors.New("memory does not hold what was written to it")

// resident returns the bytes of this process that are in memory, after what the
// Go heap does not use was given back. ok is false where the system does not
// tell (anywhere but on Linux).
func resident() (size int64, ok bool) {
	debug.FreeOSMemory()
	debug.FreeOSMemory() // finalisers and pools let go in the second collection
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err == nil
}

// residentPeak returns the most bytes of this process that have ever been in
// memory. ok is false where the system does not tell.
func residentPeak() (size int64, ok bool) { return kilobytes("/proc/self/status", "VmHWM:") }

// available returns the bytes of memory that programs may still take. ok is
// false where the system does not tell.
func available() (size int64, ok bool) { return kilobytes("/proc/meminfo", "MemAvailable:") }

// kilobytes reads the line of a file in proc that begins with the label and
// gives a size in kB; it returns bytes.
func kilobytes(path, label string) (size int64, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), label); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err == nil
		}
	}
	return 0, false
}

// requireMemory wraps ErrOptions when size bytes will not fit.
func requireMemory(size int64, what string) error {
	if free, ok := available(); ok && size > free {
		return fmt.Errorf("%w: %s takes about %.1f GiB, %.1f GiB are free; ask for fewer templates", ErrOptions, what, gib(size), gib(free))
	}
	return nil
}

func gib(size int64) float64 { return float64(size) / (1 << 30) }

// loadAverage returns how many threads of the whole machine wanted to run, over
// the last minute; 0 where the system does not tell.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return load
}
