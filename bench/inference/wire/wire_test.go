package wire

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The echo's messages have the size that is asked for: a ratio to an echo of
// another size says nothing.
func TestEchoHasTheSize(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const size = 300
	echo := ServeEcho(l, size)
	defer echo.Stop()
	var most atomic.Int64
	target := Target{
		Method: EchoMethod, Conns: []*grpc.ClientConn{connect(t, l)}, Requests: [][]byte{EchoRequest(700)},
		Check: func(answer []byte) error { most.Store(int64(len(answer))); return nil },
	}
	perSecond, err := Unary(context.Background(), target, 2, 50*time.Millisecond)
	if err != nil || perSecond <= 0 {
		t.Errorf("%v calls a second, %v", perSecond, err)
	}
	if most.Load() != size {
		t.Errorf("an answer of %d bytes, want %d", most.Load(), size)
	}
	for _, size := range []int{2, 3, 100, 128, 129, 131, 700, 2100, 20_000} {
		b := EchoRequest(size)
		var m wrapperspb.BytesValue
		if err := proto.Unmarshal(b, &m); err != nil || size-len(b) > 1 || len(b) > size {
			t.Errorf("size %d: %d bytes, %v", size, len(b), err)
		}
	}
	wrong := errors.New("wrong answer")
	target.Check = func([]byte) error { return wrong }
	if _, err := Unary(context.Background(), target, 2, time.Millisecond); !errors.Is(err, wrong) {
		t.Errorf("a wrong answer gives %v", err)
	}
	target.Method = "/menshen.bench.Echo/Nothing"
	if _, err := Unary(context.Background(), target, 1, time.Millisecond); err == nil || !strings.Contains(err.Error(), "Nothing") {
		t.Errorf("a failing call gives %v", err)
	}
}

// A stream gets an answer to every request that it sent, and no more than one
// request of an id is in flight.
func TestStreamPipelines(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var inFlight, most, answered atomic.Int64
	server := grpc.NewServer(grpc.ForceServerCodecV2(codec{}), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		requests := make(chan []byte, 64)
		go func() {
			defer close(requests)
			for {
				var f Frame
				if s.RecvMsg(&f) != nil {
					return
				}
				most.Store(max(most.Load(), inFlight.Add(1)))
				requests <- bytes.Clone(f.Bytes)
			}
		}()
		for b := range requests {
			inFlight.Add(-1)
			answered.Add(1)
			if err := s.SendMsg(&Frame{b}); err != nil {
				return err
			}
		}
		return nil
	}))
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	target := Target{Method: "/any/Stream", Conns: []*grpc.ClientConn{connect(t, l)}, Check: func([]byte) error { return nil }}
	for i := range uint64(8) {
		b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), i+1)
		target.Requests = append(target.Requests, b)
	}
	perSecond, err := Stream(context.Background(), target, 3, 100*time.Millisecond)
	if err != nil || perSecond <= 0 || answered.Load() < 3*8 {
		t.Errorf("%v answers a second, %d in all, %v", perSecond, answered.Load(), err)
	}
	if n := most.Load(); n > 3*8 {
		t.Errorf("%d in flight, at most 24 are sent", n)
	}
}

func connect(t *testing.T, l net.Listener) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
