package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// walk goes through all rows with Reach and checks what is handed out: the
// numbers of rows, the products, what lies beside dst, and that no row is
// missing of which a product reaches its bar.
func walk(t *testing.T, name string, v variant, set *ProbeSet, probes, rows []int8, norms []int32, bars []float32, shift int) (handed int) {
	t.Helper()
	p, dim := set.Len(), set.Dim()
	product := func(row, i int) int64 {
		return int64(dotReference(probes[i*dim:(i+1)*dim], rows[row*dim:(row+1)*dim]))
	}
	for at := 0; ; {
		s := newSums(ReachRows*p, shift)
		from, n := reach(v, s.dst(), set, rows[at*dim:], norms[at:], bars)
		if n < 0 || n > ReachRows || from < 0 || at+from+n > len(norms) || n == 0 && at+from != len(norms) {
			t.Fatalf("%s: rows %d..%d handed out at %d of %d", name, from, from+n, at, len(norms))
		}
		s.check(t, name, func(i int) int64 {
			if i >= n*p {
				return int64(s.dst()[i])
			}
			return product(at+from+i/p, i%p)
		})
		for row := at; row < at+from; row++ {
			for i, bar := range bars {
				if score := float64(product(row, i)) / math.Sqrt(float64(norms[row])); score*(1-ReachSlack) >= float64(bar) {
					t.Fatalf("%s: row %d reaches the bar of probe %d, %g of %g, and was passed by", name, row, i, score, bar)
				}
			}
		}
		if n == 0 {
			return handed
		}
		handed += n
		at += from + n
	}
}

func int32sIn(b []int8, n int) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

func TestReach(t *testing.T) {
	everyVariant(t, func(t *testing.T, v variant) {
		r := rand.New(rand.NewPCG(19, 20))
		rowMemory, normMemory, barMemory := newGuarded(t, 50*520), newGuarded(t, 4*50), newGuarded(t, 4*MaxReach)
		inf := float32(math.Inf(1))
		var set ProbeSet // used again and again, as a search does
		for _, dim := range []int{1, 2, 3, 4, 5, 7, 8, 63, 64, 65, 127, 128, 255, 512, 513} {
			for _, p := range []int{1, 2, 11, 12, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64} {
				make8 := randomInt8
				if (dim+p)%2 == 1 {
					make8 = extremes
				}
				probes := make8(r, p*dim)
				set.Prepare(probes, dim)
				bars := int32sIn(barMemory.atEnd(make([]int8, 4*p)), p)
				floats := unsafe.Slice((*float32)(unsafe.Pointer(&bars[0])), p)
				for _, n := range []int{0, 1, 5, 6, 7, 8, 12, 13, 24, 37, 49} {
					rows := rowMemory.atEnd(make8(r, n*dim))
					norms := int32sIn(normMemory.atEnd(make([]int8, 4*n)), n)
					if n%2 == 1 {
						rows, norms = rowMemory.atStart(rows), int32sIn(normMemory.atStart(make([]int8, 4*n)), n)
					}
					for i := range norms {
						norms[i] = max(dotReference(rows[i*dim:(i+1)*dim], rows[i*dim:(i+1)*dim]), 1)
					}
					name := fmt.Sprintf("dim %d, %d probes, %d rows", dim, p, n)
					for i := range floats {
						floats[i] = float32(math.Inf(-1))
					}
					if got := walk(t, name, v, &set, probes, rows, norms, floats, r.IntN(16)); got != n {
						t.Fatalf("%s: %d rows reach no bar at all", name, got)
					}
					for i := range floats {
						floats[i] = inf
					}
					if got := walk(t, name, v, &set, probes, rows, norms, floats, r.IntN(16)); got != 0 {
						t.Fatalf("%s: %d rows reach what cannot be reached", name, got)
					}
					// One row reaches the bar of one probe, by no more than the slack.
					if n > 0 {
						row, i := r.IntN(n), r.IntN(p)
						score := float64(dotReference(probes[i*dim:(i+1)*dim], rows[row*dim:(row+1)*dim])) / math.Sqrt(float64(norms[row]))
						floats[i] = float32(score - math.Abs(score)*1.01*ReachSlack - 1e-6)
						if got := walk(t, name, v, &set, probes, rows, norms, floats, r.IntN(16)); got == 0 {
							t.Fatalf("%s: nothing handed out", name)
						}
					}
					// Bars that some reach.
					for i := range floats {
						floats[i] = float32(r.NormFloat64() * 70 * math.Sqrt(float64(dim)))
					}
					walk(t, name, v, &set, probes, rows, norms, floats, r.IntN(16))
				}
			}
		}
	})
}

// Rows that do not count may have a norm of zero, or one that does not fit.
func TestReachOfWipedRows(t *testing.T) {
	everyVariant(t, func(t *testing.T, v variant) {
		r := rand.New(rand.NewPCG(23, 24))
		const dim, p, n = 64, 64, 48
		probes, rows := randomInt8(r, p*dim), randomInt8(r, n*dim)
		norms, bars := make([]int32, n), slices.Repeat([]float32{1e5}, p)
		norms[30] = 1 // the one that reaches
		clear(rows[:20*dim])
		var set ProbeSet
		set.Prepare(probes, dim)
		seen := false
		dst := make([]int32, ReachRows*p)
		for at := 0; at < n; {
			from, rest := reach(v, dst, &set, rows[at*dim:], norms[at:], slices.Repeat([]float32{10}, p))
			seen = seen || at+from <= 30 && 30 < at+from+rest
			if at += from + rest; rest == 0 {
				break
			}
		}
		if !seen {
			t.Error("the row that reaches its bar was passed by")
		}
		if from, rest := reach(v, dst, &set, rows[:12*dim], norms[:12], bars); rest != 0 && v == avx512vnni {
			t.Errorf("wiped rows handed out at %d", from)
		}
	})
}
