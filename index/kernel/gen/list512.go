package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// atLeast512 writes the search for the sums of at least cut, n a multiple of 16.
// All 16 places are stored each time and those that count stay: the list is
// never longer than what was looked at.
func atLeast512() {
	declare("atLeastAVX512", "func(list, dots *int32, n int, cut int32) int",
		"writes the indices of the n dots, a multiple of 16, that are at least cut to list, which has n places, and returns how many these are.")
	list, dots, n := Load(Param("list"), GP64()), Load(Param("dots"), GP64()), Load(Param("n"), GP64())
	cut, index, step := ZMM(), ZMM(), broadcast(16)
	VPBROADCASTD(Load(Param("cut"), GP32()), cut)
	first := GLOBL("atLeastAVX512_first", RODATA|NOPTR)
	for i := range 16 {
		DATA(4*i, U32(i))
	}
	VMOVDQU32(first, index)
	count, some := GP64(), GP32()
	XORQ(count, count)
	k, found := K(), ZMM()
	JMP(LabelRef("check"))
	Label("sixteen")
	VPCMPD(U8(2), Mem{Base: dots}, cut, k) // cut <= dot
	VPCOMPRESSD_Z(index, k, found)
	VMOVDQU32(found, Mem{Base: list, Index: count, Scale: 4})
	KMOVW(k, some)
	POPCNTL(some, some)
	ADDQ(some.As64(), count)
	VPADDD(step, index, index)
	ADDQ(I32(64), dots)
	SUBQ(I32(16), n)
	Label("check")
	TESTQ(n, n)
	JNE(LabelRef("sixteen"))
	forgetRegisters()
	Store(count, ReturnIndex(0))
	RET()
}

// How many rows of a list ahead of the one compared memory is asked for. Single
// searches of 400,000 rows, see ARCHITECTURE.md.
const listAhead = 16

// dotList512 writes the products of one probe with rows that a list names.
func dotList512() {
	const name = "dotListAVX512"
	declare(name, "func(dst *int32, n int, probe, rows *int8, dim int, list *int32)",
		"sets dst[i] to the product of probe and row list[i] of rows of dim values, for n places of the list, dim and n at least 1.")
	dst := Load(Param("dst"), GP64())
	n := Load(Param("n"), GP64())
	probe := Load(Param("probe"), GP64())
	rows := Load(Param("rows"), GP64())
	dim := Load(Param("dim"), GP64())
	list := Load(Param("list"), GP64())
	bias := broadcast(0x80808080)
	k, whole := tailMask(dim)
	start, at := ZMM(), GP64()
	VPXORQ(start, start, start)
	overChunks(name+"_probe", at, whole, dim, func(tail bool) {
		t := ZMM()
		loadMasked(Mem{Base: probe, Index: at, Scale: 1}, tail, k, t)
		VPDPBUSD(t, bias, start)
	})
	negate(start)

	// fetch asks for the lines of the row that the list names at disp bytes.
	row := GP64()
	fetch := func(label string, disp int) {
		MOVLQSX(Mem{Base: list, Disp: disp}, row)
		IMULQ(dim, row)
		ADDQ(rows, row)
		XORQ(at, at)
		Label(label)
		PREFETCHT0(Mem{Base: row, Index: at, Scale: 1})
		ADDQ(I32(chunk), at)
		CMPQ(at, dim)
		JLT(LabelRef(label))
		PREFETCHT0(Mem{Base: row, Index: dim, Scale: 1, Disp: -1})
	}
	ahead, end := GP64(), GP64()
	MOVQ(n, ahead) // how many of the list are still to be asked for
	LEAQ(Mem{Base: list, Index: n, Scale: 4}, end)
	Label("first")
	fetch("first_line", 0)
	ADDQ(I32(4), list)
	DECQ(ahead)
	JE(LabelRef("asked"))
	MOVQ(n, row)
	SUBQ(ahead, row)
	CMPQ(row, I32(listAhead))
	JLT(LabelRef("first"))
	Label("asked")
	MOVQ(n, row)
	SUBQ(ahead, row)
	SHLQ(U8(2), row)
	SUBQ(row, list)

	Label("row")
	TESTQ(ahead, ahead)
	JE(LabelRef("compare"))
	DECQ(ahead)
	fetch("line", 4*listAhead)
	Label("compare")
	MOVLQSX(Mem{Base: list}, row)
	IMULQ(dim, row)
	ADDQ(rows, row)
	acc := ZMM()
	VMOVDQA64(start, acc)
	overChunks(name+"_one", at, whole, dim, func(tail bool) {
		p, t := ZMM(), ZMM()
		loadMasked(Mem{Base: probe, Index: at, Scale: 1}, tail, k, p)
		loadMasked(Mem{Base: row, Index: at, Scale: 1}, tail, k, t)
		VPXORQ(bias, t, t)
		VPDPBUSD(p, t, acc)
	})
	VMOVD(reduce1(acc).AsX(), Mem{Base: dst})
	ADDQ(I32(4), dst)
	ADDQ(I32(4), list)
	CMPQ(list, end)
	JNE(LabelRef("row"))
	forgetRegisters()
	RET()
}
