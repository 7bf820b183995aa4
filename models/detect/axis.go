package detect

import "math"

// axis says how the samples along one side of a plane become the target pixels
// along one side of the input: each is a weighted sum of n neighbouring samples.
type axis struct {
	n       int
	first   []int32  // by target, its first sample
	weights []uint32 // by target, n weights whose sum is the axis's one
}

// newAxis plans how extent pixels, held as samples that each stand for pitch of
// them, become the given number of targets. When reducing, a target is the
// average of what it covers; when enlarging, it is linear between the two
// nearest centres (resampling has the reason). Weights are whole numbers that
// sum to one.
func newAxis(samples, pitch, extent, targets int, one uint32) axis {
	ratio := float64(extent) / float64(targets)
	window := func(i int) (lo, hi float64, first, last int) {
		lo, hi = float64(i)*ratio/float64(pitch), float64(i+1)*ratio/float64(pitch)
		if ratio < 1 {
			// One sample wide about the centre: the overlap with the two
			// samples beside it is the linear weight.
			centre := min(max((lo+hi)/2, 0.5), float64(samples)-0.5)
			lo, hi = centre-0.5, centre+0.5
		}
		const rounding = 1e-9
		first = min(int(lo+rounding), samples-1)
		return lo, hi, first, max(first, min(int(math.Ceil(hi-rounding))-1, samples-1))
	}
	a := axis{n: 1}
	for i := range targets {
		_, _, first, last := window(i)
		a.n = max(a.n, last-first+1)
	}
	a.first, a.weights = make([]int32, targets), make([]uint32, targets*a.n)
	for i := range targets {
		lo, hi, first, last := window(i)
		// The same number of weights for all, none of a sample that is not there.
		from := min(first, samples-a.n)
		a.first[i] = int32(from)
		given := uint32(0)
		for k := first; k <= last; k++ {
			upTo := one
			if k < last {
				upTo = uint32(math.Round((float64(k+1) - lo) / (hi - lo) * float64(one)))
			}
			a.weights[i*a.n+k-from] = upTo - given
			given = upTo
		}
	}
	return a
}

// copies tells that target i is sample i.
func (a axis) copies() bool {
	return a.n == 1 && a.first[0] == 0 && int(a.first[len(a.first)-1]) == len(a.first)-1
}

// Vertical weights sum to 256, so that eight samples are weighted at once in two
// words of four 16-bit lanes; horizontal ones to 1 << acrossBits. The rounding to
// bytes in between moves a level of the input by less than one.
const (
	downOne    = 256
	acrossBits = 12
)

// column returns target row t of a plane of w samples a row: rows mixed by the
// axis, into buf, or the one row itself.
func (a axis) column(buf, plane []byte, stride, w, t int) []byte {
	from := int(a.first[t]) * stride
	if a.n == 1 {
		return plane[from : from+w]
	}
	weights := a.weights[t*a.n : (t+1)*a.n]
	x := 0
	const even, half = 0x00ff00ff00ff00ff, 0x0080008000800080
	for ; x+8 <= w; x += 8 {
		lo, hi := uint64(half), uint64(half)
		at := from + x
		for _, weight := range weights {
			v := word(plane[at : at+8 : at+8])
			lo += v & even * uint64(weight)
			hi += v >> 8 & even * uint64(weight)
			at += stride
		}
		putWord(buf[x:x+8:x+8], lo>>8&even|hi&^even)
	}
	for ; x < w; x++ {
		sum := uint32(downOne / 2)
		at := from + x
		for _, weight := range weights {
			sum += uint32(plane[at]) * weight
			at += stride
		}
		buf[x] = byte(sum / downOne)
	}
	return buf[:w]
}

// row scales one row of samples across. Targets have 8 bits of fraction.
func (a axis) row(dst []int32, src []byte) {
	const drop = acrossBits - 8
	first := a.first[:len(dst)]
	switch a.n {
	case 1:
		for i, f := range first {
			dst[i] = int32(src[f]) << 8
		}
	case 2:
		weights := a.weights[:2*len(dst)]
		for i, f := range first {
			s, w := src[f:f+2:f+2], weights[2*i:2*i+2:2*i+2]
			dst[i] = int32((uint32(s[0])*w[0] + uint32(s[1])*w[1]) >> drop)
		}
	case 3:
		weights := a.weights[:3*len(dst)]
		for i, f := range first {
			s, w := src[f:f+3:f+3], weights[3*i:3*i+3:3*i+3]
			dst[i] = int32((uint32(s[0])*w[0] + uint32(s[1])*w[1] + uint32(s[2])*w[2]) >> drop)
		}
	default:
		for i, f := range first {
			var sum uint32
			w := a.weights[i*a.n : (i+1)*a.n]
			for k, v := range src[f : int(f)+len(w)] {
				sum += uint32(v) * w[k]
			}
			dst[i] = int32(sum >> drop)
		}
	}
}
