package rpc

import (
	"testing"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// What comes back is overwritten, the part that nobody asked for too, and what is
// given out is empty and above the size from which gRPC gives buffers back.
func TestWipingPool(t *testing.T) {
	var p WipingPool
	for _, n := range []int{0, 1, 1000, 4 << 10, 4<<10 + 1, 16 << 10, 1 << 20, 1<<20 + 1, 5 << 20} {
		b := p.Get(n)
		whole := (*b)[:cap(*b)]
		if len(*b) != n || n <= 1<<10 && cap(*b) <= 1<<10 {
			t.Errorf("asked for %d bytes: %d of %d", n, len(*b), cap(*b))
		}
		for i := range whole {
			whole[i] = 0xff
		}
		*b = (*b)[:n/2] // gRPC gives back what it read into
		p.Put(b)
		for i, x := range whole {
			if x != 0 {
				t.Fatalf("byte %d of %d is not overwritten", i, n)
			}
		}
		if again := p.Get(n); len(*again) != n {
			t.Errorf("%d bytes of %d", len(*again), n)
		}
	}
}

// Every request that can carry an embedding is known to forget.
func TestForget(t *testing.T) {
	probe := func() *pb.Probe {
		return &pb.Probe{Kind: &pb.Probe_Embedding{Embedding: &pb.Embedding{Vector: []byte{1, 2, 3}}}}
	}
	p := probe()
	for _, req := range []any{
		&pb.VerifyRequest{Probe: p}, &pb.IdentifyRequest{Probe: p}, &pb.EnrollRequest{Probes: []*pb.Probe{p}},
		&pb.MatchStreamRequest{Request: &pb.MatchStreamRequest_Verify{Verify: &pb.VerifyRequest{Probe: p}}},
		&pb.MatchStreamRequest{Request: &pb.MatchStreamRequest_Identify{Identify: &pb.IdentifyRequest{Probe: p}}},
		&pb.BulkEnrollRequest{Enroll: &pb.EnrollRequest{Probes: []*pb.Probe{p}}},
	} {
		p.Kind = probe().Kind
		forget(req)
		if v := p.GetEmbedding().Vector; len(v) != 3 || v[0]|v[1]|v[2] != 0 {
			t.Errorf("%T: %v is left", req, v)
		}
	}
	for _, req := range []any{nil, &pb.VerifyRequest{}, &pb.MatchStreamRequest{}, &pb.BulkEnrollRequest{}, &pb.EnrollRequest{Probes: []*pb.Probe{nil, {}}}, &pb.GetScopeRequest{}} {
		forget(req)
	}
}
