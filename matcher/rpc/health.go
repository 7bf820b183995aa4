package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/menshen-io/menshen/matcher/admission"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// setHealth says of every service that it serves, of the server as a whole what
// the MatchService says.
func (s *Server) setHealth() {
	s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	for name := range s.grpc.GetServiceInfo() {
		s.health.SetServingStatus(name, grpc_health_v1.HealthCheckResponse_SERVING)
	}
}

// SetWritable tells whether the store can be written. While it cannot, the
// EnrollmentService is NOT_SERVING; matching goes on from memory, and so does
// the server as a whole.
func (s *Server) SetWritable(writable bool) {
	state := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if writable {
		state = grpc_health_v1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus(pb.EnrollmentService_ServiceDesc.ServiceName, state)
}

// Condemn turns health NOT_SERVING for good: only a restart makes it SERVING
// again. Calls are still answered, so that load balancers can move on in peace.
func (s *Server) Condemn() { s.health.Shutdown() }

// reportEvery is how often a busy server says so in its log.
const reportEvery = 10 * time.Second

// report logs what was refused and cut off, in sum, while there is any.
func (s *Server) report(ctx context.Context, limiter *admission.Limiter) {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	before, arrivedBefore, cutBefore := limiter.Stats(), s.arrivals.Stats(), s.stalls.cut.Load()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now, arrived, cut := limiter.Stats(), s.arrivals.Stats(), s.stalls.cut.Load()
		if now.Refused > before.Refused {
			s.journal.log.WarnContext(ctx, "busy: calls were refused", "refused", now.Refused-before.Refused, "admitted", now.Admitted-before.Admitted,
				"waiting", now.Waiting, "wait", now.Wait, "longest_wait", now.Bound, "probe_bytes", now.Bytes)
		}
		if stalled := arrived.Stalled - arrivedBefore.Stalled + cut - cutBefore; stalled > 0 {
			s.journal.log.WarnContext(ctx, "calls were cut off: their clients did not send or read", "calls", stalled)
		}
		refused, crowded := arrived.Refused-arrivedBefore.Refused, arrived.Crowded-arrivedBefore.Crowded
		if refused+crowded > 0 {
			s.journal.log.WarnContext(ctx, "too much was on its way: calls were refused or cut off", "refused", refused, "cut_off", crowded,
				"bytes", arrived.Held, "bound", arrived.Bound)
		}
		before, arrivedBefore, cutBefore = now, arrived, cut
	}
}

// Leave turns health NOT_SERVING and goes on serving for notice, so that load
// balancers look elsewhere before Drain.
func (s *Server) Leave(ctx context.Context, notice time.Duration) {
	s.health.Shutdown()
	select {
	case <-time.After(notice):
	case <-ctx.Done():
	}
}

// Drain ends the server: health turns NOT_SERVING, no new call is taken, calls
// in flight are finished, streams finish the items in flight and end with
// UNAVAILABLE. When ctx ends first, what is left is cut off. When Drain has
// returned, no handler runs any more.
func (s *Server) Drain(ctx context.Context) {
	s.drainOnce.Do(func() {
		s.health.Shutdown()
		close(s.draining)
	})
	cut := context.AfterFunc(ctx, s.grpc.Stop)
	defer cut()
	s.grpc.GracefulStop()
	s.stopWatching()
	s.watching.Wait()
}

// errWatchers: see maxWatchers.
var errWatchers = errors.New("too many callers watch the server's health: ask with Check")

// maxWatchers bounds the health watches at a time. They need no credential.
const maxWatchers = 256

// enterWatch counts a health watch; leave gives its place back.
func (s *Server) enterWatch() (leave func(), err error) {
	if s.watchers.Add(1) > maxWatchers {
		s.watchers.Add(-1)
		return nil, errWatchers
	}
	return func() { s.watchers.Add(-1) }, nil
}
