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

// leastLanes probes are worth a register of 16.
const leastLanes = 12

// reach has whole rows. 64 probes of 512 values take 32 KB: they stay in a
// core's first-level cache while rows pass by.
func reach(v variant, dst []int32, set *ProbeSet, rows []int8, norms []int32, bars []float32) (from, n int) {
	dim, probes := set.dim, set.n
	if v != avx512vnni || dim%4 != 0 || probes < leastLanes || probes > MaxReach || len(rows) == 0 {
		return reachByTiles(v, dst, set, rows, norms, bars)
	}
	fours, groups := dim/4, (probes+setLanes-1)/setLanes
	high := [...]int{0, 12, 12, 8, 6}[groups]
	whole, left := len(norms)-len(norms)%high, 0
	switch groups {
	case 1:
		left = reaching16x12AVX512(&dst[0], whole, &set.lanes[0], &set.start[0], probes, &rows[0], dim, fours, &norms[0], &bars[0])
	case 2:
		left = reaching32x12AVX512(&dst[0], whole, &set.lanes[0], &set.start[0], probes, &rows[0], dim, fours, &norms[0], &bars[0])
	case 3:
		left = reaching48x8AVX512(&dst[0], whole, &set.lanes[0], &set.start[0], probes, &rows[0], dim, fours, &norms[0], &bars[0])
	case 4:
		left = reaching64x6AVX512(&dst[0], whole, &set.lanes[0], &set.start[0], probes, &rows[0], dim, fours, &norms[0], &bars[0])
	}
	if left >= 0 {
		return whole - left - high, high
	}
	from, n = reachByTiles(v, dst, set, rows[whole*dim:], norms[whole:], bars)
	return whole + from, n
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

func atLeast(v variant, list, dots []int32, cut int32) (n int) {
	whole := 0
	if v == avx512vnni && len(dots) >= 16 {
		whole = len(dots) &^ 15
		n = atLeastAVX512(&list[0], &dots[0], whole, cut)
	}
	return n + atLeastReference(list[n:], dots, cut, whole)
}

// dotList has at least one row and value.
func dotList(v variant, dst []int32, probe, rows []int8, list []int32) {
	if v == avx512vnni {
		dotListAVX512(&dst[0], len(list), &probe[0], &rows[0], len(probe), &list[0])
		return
	}
	dotListByCopies(v, dst, probe, rows, list)
}
