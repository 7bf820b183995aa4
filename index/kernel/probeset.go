package kernel

// ProbeSet is many probes in the order that DotSet wants. Prepare it once a
// search; any number of DotSets may then use it at once. The zero value holds
// no probe.
type ProbeSet struct {
	dim    int
	n      int
	probes []int8 // one after the other
	// lanes holds, for each 16 probes and each four values, these four of each
	// probe; 0 where there is no probe. Values beyond a multiple of four are not
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
		at := p/setLanes*fours*4*setLanes + p%setLanes*4
		var sum int32
		for ; len(probe) >= 4; probe = probe[4:] {
			copy(s.lanes[at:at+4], probe[:4])
			sum += int32(probe[0]) + int32(probe[1]) + int32(probe[2]) + int32(probe[3])
			at += 4 * setLanes
		}
		s.start[p] = -128 * sum
	}
}

// Len is the number of probes, Dim their length.
func (s *ProbeSet) Len() int { return s.n }
func (s *ProbeSet) Dim() int { return s.dim }

// DotSet sets dst[r*P+p] to the dot product of row r and probe p, for the P
// probes of the set and len(dst)/P rows that stand one after the other: what
// DotTile computes, but all sums of a row together, and at 16 probes or more
// faster, since a set is prepared once; with one, two or three probes DotRows is.
// P must divide len(dst), and len(rows)
// must be that quotient times Dim(); callers check that, and fewer panic like
// any slice. It keeps no slice.
func DotSet(dst []int32, set *ProbeSet, rows []int8) {
	if set.n == 0 {
		return
	}
	n := len(dst) / set.n
	dotSet(current(), dst[:n*set.n], set, rows[:n*set.dim])
}

// dotSetByTiles is DotSet where DotTile is all there is: its probes are the
// rows here.
func dotSetByTiles(v variant, dst []int32, set *ProbeSet, rows []int8) {
	if len(dst) > 0 {
		dotTile(v, dst, rows, set.probes, set.dim)
	}
}

// zeros returns n zeros, in v's memory if that is large enough.
func zeros[T int8 | int32](v []T, n int) []T {
	if cap(v) < n {
		return make([]T, n)
	}
	v = v[:n]
	clear(v)
	return v
}
