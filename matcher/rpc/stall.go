package rpc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// stalls cuts calls off on which nothing moves: a request message that does not
// arrive, and an answer on a stream that the client does not take. A stream on
// which the client has nothing to say is left alone.
type stalls struct {
	limit time.Duration

	mu          sync.Mutex
	first, last *arrival // requests on their way, the oldest first
	streams     map[*watchedStream]struct{}
	tick        atomic.Int64 // looks taken so far
	cut         atomic.Int64 // calls cut off so far
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
	var old []func()
	s.mu.Lock()
	for a := s.first; a != nil && now-a.since > looksPerLimit; a = s.first {
		s.remove(a)
		old = append(old, a.cut)
	}
	for w := range s.streams {
		if since := w.sending.Load(); since != 0 && now-since > looksPerLimit {
			w.sending.Store(0)
			old = append(old, w.cut)
		}
	}
	s.mu.Unlock()
	for _, cut := range old {
		s.cut.Add(1)
		cut()
	}
}

// arrival is a request message on its way.
type arrival struct {
	ctx        context.Context
	since      int64 // the tick at which its headers were there
	prev, next *arrival
	here       bool
}

func (a *arrival) cut() { cutOff(a.ctx) }

// cutOff ends a call from outside of its handler, with errStalled. gRPC's public
// interface has no way to end one stream of a connection; its stream type has
// this method, and a test notices when it is gone.
func cutOff(ctx context.Context) {
	stream := grpc.ServerTransportStreamFromContext(ctx)
	if s, ok := stream.(interface{ WriteStatus(*status.Status) error }); ok {
		_ = s.WriteStatus(toStatus(errStalled)) // the connection is gone: so is the call
	}
}

type arrivalKey struct{}

// expect begins to wait for a call's message. Its place in the list is part of
// the call's context, so that it costs no allocation.
func (s *stalls) expect(ctx context.Context) *arrival {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	if !ok {
		a = new(arrival)
	}
	a.ctx, a.since = ctx, s.tick.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.prev = s.last; a.prev == nil {
		s.first = a
	} else {
		a.prev.next = a
	}
	s.last = a
	return a
}

// arrived ends the wait. It may be called again.
func (s *stalls) arrived(a *arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !a.here {
		s.remove(a)
	}
}

func (s *stalls) remove(a *arrival) {
	if a.prev == nil {
		s.first = a.next
	} else {
		a.prev.next = a.next
	}
	if a.next == nil {
		s.last = a.prev
	} else {
		a.next.prev = a.prev
	}
	a.prev, a.next, a.here = nil, nil, true
}

// watch waits for the messages of a service's unary methods until present, or
// the end of a call whose message did not come.
func (s *stalls) watch(desc *grpc.ServiceDesc) *grpc.ServiceDesc {
	watched := *desc
	watched.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		handle := m.Handler
		m.Handler = func(srv any, ctx context.Context, read func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			defer s.arrived(s.expect(ctx))
			return handle(srv, ctx, read, interceptor)
		}
		watched.Methods[i] = m
	}
	return &watched
}

// present notes that a call's message is there.
func (s *stalls) present(ctx context.Context) {
	if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok {
		s.arrived(a)
	}
}

// watchedStream notes since when an answer waits for its client.
type watchedStream struct {
	grpc.ServerStream
	tick    *atomic.Int64
	sending atomic.Int64 // the tick, plus one; 0 while nothing is sent
}

func (w *watchedStream) SendMsg(msg any) error {
	w.sending.Store(w.tick.Load() + 1)
	defer w.sending.Store(0)
	return w.ServerStream.SendMsg(msg)
}

func (w *watchedStream) cut() { cutOff(w.Context()) }

// open watches a stream until close.
func (s *stalls) open(stream grpc.ServerStream) *watchedStream {
	w := &watchedStream{ServerStream: stream, tick: &s.tick}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[w] = struct{}{}
	return w
}

func (s *stalls) close(w *watchedStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, w)
}
