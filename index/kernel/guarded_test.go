package kernel

import "unsafe"

// atEnd copies v to the end of the memory and returns it there: one byte read
// behind it faults.
func (g guarded) atEnd(v []int8) []int8 {
	at := g.usable[len(g.usable)-len(v):]
	copy(at, bytesOf(v))
	return int8s(at)
}

// atStart does so at the start: one byte read before it faults.
func (g guarded) atStart(v []int8) []int8 {
	at := g.usable[:len(v)]
	copy(at, bytesOf(v))
	return int8s(at)
}

// int8s and bytesOf look at the same memory as the other type.
func int8s(b []byte) []int8 {
	return unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(b))), len(b))
}
func bytesOf(v []int8) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v))
}
