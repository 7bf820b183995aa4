//go:build purego || !amd64

package kernel

func hadamard(_ variant, x []float32, scale float32) { hadamardReference(x, scale) }
