//go:build !purego

package kernel

import "golang.org/x/sys/cpu"

// lacking names the CPU features that v needs and this machine has not. x/sys/cpu
// reports AVX and AVX-512 only when the operating system saves their registers.
func lacking(v variant) []string {
	x := &cpu.X86
	switch v {
	case reference:
		return nil
	case avx2:
		return missing(feature{"AVX2", x.HasAVX2})
	case avx512vnni:
		return missing(
			feature{"AVX2", x.HasAVX2}, feature{"BMI2", x.HasBMI2},
			feature{"AVX512F", x.HasAVX512F}, feature{"AVX512BW", x.HasAVX512BW},
			feature{"AVX512DQ", x.HasAVX512DQ}, feature{"AVX512VL", x.HasAVX512VL},
			feature{"AVX512VNNI", x.HasAVX512VNNI})
	}
	return []string{"an arm64 CPU"}
}

// dotRows has as many rows as dst, of len(probe) values each.
func dotRows(v variant, dst []int32, probe, rows []int8) {
	n, dim := len(dst), len(probe)
	switch {
	case n == 0:
	case dim == 0:
		clear(dst)
	case v == avx512vnni && dim == 512:
		dotRows512AVX512(&dst[0], n, &probe[0], &rows[0])
	case v == avx512vnni && dim == 128:
		dotRows128AVX512(&dst[0], n, &probe[0], &rows[0])
	case v == avx512vnni:
		dotRowsAVX512(&dst[0], n, &probe[0], &rows[0], dim)
	case v == avx2:
		dotRowsAVX2(dst, probe, rows)
	default:
		dotRowsReference(dst, probe, rows)
	}
}

// dotTile has whole probes and rows, at least one of each.
func dotTile(v variant, dst []int32, probes, rows []int8, dim int) {
	switch v {
	case avx512vnni:
		tiles(v, dst, probes, rows, dim, 4)
	case avx2:
		tiles(v, dst, probes, rows, dim, 2)
	default:
		dotTileReference(dst, probes, rows, dim)
	}
}

func tile(v variant, dst []int32, pitch, n int, probes, rows []int8, dim, tall int) {
	if v == avx512vnni {
		dotTile4AVX512(&dst[0], pitch, n, &probes[0], &rows[0], dim)
		return
	}
	whole := dim &^ 15
	dotTile2AVX2(&dst[0], pitch, n, &probes[0], &rows[0], dim, whole)
	if whole < dim {
		for i := range tall {
			addTails(dst[i*pitch:i*pitch+n], probes[i*dim:(i+1)*dim], rows, whole)
		}
	}
}

// dotRowsAVX2 takes rows by fours, the last four once more where they overlap.
func dotRowsAVX2(dst []int32, probe, rows []int8) {
	n, dim := len(dst), len(probe)
	whole := dim &^ 15
	if n < 4 || whole == 0 {
		dotRowsReference(dst, probe, rows)
		return
	}
	dotTile1AVX2(&dst[0], 0, n&^3, &probe[0], &rows[0], dim, whole)
	if n%4 != 0 {
		dotTile1AVX2(&dst[n-4], 0, 4, &probe[0], &rows[(n-4)*dim], dim, whole)
	}
	addTails(dst, probe, rows, whole)
}

