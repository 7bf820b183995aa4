package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// chunk is how many bytes a ZMM register holds.
const chunk = 64

func writeAVX512() {
	dotRows512(0)
	dotRows512(8)
	dotRows512(2)
	dotTile512()
	for _, bits := range []int{1, 2} {
		packed512(bits)
		packedFixed512(bits)
	}
	packedNarrow512(1, 16)
	packedNarrow512(1, 32)
	packedNarrow512(2, 32)
	atLeast512()
	dotList512()
	reaching512(4, 6)
	reaching512(3, 8)
	reaching512(2, 12)
	reaching512(1, 12)
	peak512()
}

// declare starts a function that keeps none of its pointers.
func declare(name, signature, doc string) {
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	Doc(name + " " + doc)
}

// broadcast returns a register with value in every dword.
func broadcast(value uint32) reg.VecVirtual {
	g, z := GP32(), ZMM()
	MOVL(U32(value), g)
	VPBROADCASTD(g, z)
	return z
}

func zmms(n int) []reg.VecVirtual {
	z := make([]reg.VecVirtual, n)
	for i := range z {
		z[i] = ZMM()
	}
	return z
}

// reduce16 returns a register whose lane i is the sum over all lanes of what
// each(i) returns, and overwrites those: 15 merges, 45 instructions.
func reduce16(each func(i int) reg.VecVirtual) reg.VecVirtual { return reduce(each, 0, 16) }

// reduce merges n registers, from the i-th on, by a tree of which reduce16 is
// the whole, and asks for the next register as late as it can. Of four, dword j
// of every 128 bits is the j-th register's sum over these.
func reduce(each func(i int) reg.VecVirtual, i, n int) reg.VecVirtual {
	if n == 1 {
		return each(i)
	}
	a, b, t := reduce(each, i, n/2), reduce(each, i+n/2, n/2), ZMM()
	switch n {
	case 2: // in each 128 bits: a0+a2, b0+b2, a1+a3, b1+b3
		VPUNPCKLDQ(b, a, t)
		VPUNPCKHDQ(b, a, a)
	case 4: // in each 128 bits: the four sums
		VPUNPCKLQDQ(b, a, t)
		VPUNPCKHQDQ(b, a, a)
	case 8: // 128 bits of the first four, again, of the second four, again
		VSHUFI32X4(U8(0x44), b, a, t)
		VSHUFI32X4(U8(0xEE), b, a, a)
	case 16:
		VSHUFI32X4(U8(0x88), b, a, t)
		VSHUFI32X4(U8(0xDD), b, a, a)
	}
	VPADDD(t, a, a)
	return a
}

// of gives registers that are already full to reduce16.
func of(a []reg.VecVirtual) func(int) reg.VecVirtual {
	return func(i int) reg.VecVirtual { return a[i] }
}

// reduce1 leaves the sum of all lanes of a in its lane 0.
func reduce1(a reg.VecVirtual) reg.VecVirtual {
	y := YMM()
	VEXTRACTI64X4(U8(1), a, y)
	VPADDD(y, a.AsY(), a.AsY())
	x := XMM()
	VEXTRACTI128(U8(1), a.AsY(), x)
	VPADDD(x, a.AsX(), a.AsX())
	VPSHUFD(U8(0x4E), a.AsX(), x)
	VPADDD(x, a.AsX(), a.AsX())
	VPSHUFD(U8(0xB1), a.AsX(), x)
	VPADDD(x, a.AsX(), a.AsX())
	return a
}

// tailMask returns a mask of the n%64 lowest bits, and n less those.
func tailMask(n reg.Register) (k reg.OpmaskVirtual, whole reg.GPVirtual) {
	rest, ones := GP64(), GP64()
	whole = GP64()
	MOVQ(n, rest)
	ANDQ(I32(chunk-1), rest)
	MOVQ(n, whole)
	SUBQ(rest, whole)
	MOVQ(I32(-1), ones)
	BZHIQ(rest, ones, ones)
	k = K()
	KMOVQ(ones, k)
	return k, whole
}

