package rpc

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/menshen-io/menshen/matcher/auth"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// reach is a call that names something of a tenant, in one of the fields that
// can.
type reach struct {
	name string
	as   string // key of the tenant fair
	call func(ctx context.Context, conn clients, tenant, sc string) error
}

type clients struct {
	match  pb.MatchServiceClient
	enroll pb.EnrollmentServiceClient
	scopes pb.ScopeServiceClient
	admin  pb.AdminServiceClient
	audit  pb.AuditServiceClient
}

func reaches(w *world) []reach {
	sc := func(t, s string) string { return "tenants/" + t + "/scopes/" + s }
	return []reach{
		{"Verify.subject", "gate", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.match.Verify(ctx, &pb.VerifyRequest{Subject: sc(t, s) + "/subjects/v-1", Probe: cropOf(1, 1)})
			return err
		}},
		{"Identify.scope", "gate", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.match.Identify(ctx, &pb.IdentifyRequest{Scope: sc(t, s), Probe: cropOf(1, 1)})
			return err
		}},
		{"GetScope.name by a gate", "gate", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.scopes.GetScope(ctx, &pb.GetScopeRequest{Name: sc(t, s)})
			return err
		}},
		{"GetNotice.name by a gate", "gate", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.scopes.GetNotice(ctx, &pb.GetNoticeRequest{Name: sc(t, s)})
			return err
		}},
		{"GetNotice.name", "operator", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.scopes.GetNotice(ctx, &pb.GetNoticeRequest{Name: sc(t, s), Language: "zh"})
			return err
		}},
		{"Enroll.parent", "enroller", func(ctx context.Context, c clients, t, s string) error {
			req := w.enrollment("v-2", cropOf(2, 0))
			req.Parent = sc(t, s)
			_, err := c.enroll.Enroll(ctx, req)
			return err
		}},
		{"GetSubject.name", "enroller", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.enroll.GetSubject(ctx, &pb.GetSubjectRequest{Name: sc(t, s) + "/subjects/v-1"})
			return err
		}},
		{"ListSubjects.parent", "enroller", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.enroll.ListSubjects(ctx, &pb.ListSubjectsRequest{Parent: sc(t, s)})
			return err
		}},
		{"DeleteTemplate.name", "enroller", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.enroll.DeleteTemplate(ctx, &pb.DeleteTemplateRequest{Name: sc(t, s) + "/subjects/v-1/templates/1"})
			return err
		}},
		{"DeleteSubject.name", "enroller", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.enroll.DeleteSubject(ctx, &pb.DeleteSubjectRequest{Name: sc(t, s) + "/subjects/v-1"})
			return err
		}},
		{"WithdrawConsent.name", "enroller", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.enroll.WithdrawConsent(ctx, &pb.WithdrawConsentRequest{Name: sc(t, s) + "/subjects/v-1"})
			return err
		}},
		{"ListSubjects.parent by an auditor", "auditor", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.enroll.ListSubjects(ctx, &pb.ListSubjectsRequest{Parent: sc(t, s)})
			return err
		}},
		{"DeleteSubject.name by an operator", "operator", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.enroll.DeleteSubject(ctx, &pb.DeleteSubjectRequest{Name: sc(t, s) + "/subjects/v-1"})
			return err
		}},
		{"CreateScope.parent", "operator", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.scopes.CreateScope(ctx, &pb.CreateScopeRequest{Parent: "tenants/" + t, ScopeId: s, Scope: w.settings()})
			return err
		}},
		{"GetScope.name", "operator", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.scopes.GetScope(ctx, &pb.GetScopeRequest{Name: sc(t, s)})
			return err
		}},
		{"ListScopes.parent", "operator", func(ctx context.Context, c clients, t, _ string) error {
			_, err := c.scopes.ListScopes(ctx, &pb.ListScopesRequest{Parent: "tenants/" + t})
			return err
		}},
		{"ListScopes.parent by a gate", "gate", func(ctx context.Context, c clients, t, _ string) error {
			_, err := c.scopes.ListScopes(ctx, &pb.ListScopesRequest{Parent: "tenants/" + t})
			return err
		}},
		{"UpdateScope.scope.name", "operator", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.scopes.UpdateScope(ctx, &pb.UpdateScopeRequest{
				Scope: &pb.Scope{Name: sc(t, s), Alternative: "none"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"alternative"}},
			})
			return err
		}},
		{"SuspendScope.name", "operator", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.scopes.SuspendScope(ctx, &pb.SuspendScopeRequest{Name: sc(t, s)})
			return err
		}},
		{"ResumeScope.name", "operator", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.scopes.ResumeScope(ctx, &pb.ResumeScopeRequest{Name: sc(t, s)})
			return err
		}},
		{"RevokeScope.name", "operator", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.scopes.RevokeScope(ctx, &pb.RevokeScopeRequest{Name: sc(t, s)})
			return err
		}},
		{"ListEvents.parent", "auditor", func(ctx context.Context, c clients, t, _ string) error {
			_, err := c.audit.ListEvents(ctx, &pb.ListEventsRequest{Parent: "tenants/" + t})
			return err
		}},
		{"ListEvents.parent of decisions", "operator", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.audit.ListEvents(ctx, &pb.ListEventsRequest{Parent: sc(t, s)})
			return err
		}},
		{"ListEvents.scope", "auditor", func(ctx context.Context, c clients, t, s string) error {
			_, err := c.audit.ListEvents(ctx, &pb.ListEventsRequest{Scope: sc(t, s)})
			return err
		}},
		{"ListEvents.parent by the platform", "admin", func(ctx context.Context, c clients, t, _ string) error {
			_, err := c.audit.ListEvents(ctx, &pb.ListEventsRequest{Parent: "tenants/" + t})
			return err
		}},
		{"WatchEvents.parent", "auditor", func(ctx context.Context, c clients, t, s string) error {
			stream, err := c.audit.WatchEvents(ctx, &pb.WatchEventsRequest{Parent: sc(t, s)})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}},
		{"GetCheckpoint.parent", "auditor", func(ctx context.Context, c clients, t, _ string) error {
			_, err := c.audit.GetCheckpoint(ctx, &pb.GetCheckpointRequest{Parent: "tenants/" + t})
			return err
		}},
		{"GetTenant.name", "operator", func(ctx context.Context, c clients, t, _ string) error {
			_, err := c.admin.GetTenant(ctx, &pb.GetTenantRequest{Name: "tenants/" + t})
			return err
		}},
		{"ListCredentials.parent", "operator", func(ctx context.Context, c clients, t, _ string) error {
			_, err := c.admin.ListCredentials(ctx, &pb.ListCredentialsRequest{Parent: "tenants/" + t})
			return err
		}},
		{"CreateCredential.parent", "operator", func(ctx context.Context, c clients, t, _ string) error {
			_, err := c.admin.CreateCredential(ctx, &pb.CreateCredentialRequest{Parent: "tenants/" + t, Credential: &pb.Credential{Role: pb.Role_ROLE_AUDITOR}})
			return err
		}},
		{"RevokeCredential.name", "operator", func(ctx context.Context, c clients, t, _ string) error {
			id := w.ids["gym gate"]
			if t != "gym" {
				id = "aaaaaaaaaaaaaaaa"
			}
			_, err := c.admin.RevokeCredential(ctx, &pb.RevokeCredentialRequest{Name: credentialName("gym", id)})
			return err
		}},
	}
}