// dotSet has whole rows. 64 probes of 512 values take 32 KB: they stay in a
// core's first-level cache while rows pass by.
func dotSet(v variant, dst []int32, set *ProbeSet, rows []int8) {
	dim, fours := set.dim, set.dim/4
	n := len(dst) / set.n
	switch {
	case set.n == 1:
		dotRows(v, dst, set.probes, rows)
		return
	case v != avx512vnni || set.n < setLanes*3/4 || n == 0 || fours == 0:
		dotSetByTiles(v, dst, set, rows)
		return
	}
	next := fours * 4 * setLanes
	for p := 0; p < set.n; {
		lanes, start := &set.lanes[p/setLanes*next], &set.start[p]
		if m := min(set.n-p, 4*setLanes); m > 3*setLanes {
			bulk := n - n%6
			dotSet64x6AVX512(&dst[p], set.n, bulk, lanes, start, m, &rows[0], dim, fours, next)
			if bulk < n {
				dotSet64x1AVX512(&dst[bulk*set.n+p], set.n, n-bulk, lanes, start, m, &rows[bulk*dim], dim, fours, next)
			}
			p += m
		} else {
			m = min(m, setLanes)
			bulk := n - n%12
			dotSet16x12AVX512(&dst[p], set.n, bulk, lanes, start, m, &rows[0], dim, fours, next)
			if bulk < n {
				dotSet16x1AVX512(&dst[bulk*set.n+p], set.n, n-bulk, lanes, start, m, &rows[bulk*dim], dim, fours, next)
			}
			p += m
		}
	}
	if whole := 4 * fours; whole < dim {
		for i := range dst {
			r, p := i/set.n, i%set.n
			dst[i] += dotReference(set.probes[p*dim+whole:(p+1)*dim], rows[r*dim+whole:(r+1)*dim])
		}
	}
}

func packedRows(v variant, dst []int32, p *PreparedProbe, packed []byte) {
	n := len(dst)
	switch {
	case n == 0:
	case v == avx512vnni && len(p.planes) == 512 && p.stride == 64*int(p.bits):
		if p.bits == OneBit {
			packed1Rows512AVX512(&dst[0], n, &p.planes[0], &packed[0], p.bias)
		} else {
			packed2Rows512AVX512(&dst[0], n, &p.planes[0], &packed[0], p.bias)
		}
	case v == avx512vnni:
		from := packedNarrow(dst, p, packed)
		if from == n {
			return
		}
		if p.bits == OneBit {
			packed1RowsAVX512(&dst[from], n-from, &p.planes[0], &packed[from*p.stride], p.stride, p.bias)
		} else {
			packed2RowsAVX512(&dst[from], n-from, &p.planes[0], &packed[from*p.stride], p.stride, p.bias)
		}
	case v == avx2 && p.stride >= 16:
		packedRowsAVX2(dst, p, packed)
	default:
		packedReference(dst, p, packed)
	}
}

// packedNarrow does the first rows, by sixteens, where several stand in a
// register, and says how many that are.
func packedNarrow(dst []int32, p *PreparedProbe, packed []byte) int {
	n := len(dst) &^ 15
	switch {
	case p.stride == 16 && p.bits == OneBit:
		packed1RowsBy16AVX512(&dst[0], n, &p.planes[0], &packed[0], p.bias)
	case p.stride == 32 && p.bits == OneBit:
		packed1RowsBy32AVX512(&dst[0], n, &p.planes[0], &packed[0], p.bias)
	case p.stride == 32 && p.bits == TwoBits:
		packed2RowsBy32AVX512(&dst[0], n, &p.planes[0], &packed[0], p.bias)
	default:
		return 0
	}
	return n
}

func packedRowsAVX2(dst []int32, p *PreparedProbe, packed []byte) {
	whole := p.stride &^ 15
	if p.bits == OneBit {
		packed1RowsAVX2(&dst[0], len(dst), &p.planes[0], &packed[0], p.stride, whole)
	} else {
		packed2RowsAVX2(&dst[0], len(dst), &p.planes[0], &packed[0], p.stride, whole)
	}
	finishPacked(dst, p, packed, whole)
}

func peak(v variant, n int) int {
	switch v {
	case avx512vnni:
		peakAVX512(n)
		return n * 48 * 64
	case avx2:
		peakAVX2(n)
		return n * 24 * 16
	}
	return peakReference(n)
}

func reach(v variant, dots, minus []int32, from int) int {
	if n := (len(dots) - from) &^ 15; n > 0 && v == avx512vnni {
		at := reachAVX512(&dots[from], &minus[from], n)
		if from += at; at < n {
			return from
		}
	}
	return reachReference(dots, minus, from)
}
