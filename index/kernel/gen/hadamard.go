package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// writeHadamard writes the stages of the Walsh-Hadamard transform for AVX2. They
// add and subtract what the plain loops do, so that the bits are the same.
func writeHadamard() {
	hadamard64AVX2()
	for _, wide := range []int{2, 4, 8} {
		hadamardStagesAVX2(wide)
	}
}

// stages are those of one transform over whole registers: the value at place i
// of the list meets the one at i+half, for each half.
func stages(y []reg.VecVirtual) {
	for half := 1; half < len(y); half *= 2 {
		for start := 0; start < len(y); start += 2 * half {
			for i := start; i < start+half; i++ {
				difference := YMM()
				VSUBPS(y[i+half], y[i], difference)
				VADDPS(y[i+half], y[i], y[i])
				y[i+half] = difference
			}
		}
	}
}

// flips is 32 bytes that flip the sign of the lanes whose bit is set.
func flips(name string, lanes int) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 8 {
		sign := uint32(lanes>>i&1) << 31
		DATA(4*i, U32(sign))
	}
	return m
}

func hadamard64AVX2() {
	odd, upper, high := flips("flipOdd", 0b10101010), flips("flipUpper", 0b11001100), flips("flipHigh", 0b11110000)
	declare("hadamard64AVX2", "func(v *float32, n int, scale float32)",
		"replaces each 64 of v[0:n] by their Walsh-Hadamard transform times scale; n is a multiple of 64, at least 64.")
	v := Load(Param("v"), GP64())
	n := Load(Param("n"), GP64())
	scale := YMM()
	VBROADCASTSS(mustAddr("scale"), scale)
	signs := ymms(3)
	VMOVUPS(odd, signs[0])
	VMOVUPS(upper, signs[1])
	VMOVUPS(high, signs[2])
	Label("block")
	y := ymms(8)
	for i := range y {
		VMOVUPS(Mem{Base: v, Disp: 32 * i}, y[i])
	}
	for i := range y {
		// a, b become b+a, a-b: the partner plus the value, the second one's sign flipped.
		t := YMM()
		VPERMILPS(U8(0b10_11_00_01), y[i], t)
		VXORPS(signs[0], y[i], y[i])
		VADDPS(t, y[i], y[i])
		VPERMILPS(U8(0b01_00_11_10), y[i], t)
		VXORPS(signs[1], y[i], y[i])
		VADDPS(t, y[i], y[i])
		VPERM2F128(U8(1), y[i], y[i], t)
		VXORPS(signs[2], y[i], y[i])
		VADDPS(t, y[i], y[i])
	}
	stages(y)
	for i := range y {
		VMULPS(scale, y[i], y[i])
		VMOVUPS(y[i], Mem{Base: v, Disp: 32 * i})
	}
	ADDQ(U32(256), v)
	SUBQ(U8(64), n)
	JNE(LabelRef("block"))
	VZEROALL()
	RET()
}

// hadamardStagesAVX2 does the stages at the distances half, 2*half, ... up to
// wide/2*half.
func hadamardStagesAVX2(wide int) {
	declare(fmt.Sprintf("hadamardBy%dAVX2", wide), "func(v *float32, n, half int, scale float32)",
		fmt.Sprintf("does the stages of v[0:n] from the distance half to %d*half and multiplies by scale; n is a multiple of %d*half, half of 8.", wide/2, wide))
	v := Load(Param("v"), GP64())
	n := Load(Param("n"), GP64())
	half := Load(Param("half"), GP64())
	scale := YMM()
	VBROADCASTSS(mustAddr("scale"), scale)
	step := []reg.GPVirtual{0: GP64(), 1: GP64()} // bytes of half, 3*half, ...
	MOVQ(half, step[0])
	SHLQ(U8(2), step[0])
	LEAQ(Mem{Base: step[0], Index: step[0], Scale: 2}, step[1])
	at := []Mem{{Base: v}, {Base: v, Index: step[0], Scale: 1}, {Base: v, Index: step[0], Scale: 2}, {Base: v, Index: step[1], Scale: 1}}
	if wide == 8 {
		five, seven := GP64(), GP64()
		LEAQ(Mem{Base: step[0], Index: step[0], Scale: 4}, five)
		LEAQ(Mem{Base: step[1], Index: step[0], Scale: 4}, seven)
		at = append(at, Mem{Base: v, Index: step[0], Scale: 4}, Mem{Base: v, Index: five, Scale: 1},
			Mem{Base: v, Index: step[1], Scale: 2}, Mem{Base: v, Index: seven, Scale: 1})
	}
	rest, left := GP64(), GP64()
	IMUL3Q(U8(wide-1), step[0], rest) // from the end of a run of half to the next group
	Label("group")
	MOVQ(half, left)
	Label("run")
	y := ymms(wide)
	for i := range y {
		VMOVUPS(at[i], y[i])
	}
	stages(y)
	for i := range y {
		VMULPS(scale, y[i], y[i])
		VMOVUPS(y[i], at[i])
	}
	ADDQ(U8(32), v)
	SUBQ(U8(8), left)
	JNE(LabelRef("run"))
	ADDQ(rest, v)
	IMUL3Q(U8(wide), half, left)
	SUBQ(left, n)
	JNE(LabelRef("group"))
	VZEROALL()
	RET()
}

// mustAddr is where a parameter stands.
func mustAddr(name string) Mem {
	b, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}
