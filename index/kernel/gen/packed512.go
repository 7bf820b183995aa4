package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// levels takes the planes of 64 packed bytes apart and adds each one's products.
// A plane's values are kept where they stand under a mask, so that two planes
// share a shift; those that stand one place higher go to the accumulator high.
//
// 1 bit: v>>0,2,4,6, masks 1 and 2 (weight 2). 2 bits: v>>0,4, masks 3 and 12
// (weight 4).
func levels(bits int, v, low, high reg.VecVirtual, masks [2]reg.VecVirtual, planes []Op) {
	for s := 0; s < 8; s += 2 * bits {
		w := v
		if s > 0 {
			w = ZMM()
			VPSRLW(U8(s), v, w)
		}
		for i, acc := range []reg.VecVirtual{low, high} {
			t := ZMM()
			VPANDQ(masks[i], w, t)
			VPDPBUSD(planes[s/bits+i], t, acc)
		}
	}
}

// packedMasks returns the masks of levels.
func packedMasks(bits int) [2]reg.VecVirtual {
	if bits == 1 {
		return [2]reg.VecVirtual{broadcast(0x01010101), broadcast(0x02020202)}
	}
	return [2]reg.VecVirtual{broadcast(0x03030303), broadcast(0x0C0C0C0C)}
}

// finish turns sums of probe*level number into those of probe*level: twice, less
// the bias.
func finish(sums, bias reg.VecVirtual) {
	VPADDD(sums, sums, sums)
	VPSUBD(bias, sums, sums)
}

// packedFixed512 writes packed rows of 512 values, 64 bytes at 1 bit and 128 at
// 2: all planes of the probe stay in registers.
func packedFixed512(bits int) {
	chunks := bits
	name := fmt.Sprintf("packed%dRows512AVX512", bits)
	declare(name, "func(dst *int32, n int, planes *int8, packed *byte, bias int32)",
		fmt.Sprintf("is packed%dRowsAVX512 for 512 values.", bits))
	dst := Load(Param("dst"), GP64())
	n := Load(Param("n"), GP64())
	from := Load(Param("planes"), GP64())
	rows := Load(Param("packed"), GP64())
	b := ZMM()
	VPBROADCASTD(Load(Param("bias"), GP32()), b)
	masks := packedMasks(bits)
	planes := zmms(8)
	for i := range planes {
		VMOVDQU64(Mem{Base: from, Disp: i * chunk}, planes[i])
	}
	zero := ZMM()
	VPXORQ(zero, zero, zero)
	row := func(disp int) reg.VecVirtual {
		low, high := ZMM(), ZMM()
		VMOVDQA64(zero, low)
		VMOVDQA64(zero, high)
		for c := range chunks {
			PREFETCHT0(Mem{Base: rows, Disp: disp + c*chunk + packedAhead})
			v := ZMM()
			VMOVDQU64(Mem{Base: rows, Disp: disp + c*chunk}, v)
			var ops []Op
			for _, p := range planes[c*8/chunks : (c+1)*8/chunks] {
				ops = append(ops, p)
			}
			levels(bits, v, low, high, masks, ops)
		}
		VPSRAD(U8(bits), high, high)
		VPADDD(high, low, low)
		return low
	}
	rowLoop(name, dst, n, func() {
		sums := reduce16(func(i int) reg.VecVirtual { return row(i * chunks * chunk) })
		finish(sums, b)
		VMOVDQU32(sums, Mem{Base: dst})
		ADDQ(I32(16*chunks*chunk), rows)
	}, func() {
		sum := reduce1(row(0))
		finish(sum, b)
		VMOVD(sum.AsX(), Mem{Base: dst})
		ADDQ(I32(chunks*chunk), rows)
	})
	forgetRegisters()
	RET()
}

// packed512 writes packed rows of any length, one row at a time.
func packed512(bits int) {
	name := fmt.Sprintf("packed%dRowsAVX512", bits)
	declare(name, "func(dst *int32, n int, planes *int8, packed *byte, stride int, bias int32)",
		fmt.Sprintf("sets dst[0:n] to the products of the probe in planes and n rows of stride bytes at %d bit a value, n and stride >= 1.", bits))
	dst := Load(Param("dst"), GP64())
	n := Load(Param("n"), GP64())
	from := Load(Param("planes"), GP64())
	rows := Load(Param("packed"), GP64())
	stride := Load(Param("stride"), GP64())
	b := ZMM()
	VPBROADCASTD(Load(Param("bias"), GP32()), b)
	masks := packedMasks(bits)
	k, whole := tailMask(stride)
	at, p := GP64(), GP64()
	Label(name + "_row")
	low, high := ZMM(), ZMM()
	VPXORQ(low, low, low)
	VPXORQ(high, high, high)
	MOVQ(from, p)
	overChunks(name, at, whole, stride, func(tail bool) {
		v := ZMM()
		loadMasked(Mem{Base: rows, Index: at, Scale: 1}, tail, k, v)
		var ops []Op
		for i := range 8 / bits {
			ops = append(ops, Mem{Base: p, Disp: i * chunk})
		}
		levels(bits, v, low, high, masks, ops)
		if !tail {
			ADDQ(I32(8/bits*chunk), p)
		}
	})
	VPSRAD(U8(bits), high, high)
	VPADDD(high, low, low)
	sum := reduce1(low)
	finish(sum, b)
	VMOVD(sum.AsX(), Mem{Base: dst})
	ADDQ(stride, rows)
	ADDQ(I32(4), dst)
	DECQ(n)
	JNE(LabelRef(name + "_row"))
	forgetRegisters()
	RET()
}