// What is another tenant's, what is nobody's, and (for keys of single scopes)
// what is another scope's, is refused by the very same status, in every field
// that carries a name. Nothing of it happens, and no model runs.
func TestForeignAndUnknownAreRefusedAlike(t *testing.T) {
	w := newWorld(t)
	_, err := w.enroll("gym enroller").Enroll(w.ctx(), w.enrollment("v-1", cropOf(1, 0)))
	w.ok(err)
	req := w.enrollment("v-1", cropOf(1, 0))
	req.Parent = "tenants/fair/scopes/hall-b"
	_, err = w.enroll("both enroller").Enroll(w.ctx(), req)
	w.ok(err)
	before := w.picture()
	runs := w.models.runs.Load()
	for _, r := range reaches(w) {
		conn := w.as(r.as)
		c := clients{pb.NewMatchServiceClient(conn), pb.NewEnrollmentServiceClient(conn), pb.NewScopeServiceClient(conn), pb.NewAdminServiceClient(conn), pb.NewAuditServiceClient(conn)}
		var first *status.Status
		aims := [][2]string{{"gym", "north"}, {"gym", "nowhere"}, {"nobody", "north"}}
		if r.as == "gate" || r.as == "enroller" {
			aims = append(aims, [2]string{"fair", "hall-b"}, [2]string{"fair", "hall-z"})
		}
		for _, aim := range aims {
			if aim[0] == "fair" && r.name == "ListScopes.parent by a gate" {
				continue // its own tenant: lists its own scopes
			}
			err := r.call(w.ctx(), c, aim[0], aim[1])
			w.want(fmt.Sprintf("%s at %v", r.name, aim), err, codes.PermissionDenied, "NOT_COVERED")
			s := status.Convert(err)
			if first == nil {
				first = s
			}
			if !proto.Equal(s.Proto(), first.Proto()) {
				t.Errorf("%s tells %v from %v: %v and %v", r.name, aims[0], aim, first, s)
			}
		}
	}
	if after := w.picture(); after != before {
		t.Errorf("something happened:\n%s\nbefore:\n%s", after, before)
	}
	if n := w.models.runs.Load(); n != runs {
		t.Errorf("%d model runs for calls that were refused", n-runs)
	}
}

