package rpc

import (
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/menshen-io/menshen/matcher/auth"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// shownCertificate is the certificate of every connection of a test.
type shownCertificate struct {
	credentials.CommonAuthInfo
	mu    sync.Mutex
	who   auth.Identity
	ended bool
}

func (*shownCertificate) AuthType() string { return "test" }

func (s *shownCertificate) Certificate() (auth.Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return "", auth.ErrCertificateEnded
	}
	return s.who, nil
}

func (s *shownCertificate) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

// handshake is a transport that shows the certificate without one.
type handshake struct {
	credentials.TransportCredentials
	shown *shownCertificate
}

func (h handshake) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, h.shown, nil
}
func (h handshake) Clone() credentials.TransportCredentials { return h }
func (h handshake) Info() credentials.ProtocolInfo          { return credentials.ProtocolInfo{} }

// newCertifiedWorld is a world whose connections show a certificate.
func newCertifiedWorld(t *testing.T) (*world, *shownCertificate) {
	shown := &shownCertificate{}
	w := newWorld(t, func(o *Options) { o.Credentials = handshake{shown: shown} })
	return w, shown
}

// A certificate that ends takes every call with it, those that need no credential
// and those whose credential is a key included, and streams that are open.
func TestEndedCertificateEndsCallsAndStreams(t *testing.T) {
	w, shown := newCertifiedWorld(t)
	_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment("v-1", cropOf(1, 0)))
	w.ok(err)
	gate := w.match("gate")
	match, err := gate.MatchStream(w.ctx())
	w.ok(err)
	item := &pb.MatchStreamRequest{SequenceId: 1, Request: &pb.MatchStreamRequest_Verify{Verify: &pb.VerifyRequest{Subject: "tenants/fair/scopes/hall-a/subjects/v-1", Probe: vectorOf(1, 1)}}}
	w.ok(match.Send(item))
	answer, err := match.Recv()
	w.ok(err)
	if answer.GetVerify().GetDecision().GetOutcome() != pb.Outcome_OUTCOME_MATCH {
		t.Fatalf("%v", answer)
	}
	bulk, err := w.enroll("enroller").BulkEnroll(w.ctx())
	w.ok(err)
	w.ok(bulk.Send(&pb.BulkEnrollRequest{}))
	_, err = bulk.Recv()
	w.ok(err)

	shown.end()
	_ = match.Send(item) // Recv tells how the stream ended, which may be before
	_, err = drainStream(match.Recv)
	w.want("an item of a MatchStream", err, codes.Unauthenticated, "CERTIFICATE_INVALID")
	_, err = drainStream(bulk.Recv) // silent: looked at every second
	w.want("a silent BulkEnroll", err, codes.Unauthenticated, "CERTIFICATE_INVALID")
	_, err = gate.Verify(w.ctx(), item.GetVerify())
	w.want("Verify", err, codes.Unauthenticated, "CERTIFICATE_INVALID")
	_, err = w.administer("admin").GetServerInfo(w.ctx(), &pb.GetServerInfoRequest{})
	w.want("GetServerInfo", err, codes.Unauthenticated, "CERTIFICATE_INVALID")
	_, err = grpc_health_v1.NewHealthClient(w.as("")).Check(w.ctx(), &grpc_health_v1.HealthCheckRequest{})
	w.want("Health.Check", err, codes.Unauthenticated, "CERTIFICATE_INVALID")
}

// Headers can come long before the message: what counts is the certificate when
// the message is there.
func TestCertificateEndsBeforeTheMessage(t *testing.T) {
	w, shown := newCertifiedWorld(t)
	desc := &grpc.StreamDesc{ClientStreams: true}
	call, err := w.as("gate").NewStream(w.ctx(), desc, pb.MatchService_Verify_FullMethodName)
	w.ok(err)
	for w.server.arrivals.Stats().Held == 0 { // until the headers are there
		w.ok(call.Context().Err())
		time.Sleep(time.Millisecond)
	}
	shown.end()
	w.ok(call.SendMsg(&pb.VerifyRequest{Probe: vectorOf(1, 0)}))
	w.ok(call.CloseSend())
	w.want("Verify", call.RecvMsg(&pb.VerifyResponse{}), codes.Unauthenticated, "CERTIFICATE_INVALID")
}
