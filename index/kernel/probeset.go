package kernel

// ProbeSet is many probes in the order that Reach wants. Prepare it once a
// search; any number of Reaches may then use it at once. The zero value holds
// no probe.
type ProbeSet struct {
	dim    int
	n      int
	probes []int8 // one after the other
	// lanes holds, for each four values, these four of each probe, and 0 where
	// there is none up to a multiple of 16 probes. Values beyond a multiple of four are not
	// in it.
	lanes []int8
	start []int32 // -128 times each probe's sum, over the values in lanes
}

// setLanes is how many probes stand side by side.
const setLanes = 16

// Prepare takes a copy of len(probes)/dim probes of dim values that stand one
// after the other. It reuses the memory of the last set: no allocation when
// that was as large. It takes about 1 ns a value.
func (s *ProbeSet) Prepare(probes []int8, dim int) {
	s.dim, s.n = dim, 0
	if dim > 0 {
		s.n = len(probes) / dim
	}
	s.probes = append(s.probes[:0], probes[:s.n*dim]...)
	groups, fours := (s.n+setLanes-1)/setLanes, dim/4
	s.lanes = zeros(s.lanes, groups*fours*4*setLanes)
	s.start = zeros(s.start, groups*setLanes)
	for p := range s.n {
		probe := s.probes[p*dim:][:fours*4]
		at := 4 * p
		var sum int32
		for ; len(probe) >= 4; probe = probe[4:] {
			copy(s.lanes[at:at+4], probe[:4])
			sum += int32(probe[0]) + int32(probe[1]) + int32(probe[2]) + int32(probe[3])
			at += 4 * groups * setLanes
		}
		s.start[p] = -128 * sum
	}
}

// Wipe overwrites the probes, all that the memory of the set ever held included. The
// set may be prepared again.
func (s *ProbeSet) Wipe() {
	clear(s.probes[:cap(s.probes)])
	clear(s.lanes[:cap(s.lanes)])
	clear(s.start[:cap(s.start)])
	s.probes, s.lanes, s.start, s.n = s.probes[:0], s.lanes[:0], s.start[:0], 0
}

// Len is the number of probes, Dim their length.
func (s *ProbeSet) Len() int { return s.n }
func (s *ProbeSet) Dim() int { return s.dim }

// zeros returns n zeros, in v's memory if that is large enough.
func zeros[T int8 | int32](v []T, n int) []T {
	if cap(v) < n {
		return make([]T, n)
	}
	v = v[:n]
	clear(v)
	return v
}
