package rpc

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// TestTour goes the whole way once, through the API alone.
func TestTour(t *testing.T) {
	w := newWorld(t)
	ctx := w.ctx()
	admin := w.administer("admin")

	tenant, err := admin.CreateTenant(ctx, &pb.CreateTenantRequest{TenantId: "school", Tenant: &pb.Tenant{DisplayName: "第一中学"}})
	w.ok(err)
	if tenant.GetTenant().GetName() != "tenants/school" || tenant.GetTenant().GetDisplayName() != "第一中学" || tenant.GetTenant().GetCreateTime() == nil {
		t.Errorf("CreateTenant = %v", tenant)
	}
	made, err := admin.CreateCredential(ctx, &pb.CreateCredentialRequest{Parent: "tenants/school", Credential: &pb.Credential{Role: pb.Role_ROLE_TENANT_OPERATOR}})
	w.ok(err)
	w.keys["school operator"] = made.GetApiKey()
	scopes := w.scopes("school operator")
	opened, err := scopes.CreateScope(ctx, &pb.CreateScopeRequest{ScopeId: "canteen", Scope: w.settings()})
	w.ok(err)
	if s := opened.GetScope(); s.GetName() != "tenants/school/scopes/canteen" || s.GetState() != pb.ScopeState_SCOPE_STATE_ACTIVE ||
		s.GetModelId() != fakeModelID() || s.GetVerifyThreshold() != 0.6 || s.GetMaxTemplatesPerSubject() != 5 {
		t.Errorf("CreateScope = %v", s)
	}
	for name, role := range map[string]pb.Role{"school enroller": pb.Role_ROLE_ENROLLER, "school gate": pb.Role_ROLE_GATE} {
		made, err := w.administer("school operator").CreateCredential(ctx, &pb.CreateCredentialRequest{
			Credential: &pb.Credential{Role: role, Scopes: []string{"tenants/school/scopes/canteen"}},
		})
		w.ok(err)
		w.keys[name] = made.GetApiKey()
	}

	enrolled, err := w.enroll("school enroller").Enroll(ctx, w.enrollment("pupil-1", imageProbe(picture(t, 5, 0, 1)), cropOf(5, 1), vectorOf(5, 2)))
	w.ok(err)
	if s := enrolled.GetSubject(); s.GetName() != "tenants/school/scopes/canteen/subjects/pupil-1" || len(s.GetTemplates()) != 3 ||
		s.GetTemplates()[2].GetName() != s.GetName()+"/templates/3" || s.GetConsent().GetReference() != "form-17" ||
		s.GetExpireTime() == nil || len(enrolled.GetReports()) != 3 || enrolled.GetReports()[0].GetFace() == nil || enrolled.GetReports()[1].GetFace() != nil {
		t.Errorf("Enroll = %v", enrolled)
	}

	gate := w.match("school gate")
	for what, probe := range map[string]*pb.Probe{"image": imageProbe(picture(t, 5, 9, 1)), "crop": cropOf(5, 9), "embedding": vectorOf(5, 9)} {
		v, err := gate.Verify(ctx, &pb.VerifyRequest{Subject: "pupil-1", Probe: probe})
		w.ok(err)
		d := v.GetDecision()
		if d.GetOutcome() != pb.Outcome_OUTCOME_MATCH || d.GetSubject() != enrolled.GetSubject().GetName() || !strings.HasPrefix(d.GetTemplate(), d.GetSubject()+"/templates/") ||
			d.Score == nil || d.GetScore() < 0.6 || d.GetThreshold() != 0.6 || d.GetScope() != "tenants/school/scopes/canteen" || d.GetScopeEpoch() == 0 ||
			d.GetDecisionId() == "" || d.GetModelId() != fakeModelID() || d.GetDecideTime() == nil || (d.GetFace() != nil) != (what == "image") {
			t.Errorf("Verify by %s = %v", what, d)
		}
	}
	v, err := gate.Verify(ctx, &pb.VerifyRequest{Subject: "tenants/school/scopes/canteen/subjects/pupil-1", Probe: cropOf(6, 0)})
	w.ok(err)
	if d := v.GetDecision(); d.GetOutcome() != pb.Outcome_OUTCOME_NO_MATCH || d.GetSubject() != "" || d.GetTemplate() != "" || d.Score == nil {
		t.Errorf("Verify of a stranger = %v", d)
	}
	id, err := gate.Identify(ctx, &pb.IdentifyRequest{Probe: imageProbe(picture(t, 4, 9, 3)), FacePolicy: pb.FacePolicy_FACE_POLICY_EACH, MaxCandidates: 3})
	w.ok(err)
	if n := len(id.GetResults()); n != 3 {
		t.Fatalf("Identify of three faces gave %d results", n)
	}
	matches := 0
	for _, r := range id.GetResults() {
		if r.GetDecision().GetOutcome() == pb.Outcome_OUTCOME_MATCH {
			matches++
			if len(r.GetCandidates()) != 1 || r.GetCandidates()[0].GetSubject() != enrolled.GetSubject().GetName() {
				t.Errorf("candidates %v", r.GetCandidates())
			}
		}
	}
	if matches != 1 {
		t.Errorf("%d of three faces match, want 1", matches)
	}
	for what, data := range map[string][]byte{"no face": picture(t, 5, 0, 0), "two alike": picture(t, 5, 0, 2)} {
		id, err := gate.Identify(ctx, &pb.IdentifyRequest{Probe: imageProbe(data)})
		w.ok(err)
		if d := id.GetResults()[0].GetDecision(); d.GetOutcome() != pb.Outcome_OUTCOME_USE_ALTERNATIVE || d.GetAlternative() != "the staffed lane" || len(d.GetFindings()) == 0 || d.Score != nil {
			t.Errorf("%s: %v", what, d)
		}
	}

	updated, err := scopes.UpdateScope(ctx, &pb.UpdateScopeRequest{
		Scope:      &pb.Scope{Name: "tenants/school/scopes/canteen", VerifyThreshold: 0.99, Purpose: "something else"},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"verify_threshold"}},
	})
	w.ok(err)
	if s := updated.GetScope(); s.GetVerifyThreshold() != 0.99 || s.GetPurpose() != "entry to the fair" {
		t.Errorf("UpdateScope = %v", s)
	}
	v, err = gate.Verify(ctx, &pb.VerifyRequest{Subject: "pupil-1", Probe: cropOf(5, 9)})
	w.ok(err)
	if v.GetDecision().GetOutcome() != pb.Outcome_OUTCOME_NO_MATCH {
		t.Errorf("at a threshold of 0.99: %v", v)
	}

	name := &pb.SuspendScopeRequest{Name: "tenants/school/scopes/canteen"}
	_, err = scopes.SuspendScope(ctx, name)
	w.ok(err)
	_, err = gate.Identify(ctx, &pb.IdentifyRequest{Probe: cropOf(5, 9)})
	w.want("Identify in a suspended scope", err, codes.FailedPrecondition, "SCOPE_SUSPENDED")
	_, err = scopes.ResumeScope(ctx, &pb.ResumeScopeRequest{Name: name.GetName()})
	w.ok(err)
	_, err = gate.Identify(ctx, &pb.IdentifyRequest{Probe: cropOf(5, 9)})
	w.ok(err)

	revoked, err := scopes.RevokeScope(ctx, &pb.RevokeScopeRequest{Name: name.GetName()})
	w.ok(err)
	if revoked.GetSubjectsErased() != 1 || revoked.GetTemplatesErased() != 3 || revoked.GetScope().GetState() != pb.ScopeState_SCOPE_STATE_REVOKED || revoked.GetScope().GetRevokeTime() == nil {
		t.Errorf("RevokeScope = %v", revoked)
	}
	_, err = gate.Identify(ctx, &pb.IdentifyRequest{Probe: cropOf(5, 9)})
	w.want("Identify in a revoked scope", err, codes.FailedPrecondition, "SCOPE_REVOKED")
	_, err = gate.Verify(ctx, &pb.VerifyRequest{Subject: "pupil-1", Probe: cropOf(5, 9)})
	w.want("Verify in a revoked scope", err, codes.FailedPrecondition, "SCOPE_REVOKED")
	_, err = scopes.CreateScope(ctx, &pb.CreateScopeRequest{ScopeId: "canteen", Scope: w.settings()})
	w.want("the id of a revoked scope", err, codes.AlreadyExists, "SCOPE_ID_USED")
	again, err := scopes.RevokeScope(ctx, &pb.RevokeScopeRequest{Name: name.GetName()})
	w.ok(err)
	if again.GetTemplatesErased() != 3 {
		t.Errorf("RevokeScope again = %v", again)
	}
}

