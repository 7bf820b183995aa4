package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// packedNarrow512 writes packed rows of 16 or 32 bytes, four or two of them in
// a register: 128 values at 1 or 2 bits, or 256 at 1. planes hold the probe once
// for each row of a register. n is a multiple of 16.
func packedNarrow512(bits, stride int) {
	name := fmt.Sprintf("packed%dRowsBy%dAVX512", bits, stride)
	declare(name, "func(dst *int32, n int, planes *int8, packed *byte, bias int32)",
		fmt.Sprintf("is packed%dRowsAVX512 for rows of %d bytes, n a multiple of 16, and planes that repeat the probe for each row of 64 bytes.", bits, stride))
	dst := Load(Param("dst"), GP64())
	n := Load(Param("n"), GP64())
	from := Load(Param("planes"), GP64())
	rows := Load(Param("packed"), GP64())
	b, zero, order := ZMM(), ZMM(), ZMM()
	VPBROADCASTD(Load(Param("bias"), GP32()), b)
	VPXORQ(zero, zero, zero)
	masks := packedMasks(bits)
	planes := make([]Op, 8/bits)
	for i := range planes {
		p := ZMM()
		VMOVDQU64(Mem{Base: from, Disp: i * chunk}, p)
		planes[i] = p
	}

	// Where the sum of each row stands when all are reduced.
	place := GLOBL(name+"_order", RODATA|NOPTR)
	for i := range 16 {
		from := i%4*4 + i/4 // lane of 128 bits: row of the register; dword: register
		if stride == 32 {
			q, j, h := i/8, i/2%4, i%2 // four registers, register of those, row of it
			from = (2*q+h)*4 + j
		}
		DATA(4*i, U32(from))
	}
	VMOVDQU32(place, order)

	JMP(LabelRef("check"))
	Label("block")
	each := func(i int) reg.VecVirtual {
		v, low, high := ZMM(), ZMM(), ZMM()
		PREFETCHT0(Mem{Base: rows, Disp: i*chunk + packedAhead})
		VMOVDQU64(Mem{Base: rows, Disp: i * chunk}, v)
		VMOVDQA64(zero, low)
		VMOVDQA64(zero, high)
		levels(bits, v, low, high, masks, planes)
		VPSRAD(U8(bits), high, high)
		VPADDD(high, low, low)
		return low
	}
	sums := reduce(each, 0, 4)
	if stride == 32 {
		second, t := reduce(each, 4, 4), ZMM()
		VSHUFI32X4(U8(0x88), second, sums, t)
		VSHUFI32X4(U8(0xDD), second, sums, sums)
		VPADDD(t, sums, sums)
	}
	VPERMD(sums, order, sums)
	finish(sums, b)
	VMOVDQU32(sums, Mem{Base: dst})
	ADDQ(I32(16*stride), rows)
	ADDQ(I32(64), dst)
	SUBQ(I32(16), n)
	Label("check")
	TESTQ(n, n)
	JNE(LabelRef("block"))
	forgetRegisters()
	RET()
}
