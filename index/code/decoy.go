package code

const decoyLabel = "menshen decoy v1"

// Decoy makes the code that stands in for a subject who is not enrolled, so
// that a verification of an unknown subject does the same work as one of a
// known subject and scores like a stranger. It is pseudo-random, always the
// same for the same seed, subject and dim, and distributed like the codes of
// real embeddings, whose values are nearly Gaussian after the rotation. dim is
// taken as MinDim or MaxDim when it lies outside them.
func Decoy(seed RotationSeed, subject string, dim int) Code {
	dim = min(max(dim, MinDim), MaxDim)
	src := newStream(seed, decoyLabel, dim, subject)
	v := make([]float32, dim)
	for i := range v {
		// The sum of 24 random bytes less its mean: nearly Gaussian (Irwin-Hall;
		// with 8 bytes the tails are so short that norms come out 11% larger than
		// those of real codes), and exact in float32.
		sum := -255 * 24 / 2
		for range 24 / 8 {
			for bytes := src.Uint64(); bytes != 0; bytes >>= 8 {
				sum += int(bytes & 0xff)
			}
		}
		v[i] = float32(sum)
	}
	q := make([]int8, dim)
	return Code{Q: q, Norm2: quantise(q, v)}
}
