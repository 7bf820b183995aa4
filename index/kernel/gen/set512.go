package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// reaching512 writes the products of groups of 16 probes, one in each lane, with
// rows, high at a time: four values of a row are broadcast to all lanes and meet
// the same four of each probe. Lanes end as the sums: nothing to add up across,
// and each is compared with its probe's bar where it stands. The sums of a tile
// are written only if one reaches its bar.
func reaching512(groups, high int) {
	name := fmt.Sprintf("reaching%dx%dAVX512", groups*16, high)
	declare(name, "func(dst *int32, n int, set *int8, start *int32, probes int, rows *int8, dim, fours int, norms *int32, bars *float32) int",
		fmt.Sprintf("goes through n rows of 4*fours = dim values, n a multiple of %d, fours at least 1, with probes probes, %d to %d, and stops behind the first %d of which one reaches its probe's bar, whose sums it writes to dst. It returns how many rows are left then, or -1 if none did. set has the same four values of all probes together, start 16 sums for each 16.", high, groups*16-15, groups*16, high))
	n := Load(Param("n"), GP64())
	rows := Load(Param("rows"), GP64())
	dim := Load(Param("dim"), GP64())
	norms := Load(Param("norms"), GP64())
	ones, probes := GP64(), Load(Param("probes"), GP64())
	MOVQ(I32(-1), ones)
	BZHIQ(probes, ones, ones)
	last := K() // of the last group
	if groups > 1 {
		SHRQ(U8(16*(groups-1)), ones)
	}
	KMOVW(ones.As32(), last)
	MOVL(U32(1<<high-1), ones.As32())
	some := K()
	KMOVW(ones.As32(), some)
	bias := broadcast(0x80808080)
	dim3 := GP64()
	LEAQ(Mem{Base: dim, Index: dim, Scale: 2}, dim3)
	scales := AllocLocal(chunk)

	JMP(LabelRef("check"))
	Label("tile")
	// One over the norm, to 2^-14, of each row.
	scale := ZMM()
	VMOVDQU32_Z(Mem{Base: norms}, some, scale)
	VCVTDQ2PS(scale, scale)
	VRSQRT14PS(scale, scale)
	VMOVUPS(scale, scales)
	acc := zmms(groups * high)
	start := Load(Param("start"), GP64())
	for i := range acc {
		VMOVDQU32(Mem{Base: start, Disp: i % groups * chunk}, acc[i])
	}
	set := Load(Param("set"), GP64())
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
	Load(Param("fours"), left)
	Label("step")
	v := zmms(groups)
	for g := range v {
		VMOVDQU64(Mem{Base: set, Disp: g * chunk}, v[g])
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
	ADDQ(I32(groups*chunk), set)
	for i := range q {
		ADDQ(I32(4), q[i].base)
	}
	DECQ(left)
	JNE(LabelRef("step"))

	// sum/norm - bar is negative for all, nearly always.
	from := Load(Param("bars"), GP64())
	bars := zmms(groups)
	for g := range bars {
		if g == groups-1 { // lanes without a probe reach nothing
			MOVL(U32(0x7f800000), left.As32())
			VPBROADCASTD(left.As32(), bars[g])
			VMOVDQU32(Mem{Base: from, Disp: g * chunk}, last, bars[g])
		} else {
			VMOVDQU32(Mem{Base: from, Disp: g * chunk}, bars[g])
		}
	}
	below := func(i int) reg.VecVirtual {
		t := ZMM()
		VCVTDQ2PS(acc[i], t)
		VFMSUB132PS_BCST(scales.Offset(4*(i/groups)), bars[i%groups], t)
		return t
	}
	signs := below(0)
	VPANDD(below(1), signs, signs)
	for i := 2; i < len(acc); i += 2 {
		a := below(i)
		VPTERNLOGD(U8(0x80), below(i+1), a, signs)
	}
	reached := K()
	VPMOVD2M(signs, reached)
	LEAQ(Mem{Base: norms, Disp: 4 * high}, norms)
	for range high / 2 {
		LEAQ(Mem{Base: rows, Index: dim, Scale: 2}, rows)
	}
	SUBQ(I32(high), n)
	KMOVW(reached, left.As32())
	CMPL(left.As32(), U32(0xffff))
	JNE(LabelRef("reached"))
	Label("check")
	TESTQ(n, n)
	JNE(LabelRef("tile"))
	MOVQ(I32(-1), n)
	JMP(LabelRef("done"))

	Label("reached")
	dst, probes := Load(Param("dst"), GP64()), Load(Param("probes"), GP64())
	for r := range high {
		for g := range groups {
			if m := (Mem{Base: dst, Disp: g * chunk}); g == groups-1 {
				VMOVDQU32(acc[r*groups+g], last, m)
			} else {
				VMOVDQU32(acc[r*groups+g], m)
			}
		}
		LEAQ(Mem{Base: dst, Index: probes, Scale: 4}, dst)
	}
	Label("done")
	forgetRegisters()
	Store(n, ReturnIndex(0))
	RET()
}
