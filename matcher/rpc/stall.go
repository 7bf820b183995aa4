package rpc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/menshen-io/menshen/matcher/rpc/arrive"
)

// stalls cuts off streams whose client does not take an answer. Messages that
// do not come are the matter of package arrive.
type stalls struct {
	limit time.Duration

	mu      sync.Mutex
	streams map[*watchedStream]struct{}
	tick    atomic.Int64 // looks taken so far
	cut     atomic.Int64 // calls cut off so far
}

func newStalls(limit time.Duration) *stalls {
	return &stalls{limit: limit, streams: make(map[*watchedStream]struct{})}
}

// looksPerLimit is how often stalls looks within its limit.
const looksPerLimit = 4

// run looks until ctx ends.
func (s *stalls) run(ctx context.Context) {
	ticker := time.NewTicker(s.limit / looksPerLimit)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.look()
		case <-ctx.Done():
			return
		}
	}
}

// look cuts off what has not moved for the limit.
func (s *stalls) look() {
	now := s.tick.Add(1)
	var old []*watchedStream
	s.mu.Lock()
	for w := range s.streams {
		if since := w.sending.Load(); since != 0 && now-since > looksPerLimit {
			w.sending.Store(0)
			old = append(old, w)
		}
	}
	s.mu.Unlock()
	for _, w := range old {
		s.cut.Add(1)
		cutOff(w.Context(), arrive.ErrStalled)
		w.arrival.Unread()
	}
}

// cutOff ends a call from outside of its handler, with why. gRPC's public
// interface has no way to end one stream of a connection; its stream type has
// this method, and a test notices when it is gone.
func cutOff(ctx context.Context, why error) {
	stream := grpc.ServerTransportStreamFromContext(ctx)
	if s, ok := stream.(interface{ WriteStatus(*status.Status) error }); ok {
		_ = s.WriteStatus(toStatus(why)) // the connection is gone: so is the call
	}
}

// handled makes the calls of a service's unary methods known to those who may
// cut them off.
func handled(desc *grpc.ServiceDesc) *grpc.ServiceDesc {
	out := *desc
	out.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		handle := m.Handler
		m.Handler = func(srv any, ctx context.Context, read func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			if arrival := arrivalOf(ctx); arrival != nil {
				arrival.Handle(ctx)
				defer arrival.End()
			}
			return handle(srv, ctx, read, interceptor)
		}
		out.Methods[i] = m
	}
	return &out
}

// arrivalOf is what has come of a call's messages; nil where nobody watches it.
func arrivalOf(ctx context.Context) *arrive.Call {
	a, _ := ctx.Value(arrivalKey{}).(*arrive.Call)
	return a
}

type arrivalKey struct{}

// watchedStream notes since when an answer waits for its client, and when its
// handler waits for a message.
type watchedStream struct {
	grpc.ServerStream
	arrival *arrive.Call // not nil
	tick    *atomic.Int64
	sending atomic.Int64 // the tick, plus one; 0 while nothing is sent
}

func (w *watchedStream) SendMsg(msg any) error {
	w.sending.Store(w.tick.Load() + 1)
	defer w.sending.Store(0)
	return w.ServerStream.SendMsg(msg)
}

func (w *watchedStream) RecvMsg(msg any) error {
	w.arrival.Reading()
	defer w.arrival.Taken()
	return w.ServerStream.RecvMsg(msg)
}

// open watches a stream until close.
func (s *stalls) open(stream grpc.ServerStream) *watchedStream {
	w := &watchedStream{ServerStream: stream, tick: &s.tick, arrival: arrivalOf(stream.Context())}
	if w.arrival == nil {
		w.arrival = new(arrive.Call)
	}
	w.arrival.Handle(stream.Context())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[w] = struct{}{}
	return w
}

func (s *stalls) close(w *watchedStream) {
	w.arrival.End()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, w)
}
