package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// reach512 writes the search for the first sum that is not negative, of n dots
// and minus, n a multiple of 16. 64 at a time are asked whether there is one;
// nearly always there is none.
func reach512() {
	declare("reachAVX512", "func(dots, minus *int32, n int) int",
		"returns the first i with dots[i]+minus[i] >= 0, or n, a multiple of 16.")
	dots, minus, n := Load(Param("dots"), GP64()), Load(Param("minus"), GP64()), Load(Param("n"), GP64())
	i, end, signs := GP64(), GP64(), GP32()
	z := zmms(4)
	k := K()
	XORQ(i, i)

	Label("many")
	LEAQ(Mem{Base: i, Disp: 64}, end)
	CMPQ(end, n)
	JGT(LabelRef("few"))
	for j := range z {
		VMOVDQU32(Mem{Base: dots, Index: i, Scale: 4, Disp: 64 * j}, z[j])
		VPADDD(Mem{Base: minus, Index: i, Scale: 4, Disp: 64 * j}, z[j], z[j])
	}
	VPANDD(z[1], z[0], z[0])
	VPANDD(z[3], z[2], z[2])
	VPANDD(z[2], z[0], z[0])
	VPMOVD2M(z[0], k)
	KMOVW(k, signs)
	CMPL(signs, U32(0xffff))
	JNE(LabelRef("few")) // one of these 64: sixteen by sixteen
	MOVQ(end, i)
	JMP(LabelRef("many"))

	Label("few")
	CMPQ(i, n)
	JGE(LabelRef("none"))
	VMOVDQU32(Mem{Base: dots, Index: i, Scale: 4}, z[0])
	VPADDD(Mem{Base: minus, Index: i, Scale: 4}, z[0], z[0])
	VPMOVD2M(z[0], k)
	KMOVW(k, signs)
	XORL(U32(0xffff), signs)
	JNZ(LabelRef("found"))
	ADDQ(Imm(16), i)
	JMP(LabelRef("few"))

	Label("found")
	lane := GP32()
	BSFL(signs, lane)
	ADDQ(lane.As64(), i)
	VZEROUPPER()
	Store(i, ReturnIndex(0))
	RET()

	Label("none")
	VZEROUPPER()
	Store(n, ReturnIndex(0))
	RET()
}
