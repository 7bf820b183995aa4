package code

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/bits"
	"math/rand/v2"
)

// rounds of sign flips, permutation and Hadamard transform. One round leaves a
// one-hot embedding flat, two make it look random; the third takes the last
// structure out (TestRotationHidesStructure measures sparse, constant and
// non-negative embeddings).
const rounds = 3

// rotationLabel separates the stream of rotations from other uses of a seed.
// A change to how rotations are drawn or applied must change it, and FormatV1
// with it: stored codes would no longer fit new probes.
const rotationLabel = "menshen rotation v1"

// Rotation is the secret orthogonal transform of one scope: in each of three
// rounds, random sign flips, a random permutation and normalised Walsh-Hadamard
// transforms. It keeps cosines as they are (rounding aside: 1e-6) and makes
// codes of different scopes unlinkable. For a dimension that is not a power of
// two, the transform runs over the leading and then over the trailing 2^k
// values, 2^k being the largest power of two that fits; each step is orthogonal,
// so the whole is.
//
// A 512-d rotation takes about 1.3 KB: three sets of signs and one permutation,
// used in every round. It is immutable and safe for concurrent use.
type Rotation struct {
	dim   int
	signs []uint64 // rounds x words(dim) words, bit i of a round flips value i
	swaps []uint16 // the permutation as Fisher-Yates swaps: i with swaps[i], i from dim-1 down to 1
}

// NewRotation draws the rotation of seed for embeddings of dim values. The same
// seed and dim give the same rotation for ever. It wraps ErrDimension.
func NewRotation(seed RotationSeed, dim int) (*Rotation, error) {
	if err := CheckDim(dim); err != nil {
		return nil, err
	}
	src := newStream(seed, rotationLabel, dim, "")
	r := &Rotation{
		dim:   dim,
		signs: make([]uint64, rounds*words(dim)),
		swaps: make([]uint16, dim),
	}
	for i := range r.signs {
		r.signs[i] = src.Uint64()
	}
	for i := dim - 1; i > 0; i-- {
		r.swaps[i] = uint16(below(src, uint64(i)+1))
	}
	return r, nil
}

// Dim is the number of values that the rotation turns; 0 for a nil Rotation.
func (r *Rotation) Dim() int {
	if r == nil {
		return 0
	}
	return r.dim
}

// Apply writes the rotated src to dst. Both must have Dim() values (of more,
// only the first Dim() are used); they may be the same slice. It allocates
// nothing.
func (r *Rotation) Apply(dst, src []float32) {
	v := dst[:r.dim]
	copy(v, src[:r.dim])
	w := words(r.dim)
	block := 1 << (bits.Len(uint(r.dim)) - 1)
	scale := float32(1 / math.Sqrt(float64(block)))
	for round := range rounds {
		flip(v, r.signs[round*w:(round+1)*w])
		for i := r.dim - 1; i > 0; i-- {
			j := r.swaps[i]
			v[i], v[j] = v[j], v[i]
		}
		hadamard(v[:block], scale)
		if block < r.dim {
			hadamard(v[r.dim-block:], scale)
		}
	}
}

// Format prints the dimension only, for every verb.
func (r Rotation) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// String tells the dimension and nothing else.
func (r Rotation) String() string { return fmt.Sprintf("rotation(%d values, hidden)", r.dim) }

// LogValue is String for slog.
func (r Rotation) LogValue() slog.Value { return slog.StringValue(r.String()) }

// flip changes the sign of the values whose bit is set.
func flip(v []float32, signs []uint64) {
	for i := range v {
		bit := uint32(signs[i/64]>>(i%64)) & 1
		v[i] = math.Float32frombits(math.Float32bits(v[i]) ^ bit<<31)
	}
}

// hadamard replaces v, whose length is a power of two, by its Walsh-Hadamard
// transform times scale.
func hadamard(v []float32, scale float32) {
	for half := 1; half < len(v); half *= 2 {
		for start := 0; start < len(v); start += 2 * half {
			lo, hi := v[start:start+half], v[start+half:start+2*half]
			for i, a := range lo {
				b := hi[i]
				lo[i], hi[i] = a+b, a-b
			}
		}
	}
	for i, x := range v {
		v[i] = float32(x * scale) // the conversion forbids fusing with a later addition
	}
}

func words(dim int) int { return (dim + 63) / 64 }

// newStream gives the random stream of one use of a seed: ChaCha8 (as
// math/rand/v2 and C2SP's chacha8rand define it) keyed with
// HMAC-SHA256(seed, label || dim || subject).
func newStream(seed RotationSeed, label string, dim int, subject string) *rand.ChaCha8 {
	mac := hmac.New(sha256.New, seed[:])
	mac.Write([]byte(label))
	mac.Write(binary.LittleEndian.AppendUint32(nil, uint32(dim)))
	mac.Write([]byte(subject))
	return rand.NewChaCha8([32]byte(mac.Sum(nil)))
}

// below draws a number under n, n >= 1, without bias: the low bits that n-1
// needs, drawn again while they are too large.
func below(src *rand.ChaCha8, n uint64) uint64 {
	mask := uint64(1)<<bits.Len64(n-1) - 1
	for {
		if v := src.Uint64() & mask; v < n {
			return v
		}
	}
}
