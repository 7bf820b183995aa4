// Package code turns embeddings into the int8 template codes that galleries
// hold and compares them.
//
// An embedding is L2-normalised, turned by the scope's secret Rotation and
// quantised symmetrically to int8. The score of two codes is their integer dot
// product over the product of their norms, which is the cosine of the two
// embeddings within 0.004. The package promises that the same embedding under
// the same seed gives the same code, and the same two codes the same score, on
// every CPU: only IEEE operations with defined rounding are used, and products
// are rounded explicitly so that no compiler may fuse them into an addition.
//
// Codes of one face under different seeds are unlinkable in the sense of
// ISO/IEC 24745: they score like strangers, scattered around 0 by 1/sqrt(dim).
// That is renewability, not encryption: who holds a code and the seed can turn
// it back into the embedding's direction.
package code

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"unsafe"

	"github.com/menshen-io/menshen/index/kernel"
)

// Errors of encoding. Callers match them with errors.Is.
var (
	// ErrDimension: a vector whose length is not the one expected here.
	ErrDimension = errors.New("wrong dimension")
	// ErrNotFinite: an embedding with NaN or an infinity in it.
	ErrNotFinite = errors.New("embedding is not finite")
	// ErrZero: an embedding so short that it has no direction.
	ErrZero = errors.New("embedding is zero")
	// ErrWiped: the rotation was overwritten, with the end of its scope.
	ErrWiped = errors.New("the rotation is gone")
)

// Errors of stored codes.
var (
	// ErrCode: bytes or a value that are not a code that Encode could have made.
	ErrCode = errors.New("malformed code")
)

const (
	// MinDim is the shortest embedding taken. One face scores around 0 +-
	// 1/sqrt(dim) between scopes; with fewer than 64 dimensions that scatter,
	// 0.125, comes too near to the thresholds that models are used with.
	MinDim = 64
	// MaxDim is the longest embedding taken. Up to it a norm stays under 2^26,
	// so that the product of two norms is exact in float64 (see Compare).
	MaxDim = 4096
	// MinNorm is the shortest embedding, in L2 norm, that has a direction worth
	// comparing. Face models give norms between about 0.5 and 100; what lies
	// five orders of magnitude below is a failed inference.
	MinNorm = 1e-6
)

// peak is the largest magnitude in every code: the scale is chosen so.
const peak = 127

// Score is a similarity on the cosine scale: -1 opposite, 0 unrelated, 1 equal.
type Score float64

// Threshold is the least Score that counts as a match.
type Threshold float64

// Admits reports whether s reaches the threshold. NaN admits nothing.
func (t Threshold) Admits(s Score) bool { return float64(s) >= float64(t) }

// Code is a template or a probe inside one scope: the rotated, quantised
// direction of an embedding. Q holds values in -127..127, the largest magnitude
// being 127, and Norm2 is the sum of their squares. A Code is biometric data:
// it formats as a placeholder and must not be logged in another way.
type Code struct {
	Q     []int8
	Norm2 int32
}

// CheckDim returns an error wrapping ErrDimension unless dim is within
// MinDim..MaxDim.
func CheckDim(dim int) error {
	if dim < MinDim || dim > MaxDim {
		return fmt.Errorf("%w: %d; embeddings of %d to %d values are supported", ErrDimension, dim, MinDim, MaxDim)
	}
	return nil
}

// Encode makes the code of an embedding in the scope that rot belongs to. The
// embedding may have any length in L2 norm; its dimension must be rot.Dim().
// It wraps ErrDimension, ErrNotFinite or ErrZero. The embedding is not kept
// and not changed; the Code is the caller's.
func Encode(rot *Rotation, embedding []float32) (Code, error) {
	if len(embedding) != rot.Dim() {
		return Code{}, dimensionError(rot, embedding)
	}
	scratch := make([]float32, 2*len(embedding))
	defer clear(scratch) // which is as good as the code
	return EncodeInto(make([]int8, len(embedding)), scratch, rot, embedding)
}

// EncodeInto is Encode without allocation: dst, of rot.Dim() values, becomes the
// Code's Q; scratch, of at least twice as many, is overwritten. The embedding may
// be the beginning of scratch if it is no longer needed.
func EncodeInto(dst []int8, scratch []float32, rot *Rotation, embedding []float32) (Code, error) {
	dim := rot.Dim()
	if len(embedding) != dim {
		return Code{}, dimensionError(rot, embedding)
	}
	if len(dst) != dim || len(scratch) < 2*dim {
		return Code{}, fmt.Errorf("%w: buffers of %d and %d values for a code of %d, which takes %d and %d", ErrDimension, len(dst), len(scratch), dim, dim, 2*dim)
	}
	var sum float64
	for i, v := range embedding {
		if v-v != 0 { // NaN for NaN and for both infinities
			return Code{}, fmt.Errorf("%w: value %d of %d; check the model and its input", ErrNotFinite, i+1, dim)
		}
		f := float64(v)
		sum += float64(f * f)
	}
	norm := math.Sqrt(sum)
	if norm < MinNorm {
		return Code{}, fmt.Errorf("%w: its norm is under %g; check the model and its input", ErrZero, MinNorm)
	}
	unit, turned := scratch[:dim], scratch[dim:2*dim]
	for i, v := range embedding {
		unit[i] = float32(float64(v) / norm)
	}
	if err := rot.turn(unit, turned); err != nil {
		return Code{}, err
	}
	return Code{Q: dst, Norm2: quantise(dst, turned)}, nil
}

