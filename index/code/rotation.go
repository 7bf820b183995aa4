package code

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/bits"
	"math/rand/v2"
	"sync"

	"github.com/menshen-io/menshen/index/kernel"
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
// A 512-d rotation takes about 1 KB: one permutation, used in every round, and
// three sets of signs. Until Wipe it does not change. Safe for concurrent use.
type Rotation struct {
	dim   int
	guard *sync.RWMutex // moves are cleared under it, and nil then
	// moves holds, for each place, the place whose value comes there, in the low
	// placeBits, and above them a bit for each round that flips the value's sign.
	moves []uint16
}

// placeBits hold a place of the largest dimension, and leave room for the rounds.
const (
	placeBits = 12
	placeMask = MaxDim - 1
)

// NewRotation draws the rotation of seed for embeddings of dim values. The same
// seed and dim give the same rotation for ever. It wraps ErrDimension.
func NewRotation(seed RotationSeed, dim int) (*Rotation, error) {
	if err := CheckDim(dim); err != nil {
		return nil, err
	}
	src := rand.NewChaCha8(streamKey(&seed, rotationLabel, dim, ""))
	// Bit i of a round's words flips value i before it is moved.
	w := (dim + 63) / 64
	signs := make([]uint64, rounds*w)
	for i := range signs {
		signs[i] = src.Uint64()
	}
	defer func() { *src = rand.ChaCha8{} }()
	r := &Rotation{dim: dim, guard: new(sync.RWMutex), moves: make([]uint16, dim)}
	for i := range r.moves {
		r.moves[i] = uint16(i)
	}
	for i := dim - 1; i > 0; i-- { // Fisher and Yates
		j := below(src, uint64(i)+1)
		r.moves[i], r.moves[j] = r.moves[j], r.moves[i]
	}
	for i, from := range r.moves {
		for round := range rounds {
			bit := signs[round*w+int(from)/64] >> (from % 64) & 1
			r.moves[i] |= uint16(bit) << (placeBits + round)
		}
	}
	clear(signs)
	return r, nil
}

// Dim is the number of values that the rotation turns; 0 for a nil Rotation.
func (r *Rotation) Dim() int {
	if r == nil {
		return 0
	}
	return r.dim
}

// Wipe overwrites the rotation, once those who encode are through: nothing can be
// encoded under it any more (ErrWiped). A nil Rotation has nothing to overwrite.
func (r *Rotation) Wipe() {
	if r == nil {
		return
	}
	r.guard.Lock()
	defer r.guard.Unlock()
	clear(r.moves)
	r.moves = nil
}

// turn rotates a into b; both have Dim() values and do not overlap. a is
// overwritten. It fails with ErrWiped.
func (r *Rotation) turn(a, b []float32) error {
	r.guard.RLock()
	defer r.guard.RUnlock()
	if r.moves == nil {
		return ErrWiped
	}
	block := 1 << (bits.Len(uint(r.dim)) - 1)
	scale := float32(1 / math.Sqrt(float64(block)))
	for round := range rounds {
		r.move(b, a, round)
		kernel.Hadamard(b[:block], scale)
		if block < r.dim {
			kernel.Hadamard(b[r.dim-block:], scale)
		}
		a, b = b, a // three rounds end in the b that they began with
	}
	return nil
}

// move sets dst to the values of src, some with their sign flipped, each at its
// new place.
func (r *Rotation) move(dst, src []float32, round int) {
	dst = dst[:len(r.moves)]
	up := uint(31-placeBits-round) & 31
	for i, m := range r.moves {
		sign := uint32(m) << up & (1 << 31)
		dst[i] = math.Float32frombits(math.Float32bits(src[m&placeMask]) ^ sign)
	}
}

// Format prints the dimension only, for every verb.
func (r Rotation) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// String tells the dimension and nothing else.
func (r Rotation) String() string { return fmt.Sprintf("rotation(%d values, hidden)", r.dim) }

// LogValue is String for slog.
func (r Rotation) LogValue() slog.Value { return slog.StringValue(r.String()) }

// streamKey keys the random stream of one use of a seed: ChaCha8 (as
// math/rand/v2 and C2SP's chacha8rand define it) keyed with
// HMAC-SHA256(seed, label || dim || subject). It allocates nothing for subjects as
// short as ids are.
func streamKey(seed *RotationSeed, label string, dim int, subject string) [sha256.Size]byte {
	var room [streamRoom]byte
	message := append(room[:0], label...)
	message = binary.LittleEndian.AppendUint32(message, uint32(dim))
	message = append(message, subject...)
	growStack(false)
	return keyed(seed, message)
}

// growStack makes sure of stack for what hashes, which is 2 KiB: a stack that grows
// on the way is copied, and the old one is left with the key on it.
//
//go:noinline
func growStack(use bool) {
	if use { // never: what is not used is not zeroed either, which would take longer than the hash
		var room [4 << 10]byte
		touch(&room)
	}
}

//go:noinline
func touch(*[4 << 10]byte) {}

// streamRoom holds a label, a dimension and an id.
const streamRoom = 128

// keyed is HMAC-SHA256 as RFC 2104 defines it for a key shorter than a block.
// crypto/hmac would do, with seven allocations a probe.
func keyed(seed *RotationSeed, message []byte) [sha256.Size]byte {
	var room [sha256.BlockSize + streamRoom]byte
	var pad [sha256.BlockSize]byte
	copy(pad[:], seed[:])
	for i := range pad {
		pad[i] ^= 0x36
	}
	defer scrub(&room, &pad) // the seed can be told from either
	inner := sha256.Sum256(append(append(room[:0], pad[:]...), message...))
	for i := range pad {
		pad[i] ^= 0x36 ^ 0x5c
	}
	return sha256.Sum256(append(append(room[:0], pad[:]...), inner[:]...))
}

// scrub overwrites what stays on the stack otherwise.
//
//go:noinline
func scrub(room *[sha256.BlockSize + streamRoom]byte, pad *[sha256.BlockSize]byte) {
	clear(room[:])
	clear(pad[:])
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
