//go:build !purego

package kernel

import "golang.org/x/sys/cpu"

// lacking names the CPU features that v needs and this machine has not.
func lacking(v variant) []string {
	switch v {
	case reference:
		return nil
	case neon:
		return missing(feature{"ASIMDDP (SDOT)", cpu.ARM64.HasASIMDDP})
	}
	return []string{"an amd64 CPU"}
}

// dotRows has as many rows as dst, of len(probe) values each. It takes them by
// fours, the last four once more where they overlap.
func dotRows(v variant, dst []int32, probe, rows []int8) {
	n, dim := len(dst), len(probe)
	whole := dim &^ 15
	if v != neon || n < 4 || whole == 0 {
		dotRowsReference(dst, probe, rows)
		return
	}
	dotTile1NEON(&dst[0], 0, n&^3, &probe[0], &rows[0], dim, whole)
	if n%4 != 0 {
		dotTile1NEON(&dst[n-4], 0, 4, &probe[0], &rows[(n-4)*dim], dim, whole)
	}
	addTails(dst, probe, rows, whole)
}

// dotTile has whole probes and rows, at least one of each.
func dotTile(v variant, dst []int32, probes, rows []int8, dim int) {
	if v == neon {
		tiles(v, dst, probes, rows, dim, 4)
		return
	}
	dotTileReference(dst, probes, rows, dim)
}

func tile(_ variant, dst []int32, pitch, n int, probes, rows []int8, dim, tall int) {
	whole := dim &^ 15
	dotTile4NEON(&dst[0], pitch, n, &probes[0], &rows[0], dim, whole)
	for i := range tall {
		addTails(dst[i*pitch:i*pitch+n], probes[i*dim:(i+1)*dim], rows, whole)
	}
}

func reach(v variant, dst []int32, set *ProbeSet, rows []int8, norms []int32, bars []float32) (from, n int) {
	return reachByTiles(v, dst, set, rows, norms, bars)
}

func packedRows(v variant, dst []int32, p *PreparedProbe, packed []byte) {
	if v != neon || len(dst) == 0 {
		packedReference(dst, p, packed)
		return
	}
	whole := p.stride &^ 15
	if p.bits == OneBit {
		packed1RowsNEON(&dst[0], len(dst), &p.planes[0], &packed[0], p.stride, whole)
	} else {
		packed2RowsNEON(&dst[0], len(dst), &p.planes[0], &packed[0], p.stride, whole)
	}
	finishPacked(dst, p, packed, whole)
}

func peak(v variant, n int) int {
	if v == neon {
		peakNEON(n)
		return n * 48 * 16
	}
	return peakReference(n)
}

func atLeast(_ variant, list, dots []int32, cut int32) int {
	return atLeastReference(list, dots, cut, 0)
}

func dotList(v variant, dst []int32, probe, rows []int8, list []int32) {
	dotListByCopies(v, dst, probe, rows, list)
}