func dimensionError(rot *Rotation, embedding []float32) error {
	return fmt.Errorf("%w: the embedding has %d values, the scope's model gives %d", ErrDimension, len(embedding), rot.Dim())
}

// quantise scales v so that its largest magnitude becomes peak, rounds to the
// nearest integer (ties to even) into dst and returns the sum of squares. A value
// x becomes the rounded x*127/most, where the product is exact in float64 and the
// division is rounded once.
//
// The division is the slow part. x times 127/most is at most two roundings away
// from it, 127 * 2^-51; so where that product is not within doubt of a half, both
// round to the same integer, and the division is left out.
func quantise(dst []int8, v []float32) int32 {
	// The bits of finite magnitudes are ordered as the magnitudes are, and
	// comparing integers is three times as fast.
	var largest uint32
	for _, x := range v {
		largest = max(largest, math.Float32bits(x)&^(1<<31))
	}
	most := math.Float32frombits(largest)
	const doubt = 1e-9
	// Adding and taking away 1.5*2^52 rounds to an integer, ties to even.
	const integers = 3 << 51
	scale := peak / float64(most)
	var norm2 int32
	dst = dst[:len(v)]
	for i, x := range v {
		y := float64(float64(x) * scale)
		r := float64(y+integers) - integers
		if off := y - r; off > 0.5-doubt || off < doubt-0.5 {
			r = math.RoundToEven(float64(x) * peak / float64(most))
		}
		q := int32(r)
		dst[i] = int8(q)
		norm2 += q * q
	}
	return norm2
}

// Compare gives the score of two codes from their dot product and the sums of
// their squares: dot / sqrt(n1*n2), the cosine. n1*n2 is exact in float64 for
// codes of up to MaxDim values, so the result is within -1..1 without clamping
// and is exactly 1 for equal codes. A sum of squares that is not positive
// belongs to no code; such a pair scores 0.
func Compare(dot, n1, n2 int32) Score {
	if n1 <= 0 || n2 <= 0 {
		return 0
	}
	product := float64(n1) * float64(n2)
	return Score(float64(dot) / math.Sqrt(product))
}

// Similarity compares two codes of the same scope and dimension. It wraps
// ErrDimension when their lengths differ.
func Similarity(a, b Code) (Score, error) {
	if len(a.Q) != len(b.Q) {
		return 0, fmt.Errorf("%w: codes of %d and %d values cannot be compared", ErrDimension, len(a.Q), len(b.Q))
	}
	return Compare(kernel.Dot(a.Q, b.Q), a.Norm2, b.Norm2), nil
}

// Validate returns nil when c could have come from Encode with dim values: the
// length fits, the largest magnitude is 127 and Norm2 is the sum of squares. It
// wraps ErrDimension or ErrCode.
func (c Code) Validate(dim int) error {
	if len(c.Q) != dim {
		return fmt.Errorf("%w: the code has %d values, %d are expected", ErrDimension, len(c.Q), dim)
	}
	if err := CheckDim(dim); err != nil {
		return err
	}
	if !peaked(c.Q) {
		largest := max(int(slices.Max(c.Q)), -int(slices.Min(c.Q)))
		return fmt.Errorf("%w: the largest magnitude is %d, not %d", ErrCode, largest, peak)
	}
	if kernel.Dot(c.Q, c.Q) != c.Norm2 {
		return fmt.Errorf("%w: the norm does not fit the values", ErrCode)
	}
	return nil
}

// peaked reports whether the largest magnitude is peak, eight values at a time:
// every template that comes in is asked.
func peaked(q []int8) bool {
	const ones, signs = 0x0101010101010101, 0x8080808080808080
	var all, next uint64 // bits of all magnitudes, and of them plus 1
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(q))), len(q))
	take := func(w uint64) {
		negative := w >> 7 & ones
		w = (w ^ negative*0xff) + negative
		all |= w
		next |= w + ones
	}
	for ; len(bytes) >= 8; bytes = bytes[8:] {
		take(binary.LittleEndian.Uint64(bytes))
	}
	for _, b := range bytes {
		take(uint64(b))
	}
	// The sign of a byte: a magnitude of 128 in all, of 127 in next.
	return all&signs == 0 && next&signs != 0
}

// Format prints a placeholder for every verb, so that a code cannot reach a log
// by accident.
func (c Code) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "code(%d values)", len(c.Q)) }

// LogValue is the same placeholder for slog.
func (c Code) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("%v", c)) }

// MarshalText is the same placeholder for encoders such as encoding/json.
func (c Code) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", c), nil }

// RotationSeed is the secret of one scope from which its Rotation and its
// decoys are drawn. It formats as a placeholder.
type RotationSeed [32]byte

const hiddenSeed = "rotation seed (hidden)"

// Format prints a placeholder for every verb.
func (RotationSeed) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenSeed) }

// LogValue is the same placeholder for slog.
func (RotationSeed) LogValue() slog.Value { return slog.StringValue(hiddenSeed) }

// MarshalText is the same placeholder for encoders such as encoding/json; a
// seed is carried as bytes by the keyring alone.
func (RotationSeed) MarshalText() ([]byte, error) { return []byte(hiddenSeed), nil }
