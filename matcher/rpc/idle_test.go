package rpc

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	"google.golang.org/grpc/metadata"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// BenchmarkIdleStream opens streams, each of which was answered once and is silent
// since, as those of gates at night, and tells how much the server's memory has
// grown for each. arrive.CallBytes is what it counts for.
//
//	go test ./matcher/rpc -run '^$' -bench IdleStream -benchtime 2000x
func BenchmarkIdleStream(b *testing.B) {
	const dim = 128
	s := startServed(b, dim)
	keyed := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+s.key)
	conns := dialAll(b, s.addr)
	item := verifyItem(1, "v-1", vectorProbe(fakeModelID(), embeddingIn(dim, 1, 1)...))
	open := func(i int) {
		stream, err := pb.NewMatchServiceClient(conns[i%len(conns)]).MatchStream(keyed)
		if err == nil {
			err = stream.Send(item)
		}
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range 500 {
		open(i) // what is there once, such as the connections and gRPC's workers
	}
	before := residentBytes(b, s.pid)
	for i := range b.N {
		open(i)
	}
	b.ReportMetric(float64(residentBytes(b, s.pid)-before)/float64(b.N), "resident-B/stream")
	b.ReportMetric(0, "ns/op")
}

// residentBytes is how much memory a process holds, as Linux tells it.
func residentBytes(b *testing.B, pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skip(err)
	}
	_, rest, _ := bytes.Cut(status, []byte("\nVmRSS:"))
	var kib int64
	if _, err := fmt.Sscan(string(rest[:min(len(rest), 40)]), &kib); err != nil {
		b.Fatal(err)
	}
	return kib << 10
}
