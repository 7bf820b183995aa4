package index

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/kernel"
)

// filter is the prefilter of a gallery: beside each code x stands a coarse copy
// L, one or two bits a value, and a scan that knows the least score it looks
// for computes <q, L> of every row and <q, x> only of the rows that this does
// not rule out.
//
// # The bound
//
// Let c be the cosine of x and L, t that of the probe q and L, s that of q and
// x, the score. With x and L as unit vectors, L = c x + sqrt(1-c^2) w, w a unit
// vector orthogonal to x, and q = s x + sqrt(1-s^2) v, v likewise. So
//
//	t = s c + sqrt(1-s^2) sqrt(1-c^2) z,   z = <v, w>.
//
// A row is ruled out for the score s when t is less than this with -margin for
// z. It is so with any score above s too, where s >= 0: t grows with s. At
// margin 1 that is the inequality of Cauchy and Schwarz (the angle of q and L is
// at most the sum of the two others) and holds for all vectors. It does not pay
// with one bit: c is 0.80, and a score of 0.5 gives t >= -0.12, where strangers
// are all above.
//
// w is a function of x alone. The gallery's codes stand in a secret random
// rotation, under which, given x, the direction v in which the probe differs
// from it is spread evenly over the sphere in the dim-1 dimensions orthogonal
// to x. There z has the variance 1/(dim-1) and falls below -margin with a
// probability of at most (1-margin^2)^((dim-2)/2)/2. margin is
// sigmas/sqrt(dim-1), 8 sigmas: with 512 values 8e-16 (with 128: 3e-20) for a
// template whose score equals the threshold, and less for each that is above.
// So of a thousand million searches for enrolled persons, each just at the
// threshold, the filter loses one with a probability of less than one in a
// million; a score 0.05 above the bar has one and a half sigmas more. What it
// rests on is that the rotation is as good as random, which
// TestFilterLosesNothing holds against pairs whose score is the bar itself: z
// must have the mean, the variance and the tails of that sphere, for isotropic
// embeddings and for those with all their energy in a few values. In the run of
// record, 12 million pairs of 512 values and 12 million of 128, of six kinds, z
// was never below -5.5 sigmas, as far as 24 million draws of a normal
// distribution go, and no pair was lost.
//
// Two things it does not cover, so the filter keeps away from them:
//
//   - Numbers of values that are no power of two. The rotation then runs over the
//     leading and over the trailing 2^k values, and where these two nearly
//     coincide the second transform undoes much of the first: embeddings with
//     their energy in one or two values stay uneven. Of such pairs, each under a
//     rotation of its own, up to 8% were ruled out at 513 values, and of all kinds
//     one in 200 at 1280 and one in 24,000 at 160 and at 640; see sound. At powers
//     of two from 128 to 2048, 660,000 of them each went to -5.1 sigmas.
//   - Scores beyond mostScore. There the codes differ by little more than their
//     rounding, which follows from x: of embeddings with their energy in one value
//     z went to -9.1 sigmas in 3,000 pairs. A higher bar is taken for mostScore,
//     at which a row that reaches the bar lies far above the cut.
//
// # What was weighed and measured
//
// Rows let through at a threshold of 0.45, among strangers whose cosines scatter
// by 1/sqrt(dim) and by 0.113, as those of a real model do. From the formula, for
// normal values, not measured:
//
//	512-d, 1 bit, Cauchy-Schwarz     100%      97%     64 bytes a row
//	512-d, 1 bit, 8 sigmas            0.007%    3.6%   64
//	512-d, 2 bits, Cauchy-Schwarz     0.5%     14%    128
//	512-d, 2 bits, 8 sigmas           0%        0.2%  128
//	128-d, 1 bit, 8 sigmas           60%       59%     16
//	128-d, 2 bits, Cauchy-Schwarz    10%       15%     32
//	128-d, 2 bits, 8 sigmas           1%        3.2%   32
//
// Two bits with the bound that is certain would be the choice at 512-d but for
// memory: with them a template takes 0.69 KB, over the budget of 0.65, and with
// one bit 0.63.
//
// With several probes at once the rows are compared in tiles, each of them
// loaded once, and a probe costs less than a glance of its own. Searches of
// 400,000 templates of the falling spectrum at 0.45, 4 cores, in ms for all
// probes together, each once on a shared machine:
//
//	probes              2     4     8    12    16    20
//	512-d, glances   0.96   1.9   2.9   4.9   7.0   8.0
//	512-d, compared    -     -    7.1   6.4   5.8   6.0
//	128-d, glances   0.48   1.1   1.8   2.7     -     -
//	128-d, compared   1.1   1.4   1.8   2.5   1.6   1.7
//
// Hence oneBitBatch probes and twoBitBatch.
//
// So there is one bit from oneBitDim values on and two below. The level of a row
// is one byte: c is rounded down to a 512th, which only lets more rows through.
// That is enough because L has the same length in every row (see pack); were the
// two levels set by a step, rows would need <x, L> and |L|, 8 bytes.
type filter struct {
	bits   kernel.Bits
	dim    int
	stride int     // bytes of a packed row
	length float64 // |L|
	margin float64
	batch  int  // the most probes at once that it pays for
	sound  bool // galleries may use it
	large  int  // values of a row that have the level 3 (2 bits)
	levels []int8
}

