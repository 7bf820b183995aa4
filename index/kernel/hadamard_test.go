package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// Codes are stored for ever, so the last bit counts: every implementation gives
// what the plain loops give, for magnitudes far apart, zeros of both signs and
// denormals too.
func TestHadamard(t *testing.T) {
	everyVariant(t, func(t *testing.T, v variant) {
		for n := 1; n <= 8192; n *= 2 {
			for seed := range uint64(20) {
				r := rand.New(rand.NewPCG(seed, uint64(n)))
				got := make([]float32, n+2)
				for i := range got {
					switch r.IntN(10) {
					case 0:
						got[i] = float32(math.Copysign(0, r.Float64()-0.5))
					case 1:
						got[i] = float32(math.Ldexp(r.NormFloat64(), r.IntN(120)-60))
					case 2:
						got[i] = math.Float32frombits(r.Uint32N(1 << 20))
					default:
						got[i] = float32(r.NormFloat64())
					}
				}
				want := append([]float32(nil), got...)
				scale := float32(1 / math.Sqrt(float64(n)))
				hadamardReference(want[1:n+1], scale)
				hadamard(v, got[1:n+1], scale) // beside its neighbours, and at an odd address
				for i := range got {
					if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
						t.Fatalf("%d values, seed %d: value %d is %g, want %g", n, seed, i-1, got[i], want[i])
					}
				}
			}
		}
	})
}

// The reference is what the name says: row k of the matrix has the sign of the
// parity of k&i.
func TestHadamardReference(t *testing.T) {
	const n = 16
	for k := range n {
		v := make([]float32, n)
		v[k] = 1
		hadamardReference(v, 0.5)
		for i, x := range v {
			want := float32(0.5)
			for both := k & i; both != 0; both &= both - 1 {
				want = -want
			}
			if x != want {
				t.Errorf("unit %d: value %d is %g, want %g", k, i, x, want)
			}
		}
	}
	for _, n := range []int{0, 3, 96} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d values are taken", n)
				}
			}()
			Hadamard(make([]float32, n), 1)
		}()
	}
}

func BenchmarkHadamard(b *testing.B) {
	for _, n := range []int{128, 512} {
		onEach(b, fmt.Sprintf("n=%d", n), func(b *testing.B, v variant) {
			x := make([]float32, n)
			for i := range x {
				x[i] = float32(i%7) - 3
			}
			b.SetBytes(int64(4 * n))
			for b.Loop() {
				hadamard(v, x, 0.01)
			}
		})
	}
}
