package reference

import (
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// projectionFile was written by bench/faces/fitreference. Format, little-endian:
//
//	8 bytes   "MREFPRJ1"
//	32 bytes  sha256 of FeatureModel: the features it was fitted to
//	32 bytes  sha256 of the crops it was fitted on
//	2 x u32   number of features F, dimension D
//	F x f32   mean of the features
//	D x f32   scale of each output
//	F*D x i8  weights, row by row: feature, then output
//	32 bytes  sha256 of everything before
//
//go:embed projection.bin
var projectionFile []byte

const projectionMagic = "MREFPRJ1"

// ErrProjection: the projection compiled into the program is damaged or belongs
// to other features.
var ErrProjection = errors.New("reference: embedded projection")

// projection is the linear last layer: y[j] = scale[j] * sum_i (x[i]-mean[i]) * weights[i*Dimension+j].
type projection struct {
	fittedTo [32]byte // sha256 of the feature model
	fittedOn [32]byte // sha256 of the crops
	mean     []float32
	scale    []float32
	weights  []int8
}

// encode writes the file format above.
func (p *projection) encode() []byte {
	b := []byte(projectionMagic)
	b = append(b, p.fittedTo[:]...)
	b = append(b, p.fittedOn[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p.mean)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p.scale)))
	for _, v := range [2][]float32{p.mean, p.scale} {
		for _, x := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
	}
	for _, w := range p.weights {
		b = append(b, byte(w))
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decodeProjection reads the file format and checks its sum and lengths.
func decodeProjection(b []byte) (*projection, error) {
	const head = len(projectionMagic) + 32 + 32 + 8
	const size = head + 4*(features+Dimension) + features*Dimension + 32
	if len(b) != size {
		return nil, fmt.Errorf("%w: %d bytes, want %d: run the fit again (go run ./bench/faces/fitreference)", ErrProjection, len(b), size)
	}
	if [32]byte(b[size-32:]) != sha256.Sum256(b[:size-32]) {
		return nil, fmt.Errorf("%w: its checksum is wrong: build from a clean checkout", ErrProjection)
	}
	f, d := binary.LittleEndian.Uint32(b[head-8:]), binary.LittleEndian.Uint32(b[head-4:])
	if string(b[:len(projectionMagic)]) != projectionMagic || f != features || d != Dimension {
		return nil, fmt.Errorf("%w: made for %d features and %d dimensions, want %d and %d: run the fit again (go run ./bench/faces/fitreference)", ErrProjection, f, d, features, Dimension)
	}
	p := &projection{mean: make([]float32, features), scale: make([]float32, Dimension), weights: make([]int8, features*Dimension)}
	copy(p.fittedTo[:], b[len(projectionMagic):])
	copy(p.fittedOn[:], b[len(projectionMagic)+32:])
	b = b[head:]
	for _, v := range [2][]float32{p.mean, p.scale} {
		for i := range v {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b))
			b = b[4:]
		}
	}
	for i := range p.weights {
		p.weights[i] = int8(b[i])
	}
	return p, nil
}

// FittedOn reports whether the shipped projection was fitted on the population
// that CropSum gives this sum for.
func FittedOn(sum [32]byte) bool {
	p, err := decodeProjection(projectionFile)
	return err == nil && p.fittedOn == sum
}
