package rpc

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/menshen-io/menshen/matcher/auth"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// Every method that the server answers has a row, and every row is a method.
func TestPolicyCoversTheServer(t *testing.T) {
	w := newWorld(t)
	served := map[string]bool{}
	for service, info := range w.server.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			served["/"+service+"/"+m.Name] = true
		}
	}
	for method := range served {
		if _, ok := w.server.policy[method]; !ok {
			t.Errorf("%s has no row in the policy table", method)
		}
	}
	for method := range w.server.policy {
		if !served[method] {
			t.Errorf("the policy row of %s is of no method", method)
		}
	}
	if len(served) < 26 {
		t.Errorf("only %d methods found", len(served))
	}
}

// The services of the API are all registered: the descriptors, not this
// package's list, say which there are.
func TestEveryServiceIsRegistered(t *testing.T) {
	w := newWorld(t)
	n := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("menshen.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			n++
			if name := string(f.Services().Get(i).FullName()); len(w.server.grpc.GetServiceInfo()[name].Methods) != f.Services().Get(i).Methods().Len() {
				t.Errorf("%s is not registered in full", name)
			}
		}
		return true
	})
	if n != 5 {
		t.Errorf("%d services in the descriptors, want 5", n)
	}
}

func TestPolicyRowsFitTheRoles(t *testing.T) {
	if err := newPolicy(true).check(); err != nil {
		t.Error(err)
	}
	for name, r := range map[string]row{
		"open with roles":      {open, of(auth.Gate), 0},
		"roles without level":  {anyone, 0, 0},
		"scoped without a use": {scoped, of(auth.Gate), 0},
		"use beyond the role":  {scoped, of(auth.Gate), auth.Enroller.Uses()},
		"anyone with a use":    {anyone, of(auth.Gate), auth.Gate.Uses()},
	} {
		if (policy{"/x/y": r}).check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// allowed says who may call what, written down a second time and by name, so
// that a slip in the table shows.
var allowed = map[string]string{
	"MatchService/Verify": "gate", "MatchService/Identify": "gate", "MatchService/MatchStream": "gate",
	"EnrollmentService/Enroll": "enroller", "EnrollmentService/BulkEnroll": "enroller",
	"EnrollmentService/GetSubject": "enroller operator auditor", "EnrollmentService/ListSubjects": "enroller operator auditor",
	"EnrollmentService/DeleteTemplate": "enroller operator", "EnrollmentService/DeleteSubject": "enroller operator",
	"EnrollmentService/WithdrawConsent": "enroller operator",
	"ScopeService/CreateScope":          "operator", "ScopeService/UpdateScope": "operator", "ScopeService/SuspendScope": "operator",
	"ScopeService/ResumeScope": "operator", "ScopeService/RevokeScope": "operator",
	"ScopeService/GetScope": "gate enroller operator auditor", "ScopeService/ListScopes": "gate enroller operator auditor",
	"ScopeService/GetNotice":  "gate enroller operator auditor",
	"AuditService/GetReceipt": "enroller operator auditor", "AuditService/ListReceipts": "enroller operator auditor",
	"AdminService/CreateTenant": "admin", "AdminService/ListTenants": "admin", "AdminService/GetTenant": "admin operator auditor",
	"AdminService/DeleteTenant":     "admin",
	"AdminService/CreateCredential": "admin operator", "AdminService/RevokeCredential": "admin operator",
	"AdminService/Backup":     "admin",
	"AuditService/ListEvents": "admin operator auditor", "AuditService/WatchEvents": "admin operator auditor", "AuditService/GetCheckpoint": "admin operator auditor",
	"AdminService/ListCredentials": "admin operator auditor", "AdminService/GetServerInfo": "admin operator auditor enroller gate",
}

// Every role calls every method, with an empty request: whoever may not is
// refused for that and nothing else, whoever may is not.
func TestRolesByMethods(t *testing.T) {
	w := newWorld(t)
	who := []string{"admin", "operator", "auditor", "enroller", "gate", ""}
	conns := map[string]*grpc.ClientConn{}
	for _, name := range who {
		conns[name] = w.as(name)
	}
	for _, short := range slices.Sorted(maps.Keys(allowed)) {
		method := "/menshen.v1." + short
		if _, ok := w.server.policy[method]; !ok {
			t.Errorf("%s is not in the policy", short)
		}
		for _, name := range who {
			err := callEmpty(w.ctx(), conns[name], method)
			code, why := reason(err)
			switch may := name != "" && slices.Contains(strings.Fields(allowed[short]), name); {
			case name == "":
				w.want(short+" without a key", err, codes.Unauthenticated, "CREDENTIAL_MISSING")
			case may && (code == codes.PermissionDenied || code == codes.Unauthenticated || code == codes.Unimplemented):
				t.Errorf("%s as %s: %v %s, want to be let in", short, name, code, why)
			case !may:
				w.want(short+" as "+name, err, codes.PermissionDenied, "ROLE_NOT_ALLOWED")
			}
		}
	}
	for method := range w.server.policy {
		if short, ours := strings.CutPrefix(method, "/menshen.v1."); ours && allowed[short] == "" {
			t.Errorf("%s is missing in this test's table", short)
		}
	}
	if w.models.runs.Load() != 0 {
		t.Error("a model ran for a call that was refused")
	}
}

// callEmpty calls a method of any kind with one empty message.
func callEmpty(ctx context.Context, conn *grpc.ClientConn, method string) error {
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	s, err := conn.NewStream(ctx, desc, method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(&emptypb.Empty{}); err != nil {
		return s.RecvMsg(&emptypb.Empty{})
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if method == pb.AuditService_WatchEvents_FullMethodName {
		if header, err := s.Header(); err == nil && header != nil {
			return nil // let in; it would go on for ever
		}
	}
	_, err = drainStream(func() (*emptypb.Empty, error) { m := &emptypb.Empty{}; return m, s.RecvMsg(m) })
	return err
}

// Names that are nearly those of a method open nothing.
func TestPathTricks(t *testing.T) {
	w := newWorld(t)
	for _, key := range []string{"admin", "gate", ""} {
		conn := w.as(key)
		for _, method := range []string{
			"/menshen.v1.MatchService/verify", "/menshen.v1.matchservice/Verify", "/MENSHEN.V1.MatchService/Verify",
			"/menshen.v1.MatchService/Verify/", "//menshen.v1.MatchService/Verify", "/menshen.v1.MatchService//Verify",
			"/menshen.v1.MatchService/../AdminService/CreateTenant", "/menshen.v1.MatchService/./Verify", "/menshen.v1.MatchService/%56erify",
			"/grpc.health.v1.Health/Check/../../menshen.v1.MatchService/Verify", "/menshen.v1.MatchService/Verify?x=1",
			"/menshen.v1.MatchService/Verify\x00", "/", "//", "/Verify", "/menshen.v1.MatchService/", "/menshen.v1/Verify", "/menshen.v1.MatchService/Nothing",
			"/grpc.channelz.v1.Channelz/GetServers", "/" + strings.Repeat("a", 8000),
		} {
			err := callEmpty(w.ctx(), conn, method)
			if code, why := reason(err); code == codes.OK || code == codes.PermissionDenied && why != "METHOD_NOT_ALLOWED" {
				t.Errorf("%.60q as %q: %v %q", method, key, code, why)
			}
		}
		// Without the slash gRPC itself refuses; the point is that it is refused.
		if err := callEmpty(w.ctx(), conn, "menshen.v1.MatchService/Verify"); err == nil {
			t.Error("a method name without its slash is let in")
		}
	}
}

func TestAuthorizationHeader(t *testing.T) {
	w := newWorld(t)
	key := w.keys["gate"]
	call := func(pairs ...string) error {
		ctx := metadata.NewOutgoingContext(w.ctx(), metadata.Pairs(pairs...))
		_, err := pb.NewAdminServiceClient(w.as("")).GetServerInfo(ctx, &pb.GetServerInfoRequest{})
		return err
	}
	for _, good := range []string{"Bearer " + key, "bearer " + key, "BEARER " + key} {
		w.ok(call("authorization", good))
	}
	w.ok(call("AUTHORIZATION", "Bearer "+key)) // header names have no case
	for _, tc := range []struct {
		name  string
		pairs []string
		why   string
	}{
		{"none", nil, "CREDENTIAL_MISSING"},
		{"two equal", []string{"authorization", "Bearer " + key, "authorization", "Bearer " + key}, "CREDENTIAL_AMBIGUOUS"},
		{"good and bad", []string{"authorization", "Bearer " + key, "authorization", "Bearer nothing"}, "CREDENTIAL_AMBIGUOUS"},
		{"good and empty", []string{"authorization", "", "authorization", "Bearer " + key}, "CREDENTIAL_AMBIGUOUS"},
		{"other case twice", []string{"authorization", "Bearer " + key, "Authorization", "Bearer " + w.keys["admin"]}, "CREDENTIAL_AMBIGUOUS"},
		{"no scheme", []string{"authorization", key}, "CREDENTIAL_MALFORMED"},
		{"basic", []string{"authorization", "Basic " + key}, "CREDENTIAL_MALFORMED"},
		{"empty", []string{"authorization", ""}, "CREDENTIAL_MALFORMED"},
		{"two spaces", []string{"authorization", "Bearer  " + key}, "CREDENTIAL_INVALID"},
		{"two keys in one", []string{"authorization", "Bearer " + key + ", Bearer " + key}, "CREDENTIAL_INVALID"},
		{"binary header", []string{"authorization-bin", "Bearer " + key}, "CREDENTIAL_MISSING"},
		{"other header", []string{"x-api-key", key}, "CREDENTIAL_MISSING"},
		{"wrong key", []string{"authorization", "Bearer mk_aaaaaaaaaaaaaaaa_" + strings.Repeat("A", 43)}, "CREDENTIAL_INVALID"},
	} {
		w.want(tc.name, call(tc.pairs...), codes.Unauthenticated, tc.why)
	}
	if err := call("authorization", "Bearer "+key, "x-filler", strings.Repeat("x", 64<<10)); err == nil {
		t.Error("64 KiB of headers are let in")
	}
}

// A key that was revoked while a call's message was still on its way is refused.
func TestRevokedBetweenHeadersAndMessage(t *testing.T) {
	w := newWorld(t)
	ctx := w.ctx()
	s, err := w.as("gate").NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, pb.MatchService_Identify_FullMethodName)
	w.ok(err)
	if _, err := w.as("operator").NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, pb.ScopeService_GetScope_FullMethodName); err != nil {
		t.Fatal(err)
	}
	_, err = w.administer("admin").RevokeCredential(ctx, &pb.RevokeCredentialRequest{Name: credentialName("fair", w.ids["gate"])})
	w.ok(err)
	_ = s.SendMsg(&pb.IdentifyRequest{Probe: cropOf(1, 0)}) // RecvMsg tells how the call ended
	w.ok(s.CloseSend())
	w.want("Identify", s.RecvMsg(&pb.IdentifyResponse{}), codes.Unauthenticated, "CREDENTIAL_INVALID")
	if w.models.runs.Load() != 0 {
		t.Error("a model ran for a revoked key")
	}
}

func TestReflectionNeedsAKeyUnlessOpen(t *testing.T) {
	const method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	closed := newWorld(t)
	closed.want("without a key", callEmpty(closed.ctx(), closed.as(""), method), codes.Unauthenticated, "CREDENTIAL_MISSING")
	if code, _ := reason(callEmpty(closed.ctx(), closed.as("auditor"), method)); code == codes.Unauthenticated || code == codes.PermissionDenied {
		t.Errorf("with a key: %v", code)
	}
	opened := newWorld(t, func(o *Options) { o.OpenReflection = true })
	if code, _ := reason(callEmpty(opened.ctx(), opened.as(""), method)); code == codes.Unauthenticated || code == codes.PermissionDenied {
		t.Errorf("open, without a key: %v", code)
	}
}

// A context without an admitted call, as a handler would see if the tap were
// lost, may do nothing.
func TestNothingWithoutAdmission(t *testing.T) {
	w := newWorld(t)
	a := &admittance{policy: w.server.policy, authority: w.authority, limiter: w.matcher.Admission(), acts: w.server.acts}
	for method := range w.server.policy {
		if a.present(context.Background(), method) == nil {
			t.Errorf("%s passes without having been admitted", method)
		}
	}
	header := metadata.Pairs("authorization", "Bearer "+w.keys["gate"])
	ctx, err := a.admit(context.Background(), pb.MatchService_Verify_FullMethodName, header)
	w.ok(err)
	if a.present(ctx, pb.MatchService_Identify_FullMethodName) == nil {
		t.Error("a call admitted as Verify passes as Identify")
	}
	if _, err := (call{}).grant(scopeRef("fair", "hall-a")); err == nil {
		t.Error("the zero call mints a grant")
	}
	c := callOf(ctx)
	if _, err := c.grantFor(scopeRef("fair", "hall-a"), auth.Gate.Uses()); err == nil {
		t.Error("a Verify call mints a grant for more than verify")
	}
}

// What does not parse, or is too large, is refused by gRPC itself before any
// handler sees it, and the connection goes on.
func TestMalformedMessage(t *testing.T) {
	w := newWorld(t)
	conn := w.as("gate")
	for name, raw := range map[string]protoreflect.RawFields{
		"a string of 4 GiB that is not there": {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, "not UTF-8": {0x0a, 0x02, 0xff, 0xfe},
	} {
		bad := dynamicpb.NewMessage((&pb.VerifyRequest{}).ProtoReflect().Descriptor())
		bad.SetUnknown(raw)
		err := conn.Invoke(w.ctx(), pb.MatchService_Verify_FullMethodName, bad, &pb.VerifyResponse{})
		if err == nil || !strings.Contains(err.Error(), "unmarshal") {
			t.Errorf("%s: %v", name, err)
		}
		s, err := conn.NewStream(w.ctx(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, pb.MatchService_MatchStream_FullMethodName)
		w.ok(err)
		w.ok(s.SendMsg(bad))
		if err := s.RecvMsg(&pb.MatchStreamResponse{}); err == nil { // an error's place, or the stream's end
			_ = s.CloseSend()
		} else if !strings.Contains(err.Error(), "unmarshal") {
			t.Errorf("%s on a stream: %v", name, err)
		}
	}
	_, err := pb.NewMatchServiceClient(conn).Identify(w.ctx(), &pb.IdentifyRequest{Probe: cropOf(1, 0)})
	w.ok(err)
}

func TestOversizedMessage(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.MaxMessageBytes = 1 << 20 })
	_, err := w.match("gate").Identify(w.ctx(), &pb.IdentifyRequest{Probe: imageProbe(make([]byte, 1<<20+100))})
	if code, _ := reason(err); code != codes.ResourceExhausted || !strings.Contains(err.Error(), "1048576") {
		t.Errorf("%v, want RESOURCE_EXHAUSTED with the limit", err)
	}
	_, err = w.match("gate").Identify(w.ctx(), &pb.IdentifyRequest{Probe: cropOf(1, 0)})
	w.ok(err)
}

// Refusals are logged, but not as many as somebody likes to provoke.
func TestRefusalsAreLoggedWithinBounds(t *testing.T) {
	w := newWorld(t)
	conn, began := w.as(""), time.Now()
	for range 200 {
		_ = callEmpty(w.ctx(), conn, pb.MatchService_Verify_FullMethodName)
	}
	log := w.log.String()
	n := strings.Count(log, "call refused")
	if most := refusalsASecond * int(time.Since(began)/time.Second+2); n == 0 || n > most || !strings.Contains(log, "CREDENTIAL_MISSING") {
		t.Errorf("%d of 200 refusals are logged", n)
	}
}

// The log tells who called what and how it ended, and no key.
func TestLogHoldsNoKey(t *testing.T) {
	w := newWorld(t)
	_, err := w.match("gate").Identify(w.ctx(), &pb.IdentifyRequest{Probe: cropOf(1, 0)})
	w.ok(err)
	_, err = w.enroll("enroller").Enroll(w.ctx(), w.enrollment("v-77", cropOf(1, 0)))
	w.ok(err)
	w.keys["wrong"] = w.keys["gate"][:len(w.keys["gate"])-4] + "AAAA"
	_, err = w.match("wrong").Identify(w.ctx(), &pb.IdentifyRequest{})
	w.want("a wrong key", err, codes.Unauthenticated, "CREDENTIAL_INVALID")
	w.server.Drain(w.ctx()) // calls are logged after their answers
	log := w.log.String()
	for _, want := range []string{pb.MatchService_Identify_FullMethodName, string(w.ids["gate"]), "tenant=fair", "code=OK", "CREDENTIAL_INVALID"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not hold %q", want)
		}
	}
	for name, key := range w.keys {
		if strings.Contains(log, key[len(key)-43:]) {
			t.Errorf("the log holds the secret of %s", name)
		}
	}
	if strings.Contains(log, "v-77") || strings.Contains(log, "form-17") {
		t.Error("the log holds what was in a request")
	}
}
