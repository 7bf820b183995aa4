package rpc

import (
	"context"
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// An answer that was computed before its scope or its subject ended, and waits
// for a client that does not read, does not leave as a match.
func TestWaitingAnswersAreFencedAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		end    func(w *world) error
		reason string
	}{
		"revoked": {func(w *world) error {
			_, err := pb.NewScopeServiceClient(w.as("operator")).RevokeScope(w.ctx(), &pb.RevokeScopeRequest{Name: "tenants/fair/scopes/hall-a"})
			return err
		}, "SCOPE_REVOKED"},
		"suspended": {func(w *world) error {
			_, err := pb.NewScopeServiceClient(w.as("operator")).SuspendScope(w.ctx(), &pb.SuspendScopeRequest{Name: "tenants/fair/scopes/hall-a"})
			return err
		}, "SCOPE_SUSPENDED"},
		"withdrawn": {func(w *world) error {
			_, err := w.enroll("enroller").WithdrawConsent(w.ctx(), &pb.WithdrawConsentRequest{Name: "tenants/fair/scopes/hall-a/subjects/v-1"})
			return err
		}, "OVERTAKEN"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment("v-1", vectorOf(1, 0)))
			w.ok(err)
			caller, err := w.authority.Authenticate(w.keys["gate"])
			w.ok(err)
			svc := &service{matcher: w.matcher, authority: w.authority, journal: w.server.journal}
			c := call{method: pb.MatchService_MatchStream_FullMethodName, row: w.server.policy[pb.MatchService_MatchStream_FullMethodName], caller: caller}
			items := []*pb.MatchStreamRequest{verifyItem(1, "v-1", vectorOf(1, 1)), identifyItem(2, vectorOf(1, 2))}
			var seals []func() *departure
			for _, item := range items {
				if got := taken(svc.answer(context.Background(), c, item)()); got.GetError() != nil {
					t.Fatalf("before the end: %v", got.GetError())
				}
				seals = append(seals, svc.answer(context.Background(), c, item))
			}
			w.ok(tc.end(w))
			for _, seal := range seals {
				if got := taken(seal()); got.GetError().GetReason() != tc.reason {
					t.Errorf("after the end: %v, want %s", got, tc.reason)
				}
			}
		})
	}
}

// taken is the message of an answer that the transport has taken.
func taken(d *departure) *pb.MatchStreamResponse {
	d.passage.End()
	return d.message.(*pb.MatchStreamResponse)
}

// Somebody who watches the health does not hold the shutdown up.
func TestDrainEndsWatches(t *testing.T) {
	w := newWorld(t)
	watch, err := grpc_health_v1.NewHealthClient(w.dial()).Watch(w.ctx(), &grpc_health_v1.HealthCheckRequest{})
	w.ok(err)
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w.server.Drain(ctx)
	if ctx.Err() != nil {
		t.Error("Drain waited for the watch")
	}
}
