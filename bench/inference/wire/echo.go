package wire

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// EchoMethod is what the echo answers.
const EchoMethod = "/menshen.bench.Echo/Echo"

// Echo is a gRPC server as grpc.NewServer makes it, with one method that takes
// bytes and answers bytes: what gRPC itself costs.
type Echo struct{ server *grpc.Server }

// ServeEcho answers calls of EchoMethod on l with messages of size bytes (2 at
// least) until Stop.
func ServeEcho(l net.Listener, size int) *Echo {
	answer := wrapperspb.Bytes(make([]byte, payload(size)))
	handle := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var in wrapperspb.BytesValue
		if err := decode(&in); err != nil {
			return nil, err
		}
		return answer, nil
	}
	e := &Echo{server: grpc.NewServer()}
	e.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "menshen.bench.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: handle}},
	}, e)
	go func() { _ = e.server.Serve(l) }()
	return e
}

// Stop ends the server and its connections.
func (e *Echo) Stop() { e.server.Stop() }

// EchoRequest is a request to the echo of size bytes (2 at least).
func EchoRequest(size int) []byte {
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	return protowire.AppendBytes(b, make([]byte, payload(size)))
}

// payload is how many bytes a message of size bytes wraps: it has a tag and a
// length too.
func payload(size int) int {
	n := max(size-2, 0)
	for n > 0 && 1+protowire.SizeBytes(n) > size {
		n--
	}
	return n
}
