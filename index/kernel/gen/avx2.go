package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func writeAVX2() {
	dotTileAVX2(1, 4)
	dotTileAVX2(2, 4)
	for _, bits := range []int{1, 2} {
		packedAVX2(bits)
	}
	peakAVX2()
}

func ymms(n int) []reg.VecVirtual {
	y := make([]reg.VecVirtual, n)
	for i := range y {
		y[i] = YMM()
	}
	return y
}

// reduce4 sums each of four registers over its lanes into the dwords of a[0].
func reduce4(a []reg.VecVirtual) reg.VecVirtual {
	VPHADDD(a[1], a[0], a[0])
	VPHADDD(a[3], a[2], a[2])
	VPHADDD(a[2], a[0], a[0])
	x := XMM()
	VEXTRACTI128(U8(1), a[0], x)
	VPADDD(x, a[0].AsX(), a[0].AsX())
	return a[0]
}

// dotTileAVX2 writes the products of p probes with rows, r at a time, of dims
// that are a multiple of 16; the Go side adds the rest. Both sides are widened
// to 16 bits: VPMADDUBSW would saturate.
func dotTileAVX2(p, r int) {
	name := fmt.Sprintf("dotTile%dAVX2", p)
	declare(name, "func(dst *int32, pitch, n int, probes, rows *int8, dim, whole int)",
		fmt.Sprintf("sets dst[p*pitch+r] to the products of the first whole values of %d probes and n rows of dim values; n is a multiple of %d, whole of 16.", p, r))
	dst := Load(Param("dst"), GP64())
	pitch := Load(Param("pitch"), GP64())
	n := Load(Param("n"), GP64())
	probes := Load(Param("probes"), GP64())
	rows := Load(Param("rows"), GP64())
	dim := Load(Param("dim"), GP64())
	whole := Load(Param("whole"), GP64())
	SHLQ(U8(2), pitch)
	dim3 := GP64()
	LEAQ(Mem{Base: dim, Index: dim, Scale: 2}, dim3)
	pq, rq := quad{GP64(), dim, dim3}, quad{GP64(), dim, dim3}
	at := GP64()
	JMP(LabelRef("tiles"))
	Label("tile")
	acc := ymms(p * r)
	for _, a := range acc {
		VPXOR(a, a, a)
	}
	MOVQ(probes, pq.base)
	MOVQ(rows, rq.base)
	MOVQ(whole, at)
	JMP(LabelRef("check"))
	Label("step")
	v := ymms(p)
	for i := range v {
		VPMOVSXBW(pq.at(i, 0), v[i])
	}
	for j := range r {
		w := YMM()
		VPMOVSXBW(rq.at(j, 0), w)
		for i := range v {
			t := YMM()
			VPMADDWD(v[i], w, t)
			VPADDD(t, acc[i*r+j], acc[i*r+j])
		}
	}
	ADDQ(I32(16), pq.base)
	ADDQ(I32(16), rq.base)
	SUBQ(I32(16), at)
	Label("check")
	TESTQ(at, at)
	JNE(LabelRef("step"))
	for i := range p {
		sums := reduce4(acc[i*r : (i+1)*r])
		VMOVDQU(sums.AsX(), quad{base: dst, stride: pitch}.at(i, 0))
	}
	ADDQ(I32(16), dst)
	LEAQ(Mem{Base: rows, Index: dim, Scale: 4}, rows)
	SUBQ(I32(r), n)
	Label("tiles")
	TESTQ(n, n)
	JNE(LabelRef("tile"))
	VZEROALL()
	RET()
}

