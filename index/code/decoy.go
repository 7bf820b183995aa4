package code

import "math/rand/v2"

const decoyLabel = "menshen decoy v1"

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
	for i := range v {
		// The sum of 24 random bytes less its mean: nearly Gaussian (Irwin-Hall;
		// with 8 bytes the tails are so short that norms come out 11% larger than
		// those of real codes), and exact in float32. They are summed by fours.
		const even = 0x00ff00ff00ff00ff
		a, b, c := src.Uint64(), src.Uint64(), src.Uint64()
		lanes := a&even + a>>8&even + b&even + b>>8&even + c&even + c>>8&even
		sum := int(lanes * 0x0001000100010001 >> 48)
		v[i] = float32(sum - 255*24/2)
	}
	return Code{Q: dst, Norm2: quantise(dst, v)}
}
