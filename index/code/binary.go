package code

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// FormatV1 is the first byte of a stored code: the layout below, and codes as
// rotationLabel and quantise make them.
const FormatV1 = 1

// headerLen is the format byte and the norm before the values.
const headerLen = 1 + 4

// AppendBinary appends the stored form to b: the format byte, Norm2 as
// little-endian uint32, then Q, one byte a value. It implements
// encoding.BinaryAppender; it fails, wrapping ErrDimension or ErrCode, on a
// code that is not valid.
func (c Code) AppendBinary(b []byte) ([]byte, error) {
	if err := c.Validate(len(c.Q)); err != nil {
		return b, err
	}
	b = slices.Grow(b, headerLen+len(c.Q)) // at once: what grows leaves copies behind
	b = append(b, FormatV1)
	b = binary.LittleEndian.AppendUint32(b, uint32(c.Norm2))
	for _, q := range c.Q {
		b = append(b, byte(q))
	}
	return b, nil
}

// ParseCode reads what AppendBinary wrote. The length must be that of dim
// values, the norm must fit the values. It wraps ErrDimension for another
// dimension and ErrCode for anything else. The Code does not share memory with
// b.
func ParseCode(b []byte, dim int) (Code, error) {
	if err := CheckDim(dim); err != nil {
		return Code{}, err
	}
	if len(b) < headerLen {
		return Code{}, fmt.Errorf("%w: %d bytes, a code begins with %d", ErrCode, len(b), headerLen)
	}
	if b[0] != FormatV1 {
		return Code{}, fmt.Errorf("%w: format %d; this build reads format %d", ErrCode, b[0], FormatV1)
	}
	norm2, values := binary.LittleEndian.Uint32(b[1:headerLen]), b[headerLen:]
	if len(values) != dim {
		return Code{}, fmt.Errorf("%w: the stored code has %d values, the scope's model gives %d", ErrDimension, len(values), dim)
	}
	c := Code{Q: make([]int8, dim), Norm2: int32(norm2)}
	for i, v := range values {
		c.Q[i] = int8(v)
	}
	if err := c.Validate(dim); err != nil {
		return Code{}, err
	}
	return c, nil
}