// biased loads 64 row values as unsigned ones, 128 too large.
func biased(m Op, bias, to reg.VecVirtual) { VPXORQ(m, bias, to) }

// quad addresses four vectors that stand stride bytes apart.
type quad struct{ base, stride, stride3 reg.Register }

func (q quad) at(i, disp int) Mem {
	switch i {
	case 1:
		return Mem{Base: q.base, Index: q.stride, Scale: 1, Disp: disp}
	case 2:
		return Mem{Base: q.base, Index: q.stride, Scale: 2, Disp: disp}
	case 3:
		return Mem{Base: q.base, Index: q.stride3, Scale: 1, Disp: disp}
	}
	return Mem{Base: q.base, Disp: disp}
}

// dotRows512 writes the product of one probe with many rows. Rows are made
// unsigned by XOR 0x80, and every accumulator starts at -128 times the probe,
// lane by lane, which takes the bias out again. chunks is the length in
// registers, with the probe kept in them and rows read one after the other; 0
// is any length, 16 rows side by side.
func dotRows512(chunks int) {
	name := "dotRowsAVX512"
	doc := "sets dst[0:n] to the products of probe and n rows of dim values, dim >= 1."
	signature := "func(dst *int32, n int, probe, rows *int8, dim int)"
	if chunks > 0 {
		name = fmt.Sprintf("dotRows%dAVX512", chunks*chunk)
		doc = fmt.Sprintf("is dotRowsAVX512 for dim %d.", chunks*chunk)
		signature = "func(dst *int32, n int, probe, rows *int8)"
	}
	declare(name, signature, doc)
	dst := Load(Param("dst"), GP64())
	n := Load(Param("n"), GP64())
	probe := Load(Param("probe"), GP64())
	rows := Load(Param("rows"), GP64())
	bias := broadcast(0x80808080)
	start := ZMM()
	VPXORQ(start, start, start)

	if chunks > 0 {
		p := zmms(chunks)
		for i := range p {
			VMOVDQU64(Mem{Base: probe, Disp: i * chunk}, p[i])
			VPDPBUSD(p[i], bias, start)
		}
		negate(start)
		row := func(disp int, acc reg.VecVirtual) {
			VMOVDQA64(start, acc)
			for c := range chunks {
				PREFETCHT0(Mem{Base: rows, Disp: disp + c*chunk + rowsAhead})
				t := ZMM()
				biased(Mem{Base: rows, Disp: disp + c*chunk}, bias, t)
				VPDPBUSD(p[c], t, acc)
			}
		}
		rowLoop(name, dst, n, func() {
			VMOVDQU32(reduce16(func(i int) reg.VecVirtual {
				acc := ZMM()
				row(i*chunks*chunk, acc)
				return acc
			}), Mem{Base: dst})
			ADDQ(I32(16*chunks*chunk), rows)
		}, func() {
			acc := ZMM()
			row(0, acc)
			VMOVD(reduce1(acc).AsX(), Mem{Base: dst})
			ADDQ(I32(chunks*chunk), rows)
		})
		forgetRegisters()
		RET()
		return
	}

	dim := Load(Param("dim"), GP64())
	k, whole := tailMask(dim)
	dim3 := GP64()
	LEAQ(Mem{Base: dim, Index: dim, Scale: 2}, dim3)
	at := GP64()
	overChunks(name+"_probe", at, whole, dim, func(tail bool) {
		t := ZMM()
		loadMasked(Mem{Base: probe, Index: at, Scale: 1}, tail, k, t)
		VPDPBUSD(t, bias, start)
	})
	negate(start)
	rowLoop(name, dst, n, func() {
		acc := zmms(16)
		var q [4]quad
		for i := range q {
			q[i] = quad{GP64(), dim, dim3}
			if i == 0 {
				MOVQ(rows, q[0].base)
			} else {
				LEAQ(Mem{Base: q[i-1].base, Index: dim, Scale: 4}, q[i].base)
			}
		}
		for i := range acc {
			VMOVDQA64(start, acc[i])
		}
		overChunks(name+"_block", at, whole, dim, func(tail bool) {
			p := ZMM()
			loadMasked(Mem{Base: probe, Index: at, Scale: 1}, tail, k, p)
			for i := range acc {
				t := ZMM()
				if m := q[i/4].at(i%4, 0); tail {
					VMOVDQU8_Z(m, k, t)
					VPXORQ(bias, t, t)
				} else {
					biased(m, bias, t)
				}
				VPDPBUSD(p, t, acc[i])
			}
			if !tail {
				for i := range q {
					ADDQ(I32(chunk), q[i].base)
				}
			}
		})
		VMOVDQU32(reduce16(of(acc)), Mem{Base: dst})
		sixteen := GP64()
		MOVQ(dim, sixteen)
		SHLQ(U8(4), sixteen)
		ADDQ(sixteen, rows)
	}, func() {
		acc := ZMM()
		VMOVDQA64(start, acc)
		overChunks(name+"_one", at, whole, dim, func(tail bool) {
			p, t := ZMM(), ZMM()
			loadMasked(Mem{Base: probe, Index: at, Scale: 1}, tail, k, p)
			loadMasked(Mem{Base: rows, Index: at, Scale: 1}, tail, k, t)
			VPXORQ(bias, t, t)
			VPDPBUSD(p, t, acc)
		})
		VMOVD(reduce1(acc).AsX(), Mem{Base: dst})
		ADDQ(dim, rows)
	})
	forgetRegisters()
	RET()
}

