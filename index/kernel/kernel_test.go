package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// everyVariant runs body for each implementation that runs here, and says which
// ones were not run and why.
func everyVariant(t *testing.T, body func(t *testing.T, v variant)) {
	for v := reference; v < variants; v++ {
		t.Run(v.String(), func(t *testing.T) {
			if lack := lacking(v); len(lack) > 0 {
				t.Skipf("NOT RUN: %s, for want of %s", v, strings.Join(lack, ", "))
			}
			body(t, v)
		})
	}
}

// plainDot is what every product must equal, in arithmetic that cannot overflow.
func plainDot(a, b []int8) int64 {
	var sum int64
	for i := range a {
		sum += int64(a[i]) * int64(b[i])
	}
	return sum
}

// plainPacked is what every packed product must equal, by the definition of
// Pack's levels and layout.
func plainPacked(probe []int8, row []byte, b Bits) int64 {
	var sum int64
	for i, v := range probe {
		number := row[i%len(row)] >> (i / len(row) * int(b)) & (1<<b - 1)
		sum += int64(v) * int64(2*int(number)-(1<<b-1))
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

func randomBytes(r *rand.Rand, n int) []byte {
	v := make([]byte, n)
	for i := range v {
		v[i] = byte(r.Uint32())
	}
	return v
}

// extremes are n values where sign extension, bias and saturation go wrong.
func extremes(r *rand.Rand, n int) []int8 {
	v := make([]int8, n)
	for i := range v {
		v[i] = []int8{-128, -128, -127, -1, 0, 1, 126, 127, 127}[r.IntN(9)]
	}
	return v
}

func filled(n int, value int8) []int8 { return slices.Repeat([]int8{value}, n) }

// sums is a dst with canaries on both sides, shift dwords into its memory.
type sums struct {
	all   []int32
	shift int
	n     int
}

const canary = 0x5EED5EED

func newSums(n, shift int) sums {
	return sums{slices.Repeat([]int32{canary}, shift+16+n+32), shift + 16, n}
}

func (s sums) dst() []int32 { return s.all[s.shift : s.shift+s.n : s.shift+s.n] }

// check compares with want, and the canaries with what they were.
func (s sums) check(t *testing.T, name string, want func(i int) int64) {
	t.Helper()
	for i, got := range s.all {
		if at := i - s.shift; at < 0 || at >= s.n {
			if got != canary {
				t.Fatalf("%s: wrote at dst[%d] of %d", name, at, s.n)
			}
		} else if w := want(at); int64(got) != w {
			t.Fatalf("%s: dst[%d] of %d is %d, want %d", name, at, s.n, got, w)
		}
	}
}

// lengths are all up to five registers of the widest implementation, and the
// neighbours of larger multiples.
func lengths() []int {
	var dims []int
	for dim := range 5*64 + 2 {
		dims = append(dims, dim)
	}
	for _, dim := range []int{384, 448, 512, 576, 1024} {
		dims = append(dims, dim-1, dim, dim+1)
	}
	return dims
}

func TestDotRows(t *testing.T) {
	everyVariant(t, func(t *testing.T, v variant) {
		r := rand.New(rand.NewPCG(5, 6))
		probeMemory, rowMemory := newGuarded(t, 1100), newGuarded(t, 40*1100)
		for _, dim := range lengths() {
			for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 15, 16, 17, 33, 35} {
				make8 := randomInt8
				if n%2 == 1 {
					make8 = extremes
				}
				probe, rows := make8(r, dim), make8(r, n*dim)
				check := func(where string, probe, rows []int8) {
					s := newSums(n, r.IntN(16))
					dotRows(v, s.dst(), probe, rows)
					s.check(t, fmt.Sprintf("dim %d, %d rows, %s", dim, n, where), func(i int) int64 {
						return plainDot(probe, rows[i*dim:(i+1)*dim])
					})
				}
				check("at the end of memory", probeMemory.atEnd(probe), rowMemory.atEnd(rows))
				check("at the start of memory", probeMemory.atStart(probe), rowMemory.atStart(rows))
			}
		}
	})
}

func TestDotRowsAtEveryAlignment(t *testing.T) {
	everyVariant(t, func(t *testing.T, v variant) {
		r := rand.New(rand.NewPCG(7, 8))
		for _, dim := range []int{1, 63, 64, 100, 128, 512} {
			const n = 19
			probes, rows := randomInt8(r, dim+64), randomInt8(r, n*dim+64)
			for shift := range 64 {
				p, rs := probes[(shift*7)%64:][:dim], rows[shift:][:n*dim]
				s := newSums(n, shift%16)
				dotRows(v, s.dst(), p, rs)
				s.check(t, fmt.Sprintf("dim %d, alignment %d", dim, shift), func(i int) int64 {
					return plainDot(p, rs[i*dim:(i+1)*dim])
				})
			}
		}
	})
}

func TestDotTile(t *testing.T) {
	everyVariant(t, func(t *testing.T, v variant) {
		r := rand.New(rand.NewPCG(9, 10))
		probeMemory, rowMemory := newGuarded(t, 9*1100), newGuarded(t, 70*1100)
		for _, dim := range []int{1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 192, 255, 256, 500, 512, 513, 1024} {
			for _, n := range []int{1, 2, 3, 4, 5, 8, 13, 16, 31, 33, 70} {
				for p := 1; p < 10; p++ {
					make8 := randomInt8
					if (n+p)%2 == 1 {
						make8 = extremes
					}
					probes, rows := make8(r, p*dim), make8(r, n*dim)
					probes, rows = probeMemory.atEnd(probes), rowMemory.atEnd(rows)
					if p%3 == 0 {
						probes, rows = probeMemory.atStart(probes), rowMemory.atStart(rows)
					}
					s := newSums(p*n, r.IntN(16))
					dotTile(v, s.dst(), probes, rows, dim)
					s.check(t, fmt.Sprintf("dim %d, %d probes, %d rows", dim, p, n), func(i int) int64 {
						return int64(dotReference(probes[i/n*dim:(i/n+1)*dim], rows[i%n*dim:(i%n+1)*dim]))
					})
				}
			}
		}
	})
}

func TestExtremeCodes(t *testing.T) {
	everyVariant(t, func(t *testing.T, v variant) {
		values := []int8{-128, -127, -1, 0, 1, 127}
		for _, dim := range []int{1, 16, 64, 65, 128, 512, MaxLen} {
			for _, a := range values {
				for _, b := range values {
					probe, rows := filled(dim, a), filled(4*dim, b)
					if dim == MaxLen && !(a == -128 || a == 127) {
						continue
					}
					want := int64(dim) * int64(a) * int64(b)
					name := fmt.Sprintf("%d values of %d and %d", dim, a, b)
					s := newSums(4, 0)
					dotRows(v, s.dst(), probe, rows)
					s.check(t, name, func(int) int64 { return want })
					s = newSums(16, 0)
					dotTile(v, s.dst(), slices.Repeat(probe, 4), rows, dim)
					s.check(t, name+" in a tile", func(int) int64 { return want })
					if dim > 1<<14 { // beyond what Reach takes
						continue
					}
					var set ProbeSet
					set.Prepare(slices.Repeat(probe, 64), dim)
					s = newSums(64*ReachRows, 0)
					rows = slices.Repeat(rows, 3)
					bars := slices.Repeat([]float32{float32(math.Inf(-1))}, 64)
					_, n := reach(v, s.dst(), &set, rows, slices.Repeat([]int32{1}, 12), bars)
					s.n = 64 * n
					s.all = s.all[:s.shift+s.n]
					s.check(t, name+" in a set", func(int) int64 { return want })
				}
			}
		}
	})
}

func TestPackedRows(t *testing.T) {
	everyVariant(t, func(t *testing.T, v variant) {
		r := rand.New(rand.NewPCG(11, 12))
		memory := newGuarded(t, 40*300)
		var p PreparedProbe // used again and again, as a search does
		for _, bits := range []Bits{OneBit, TwoBits} {
			for _, dim := range append(lengths()[1:], 505, 1016, 1017, 1100) {
				probe := randomInt8(r, dim)
				if dim%2 == 1 {
					probe = extremes(r, dim)
				}
				if err := p.Prepare(probe, bits); err != nil {
					t.Fatal(err)
				}
				stride := bits.Stride(dim)
				for _, n := range []int{0, 1, 2, 5, 16, 17, 35} {
					packed := randomBytes(r, n*stride) // bits beyond the last value set too
					check := func(where string, packed []byte) {
						s := newSums(n, r.IntN(16))
						packedRows(v, s.dst(), &p, packed)
						s.check(t, fmt.Sprintf("%d bits, dim %d, %d rows, %s", bits, dim, n, where), func(i int) int64 {
							return plainPacked(probe, packed[i*stride:(i+1)*stride], bits)
						})
					}
					check("at the end of memory", bytesOf(memory.atEnd(int8s(packed))))
					check("at the start of memory", bytesOf(memory.atStart(int8s(packed))))
				}
			}
		}
	})
}

func TestPackedRowsExtremes(t *testing.T) {
	everyVariant(t, func(t *testing.T, v variant) {
		for _, bits := range []Bits{OneBit, TwoBits} {
			for _, dim := range []int{128, 512, 4096, MaxLen} {
				for _, value := range []int8{-128, 127} {
					for _, fill := range []byte{0, 0xFF} {
						var p PreparedProbe
						if err := p.Prepare(filled(dim, value), bits); err != nil {
							t.Fatal(err)
						}
						want := int64(dim) * int64(value) * (1<<bits - 1)
						if fill == 0 {
							want = -want
						}
						s := newSums(17, 0)
						packedRows(v, s.dst(), &p, slices.Repeat([]byte{fill}, 17*p.stride))
						s.check(t, fmt.Sprintf("%d bits, %d values of %d and levels of %#x", bits, dim, value, fill), func(int) int64 { return want })
					}
				}
			}
		}
	})
}

func TestPackedRowsAtEveryAlignment(t *testing.T) {
	everyVariant(t, func(t *testing.T, v variant) {
		r := rand.New(rand.NewPCG(13, 14))
		for _, bits := range []Bits{OneBit, TwoBits} {
			for _, dim := range []int{100, 128, 256, 512} {
				var p PreparedProbe
				if err := p.Prepare(randomInt8(r, dim), bits); err != nil {
					t.Fatal(err)
				}
				memory := randomBytes(r, 19*p.stride+64)
				for shift := range 64 {
					packed := memory[shift:][:19*p.stride]
					s := newSums(19, shift%16)
					packedRows(v, s.dst(), &p, packed)
					s.check(t, fmt.Sprintf("%d bits, dim %d, alignment %d", bits, dim, shift), func(i int) int64 {
						return plainPacked(p.probe, packed[i*p.stride:(i+1)*p.stride], bits)
					})
				}
			}
		}
	})
}

func TestPack(t *testing.T) {
	row := []int8{-128, -51, -50, -49, -1, 0, 1, 49, 50, 127}
	// 2 bits, step 50, in 3 bytes: value i in byte i%3 at bit 2*(i/3).
	numbers := []byte{0, 0, 1, 1, 1, 2, 2, 2, 3, 3}
	want := make([]byte, 3)
	for i, n := range numbers {
		want[i%3] |= n << (2 * (i / 3))
	}
	got := slices.Repeat([]byte{0xAA}, 4)
	TwoBits.Pack(got, row, 50)
	if !slices.Equal(got[:3], want) || got[3] != 0xAA {
		t.Errorf("2 bits: %x, want %x and the byte behind untouched", got, want)
	}
	signs := make([]byte, 2)
	for i, v := range row {
		if v >= 0 {
			signs[i%2] |= 1 << (i / 2)
		}
	}
	OneBit.Pack(got, row, 99)
	if !slices.Equal(got[:2], signs) {
		t.Errorf("1 bit: %x, want %x", got[:2], signs)
	}
	// By the definition, in rows that go by words and in rows that do not.
	r := rand.New(rand.NewPCG(7, 7))
	for _, dim := range []int{1, 60, 64, 100, 128, 192, 508, 512, 513} {
		for _, step := range []int{-128, -1, 0, 1, 2, 50, 126, 127} {
			row := append(randomInt8(r, dim), extremes(r, dim)...)
			for _, b := range []Bits{OneBit, TwoBits} {
				got := make([]byte, b.Stride(len(row)))
				b.Pack(got, row, int8(step))
				for i, v := range row {
					want, v := byte(0), int(v)
					switch {
					case b == OneBit && v >= 0, b == TwoBits && v < 0 && v >= -step:
						want = 1
					case b == TwoBits && v >= max(step, 0):
						want = 3
					case b == TwoBits && v >= 0:
						want = 2
					}
					if n := got[i%len(got)] >> (i / len(got) * int(b)) & (1<<b - 1); n != want {
						t.Fatalf("%d values at %d bits, step %d: %d got the level number %d, want %d", len(row), b, step, v, n, want)
					}
				}
			}
		}
	}
	for _, c := range []struct{ bits, dim, want int }{{1, 0, 0}, {1, 1, 1}, {1, 8, 1}, {1, 9, 2}, {1, 512, 64}, {2, 512, 128}, {2, 5, 2}, {2, 128, 32}} {
		if got := Bits(c.bits).Stride(c.dim); got != c.want {
			t.Errorf("%d values at %d bits: %d bytes, want %d", c.dim, c.bits, got, c.want)
		}
	}
	var p PreparedProbe
	for _, bits := range []Bits{-1, 0, 3, 8} {
		if err := p.Prepare(row, bits); err == nil {
			t.Errorf("a probe for %d bits: no error", bits)
		}
	}
}

// TestExportedFunctions covers what the exported functions add to the variants:
// choosing one and the shapes they take.
func TestExportedFunctions(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	for n := range 300 {
		a, b := randomInt8(r, n), randomInt8(r, n)
		if got, want := Dot(a, b), plainDot(a, b); int64(got) != want {
			t.Errorf("length %d: %d, want %d", n, got, want)
		}
	}
	if got := Dot([]int8{1, 2, 3, 4, 5}, []int8{1, 1, 1}); got != 6 {
		t.Errorf("of unequal slices: %d, want that of the common prefix, 6", got)
	}

	probes, rows := randomInt8(r, 5*20), randomInt8(r, 7*20)
	s := newSums(7, 0)
	DotRows(s.dst(), probes[:20], rows)
	s.check(t, "DotRows", func(i int) int64 { return plainDot(probes[:20], rows[i*20:(i+1)*20]) })
	s = newSums(35, 0)
	DotTile(s.dst(), probes, rows, 20)
	s.check(t, "DotTile", func(i int) int64 { return plainDot(probes[i/7*20:][:20], rows[i%7*20:][:20]) })
	var set ProbeSet
	if from, n := set.Reach(nil, nil, nil, nil); from != 0 || n != 0 { // of no probe
		t.Errorf("no rows: %d from %d", n, from)
	}
	set.Prepare(probes, 20)
	if set.Len() != 5 || set.Dim() != 20 {
		t.Errorf("a set of %d probes of %d values", set.Len(), set.Dim())
	}
	s = newSums(35, 0)
	all := slices.Repeat([]float32{float32(math.Inf(-1))}, 5)
	if from, n := set.Reach(append(s.dst(), make([]int32, 25)...), rows, slices.Repeat([]int32{1}, 7), all); from != 0 || n != 7 {
		t.Errorf("Reach: %d rows from %d", n, from)
	}
	DotTile(nil, nil, rows, 20)
	DotTile(nil, probes, nil, 20)
	s = newSums(3, 0)
	DotTile(s.dst(), nil, nil, 0)
	s.check(t, "no dimension", func(int) int64 { return 0 })
	DotRows(s.dst(), nil, nil)
	s.check(t, "no dimension", func(int) int64 { return 0 })

	var p PreparedProbe
	PackedRows(s.dst(), &p, nil)
	s.check(t, "no dimension", func(int) int64 { return 0 })
	if err := p.Prepare(probes[:20], TwoBits); err != nil {
		t.Fatal(err)
	}
	if p.Dim() != 20 || p.Bits() != TwoBits {
		t.Errorf("prepared for %d values at %d bits", p.Dim(), p.Bits())
	}
	packed := randomBytes(r, 3*5)
	PackedRows(s.dst(), &p, packed)
	s.check(t, "PackedRows", func(i int) int64 { return plainPacked(probes[:20], packed[i*5:(i+1)*5], TwoBits) })

	if got := Peak(10); got <= 0 {
		t.Errorf("10 rounds did %d multiply-adds", got)
	}
	if got := Peak(-1); got != 0 {
		t.Errorf("-1 rounds did %d multiply-adds", got)
	}
}

// TestTooShort holds that wrong shapes panic in Go, as a slice would, instead
// of reading elsewhere.
func TestTooShort(t *testing.T) {
	var p PreparedProbe
	if err := p.Prepare(make([]int8, 64), OneBit); err != nil {
		t.Fatal(err)
	}
	var set ProbeSet
	set.Prepare(make([]int8, 128), 64)
	for name, call := range map[string]func(){
		"Reach, rows": func() { set.Reach(make([]int32, 24), make([]int8, 127), make([]int32, 2), make([]float32, 2)) },
		"Reach, dst":  func() { set.Reach(make([]int32, 23), make([]int8, 128), make([]int32, 2), make([]float32, 2)) },
		"Reach, bars": func() { set.Reach(make([]int32, 24), make([]int8, 128), make([]int32, 2), make([]float32, 1)) },
		"DotRows":     func() { DotRows(make([]int32, 2), make([]int8, 64), make([]int8, 127)) },
		"DotTile":     func() { DotTile(make([]int32, 3), make([]int8, 128), make([]int8, 128), 64) },
		"PackedRows":  func() { PackedRows(make([]int32, 2), &p, make([]byte, 15)) },
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
}

func TestNoAllocation(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	probes, rows := randomInt8(r, 4*512), randomInt8(r, 32*512)
	packed := randomBytes(r, 32*128)
	var p PreparedProbe
	if err := p.Prepare(probes[:512], TwoBits); err != nil {
		t.Fatal(err)
	}
	var set ProbeSet
	set.Prepare(probes, 512)
	var norms [32]int32
	var bars [4]float32
	everyVariant(t, func(t *testing.T, v variant) {
		use(t, v)
		if n := testing.AllocsPerRun(20, func() {
			var dst [4 * 32]int32
			DotRows(dst[:32], probes[:512], rows)
			DotTile(dst[:], probes, rows, 512)
			set.Prepare(probes, 512)
			set.Reach(dst[:], rows, norms[:], bars[:4])
			_ = p.Prepare(probes[:512], TwoBits)
			PackedRows(dst[:32], &p, packed)
			dst[0] += Dot(probes[:512], rows[:512])
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
