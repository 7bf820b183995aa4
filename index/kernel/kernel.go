// Package kernel computes the integer dot products that a search is made of.
//
// It promises exact results: a dot product of int8 vectors is an integer, so
// every implementation on every CPU returns the same number. It knows nothing
// of templates, scores or scopes, and it imports the standard library and
// x/sys/cpu alone.
//
// The one implementation here is the readable reference. Faster ones stand
// behind the same two functions and are tested against it.
package kernel

// MaxLen is the longest vector for which no sum can overflow an int32, the
// worst case being -128 times -128 in every place: floor((2^31-1) / 2^14).
const MaxLen = 1<<17 - 1

// Dot returns the sum of a[i]*b[i]. a and b must have the same length, at most
// MaxLen; callers check that. It never panics: of unequal slices the common
// prefix counts.
func Dot(a, b []int8) int32 {
	n := min(len(a), len(b))
	a, b = a[:n], b[:n]
	// Four sums, so that the additions do not wait for one another.
	var s0, s1, s2, s3 int32
	for len(a) >= 4 && len(b) >= 4 {
		s0 += int32(a[0]) * int32(b[0])
		s1 += int32(a[1]) * int32(b[1])
		s2 += int32(a[2]) * int32(b[2])
		s3 += int32(a[3]) * int32(b[3])
		a, b = a[4:], b[4:]
	}
	for i := range a {
		s0 += int32(a[i]) * int32(b[i])
	}
	return s0 + s1 + s2 + s3
}

// DotRows sets dst[r] to the dot product of probe and row r, for len(dst) rows
// of len(probe) values each that stand one after the other in rows. len(rows)
// must be len(dst)*len(probe); callers check that. It keeps no slice, and any
// number of calls may run at once on the same rows.
func DotRows(dst []int32, probe, rows []int8) {
	dim := len(probe)
	for r := range dst {
		dst[r] = Dot(probe, rows[r*dim:(r+1)*dim])
	}
}

// Implementation names what Dot and DotRows run on this machine.
func Implementation() string { return "reference" }
