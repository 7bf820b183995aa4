//go:build !purego && (amd64 || arm64)

package kernel

// tileBytes is how many bytes of rows all probes are taken over at once: they
// and a tile's probes stay in a core's first-level cache, of 32 KB or more.
const tileBytes = 16 << 10

// tiles goes over the rows in blocks and over the probes in each, tall at a
// time. The probes and rows that are left over go through dotRows.
func tiles(v variant, dst []int32, probes, rows []int8, dim, tall int) {
	p, r := len(probes)/dim, len(rows)/dim
	step := max(tileBytes/dim&^3, 4)
	whole := p - p%tall
	for from := 0; whole > 0 && from < r; from += step {
		n := min(step, r-from)
		fours := n &^ 3
		for i := 0; i < whole; i += tall {
			if fours > 0 {
				tile(v, dst[i*r+from:], r, fours, probes[i*dim:], rows[from*dim:], dim, tall)
			}
			if fours < n {
				for j := i; j < i+tall; j++ {
					dotRows(v, dst[j*r+from+fours:j*r+from+n], probes[j*dim:(j+1)*dim], rows[(from+fours)*dim:(from+n)*dim])
				}
			}
		}
	}
	for i := whole; i < p; i++ {
		dotRows(v, dst[i*r:(i+1)*r], probes[i*dim:(i+1)*dim], rows)
	}
}

// addTails adds the products of the values from whole on.
func addTails(dst []int32, probe, rows []int8, whole int) {
	dim := len(probe)
	if whole == dim {
		return
	}
	for r := range dst {
		dst[r] += dotReference(probe[whole:], rows[r*dim+whole:(r+1)*dim])
	}
}

// finishPacked adds the packed bytes from whole on to sums over level numbers,
// and makes them sums over levels.
func finishPacked(dst []int32, p *PreparedProbe, packed []byte, whole int) {
	planes, mask := p.bits.planes(), byte(1<<p.bits-1)
	for r := range dst {
		for place := whole; place < p.stride; place++ {
			at := place/64*planes*64 + place%64
			for b := packed[r*p.stride+place]; b != 0; b >>= p.bits {
				dst[r] += int32(b&mask) * int32(p.planes[at])
				at += 64
			}
		}
		dst[r] = 2*dst[r] - p.bias
	}
}