// picture is everything that the two tenants have, as text.
func (w *world) picture() (out string) {
	w.t.Helper()
	for _, prefix := range []string{"", "gym "} {
		list, err := w.scopes(prefix+"operator").ListScopes(w.ctx(), &pb.ListScopesRequest{ShowRevoked: true})
		w.ok(err)
		creds, err := w.administer(prefix+"operator").ListCredentials(w.ctx(), &pb.ListCredentialsRequest{})
		w.ok(err)
		for _, s := range list.GetScopes() {
			b, err := proto.MarshalOptions{Deterministic: true}.Marshal(s)
			w.ok(err)
			subjects, err := w.enroll(prefix+"auditor").ListSubjects(w.ctx(), &pb.ListSubjectsRequest{Parent: s.GetName()})
			w.ok(err)
			out += fmt.Sprintf("%s %x %d subjects\n", s.GetName(), b, len(subjects.GetSubjects()))
		}
		for _, c := range creds.GetCredentials() {
			out += fmt.Sprintf("%s revoked %v\n", c.GetName(), c.GetRevokeTime() != nil)
		}
	}
	return out
}

// On a stream each item is held to its own scope.
func TestStreamsReachNoForeignScope(t *testing.T) {
	w := newWorld(t)
	s, err := w.match("gate").MatchStream(w.ctx())
	w.ok(err)
	for i, item := range []*pb.MatchStreamRequest{
		{Request: &pb.MatchStreamRequest_Identify{Identify: &pb.IdentifyRequest{Scope: "tenants/gym/scopes/north", Probe: cropOf(1, 0)}}},
		{Request: &pb.MatchStreamRequest_Identify{Identify: &pb.IdentifyRequest{Scope: "tenants/fair/scopes/hall-b", Probe: cropOf(1, 0)}}},
		{Request: &pb.MatchStreamRequest_Verify{Verify: &pb.VerifyRequest{Subject: "tenants/gym/scopes/north/subjects/v-1", Probe: cropOf(1, 0)}}},
	} {
		item.SequenceId = uint64(i)
		w.ok(s.Send(item))
		got, err := s.Recv()
		w.ok(err)
		if e := got.GetError(); got.GetSequenceId() != uint64(i) || e.GetReason() != "NOT_COVERED" || codes.Code(e.GetCode()) != codes.PermissionDenied {
			t.Errorf("item %d: %v", i, got)
		}
	}
	b, err := w.enroll("enroller").BulkEnroll(w.ctx())
	w.ok(err)
	req := w.enrollment("v-9", cropOf(1, 0))
	req.Parent = "tenants/gym/scopes/north"
	w.ok(b.Send(&pb.BulkEnrollRequest{SequenceId: 3, Enroll: req}))
	got, err := b.Recv()
	w.ok(err)
	if got.GetSequenceId() != 3 || got.GetError().GetReason() != "NOT_COVERED" {
		t.Errorf("bulk: %v", got)
	}
	if w.models.runs.Load() != 0 {
		t.Error("a model ran for a foreign scope")
	}
}

