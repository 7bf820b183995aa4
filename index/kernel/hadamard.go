package kernel

import "fmt"

// Hadamard replaces v by its Walsh-Hadamard transform times scale. The length
// of v must be a power of two; it panics otherwise. In each of log2(len(v))
// stages, from neighbours on, the values of a pair become their sum and their
// difference, each rounded once; in the end each value is multiplied by scale.
// The result is the same to the last bit on every implementation, as long as
// the values are finite. It allocates nothing.
func Hadamard(v []float32, scale float32) {
	if n := len(v); n == 0 || n&(n-1) != 0 {
		panic(fmt.Sprintf("kernel: a Walsh-Hadamard transform of %d values; a power of two is needed", n))
	}
	hadamard(current(), v, scale)
}

func hadamardReference(v []float32, scale float32) {
	for half := 1; half < len(v); half *= 2 {
		for start := 0; start < len(v); start += 2 * half {
			lo, hi := v[start:start+half], v[start+half:start+2*half]
			for i, a := range lo {
				b := hi[i]
				lo[i], hi[i] = a+b, a-b
			}
		}
	}
	for i, x := range v {
		v[i] = float32(x * scale) // the conversion forbids fusing with a later addition
	}
}
