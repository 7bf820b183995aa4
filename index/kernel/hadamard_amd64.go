//go:build !purego

package kernel

// hadamard has a power of two values. Three stages at a time stay in registers;
// multiplying by 1 before the last changes no bit.
func hadamard(v variant, x []float32, scale float32) {
	n := len(x)
	if v == reference || n < 64 {
		hadamardReference(x, scale)
		return
	}
	factor := func(last bool) float32 {
		if last {
			return scale
		}
		return 1
	}
	hadamard64AVX2(&x[0], n, factor(n == 64))
	for half := 64; half < n; {
		switch rest := n / half; rest {
		case 2:
			hadamardBy2AVX2(&x[0], n, half, scale)
			half *= 2
		case 4:
			hadamardBy4AVX2(&x[0], n, half, scale)
			half *= 4
		default:
			hadamardBy8AVX2(&x[0], n, half, factor(rest == 8))
			half *= 8
		}
	}
}