const (
	sigmas = 8
	// mostScore is the highest score that the argument was tested for.
	mostScore = 0.95
	// oneBitDim: from so many values on one bit is enough; see filter.
	oneBitDim = 384
	// oneBitBatch and twoBitBatch probes at most are glanced for; see filter.
	oneBitBatch = 12
	twoBitBatch = 4
	// largeShare of the values get the larger level of two: what lies beyond 0.996
	// standard deviations of a normal distribution (Max, "Quantizing for minimum
	// distortion", 1960).
	largeShare = 0.319
	// levelSteps: a level is how many 512ths of 1 the cosine of a row and its
	// coarse copy is above 1/2; 0 says less than that, and lets the row through.
	levelSteps = 512
	levelBase  = 256
	// everything is so large that a row of level 0 passes: one of edge's factors
	// is above 0.
	everything = 1e30
)

// newFilter makes the filter of galleries of dim values. It is for one
// goroutine when it packs, for any number when they ask for cuts.
func newFilter(dim int) *filter {
	f := &filter{bits: kernel.OneBit, dim: dim, length: math.Sqrt(float64(dim)), margin: sigmas / math.Sqrt(float64(dim-1))}
	f.batch = oneBitBatch
	if dim < oneBitDim {
		f.bits, f.batch = kernel.TwoBits, twoBitBatch
		f.large = int(math.Round(largeShare * float64(dim)))
		f.length = math.Sqrt(float64(dim + 8*f.large))
		f.levels = make([]int8, dim)
	}
	f.margin = min(f.margin, 1)
	f.sound = f.margin == 1 || dim&(dim-1) == 0
	f.stride = f.bits.Stride(dim)
	return f
}

// pack writes the coarse copy of a code to dst and returns its level. With one
// bit it is the signs. With two, the values that are largest by magnitude get
// the level 3 and the others 1, always the same number of them, so that all
// copies have one length; among equals the first.
func (f *filter) pack(dst []byte, c code.Code) (level uint8) {
	var along int64 // <x, L>
	if f.bits == kernel.OneBit {
		along = magnitudes(c.Q)
		f.bits.Pack(dst, c.Q, 0)
	} else {
		var counts [128]int
		for _, q := range c.Q {
			counts[magnitude(q)]++
		}
		edge, above := 127, 0
		for ; above+counts[edge] <= f.large && edge > 0; edge-- {
			above += counts[edge]
		}
		equals := f.large - above // of magnitude edge
		for i, q := range c.Q {
			m := magnitude(q)
			l := 1 + 2*(uint(edge-m)>>63) // 3 above the edge
			if m == edge && equals > 0 {
				l = 3
				equals--
			}
			along += int64(m) * int64(l)
			sign := q >> 7
			f.levels[i] = int8(l) ^ sign - sign
		}
		f.bits.Pack(dst, f.levels, 2)
	}
	cosine := float64(along) / (f.length * math.Sqrt(float64(c.Norm2)))
	// The guard of 1e-6 is far above the rounding.
	return uint8(min(max(math.Floor(cosine*levelSteps-1e-6)-levelBase, 0), 255))
}

// magnitude is |q|. Half of all values are negative and nobody foresees which, so
// there is no branch: of 4.2 us for a template that came in, 1.8 were spent here.
func magnitude(q int8) int {
	sign := int(q) >> 63
	return int(q) ^ sign - sign
}

// magnitudes is the sum of all magnitudes, eight at a time.
func magnitudes(q []int8) (sum int64) {
	const ones, pairs = 0x0101010101010101, 0x00ff00ff00ff00ff
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(q))), len(q))
	for ; len(bytes) >= 8; bytes = bytes[8:] {
		w := binary.LittleEndian.Uint64(bytes)
		negative := w >> 7 & ones
		w = (w ^ negative*0xff) + negative
		// Two to a lane of 16 bits, then all four lanes into the upper one.
		sum += int64((w&pairs + w>>8&pairs) * 0x0001000100010001 >> 48)
	}
	for _, b := range bytes {
		sum += int64(magnitude(int8(b)))
	}
	return sum
}

// edge is what the products of coarse copies are held against, for one score and
// probe.
type edge struct {
	along  float64 // s |q| |L|
	across float64 // margin sqrt(1-s^2) |q| |L|
}

// edge is for a score of at least 0; norm is |q|.
func (f *filter) edge(score, norm float64) edge {
	s := min(score, mostScore)
	length := norm * f.length
	return edge{s * length, f.margin * math.Sqrt(1-s*s) * length}
}

// angle is the cosine c of a level and sqrt(1-c^2).
type angle struct{ cosine, sine float64 }

func angleOf(level uint8) angle {
	if level == 0 {
		return angle{-everything, everything}
	}
	c := (levelBase + float64(level)) / levelSteps
	return angle{c, math.Sqrt(1 - c*c)}
}

// cut is the least <q, L> with which a row of a level of that angle may reach
// the score: a row below is ruled out.
func (e edge) cut(a angle) int32 {
	t := e.along*a.cosine - e.across*a.sine
	return int32(math.Floor(max(t, -1<<30))) - 1 // 1 is far above the rounding
}

// passes reports whether a row of that angle and product may reach the score.
func (e edge) passes(a angle, dot int32) bool {
	return float64(dot) >= e.along*a.cosine-e.across*a.sine-1
}

// typicalLevel is that of a row of normally distributed values: cosines 0.798
// and 0.94.
func (f *filter) typicalLevel() uint8 {
	if f.bits == kernel.OneBit {
		return 152
	}
	return 225
}

// pays reports whether a scan for that score should begin with the filter: if
// it rules out at least strangers below the mean. What it really rules out is
// counted then, see search.filters.
func (f *filter) pays(score float64) bool {
	return f.sound && score > 0 && f.edge(score, 1e6).cut(angleOf(f.typicalLevel())) > 0
}
