package arrive

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// share is the part of the memory, as a divisor, that messages on their
	// way may take.
	share = 16
	// leastBound holds three messages of the largest size that is accepted by
	// default, mostBound thousands of usual ones.
	leastBound, mostBound = 64 << 20, 1 << 30
)

// DefaultBound is a sixteenth of the memory that the process may use, 64 MiB to
// 1 GiB: of GOMEMLIMIT, of its control group's limit, or of the machine's
// memory, whichever is least. What is not known counts as unlimited.
func DefaultBound() int64 {
	memory := min(debug.SetMemoryLimit(-1), groupLimit(), machine())
	return min(max(memory/share, leastBound), mostBound)
}

// groupLimit is the memory.max of the control group as a container sees it.
func groupLimit() int64 {
	text, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return math.MaxInt64
	}
	return number(strings.TrimSpace(string(text)))
}

// machine is MemTotal of /proc/meminfo.
func machine() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return math.MaxInt64
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			if kb := number(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB"))); kb < math.MaxInt64>>10 {
				return kb << 10
			}
		}
	}
	return math.MaxInt64
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		return math.MaxInt64
	}
	return n
}
