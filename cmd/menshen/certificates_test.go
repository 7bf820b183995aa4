package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/menshen-io/menshen/cmd/menshen/internal/client"
	"github.com/menshen-io/menshen/cmd/menshen/internal/transport/transporttest"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// TestAuthorityIsRemovedUnderOpenStreams takes the authority of a gate out of a
// running server's file: its stream ends, its calls are refused and its connection
// is closed, while a gate of another authority goes on; when it is put back, the
// gate gets in again. Then the other gate's credential is revoked.
func TestAuthorityIsRemovedUnderOpenStreams(t *testing.T) {
	v := newVictim(t, runtimeLibrary(t))
	t.Cleanup(v.disconnect)
	certs := filepath.Join(v.dir, "certs")
	path := func(name string) string { return filepath.Join(certs, name) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(transporttest.WriteAll(certs))
	gates, err := transporttest.Issuer{}.Authority("gates")
	check(err)
	north, err := gates.Issue("north", transporttest.URIs("spiffe://acme.example/north"))
	check(err)
	check(north.Write(certs, "north"))
	ca, err := os.ReadFile(path("ca.pem"))
	check(err)
	accept := func(bundle ...[]byte) {
		t.Helper()
		check(os.WriteFile(path("clients.new"), bytes.Join(bundle, nil), 0o600))
		check(os.Rename(path("clients.new"), path("clients.pem")))
	}
	accept(ca, gates.PEM())
	v.secure, err = credentials.NewClientTLSFromFile(path("ca.pem"), "gate.example")
	check(err)
	v.extra = []string{"--tls-cert", path("server.pem"), "--tls-key", path("server.key"), "--tls-client-ca", path("clients.pem"), "--tls-client-auth", "either"}
	v.start()
	v.setUp()

	admin := menshenv1.NewAdminServiceClient(v.conns[menshenv1.Role_ROLE_PLATFORM_ADMIN])
	credential := map[string]string{}
	for name, id := range map[string]string{"gate": transporttest.GateID, "north": "spiffe://acme.example/north"} {
		made, err := admin.CreateCredential(t.Context(), &menshenv1.CreateCredentialRequest{Parent: "tenants/t", Credential: &menshenv1.Credential{
			Role: menshenv1.Role_ROLE_GATE, Scopes: []string{v.scope}, ClientCertificate: id}})
		check(err)
		if made.ApiKey != "" || made.Credential.ClientCertificate != id {
			t.Errorf("made %v", made)
		}
		credential[name] = made.Credential.Name
	}
	dial := func(name string) *grpc.ClientConn {
		t.Helper()
		opt := client.Options{Server: v.where, TLSCA: path("ca.pem"), TLSCert: path(name + ".pem"), TLSKey: path(name + ".key"), Timeout: 2 * time.Minute}
		conn, err := opt.Dial(strings.NewReader(""), os.Stderr)
		check(err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	ask := &menshenv1.MatchStreamRequest{Request: &menshenv1.MatchStreamRequest_Verify{Verify: &menshenv1.VerifyRequest{Subject: v.scope + "/subjects/x", Probe: v.face(v.dice)}}}
	open := func(conn *grpc.ClientConn) grpc.BidiStreamingClient[menshenv1.MatchStreamRequest, menshenv1.MatchStreamResponse] {
		t.Helper()
		stream, err := menshenv1.NewMatchServiceClient(conn).MatchStream(t.Context())
		check(err)
		check(stream.Send(ask))
		answer, err := stream.Recv()
		check(err)
		if answer.GetVerify().GetDecision().GetOutcome() != menshenv1.Outcome_OUTCOME_NO_MATCH {
			t.Fatalf("answered %v", answer)
		}
		return stream
	}
	reason := func(err error) string {
		t.Helper()
		if err == nil {
			t.Fatal("it was not refused")
		}
		return client.Explain(err).Reason
	}
	atNorth, atGate := dial("north"), dial("gate")
	northStream, gateStream := open(atNorth), open(atGate)

	accept(ca)
	check(v.cmd.Process.Signal(syscall.SIGHUP))
	_, err = northStream.Recv() // silent, and still told
	if got := reason(err); got != "CERTIFICATE_INVALID" {
		t.Errorf("the stream ended with %s: %v", got, err)
	}
	// On the connection from before, or on a new one once it is closed.
	_, err = menshenv1.NewMatchServiceClient(atNorth).Verify(t.Context(), ask.GetVerify())
	if failure := client.Explain(err); err == nil || failure.Reason != "CERTIFICATE_INVALID" && !strings.Contains(failure.Next, "does not accept the client certificate") {
		t.Errorf("a call: %v: %+v", err, failure)
	}
	check(gateStream.Send(ask))
	_, err = gateStream.Recv()
	check(err)

	// Put back without a signal: it is noticed.
	accept(ca, gates.PEM())
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		_, err := menshenv1.NewMatchServiceClient(dial("north")).Verify(t.Context(), ask.GetVerify())
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the authority is back, and its gate is not let in: %v", err)
		}
	}

	// A bundle that is broken changes nothing.
	accept(ca, gates.PEM()[:300])
	check(v.cmd.Process.Signal(syscall.SIGHUP))
	open(dial("north"))

	_, err = admin.RevokeCredential(t.Context(), &menshenv1.RevokeCredentialRequest{Name: credential["gate"]})
	check(err)
	_, err = gateStream.Recv()
	if got := reason(err); got != "CREDENTIAL_INVALID" {
		t.Errorf("the revoked gate's stream ended with %s: %v", got, err)
	}
	_, err = menshenv1.NewMatchServiceClient(atGate).Verify(t.Context(), ask.GetVerify())
	if got := reason(err); got != "CERTIFICATE_UNKNOWN" {
		t.Errorf("the revoked gate's call: %s: %v", got, err)
	}
	v.stop()
	if log := v.stderr.String(); !strings.Contains(log, "new certificates cannot be used") {
		t.Errorf("nothing was logged about the broken file:\n%s", log)
	}
}