// How far ahead of the row being read memory is asked for. 1 M rows of 512
// values out of memory on 4 cores of a Zen 5, the best of 25, ms:
//
//	bytes ahead   int8   1 bit  2 bits
//	          0   12.60   2.62    4.11
//	       1024   11.39   1.94    3.53
//	       2048   11.52   1.71    3.14
//	       4096   12.01   1.68    3.12
//	       8192   12.18   1.88    3.36
const (
	rowsAhead   = 2048
	packedAhead = 4096
)

func negate(z reg.VecVirtual) {
	zero := ZMM()
	VPXORQ(zero, zero, zero)
	VPSUBD(z, zero, z)
}

func loadMasked(m Mem, masked bool, k reg.OpmaskVirtual, to reg.VecVirtual) {
	if masked {
		VMOVDQU8_Z(m, k, to)
	} else {
		VMOVDQU64(m, to)
	}
}

// overChunks runs body for at = 0, 64, ... below whole, and once more, as the
// tail, when length is larger than whole.
func overChunks(label string, at, whole, length reg.Register, body func(tail bool)) {
	XORQ(at, at)
	JMP(LabelRef(label + "_check"))
	Label(label + "_chunk")
	body(false)
	ADDQ(I32(chunk), at)
	Label(label + "_check")
	CMPQ(at, whole)
	JLT(LabelRef(label + "_chunk"))
	CMPQ(whole, length)
	JE(LabelRef(label + "_whole"))
	body(true)
	Label(label + "_whole")
}

// rowLoop runs block for every 16 rows and one for each of the rest. Both
// store at dst, which is moved on for them; they move their rows themselves.
func rowLoop(label string, dst, n reg.Register, block, one func()) {
	JMP(LabelRef(label + "_blocks"))
	Label(label + "_block16")
	block()
	ADDQ(I32(16*4), dst)
	SUBQ(I32(16), n)
	Label(label + "_blocks")
	CMPQ(n, I32(16))
	JGE(LabelRef(label + "_block16"))
	TESTQ(n, n)
	JE(LabelRef(label + "_done"))
	Label(label + "_single")
	one()
	ADDQ(I32(4), dst)
	DECQ(n)
	JNE(LabelRef(label + "_single"))
	Label(label + "_done")
}

