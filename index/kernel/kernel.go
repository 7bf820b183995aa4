package kernel

// MaxLen is the longest vector for which no sum can overflow an int32, the
// worst case being -128 times -128 in every place: floor((2^31-1) / 2^14).
const MaxLen = 1<<17 - 1

// Dot returns the sum of a[i]*b[i]. a and b must have the same length, at most
// MaxLen; callers check that. It never panics: of unequal slices the common
// prefix counts.
func Dot(a, b []int8) int32 {
	n := min(len(a), len(b))
	var dst [1]int32
	dotRows(current(), dst[:], a[:n], b[:n])
	return dst[0]
}

// DotRows sets dst[r] to the dot product of probe and row r, for len(dst) rows
// of len(probe) values each that stand one after the other in rows. len(rows)
// must be len(dst)*len(probe); callers check that, and fewer rows panic like
// any slice. It keeps no slice, and any number of calls may run at once on the
// same rows.
func DotRows(dst []int32, probe, rows []int8) {
	dotRows(current(), dst, probe, rows[:len(dst)*len(probe)])
}

// DotTile sets dst[p*R+r] to the dot product of probe p and row r, for P probes
// and R rows of dim values each. P is len(probes)/dim and R is len(rows)/dim;
// both must divide, and len(dst) must be P*R. Callers check that; a short dst
// panics like any slice. It is DotRows for many probes, and much faster, since
// what is loaded is used several times: give it 4 probes or more, and about 64
// to 512 rows a call. It keeps no slice and any number of calls may run at once.
func DotTile(dst []int32, probes, rows []int8, dim int) {
	if dim < 1 {
		clear(dst)
		return
	}
	p, r := len(probes)/dim, len(rows)/dim
	if p == 0 || r == 0 {
		return
	}
	dotTile(current(), dst[:p*r], probes[:p*dim], rows[:r*dim], dim)
}

// Peak runs n rounds of multiply-adds on values that stay in registers, with
// the instruction that the implementation in use builds on, and returns how
// many it did: divided by the time it took, the limit of one core. A round is
// about a thousand multiply-adds; 1e6 rounds take some milliseconds (the
// reference: seconds).
func Peak(n int) (multiplyAdds int) {
	if n < 1 { // the assembly counts down to 0
		return 0
	}
	return peak(current(), n)
}
