package kernel

// AtLeast writes the indices of the dots that are at least cut to list, in their
// order, and returns how many these are. list must have len(dots) places, and
// those behind what is returned are written to as well.
func AtLeast(list, dots []int32, cut int32) int {
	return atLeast(current(), list[:len(dots)], dots, cut)
}

// atLeastReference writes every index and keeps those that count: no branch to
// be guessed wrong.
func atLeastReference(list, dots []int32, cut int32, first int) (n int) {
	for i := first; i < len(dots); i++ {
		list[n] = int32(i)
		if dots[i] >= cut {
			n++
		}
	}
	return n
}

// DotList sets dst[i] to the dot product of probe and row list[i], for rows of
// len(probe) values that stand one after the other in rows. The rows lie apart in
// memory, and each would be a wait for it, so those to come are asked for ahead.
// dst must have len(list) places; every number in list must name a row. Callers
// check that, what is shorter panics like any slice, and a list that names no row
// of rows panics too. It keeps no slice.
func DotList(dst []int32, probe, rows []int8, list []int32) {
	if len(list) == 0 {
		return
	}
	dim := len(probe)
	if dim == 0 {
		clear(dst[:len(list)])
		return
	}
	least, most := list[0], list[0]
	for _, row := range list {
		least, most = min(least, row), max(most, row)
	}
	if least < 0 {
		panic("kernel: a list names a row below 0")
	}
	dotList(current(), dst[:len(list)], probe, rows[:(int(most)+1)*dim], list)
}

// dotListByCopies brings rows together for those who want several in a row;
// copying asks memory for many at once.
func dotListByCopies(v variant, dst []int32, probe, rows []int8, list []int32) {
	var block [8 << 10]int8
	dim := len(probe)
	n := len(block) / dim
	if v == reference || n < 2 {
		for i, row := range list {
			dotRows(v, dst[i:i+1], probe, rows[int(row)*dim:][:dim])
		}
		return
	}
	for len(list) > 0 {
		n = min(n, len(list))
		for i, row := range list[:n] {
			copy(block[i*dim:(i+1)*dim], rows[int(row)*dim:])
		}
		dotRows(v, dst[:n], probe, block[:n*dim])
		dst, list = dst[n:], list[n:]
	}
}
