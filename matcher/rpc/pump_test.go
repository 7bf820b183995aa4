package rpc

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// fakeStream feeds a pump without a network.
type fakeStream struct {
	grpc.ServerStream
	ctx  context.Context
	in   chan *pb.MatchStreamRequest
	sent atomic.Int64
	busy atomic.Int32
	fail error

	overlap atomic.Bool // two sends ran at a time, which gRPC forbids
}

func (f *fakeStream) Context() context.Context { return f.ctx }

func (f *fakeStream) Recv() (*pb.MatchStreamRequest, error) {
	select {
	case r, ok := <-f.in:
		if !ok {
			return nil, io.EOF
		}
		return r, nil
	case <-f.ctx.Done():
		return nil, f.ctx.Err()
	}
}

func (f *fakeStream) Send(*pb.MatchStreamResponse) error {
	if f.busy.Add(1) != 1 {
		f.overlap.Store(true)
	}
	defer f.busy.Add(-1)
	time.Sleep(20 * time.Microsecond) // long enough for another to come
	if f.fail != nil {
		return f.fail
	}
	f.sent.Add(1)
	return nil
}

func TestPump(t *testing.T) {
	t.Run("no item is quick", func(t *testing.T) { testPump(t, nil, 5) })
	t.Run("some are", func(t *testing.T) {
		testPump(t, func(r *pb.MatchStreamRequest) bool { return r.GetSequenceId()%3 != 0 }, 5+1)
	})
	t.Run("all are", func(t *testing.T) { testPump(t, func(*pb.MatchStreamRequest) bool { return true }, 1) })
}

// testPump lets at most so many items be at work.
func testPump(t *testing.T, quick func(*pb.MatchStreamRequest) bool, atWork int64) {
	refused, broken := errors.New("refused"), errors.New("broken pipe")
	for _, tc := range []struct {
		name string
		ends func(f *fakeStream, cancel func(), drain chan struct{}, revoke *atomic.Bool)
		want error
		all  bool // answered
	}{
		{"client closes", func(f *fakeStream, _ func(), _ chan struct{}, _ *atomic.Bool) { close(f.in) }, nil, true},
		{"client goes", func(_ *fakeStream, cancel func(), _ chan struct{}, _ *atomic.Bool) { cancel() }, context.Canceled, false},
		{"drain", func(_ *fakeStream, _ func(), drain chan struct{}, _ *atomic.Bool) { close(drain) }, errDraining, false},
		{"revoked", func(f *fakeStream, _ func(), _ chan struct{}, revoke *atomic.Bool) {
			revoke.Store(true)
			go func() { // one more item, unless what was at work found out first
				select {
				case f.in <- identifyItem(0, nil):
				case <-f.ctx.Done():
				}
			}()
		}, refused, false},
		{"send fails", func(f *fakeStream, _ func(), _ chan struct{}, _ *atomic.Bool) {}, broken, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			f := &fakeStream{ctx: ctx, in: make(chan *pb.MatchStreamRequest)}
			if tc.want == broken {
				f.fail = broken
			}
			drain := make(chan struct{})
			var revoke atomic.Bool
			var working, most atomic.Int64
			p := &pump[*pb.MatchStreamRequest, *pb.MatchStreamResponse]{
				stream: f, width: 5, draining: drain, quick: quick,
				check: func() error {
					if revoke.Load() {
						return refused
					}
					return nil
				},
				answer: func(_ context.Context, r *pb.MatchStreamRequest) func() *pb.MatchStreamResponse {
					n := working.Add(1)
					defer working.Add(-1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
					return func() *pb.MatchStreamResponse { return &pb.MatchStreamResponse{SequenceId: r.GetSequenceId()} }
				},
			}
			end := make(chan error, 1)
			go func() { end <- p.run() }()
			const n = 200
			for i := range uint64(n) {
				select {
				case f.in <- identifyItem(i, nil):
				case err := <-end:
					end <- err
				}
				if len(end) > 0 {
					break
				}
			}
			if len(end) == 0 {
				tc.ends(f, cancel, drain, &revoke)
			}
			select {
			case err := <-end:
				if !errors.Is(err, tc.want) || tc.want == nil && err != nil {
					t.Errorf("run = %v, want %v", err, tc.want)
				}
			case <-time.After(patience):
				t.Fatal("run does not end")
			}
			if f.overlap.Load() {
				t.Error("two sends ran at a time")
			}
			if working.Load() != 0 || most.Load() > atWork {
				t.Errorf("%d still working, %d at most", working.Load(), most.Load())
			}
			if got := f.sent.Load(); tc.all && got != n || got > n {
				t.Errorf("%d answers", got)
			}
		})
	}
}