func TestErasure(t *testing.T) {
	w := newWorld(t)
	ctx, desk, gate := w.ctx(), w.enroll("enroller"), w.match("gate")
	first, err := desk.Enroll(ctx, w.enrollment("v-1", cropOf(1, 0), cropOf(1, 1)))
	w.ok(err)
	erased, err := desk.DeleteTemplate(ctx, &pb.DeleteTemplateRequest{Name: first.GetSubject().GetName() + "/templates/2"})
	w.ok(err)
	if erased.GetScopeEpoch() <= first.GetScopeEpoch() {
		t.Errorf("epoch %d after %d", erased.GetScopeEpoch(), first.GetScopeEpoch())
	}
	got, err := desk.GetSubject(ctx, &pb.GetSubjectRequest{Name: first.GetSubject().GetName()})
	w.ok(err)
	if n := len(got.GetSubject().GetTemplates()); n != 1 {
		t.Errorf("%d templates left, want 1", n)
	}
	gone, err := desk.DeleteSubject(ctx, &pb.DeleteSubjectRequest{Name: first.GetSubject().GetName()})
	w.ok(err)
	if gone.GetTemplatesErased() != 1 {
		t.Errorf("DeleteSubject = %v", gone)
	}
	second, err := desk.Enroll(ctx, w.enrollment("", cropOf(2, 0)))
	w.ok(err)
	if !strings.HasPrefix(second.GetSubject().GetName(), "tenants/fair/scopes/hall-a/subjects/") {
		t.Errorf("drawn name %q", second.GetSubject().GetName())
	}
	withdrawn, err := w.enroll("operator").WithdrawConsent(ctx, &pb.WithdrawConsentRequest{Name: second.GetSubject().GetName()})
	w.ok(err)
	if withdrawn.GetTemplatesErased() != 1 {
		t.Errorf("WithdrawConsent = %v", withdrawn)
	}
	for _, person := range []uint16{1, 2} {
		id, err := gate.Identify(ctx, &pb.IdentifyRequest{Probe: cropOf(person, 5)})
		w.ok(err)
		if d := id.GetResults()[0].GetDecision(); d.GetOutcome() != pb.Outcome_OUTCOME_NO_MATCH {
			t.Errorf("an erased subject: %v", d)
		}
	}
	_, err = desk.GetSubject(ctx, &pb.GetSubjectRequest{Name: first.GetSubject().GetName()})
	w.want("GetSubject of an erased one", err, codes.NotFound, "SUBJECT_NOT_FOUND")
}

