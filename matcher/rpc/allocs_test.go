package rpc

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"runtime"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/menshen-io/menshen/bench/inference/wire"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// mostAllocations is what a Verify with an embedding may allocate beyond what a
// gRPC call of as many bytes does.
const mostAllocations = 10

// The client is the same for both and sends what it has ready, so that the
// difference is the server's.
func TestVerifyAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not counted under the race detector")
	}
	w := newWorldOf(t, &fakeModels{}, func(o *Options) { o.Logger = slog.New(slog.DiscardHandler) })
	_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment("v-1", vectorOf(1, 0)))
	w.ok(err)
	for name, probe := range map[string]*pb.Probe{"match": vectorOf(1, 1), "no match": vectorOf(2, 1)} {
		request := &pb.VerifyRequest{Subject: "tenants/fair/scopes/hall-a/subjects/v-1", Probe: probe}
		answer, err := w.match("gate").Verify(w.ctx(), request)
		w.ok(err)
		message, err := proto.Marshal(request)
		w.ok(err)
		echoed := allocations(t, w, wire.EchoMethod, wire.EchoRequest(len(message)), proto.Size(answer))
		verified := allocations(t, w, pb.MatchService_Verify_FullMethodName, message, 0)
		t.Logf("%s: %.1f allocations a call, %.1f of them an echo's", name, verified, echoed)
		// What the runtime allocates beside the calls is less than half of one.
		if math.Round(verified-echoed) > mostAllocations {
			t.Errorf("%s: %.1f allocations above gRPC's own, %d are allowed", name, verified-echoed, mostAllocations)
		}
	}
}

// allocations counts those of a call to the echo, or to the service: the median
// of several counts, since the runtime and the transport allocate at times too.
func allocations(t *testing.T, w *world, method string, request []byte, echo int) float64 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.ok(err)
	if echo > 0 {
		server := wire.ServeEcho(l, echo)
		defer server.Stop()
	} else {
		go func() {
			if err := w.server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				t.Error(err)
			}
		}()
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+w.keys["gate"])
	target := wire.Target{Method: method, Conns: dialAll(t, l.Addr().String())[:1], Requests: [][]byte{request}, Check: func([]byte) error { return nil }}
	const rounds, calls = 9, 200
	var counts []float64
	for range rounds {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w.ok(wire.Calls(ctx, target, calls))
		runtime.ReadMemStats(&after)
		counts = append(counts, float64(after.Mallocs-before.Mallocs)/calls)
	}
	slices.Sort(counts)
	return counts[rounds/2]
}