// packedAVX2 writes packed rows of any stride that is a multiple of 16 bytes;
// of others the first whole bytes. A level number is at most 3, so VPMADDUBSW's
// pairs stay below 3*2*128, and a chunk's sum over planes below 4 times that.
func packedAVX2(bits int) {
	name := fmt.Sprintf("packed%dRowsAVX2", bits)
	declare(name, "func(dst *int32, n int, planes *int8, packed *byte, stride, whole int)",
		fmt.Sprintf("sets dst[0:n] to the sums of probe value times level number over the first whole bytes of n rows of stride bytes at %d bit a value; n is at least 1, whole a multiple of 16.", bits))
	dst := Load(Param("dst"), GP64())
	n := Load(Param("n"), GP64())
	from := Load(Param("planes"), GP64())
	rows := Load(Param("packed"), GP64())
	stride := Load(Param("stride"), GP64())
	whole := Load(Param("whole"), GP64())
	broadcast := func(v uint32) reg.VecVirtual {
		g, y := GP32(), YMM()
		MOVL(U32(v), g)
		VMOVD(g, y.AsX())
		VPBROADCASTD(y.AsX(), y)
		return y
	}
	mask := broadcast(0x01010101)
	if bits == 2 {
		mask = broadcast(0x03030303)
	}
	ones := broadcast(0x00010001)
	at, p := GP64(), GP64()
	whole32 := GP64()
	MOVQ(whole, whole32)
	ANDQ(I32(-32), whole32)
	Label("row")
	acc := YMM()
	VPXOR(acc, acc, acc)
	MOVQ(from, p)
	XORQ(at, at)
	// add takes the next bytes of the row, as many as view shows of a register.
	add := func(view func(r reg.VecVirtual) Op) {
		v, words := YMM(), YMM()
		VMOVDQU(Mem{Base: rows, Index: at, Scale: 1}, view(v))
		for i := range 8 / bits {
			t := YMM()
			if i > 0 {
				VPSRLW(U8(i*bits), view(v), view(t))
				VPAND(view(mask), view(t), view(t))
			} else {
				VPAND(view(mask), view(v), view(t))
			}
			if i == 0 {
				VPMADDUBSW(Mem{Base: p, Disp: i * chunk}, view(t), view(words))
			} else {
				VPMADDUBSW(Mem{Base: p, Disp: i * chunk}, view(t), view(t))
				VPADDW(view(t), view(words), view(words))
			}
		}
		VPMADDWD(view(ones), view(words), view(words)) // clears the half that is not in view
		VPADDD(words, acc, acc)
	}
	JMP(LabelRef("check"))
	Label("step")
	add(func(r reg.VecVirtual) Op { return r })
	// Planes stand in chunks of 64 values a plane: the second half of a chunk is
	// 32 on, the next chunk all planes less that 32 on.
	ADDQ(I32(32), at)
	ADDQ(I32(32), p)
	TESTQ(U32(63), at)
	JNE(LabelRef("check"))
	ADDQ(I32(8/bits*chunk-64), p)
	Label("check")
	CMPQ(at, whole32)
	JLT(LabelRef("step"))
	CMPQ(at, whole)
	JE(LabelRef("sum"))
	add(func(r reg.VecVirtual) Op { return r.AsX() })
	Label("sum")
	x := XMM()
	VEXTRACTI128(U8(1), acc, x)
	VPADDD(x, acc.AsX(), acc.AsX())
	VPSHUFD(U8(0x4E), acc.AsX(), x)
	VPADDD(x, acc.AsX(), acc.AsX())
	VPSHUFD(U8(0xB1), acc.AsX(), x)
	VPADDD(x, acc.AsX(), acc.AsX())
	VMOVD(acc.AsX(), Mem{Base: dst})
	ADDQ(stride, rows)
	ADDQ(I32(4), dst)
	DECQ(n)
	JNE(LabelRef("row"))
	VZEROALL()
	RET()
}

func peakAVX2() {
	declare("peakAVX2", "func(n int)", "runs n rounds of 24 VPMADDWD and VPADDD on registers, 16 multiply-adds each.")
	n := Load(Param("n"), GP64())
	acc, v := ymms(8), ymms(2)
	for _, y := range append(acc, v...) {
		VPXOR(y, y, y)
	}
	Label("round")
	for i := range 24 {
		t := YMM()
		VPMADDWD(v[0], v[1], t)
		VPADDD(t, acc[i%8], acc[i%8])
	}
	DECQ(n)
	JNE(LabelRef("round"))
	VZEROALL()
	RET()
}