// Not enrolled is answered like a face that does not match.
func TestVerifyTellsNotWhoIsEnrolled(t *testing.T) {
	w := newWorld(t)
	ctx := w.ctx()
	_, err := w.enroll("enroller").Enroll(ctx, w.enrollment("v-1", cropOf(1, 0)))
	w.ok(err)
	for _, subject := range []string{"v-1", "nobody-by-this-name"} {
		v, err := w.match("gate").Verify(ctx, &pb.VerifyRequest{Subject: subject, Probe: cropOf(99, 0)})
		w.ok(err)
		d := v.GetDecision()
		if d.GetOutcome() != pb.Outcome_OUTCOME_NO_MATCH || d.Score == nil || d.GetScore() > 0.5 || d.GetSubject() != "" || d.GetTemplate() != "" {
			t.Errorf("%s: %v", subject, d)
		}
	}
}

func TestServerInfoAndHealth(t *testing.T) {
	w := newWorld(t)
	info, err := w.administer("gate").GetServerInfo(w.ctx(), &pb.GetServerInfoRequest{})
	w.ok(err)
	if info.GetVersion() != "test" || !info.GetEvaluation() || len(info.GetModels()) != 1 || info.GetModels()[0].GetDimension() != testDim ||
		info.GetLimits().GetMaxMessageBytes() != DefaultMaxMessage || info.GetLimits().GetMaxCandidates() != 100 || info.GetLimits().GetMaxFaces() == 0 {
		t.Errorf("GetServerInfo = %v", info)
	}
	health := grpc_health_v1.NewHealthClient(w.as("")) // without a key
	for _, service := range []string{"", "menshen.v1.MatchService"} {
		h, err := health.Check(w.ctx(), &grpc_health_v1.HealthCheckRequest{Service: service})
		w.ok(err)
		if h.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v", service, h.GetStatus())
		}
	}
	w.server.SetWritable(false)
	for service, want := range map[string]grpc_health_v1.HealthCheckResponse_ServingStatus{
		"": grpc_health_v1.HealthCheckResponse_SERVING, "menshen.v1.MatchService": grpc_health_v1.HealthCheckResponse_SERVING,
		"menshen.v1.EnrollmentService": grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		if h, err := health.Check(w.ctx(), &grpc_health_v1.HealthCheckRequest{Service: service}); err != nil || h.GetStatus() != want {
			t.Errorf("health of %q while nothing can be written: %v, %v", service, h, err)
		}
	}
	w.server.SetWritable(true)
	w.server.Condemn()
	w.server.SetWritable(true)
	for _, service := range []string{"", "menshen.v1.MatchService", "menshen.v1.EnrollmentService"} {
		if h, err := health.Check(w.ctx(), &grpc_health_v1.HealthCheckRequest{Service: service}); err != nil || h.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
			t.Errorf("health of %q after the alarm: %v, %v", service, h, err)
		}
	}
}

func TestHealthOfALeavingServer(t *testing.T) {
	w := newWorld(t)
	health := grpc_health_v1.NewHealthClient(w.as(""))
	w.server.Leave(w.ctx(), time.Millisecond)
	if h, err := health.Check(w.ctx(), &grpc_health_v1.HealthCheckRequest{}); err != nil || h.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health of a server that leaves: %v, %v", h, err)
	}
}
