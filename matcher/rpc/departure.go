package rpc

import (
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/menshen-io/menshen/matcher"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// departure is an answer of a gate's call together with its passage, as the
// handlers of MatchService give it to gRPC. The passage ends once the transport
// has no use for the answer's bytes any more: they are in the connection's last
// buffer, or the call is over and nobody will send them.
type departure struct {
	message proto.Message
	passage matcher.Passage
}

// departing sends departures on a stream.
type departing struct {
	grpc.BidiStreamingServer[pb.MatchStreamRequest, pb.MatchStreamResponse]
}

func (s departing) Send(d *departure) error { return s.SendMsg(d) }

// codec is gRPC's own for protobuf, and knows departures.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(grpcproto.Name)} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	d, ok := v.(*departure)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	if !d.passage.Begun() {
		return c.CodecV2.Marshal(d.message)
	}
	p := parcels.Get().(*parcel)
	p.passage, d.passage = d.passage, matcher.Passage{}
	b, err := proto.MarshalOptions{}.MarshalAppend(p.bytes[:0], d.message)
	if err != nil {
		p.Put(nil)
		return nil, err
	}
	p.bytes = b
	return mem.BufferSlice{mem.NewBuffer(&p.bytes, p)}, nil
}

// Unmarshal also overwrites the pieces of a message that are too small for gRPC's
// pool of buffers, which it leaves to the garbage collector: the pool overwrites the
// others. gRPC reads none of them again.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	for _, piece := range data {
		if small, ok := piece.(mem.SliceBuffer); ok {
			clear(small)
		}
	}
	return err
}

// parcelBytes holds a match and 10 candidates of the longest names. gRPC counts
// the references to a buffer that has room for more than 1 KiB, and to no other.
const parcelBytes = 4 << 10

var parcels = sync.Pool{New: func() any { return &parcel{bytes: make([]byte, 0, parcelBytes)} }}

// parcel is a departure in bytes. gRPC gives its buffer back to the pool that
// it came from when the last user is done with it: that is the parcel itself.
type parcel struct {
	bytes   []byte
	passage matcher.Passage
}

// Get is not called: the parcel's only buffer is out.
func (p *parcel) Get(n int) *[]byte { b := make([]byte, n); return &b }

// Put ends the passage.
func (p *parcel) Put(*[]byte) {
	p.passage.End()
	if cap(p.bytes) <= 16*parcelBytes {
		p.bytes = p.bytes[:0]
		parcels.Put(p)
	}
}
