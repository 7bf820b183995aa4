package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// plainDot is what Dot must equal, in arithmetic that cannot overflow.
func plainDot(a, b []int8) int64 {
	var sum int64
	for i := range a {
		sum += int64(a[i]) * int64(b[i])
	}
	return sum
}

func randomInt8(r *rand.Rand, n int) []int8 {
	v := make([]int8, n)
	for i := range v {
		v[i] = int8(r.IntN(256) - 128)
	}
	return v
}

func filled(n int, value int8) []int8 {
	v := make([]int8, n)
	for i := range v {
		v[i] = value
	}
	return v
}

func TestDot(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 300 {
		a, b := randomInt8(r, n), randomInt8(r, n)
		if got, want := Dot(a, b), plainDot(a, b); int64(got) != want {
			t.Errorf("length %d: %d, want %d", n, got, want)
		}
	}
	for _, c := range []struct{ a, b int8 }{{-128, -128}, {-128, 127}, {127, 127}, {0, -128}} {
		a, b := filled(MaxLen, c.a), filled(MaxLen, c.b)
		if got, want := Dot(a, b), plainDot(a, b); int64(got) != want {
			t.Errorf("%d values of %d and %d: %d, want %d", MaxLen, c.a, c.b, got, want)
		}
	}
	if got := Dot([]int8{1, 2, 3, 4, 5}, []int8{1, 1, 1}); got != 6 {
		t.Errorf("of unequal slices: %d, want that of the common prefix, 6", got)
	}
}

func TestDotRows(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, dim := range []int{1, 3, 64, 65, 128, 192, 512} {
		for _, rows := range []int{0, 1, 2, 7, 16, 33} {
			probe, codes := randomInt8(r, dim), randomInt8(r, rows*dim)
			dst := make([]int32, rows+1)
			dst[rows] = 12345
			DotRows(dst[:rows], probe, codes)
			for i := range rows {
				if want := plainDot(probe, codes[i*dim:(i+1)*dim]); int64(dst[i]) != want {
					t.Errorf("dim %d, row %d of %d: %d, want %d", dim, i, rows, dst[i], want)
				}
			}
			if dst[rows] != 12345 {
				t.Errorf("dim %d, %d rows: wrote behind dst", dim, rows)
			}
		}
	}
}

func TestImplementationIsNamed(t *testing.T) {
	if Implementation() == "" {
		t.Error("the implementation has no name")
	}
}

func BenchmarkDotRows(b *testing.B) {
	const rows = 256
	r := rand.New(rand.NewPCG(7, 8))
	for _, dim := range []int{128, 512} {
		b.Run(fmt.Sprintf("dim=%d/rows=%d/kernel=%s", dim, rows, Implementation()), func(b *testing.B) {
			probe, codes, dst := randomInt8(r, dim), randomInt8(r, rows*dim), make([]int32, rows)
			b.SetBytes(rows * int64(dim))
			for b.Loop() {
				DotRows(dst, probe, codes)
			}
		})
	}
}
