package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestAtLeast(t *testing.T) {
	everyVariant(t, func(t *testing.T, v variant) {
		r := rand.New(rand.NewPCG(31, 32))
		memory := newGuarded(t, 4*320)
		for n := range 300 {
			for _, share := range []int{1, 2, 20, 500} {
				dots := int32sIn(memory.atEnd(make([]int8, 4*n)), n)
				cut := r.Int32N(1<<28) - 1<<27
				var want []int32
				for i := range dots {
					if dots[i] = cut - 1 - r.Int32N(1<<27); r.IntN(share) == 0 {
						dots[i] = cut + r.Int32N(2)*r.Int32N(1<<27)
						want = append(want, int32(i))
					}
				}
				if n%7 == 0 { // nothing lies below
					cut, want = math.MinInt32, want[:0]
					for i := range dots {
						want = append(want, int32(i))
					}
				}
				s := newSums(n, r.IntN(16))
				got := atLeast(v, s.dst(), dots, cut)
				if !slices.Equal(s.dst()[:got], want) {
					t.Fatalf("of %d sums: %v, want %v", n, s.dst()[:got], want)
				}
				s.check(t, fmt.Sprintf("%d sums", n), func(i int) int64 { return int64(s.dst()[i]) })
			}
		}
	})
}

func TestDotList(t *testing.T) {
	everyVariant(t, func(t *testing.T, v variant) {
		r := rand.New(rand.NewPCG(33, 34))
		probeMemory, rowMemory, listMemory := newGuarded(t, 5000), newGuarded(t, 40*1100), newGuarded(t, 400)
		for _, dim := range append(lengths()[1:], 4096) {
			count := min(35, 40*1100/dim)
			for _, n := range []int{1, 2, 15, 16, 17, 40, 90} {
				make8 := randomInt8
				if (n+dim)%2 == 1 {
					make8 = extremes
				}
				probe, rows := probeMemory.atEnd(make8(r, dim)), rowMemory.atEnd(make8(r, count*dim))
				list := int32sIn(listMemory.atEnd(make([]int8, 4*n)), n)
				if n%2 == 1 {
					probe, rows = probeMemory.atStart(probe), rowMemory.atStart(rows)
					list = int32sIn(listMemory.atStart(make([]int8, 4*n)), n)
				}
				for i := range list { // in any order, some more than once
					list[i] = r.Int32N(int32(count))
				}
				list[r.IntN(n)] = int32(count - 1)
				s := newSums(n, r.IntN(16))
				dotList(v, s.dst(), probe, rows, list)
				s.check(t, fmt.Sprintf("dim %d, %d of %d rows", dim, n, count), func(i int) int64 {
					return plainDot(probe, rows[int(list[i])*dim:][:dim])
				})
			}
		}
	})
}

func TestListRefuses(t *testing.T) {
	rows := make([]int8, 10*64)
	for name, call := range map[string]func(){
		"a row behind the last": func() { DotList(make([]int32, 2), rows[:64], rows, []int32{3, 10}) },
		"a row below 0":         func() { DotList(make([]int32, 2), rows[:64], rows, []int32{3, -1}) },
		"a short dst":           func() { DotList(make([]int32, 1), rows[:64], rows, []int32{3, 4}) },
		"a short list":          func() { AtLeast(make([]int32, 15), make([]int32, 16), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			call()
		})
	}
	dst := []int32{7, 7}
	DotList(dst, nil, nil, []int32{0, 0})
	if dst[0] != 0 || dst[1] != 0 {
		t.Errorf("of no values: %v", dst)
	}
	DotList(nil, rows[:64], rows, nil)
	if n := testing.AllocsPerRun(10, func() {
		DotList(dst, rows[:64], rows, []int32{9, 1})
		AtLeast(dst, []int32{1, 2}, 2)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkDotList compares a twentieth of a million rows that lie apart.
func BenchmarkDotList(b *testing.B) {
	const rows, dim = 1 << 20, 512
	r := rand.New(rand.NewPCG(35, 36))
	probe, codes := randomInt8(r, dim), make([]int8, rows*dim)
	for i := range codes {
		codes[i] = int8(i)
	}
	var list []int32
	for i := range int32(rows) {
		if r.IntN(20) == 0 {
			list = append(list, i)
		}
	}
	dst := make([]int32, len(list))
	onEach(b, fmt.Sprintf("dim=%d/rows=%d", dim, len(list)), func(b *testing.B, v variant) {
		b.SetBytes(int64(len(list)) * dim)
		for b.Loop() {
			dotList(v, dst, probe, codes, list)
		}
	})
}
