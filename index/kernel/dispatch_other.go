//go:build purego || (!amd64 && !arm64)

package kernel

// lacking: there is the reference and no other.
func lacking(v variant) []string {
	if v == reference {
		return nil
	}
	return []string{"a build for amd64 or arm64 without the tag purego"}
}

func dotRows(_ variant, dst []int32, probe, rows []int8) { dotRowsReference(dst, probe, rows) }

func dotTile(_ variant, dst []int32, probes, rows []int8, dim int) {
	dotTileReference(dst, probes, rows, dim)
}

func reach(v variant, dst []int32, set *ProbeSet, rows []int8, norms []int32, bars []float32) (from, n int) {
	return reachByTiles(v, dst, set, rows, norms, bars)
}

func packedRows(_ variant, dst []int32, p *PreparedProbe, packed []byte) {
	packedReference(dst, p, packed)
}

func peak(_ variant, n int) int { return peakReference(n) }

func atLeast(_ variant, list, dots []int32, cut int32) int {
	return atLeastReference(list, dots, cut, 0)
}

func dotList(v variant, dst []int32, probe, rows []int8, list []int32) {
	dotListByCopies(v, dst, probe, rows, list)
}
