package wire

import (
	"fmt"

	"google.golang.org/grpc/mem"
)

// Frame is one message, encoded.
type Frame struct {
	Bytes []byte
}

// codec sends Frames as they are and reads into their memory. It calls itself
// by the name of the protobuf codec, since that is what the bytes are.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*Frame)
	if !ok {
		return nil, fmt.Errorf("wire: %T is no frame", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(f.Bytes)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*Frame)
	if !ok {
		return fmt.Errorf("wire: %T is no frame", v)
	}
	n := data.Len()
	if cap(f.Bytes) < n {
		f.Bytes = make([]byte, n)
	}
	f.Bytes = f.Bytes[:n]
	data.CopyTo(f.Bytes)
	return nil
}
