package load

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/menshen-io/menshen/bench/target"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// Reply is how a call ended.
type Reply struct {
	Code    codes.Code
	Outcome pb.Outcome // of an OK
}

// Caller sends one request and waits for its end. It is called from many
// goroutines; lane spreads calls over connections, tenant is the index of who
// asks.
type Caller interface {
	Call(ctx context.Context, lane, tenant int, r *target.Request) Reply
}

// Lanes are connections to a server.
type Lanes struct {
	conns []*grpc.ClientConn
	calls []context.Context // by tenant: holds its key
}

// NewLanes opens count connections for each gate key: tenants do not share one,
// as gates of different operators do not.
func NewLanes(ctx context.Context, d *target.Dialer, count int, keys ...string) (*Lanes, error) {
	l := &Lanes{}
	for _, key := range keys {
		l.calls = append(l.calls, target.WithKey(ctx, key))
	}
	for range count * len(keys) {
		conn, err := d.Dial()
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.conns = append(l.conns, conn)
	}
	return l, nil
}

// Close ends the connections.
func (l *Lanes) Close() error {
	var errs []error
	for _, c := range l.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Call implements Caller. ctx gives the deadline only.
func (l *Lanes) Call(ctx context.Context, lane, tenant int, r *target.Request) Reply {
	each := len(l.conns) / len(l.calls)
	conn := l.conns[tenant*each+lane%each]
	call := l.calls[tenant]
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		call, cancel = context.WithDeadline(call, deadline)
		defer cancel()
	}
	var a answer
	err := conn.Invoke(call, r.Method, r, &a, grpc.ForceCodecV2(codec{}), grpc.StaticMethod())
	if err != nil {
		return Reply{Code: status.Code(err)}
	}
	return Reply{Outcome: a.outcome}
}

// answer is what is read of one.
type answer struct{ outcome pb.Outcome }

// codec sends a request's bytes as they are, and reads of an answer only the
// outcome of its first decision. It goes by the name of the protobuf codec,
// since that is what the bytes are.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	r, ok := v.(*target.Request)
	if !ok {
		return nil, fmt.Errorf("load: %T is not a request", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(r.Body)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	a, ok := v.(*answer)
	if !ok {
		return fmt.Errorf("load: %T is not an answer", v)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	a.outcome = outcomeOf(buffer.ReadOnlyData())
	return nil
}

// outcomeOf reads VerifyResponse.decision.outcome; the answer to an Identify has
// the same numbers: IdentifyResponse.results[0].decision.outcome is one level
// deeper. OUTCOME_UNSPECIFIED where there is no decision.
func outcomeOf(message []byte) pb.Outcome {
	inner, ok := field(message, 1)
	for range 2 {
		if !ok {
			break
		}
		// A decision begins with its outcome, a result with its decision.
		number, kind, n := protowire.ConsumeTag(inner)
		if n > 0 && number == 1 && kind == protowire.VarintType {
			if value, n := protowire.ConsumeVarint(inner[n:]); n > 0 {
				return pb.Outcome(value)
			}
			break
		}
		inner, ok = field(inner, 1)
	}
	return pb.Outcome_OUTCOME_UNSPECIFIED
}

// field returns the first submessage of a number.
func field(message []byte, want protowire.Number) ([]byte, bool) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, false
		}
		message = message[n:]
		if number == want && kind == protowire.BytesType {
			value, n := protowire.ConsumeBytes(message)
			return value, n >= 0
		}
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return nil, false
		}
		message = message[n:]
	}
	return nil, false
}
