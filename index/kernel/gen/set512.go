package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// dotSet512 writes the products of groups of 16 probes, one in each lane, with
// rows, high at a time: four values of a row are broadcast to all lanes and meet
// the same four of each probe. Lanes end as the sums: nothing to add up across.
func dotSet512(groups, high int) {
	name := fmt.Sprintf("dotSet%dx%dAVX512", groups*16, high)
	declare(name, "func(dst *int32, pitch, n int, set *int8, start *int32, probes int, rows *int8, dim, fours, next int)",
		fmt.Sprintf("sets dst[r*pitch+p] to the products of the first 4*fours values of probes probes, at most %d, and n rows of dim values; n is a multiple of %d, fours at least 1. set has next bytes from one 16 probes to the next, start 16 sums each.", groups*16, high))
	dst := Load(Param("dst"), GP64())
	pitch := Load(Param("pitch"), GP64())
	n := Load(Param("n"), GP64())
	set := Load(Param("set"), GP64())
	start := Load(Param("start"), GP64())
	probes := Load(Param("probes"), GP64())
	rows := Load(Param("rows"), GP64())
	dim := Load(Param("dim"), GP64())
	SHLQ(U8(2), pitch)
	ones := GP64()
	MOVQ(I32(-1), ones)
	BZHIQ(probes, ones, ones)
	stored := make([]reg.OpmaskVirtual, groups)
	for g := range stored {
		stored[g] = K()
		KMOVW(ones.As32(), stored[g])
		SHRQ(U8(16), ones)
	}
	bias := broadcast(0x80808080)
	next := Load(Param("next"), GP64())
	next3, dim3 := GP64(), GP64()
	LEAQ(Mem{Base: next, Index: next, Scale: 2}, next3)
	LEAQ(Mem{Base: dim, Index: dim, Scale: 2}, dim3)

	JMP(LabelRef("check"))
	Label("tile")
	acc := zmms(groups * high)
	for i := range acc {
		VMOVDQU32(Mem{Base: start, Disp: i % groups * chunk}, acc[i])
	}
	s := quad{GP64(), next, next3}
	MOVQ(set, s.base)
	var q []quad
	for i := 0; i < high; i += 4 {
		b := GP64()
		if i == 0 {
			MOVQ(rows, b)
		} else {
			LEAQ(Mem{Base: q[i/4-1].base, Index: dim, Scale: 4}, b)
		}
		q = append(q, quad{b, dim, dim3})
	}
	// The next rows, a piece with each step: the first 64 probes of a batch find
	// theirs in memory.
	ahead := GP64()
	IMUL3Q(U8(uint8(high)), dim, ahead)
	ADDQ(rows, ahead)
	left := GP64()
	MOVQ(NewParamAddr("fours", 64), left)
	Label("step")
	v := zmms(groups)
	for g := range v {
		VMOVDQU64(s.at(g, 0), v[g])
	}
	for r := range high {
		t := ZMM()
		VPBROADCASTD(q[r/4].at(r%4, 0), t)
		VPXORQ(bias, t, t)
		for g := range v {
			VPDPBUSD(v[g], t, acc[r*groups+g])
		}
	}
	PREFETCHT0(Mem{Base: ahead})
	ADDQ(I32(4*high), ahead)
	ADDQ(I32(chunk), s.base)
	for i := range q {
		ADDQ(I32(4), q[i].base)
	}
	DECQ(left)
	JNE(LabelRef("step"))
	for r := range high {
		for g := range groups {
			VMOVDQU32(acc[r*groups+g], stored[g], Mem{Base: dst, Disp: g * chunk})
		}
		ADDQ(pitch, dst)
		ADDQ(dim, rows)
	}
	SUBQ(I32(high), n)
	Label("check")
	TESTQ(n, n)
	JNE(LabelRef("tile"))
	VZEROUPPER()
	RET()
}
