package rpc

import (
	"sync"

	"google.golang.org/grpc/mem"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// The tiers of WipingPool: a small message, a frame of HTTP/2, an embedding or two
// in one piece, a picture. gRPC gives no buffer of 1 KiB or less back, so that the
// smallest must be larger than that.
var wipingTiers = [...]int{4 << 10, 16<<10 + 64, 64 << 10, 1 << 20}

// WipingPool gives gRPC its buffers, and overwrites them when they come back: faces
// pass through them. What is larger than the largest tier is overwritten and left to
// the garbage collector. The zero WipingPool is ready. Safe for concurrent use.
type WipingPool struct{ tiers [len(wipingTiers)]sync.Pool }

var _ mem.BufferPool = (*WipingPool)(nil)

// Get gives a buffer of that length, all zeros.
func (p *WipingPool) Get(length int) *[]byte {
	for i, size := range wipingTiers {
		if length > size {
			continue
		}
		if b, ok := p.tiers[i].Get().(*[]byte); ok {
			*b = (*b)[:length]
			return b
		}
		b := make([]byte, length, size)
		return &b
	}
	b := make([]byte, length)
	return &b
}

// Put overwrites a buffer and takes it back.
func (p *WipingPool) Put(b *[]byte) {
	whole := (*b)[:cap(*b)]
	clear(whole)
	for i, size := range wipingTiers {
		if cap(whole) == size {
			*b = whole
			p.tiers[i].Put(b)
			return
		}
	}
}

// forget overwrites the embeddings of a request that nobody reads any more. Pictures
// it leaves: decoding may still be on its way when their call has ended.
func forget(req any) {
	switch r := req.(type) {
	case *pb.VerifyRequest:
		forgetProbe(r.GetProbe())
	case *pb.IdentifyRequest:
		forgetProbe(r.GetProbe())
	case *pb.EnrollRequest:
		for _, p := range r.GetProbes() {
			forgetProbe(p)
		}
	case *pb.MatchStreamRequest:
		forgetProbe(r.GetVerify().GetProbe())
		forgetProbe(r.GetIdentify().GetProbe())
	case *pb.BulkEnrollRequest:
		forget(r.GetEnroll())
	}
}

func forgetProbe(p *pb.Probe) { clear(p.GetEmbedding().GetVector()) }
