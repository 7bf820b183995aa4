package kernel

// dotReference is the readable dot product, which all others must equal.
func dotReference(a, b []int8) int32 {
	b = b[:len(a)]
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

func dotRowsReference(dst []int32, probe, rows []int8) {
	dim := len(probe)
	for r := range dst {
		dst[r] = dotReference(probe, rows[r*dim:(r+1)*dim])
	}
}

func dotTileReference(dst []int32, probes, rows []int8, dim int) {
	n := len(rows) / dim
	for p := range len(probes) / dim {
		dotRowsReference(dst[p*n:(p+1)*n], probes[p*dim:(p+1)*dim], rows)
	}
}

// packedReference takes every value's level out of its row, one by one.
func packedReference(dst []int32, p *PreparedProbe, packed []byte) {
	for r := range dst {
		row := packed[r*p.stride : (r+1)*p.stride]
		var sum int32
		shift := 0
		for i, place := 0, 0; i < len(p.probe); i++ {
			number := row[place] >> shift & (1<<p.bits - 1)
			sum += int32(p.probe[i]) * p.bits.level(number)
			if place++; place == p.stride {
				place, shift = 0, shift+int(p.bits)
			}
		}
		dst[r] = sum
	}
}

// peakReference is the reference's own inner loop on a short vector.
func peakReference(n int) int {
	var a [1024]int8
	for range n {
		dotReference(a[:], a[:])
	}
	return n * len(a)
}