// A key cannot make one that reaches further.
func TestCredentialsDoNotGrow(t *testing.T) {
	w := newWorld(t)
	operator := w.administer("operator")
	create := func(parent string, role pb.Role, scopes ...string) error {
		_, err := operator.CreateCredential(w.ctx(), &pb.CreateCredentialRequest{Parent: parent, Credential: &pb.Credential{Role: role, Scopes: scopes}})
		return err
	}
	w.want("platform admin", create("", pb.Role_ROLE_PLATFORM_ADMIN), codes.PermissionDenied, "NOT_COVERED")
	w.want("platform admin in its tenant", create("tenants/fair", pb.Role_ROLE_PLATFORM_ADMIN), codes.PermissionDenied, "NOT_COVERED")
	w.want("operator of another tenant", create("tenants/gym", pb.Role_ROLE_TENANT_OPERATOR), codes.PermissionDenied, "NOT_COVERED")
	there := create("", pb.Role_ROLE_GATE, "tenants/gym/scopes/north")
	w.want("gate of a foreign scope", there, bad, "INVALID_FIELD")
	notThere := create("", pb.Role_ROLE_GATE, "tenants/gym/scopes/nowhere")
	if !proto.Equal(status.Convert(there).Proto(), status.Convert(notThere).Proto()) {
		t.Errorf("a foreign scope that exists is told from one that does not: %v and %v", there, notThere)
	}
	w.ok(create("", pb.Role_ROLE_TENANT_OPERATOR))
	w.ok(create("tenants/fair", pb.Role_ROLE_GATE, "tenants/fair/scopes/hall-b"))
	_, err := w.administer("operator").RevokeCredential(w.ctx(), &pb.RevokeCredentialRequest{Name: credentialName("", w.ids["admin"])})
	w.want("revoking the platform admin", err, codes.PermissionDenied, "NOT_COVERED")
	platform, err := w.administer("operator").ListCredentials(w.ctx(), &pb.ListCredentialsRequest{})
	w.ok(err)
	for _, c := range platform.GetCredentials() {
		if c.GetRole() == pb.Role_ROLE_PLATFORM_ADMIN {
			t.Errorf("an operator sees %v", c)
		}
	}
}

// The platform's admin manages tenants and sees nothing of their scopes.
func TestAdminSeesNoScope(t *testing.T) {
	w := newWorld(t)
	_, err := w.scopes("admin").GetScope(w.ctx(), &pb.GetScopeRequest{Name: "tenants/fair/scopes/hall-a"})
	w.want("GetScope", err, codes.PermissionDenied, "ROLE_NOT_ALLOWED")
	if _, err := w.admin.Grant(scopeRef("fair", "hall-a"), auth.Gate.Uses()); err == nil {
		t.Error("an admin gets a grant")
	}
	creds, err := w.administer("admin").ListCredentials(w.ctx(), &pb.ListCredentialsRequest{Parent: "tenants/fair"})
	w.ok(err)
	if len(creds.GetCredentials()) != 6 {
		t.Errorf("%d credentials of fair, want 6", len(creds.GetCredentials()))
	}
}

// A gate reads the settings of its own scopes and lists those alone.
func TestGateSeesItsScopesOnly(t *testing.T) {
	w := newWorld(t)
	got, err := w.scopes("gate").GetScope(w.ctx(), &pb.GetScopeRequest{})
	w.ok(err)
	if got.GetScope().GetName() != "tenants/fair/scopes/hall-a" || got.GetScope().GetAlternative() == "" {
		t.Errorf("GetScope = %v", got)
	}
	for name, want := range map[string]int{"gate": 1, "both gate": 2, "auditor": 2, "gym gate": 1} {
		list, err := w.scopes(name).ListScopes(w.ctx(), &pb.ListScopesRequest{})
		w.ok(err)
		if len(list.GetScopes()) != want {
			t.Errorf("%s sees %d scopes, want %d", name, len(list.GetScopes()), want)
		}
	}
}
