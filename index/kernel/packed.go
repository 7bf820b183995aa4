package kernel

import (
	"encoding/binary"
	"fmt"
	"unsafe"
)

// Bits is how many bits a packed row has for each value, and with that which
// levels it knows: 1 bit -1 and 1, 2 bits -3, -1, 1 and 3.
type Bits int

const (
	OneBit  Bits = 1
	TwoBits Bits = 2
)

func (b Bits) planes() int { return 8 / int(b) }

// level is what the level number, 0..2^b-1, stands for.
func (b Bits) level(number byte) int32 { return 2*int32(number) - (1<<b - 1) }

// check refuses anything but the two constants.
func (b Bits) check() error {
	if b != OneBit && b != TwoBits {
		return fmt.Errorf("kernel: rows packed at %d bits a value; 1 and 2 are known", b)
	}
	return nil
}

// Stride is how many bytes a packed row of dim values has: dim*b/8, rounded up.
// 512 values make 64 bytes at 1 bit and 128 at 2.
func (b Bits) Stride(dim int) int { return (dim + b.planes() - 1) / b.planes() }

// Pack writes the packed form of row to dst, which must have b.Stride(len(row))
// bytes (a shorter one panics like any slice). At 1 bit the level is the sign,
// 1 for 0 and above. At 2 bits it is 3 from step on, 1 from 0, -1 from -step,
// and -3 below that; step is the caller's choice, for values of a normal
// distribution about their standard deviation (0.996 of it gives the least
// square error of any uniform 2-bit quantiser: Max, "Quantizing for minimum
// distortion", 1960). OneBit ignores it.
//
// Value i stands in byte i%stride, at bit b*(i/stride): so a register of packed
// bytes, shifted and masked, gives the levels of consecutive values. Unused
// bits are 0, and PackedRows ignores them.
func (b Bits) Pack(dst []byte, row []int8, step int8) {
	stride := b.Stride(len(row))
	dst = dst[:stride]
	clear(dst)
	edge := 128 - uint64(max(step, 0))
	if stride%8 == 0 && stride*b.planes() == len(row) {
		b.packWords(dst, row, edge)
		return
	}
	place, shift := 0, 0
	for _, v := range row {
		dst[place] |= byte(b.numbers(uint64(uint8(v)), edge)) << shift
		if place++; place == stride {
			place, shift = 0, shift+int(b)
		}
	}
}

// packWords does eight values at once, for rows without a rest: 512 values at 1
// bit take 65 ns, and one by one, with branches on their signs, took 600.
func (b Bits) packWords(dst []byte, row []int8, edge uint64) {
	values := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(row))), len(row))
	for place := 0; place < len(dst); place += 8 {
		var word uint64
		shift := 0
		for at := place; at < len(values); at += len(dst) {
			word |= b.numbers(binary.LittleEndian.Uint64(values[at:]), edge) << shift
			shift += int(b)
		}
		binary.LittleEndian.PutUint64(dst[place:], word)
	}
}

// numbers gives the level numbers of eight values, each in its byte. edge is 128
// less the step: added to a magnitude (less 1 where the value is negative), it
// reaches the byte's sign from the step on.
func (b Bits) numbers(values, edge uint64) uint64 {
	const ones = 0x0101010101010101
	negative := values >> 7 & ones
	if b == OneBit {
		return negative ^ ones
	}
	large := ((values ^ negative*0xff) + edge*ones) >> 7 & ones
	return (negative^ones)<<1 | (large ^ negative)
}

// PreparedProbe is a probe in the order in which packed rows want it. Prepare
// it once a search; any number of PackedRows may then use it at once. The zero
// value has no dimension.
type PreparedProbe struct {
	bits   Bits
	stride int
	probe  []int8
	// planes holds, for each 64 bytes of a packed row and each plane of bits in
	// them, the 64 values of the probe that meet them; 0 where a row has none.
	// For rows of 16 or 32 bytes it repeats them, as 64 bytes hold several rows.
	planes []int8
	bias   int32 // what twice the products with level numbers have too much
}

// Prepare takes a copy of probe for rows packed at b bits a value. It reuses
// the memory of the last probe: no allocation when that was as long. The error
// is that b is neither OneBit nor TwoBits.
func (p *PreparedProbe) Prepare(probe []int8, b Bits) error {
	if err := b.check(); err != nil {
		return err
	}
	p.bits, p.stride = b, b.Stride(len(probe))
	p.probe = append(p.probe[:0], probe...)
	chunks, planes := (p.stride+63)/64, b.planes()
	p.planes = zeros(p.planes, chunks*planes*64)
	var sum int32
	place, plane := 0, 0
	for _, v := range probe {
		sum += int32(v)
		at := (place/64*planes+plane)*64 + place%64
		p.planes[at] = v
		if p.stride == 16 || p.stride == 32 {
			for at += p.stride; at%64 >= p.stride; at += p.stride {
				p.planes[at] = v
			}
		}
		if place++; place == p.stride {
			place, plane = 0, plane+1
		}
	}
	p.bias = sum * (1<<b - 1)
	return nil
}

// Wipe overwrites the copy of the probe; the memory stays for the next.
func (p *PreparedProbe) Wipe() {
	clear(p.probe)
	clear(p.planes)
}

// Dim is the length of the probe; Bits is what rows it is prepared for.
func (p *PreparedProbe) Dim() int   { return len(p.probe) }
func (p *PreparedProbe) Bits() Bits { return p.bits }

// PackedRows sets dst[r] to the sum of probe[i]*level(row r, i), for len(dst)
// packed rows that stand one after the other in packed: an exact integer, whose
// quotient by the two norms estimates the cosine. len(packed) must be
// len(dst)*Stride(Dim()); callers check that, and fewer panic like any slice.
// Sums fit an int32 up to MaxLen values. It keeps no slice.
func PackedRows(dst []int32, probe *PreparedProbe, packed []byte) {
	if probe.stride == 0 {
		clear(dst)
		return
	}
	packedRows(current(), dst, probe, packed[:len(dst)*probe.stride])
}