// dotTile512 writes the products of four probes with rows, four at a time: 16
// accumulators, which eight loads feed with 16 VPDPBUSD.
func dotTile512() {
	const name = "dotTile4AVX512"
	declare(name, "func(dst *int32, pitch, n int, probes, rows *int8, dim int)",
		"sets dst[p*pitch+r] to the products of probes p = 0..3 and n rows, n a multiple of 4.")
	dst := Load(Param("dst"), GP64())
	pitch := Load(Param("pitch"), GP64())
	n := Load(Param("n"), GP64())
	probes := Load(Param("probes"), GP64())
	rows := Load(Param("rows"), GP64())
	dim := Load(Param("dim"), GP64())
	SHLQ(U8(2), pitch) // in bytes
	pitch3, dim3 := GP64(), GP64()
	LEAQ(Mem{Base: pitch, Index: pitch, Scale: 2}, pitch3)
	LEAQ(Mem{Base: dim, Index: dim, Scale: 2}, dim3)
	k, whole := tailMask(dim)
	bias := broadcast(0x80808080)
	at := GP64()
	p := quad{GP64(), dim, dim3}
	r := quad{GP64(), dim, dim3}

	// -128 times each probe's sum, four of them in 128 bits, as the corrections
	// of a finished tile.
	start := zmms(4)
	for _, z := range start {
		VPXORQ(z, z, z)
	}
	MOVQ(probes, p.base)
	overChunks(name+"_probe", at, whole, dim, func(tail bool) {
		for i := range start {
			t := ZMM()
			loadMasked(p.at(i, 0), tail, k, t)
			VPDPBUSD(t, bias, start[i])
		}
		if !tail {
			ADDQ(I32(chunk), p.base)
		}
	})
	for _, z := range start {
		negate(z)
	}

	JMP(LabelRef(name + "_tiles"))
	Label(name + "_tile")
	acc := zmms(16)
	for i := range acc {
		VMOVDQA64(start[i/4], acc[i])
	}
	MOVQ(probes, p.base)
	MOVQ(rows, r.base)
	overChunks(name+"_chunks", at, whole, dim, func(tail bool) {
		v := zmms(4)
		for i := range v {
			loadMasked(p.at(i, 0), tail, k, v[i])
		}
		for j := range 4 {
			t := ZMM()
			if m := r.at(j, 0); tail {
				VMOVDQU8_Z(m, k, t)
				VPXORQ(bias, t, t)
			} else {
				biased(m, bias, t)
			}
			for i := range v {
				VPDPBUSD(v[i], t, acc[4*i+j])
			}
		}
		if !tail {
			ADDQ(I32(chunk), p.base)
			ADDQ(I32(chunk), r.base)
		}
	})
	sums := reduce16(of(acc))
	out := quad{dst, pitch, pitch3}
	VMOVDQU(sums.AsX(), out.at(0, 0))
	for i := 1; i < 4; i++ {
		VEXTRACTI32X4(U8(i), sums, out.at(i, 0))
	}
	ADDQ(I32(16), dst)
	LEAQ(Mem{Base: rows, Index: dim, Scale: 4}, rows)
	SUBQ(I32(4), n)
	Label(name + "_tiles")
	TESTQ(n, n)
	JNE(LabelRef(name + "_tile"))
	forgetRegisters()
	RET()
}

// peak512 writes the fastest VPDPBUSD sequence there is: 24 accumulators and
// operands that stay in registers.
func peak512() {
	declare("peakAVX512", "func(n int)", "runs n rounds of 48 VPDPBUSD on registers, 64 multiply-adds each.")
	n := Load(Param("n"), GP64())
	acc, v := zmms(24), zmms(2)
	for _, z := range append(acc, v...) {
		VPXORQ(z, z, z)
	}
	Label("round")
	for i := range 48 {
		VPDPBUSD(v[0], v[1], acc[i%24])
	}
	DECQ(n)
	JNE(LabelRef("round"))
	forgetRegisters()
	RET()
}

// forgetRegisters ends a kernel: nothing of a code stays in a vector register. Go
// saves these to memory when it takes a processor from a goroutine, and the system when
// it delivers a signal.
func forgetRegisters() {
	VZEROALL()
	for _, z := range []reg.VecPhysical{reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23,
		reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31} {
		// Put by hand: avo's own reads z, and so would keep it free for all of the kernel.
		Instruction(&ir.Instruction{Opcode: "VPXORQ", Operands: []Op{z, z, z}, Outputs: []Op{z}, ISA: []string{"AVX512F"}})
	}
}
