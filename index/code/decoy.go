package code

import (
	"math/bits"
	"math/rand/v2"
)

const decoyLabel = "menshen decoy v2"

// Decoy makes the code that stands in for a subject who is not enrolled, so
// that a verification of an unknown subject does the same work as one of a
// known subject and scores like a stranger. It is pseudo-random, always the
// same for the same seed, subject and dim, and distributed like the codes of
// real embeddings, whose values are nearly Gaussian after the rotation. dim is
// taken as MinDim or MaxDim when it lies outside them.
func Decoy(seed RotationSeed, subject string, dim int) Code {
	dim = min(max(dim, MinDim), MaxDim)
	return DecoyInto(make([]int8, dim), make([]float32, dim), new(rand.ChaCha8), &seed, subject)
}

// DecoyInto is Decoy without allocation: dst becomes the Code's Q and gives the
// dimension, MinDim to MaxDim; scratch, of at least as many values, and src are
// overwritten. No copy of the seed is left.
func DecoyInto(dst []int8, scratch []float32, src *rand.ChaCha8, seed *RotationSeed, subject string) Code {
	src.Seed(streamKey(seed, decoyLabel, len(dst), subject))
	v := scratch[:len(dst)]
	var fine uint64
	for i := range v {
		// How many of 64 random bits are set is nearly Gaussian: its excess kurtosis is
		// -1/32, where the sum of 8 random bytes has -0.15 and so short tails that norms
		// come out 11% larger than those of real codes. A random byte fills the steps
		// between the counts. In units of 1/512 of a step, exact in float32.
		if i%8 == 0 {
			fine = src.Uint64()
		}
		v[i] = float32(512*(bits.OnesCount64(src.Uint64())-32) + 2*int(fine&0xff) - 255)
		fine >>= 8
	}
	return Code{Q: dst, Norm2: quantise(dst, v)}
}
