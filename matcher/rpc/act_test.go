package rpc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/audit"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// A method changes something if and only if its requests, or the items of them,
// carry a request_id; each such method has its row, and no other has.
func TestEveryChangeIsADeed(t *testing.T) {
	repeatable := func(m protoreflect.MessageDescriptor) bool {
		return m.Fields().ByName("request_id") != nil
	}
	changes := map[string]bool{}
	protoregistry.GlobalFiles.RangeFilesByPackage("menshen.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				is := repeatable(m.Input())
				for k := range m.Input().Fields().Len() {
					if item := m.Input().Fields().Get(k).Message(); item != nil && repeatable(item) {
						is = true
					}
				}
				if is {
					changes[fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())] = true
				}
			}
		}
		return true
	})
	for method := range changes {
		if _, ok := deeds[method]; !ok {
			t.Errorf("%s changes something and is not written down: give it a row in deeds", method)
		}
	}
	for method := range deeds {
		if !changes[method] {
			t.Errorf("%s has a row in deeds, but its requests have no request_id", method)
		}
	}
	// What takes away a right or a template waits for no log; nothing else does.
	for method, d := range deeds {
		takes := false
		for _, word := range []string{"Delete", "Withdraw", "Revoke", "Suspend"} {
			takes = takes || strings.Contains(method, "/"+word)
		}
		if takes != d.urgent {
			t.Errorf("%s: urgent is %v", method, d.urgent)
		}
	}
}

// acts gives the acts that somebody sees, as lines.
func (w *world) acts(name string) (lines []string) {
	w.t.Helper()
	for token := ""; ; {
		got, err := w.events(name).ListEvents(w.ctx(), &pb.ListEventsRequest{PageSize: 7, PageToken: token})
		w.ok(err)
		for _, e := range got.GetEvents() {
			if a := e.GetAct(); a != nil {
				subject := ""
				if a.GetSubject() != "" {
					subject = " subject"
				}
				lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s %s%s", a.GetRole(), a.GetAction(), a.GetResource(), a.GetOutcome(), subject)))
			}
		}
		if token = got.GetNextPageToken(); token == "" {
			return lines
		}
	}
}

// wantActs compares the newest acts that somebody sees.
func (w *world) wantActs(name string, want ...string) {
	w.t.Helper()
	got := w.acts(name)
	if n := len(got) - len(want); n < 0 || strings.Join(got[n:], "\n") != strings.Join(want, "\n") {
		w.t.Errorf("%s sees\n%s\nand it should end with\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestActs makes every kind of change and reads the log.
func TestActs(t *testing.T) {
	w := newWorld(t)
	fair := "tenants/fair"
	hall := fair + "/scopes/hall-a"
	req := w.enrollment("visitor-1", cropOf(1, 0), cropOf(1, 1))
	req.RequestId = "request-1"
	_, err := w.enroll("enroller").Enroll(w.ctx(), req)
	w.ok(err)
	bulk, err := w.enroll("enroller").BulkEnroll(w.ctx())
	w.ok(err)
	w.ok(bulk.Send(&pb.BulkEnrollRequest{SequenceId: 1, Enroll: w.enrollment("visitor-2", cropOf(2, 0))}))
	_, err = bulk.Recv()
	w.ok(err)
	_, err = w.enroll("enroller").DeleteTemplate(w.ctx(), &pb.DeleteTemplateRequest{Name: hall + "/subjects/visitor-1/templates/1"})
	w.ok(err)
	_, err = w.enroll("operator").DeleteSubject(w.ctx(), &pb.DeleteSubjectRequest{Name: hall + "/subjects/visitor-1"})
	w.ok(err)
	_, err = w.enroll("operator").DeleteSubject(w.ctx(), &pb.DeleteSubjectRequest{Name: hall + "/subjects/visitor-1"})
	w.want("again", err, codes.NotFound, "SUBJECT_NOT_FOUND")
	_, err = w.enroll("operator").WithdrawConsent(w.ctx(), &pb.WithdrawConsentRequest{Name: hall + "/subjects/visitor-2"})
	w.ok(err)
	_, err = w.scopes("operator").UpdateScope(w.ctx(), &pb.UpdateScopeRequest{Scope: &pb.Scope{Name: hall, Alternative: "card"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"alternative"}}})
	w.ok(err)
	_, err = w.enroll("enroller").Enroll(w.ctx(), w.enrollment("!", cropOf(1, 0)))
	w.want("a malformed request is nobody's act", err, bad, "INVALID_FIELD")
	_, err = w.scopes("operator").SuspendScope(w.ctx(), &pb.SuspendScopeRequest{Name: hall})
	w.ok(err)
	_, err = w.scopes("operator").ResumeScope(w.ctx(), &pb.ResumeScopeRequest{Name: hall})
	w.ok(err)
	_, err = w.scopes("operator").RevokeScope(w.ctx(), &pb.RevokeScopeRequest{Name: hall})
	w.ok(err)
	made, err := w.administer("admin").CreateCredential(w.ctx(), &pb.CreateCredentialRequest{Parent: fair, Credential: &pb.Credential{Role: pb.Role_ROLE_AUDITOR}})
	w.ok(err)
	_, err = w.administer("operator").RevokeCredential(w.ctx(), &pb.RevokeCredentialRequest{Name: made.GetCredential().GetName()})
	w.ok(err)
	_, err = w.administer("admin").CreateTenant(w.ctx(), &pb.CreateTenantRequest{TenantId: "mall", Tenant: &pb.Tenant{}})
	w.ok(err)

	cred := made.GetCredential().GetName()
	w.wantActs("auditor",
		"ENROLLER Enroll "+hall+" OK subject", "ENROLLER Enroll "+hall+" OK subject",
		"ENROLLER DeleteTemplate "+hall+" OK subject", "TENANT_OPERATOR DeleteSubject "+hall+" OK subject",
		"TENANT_OPERATOR DeleteSubject "+hall+" SUBJECT_NOT_FOUND subject", "TENANT_OPERATOR WithdrawConsent "+hall+" OK subject",
		"TENANT_OPERATOR UpdateScope "+hall+" OK", "TENANT_OPERATOR SuspendScope "+hall+" OK", "TENANT_OPERATOR ResumeScope "+hall+" OK",
		"TENANT_OPERATOR RevokeScope "+hall+" OK", "PLATFORM_ADMIN CreateCredential "+cred+" OK", "TENANT_OPERATOR RevokeCredential "+cred+" OK")
	w.wantActs("admin", "PLATFORM_ADMIN CreateCredential "+cred+" OK", "PLATFORM_ADMIN CreateTenant tenants/mall OK")
	w.wantActs("gym auditor", "TENANT_OPERATOR CreateScope tenants/gym/scopes/north OK")

	got, err := w.events("auditor").ListEvents(w.ctx(), &pb.ListEventsRequest{PageSize: 1000})
	w.ok(err)
	if text := got.String(); strings.Contains(text, "visitor-1") || strings.Contains(text, "visitor-2") || !strings.Contains(text, "request-1") {
		t.Errorf("a subject's id stands in the log, or a request id does not: %s", text)
	}
}

// A call that repeats another changes nothing and is an act of its own; what was done
// is in the log before what is done next, which is written at once.
func TestRepeatedCallsAreActs(t *testing.T) {
	w := newWorld(t)
	hall := "tenants/fair/scopes/hall-a"
	req := w.enrollment("v-1", cropOf(1, 0))
	req.RequestId = "r-1"
	for range 2 {
		_, err := w.enroll("enroller").Enroll(w.ctx(), req)
		w.ok(err)
	}
	_, err := w.enroll("operator").DeleteSubject(w.ctx(), &pb.DeleteSubjectRequest{Name: hall + "/subjects/v-1"})
	w.ok(err)
	_, err = w.scopes("operator").RevokeScope(w.ctx(), &pb.RevokeScopeRequest{Name: hall})
	w.ok(err)
	w.wantActs("auditor", "ENROLLER Enroll "+hall+" OK subject", "ENROLLER Enroll "+hall+" OK subject",
		"TENANT_OPERATOR DeleteSubject "+hall+" OK subject", "TENANT_OPERATOR RevokeScope "+hall+" OK")
}

// TestRefusalsAreActs: what a credential may not do is written into its own tenant's
// log, whatever it named, so many times a minute.
func TestRefusalsAreActs(t *testing.T) {
	w := newWorld(t)
	before := len(w.acts("gym auditor"))
	_, err := w.scopes("gate").RevokeScope(w.ctx(), &pb.RevokeScopeRequest{Name: "tenants/gym/scopes/north"})
	w.want("by its role", err, codes.PermissionDenied, "ROLE_NOT_ALLOWED")
	_, err = w.scopes("operator").RevokeScope(w.ctx(), &pb.RevokeScopeRequest{Name: "tenants/gym/scopes/north"})
	w.want("by its tenant", err, codes.PermissionDenied, "NOT_COVERED")
	_, err = w.enroll("auditor").GetSubject(w.ctx(), &pb.GetSubjectRequest{Name: "tenants/gym/scopes/north/subjects/v-1"})
	w.want("reading", err, codes.PermissionDenied, "NOT_COVERED")
	_, err = w.match("gate").Identify(w.ctx(), &pb.IdentifyRequest{Scope: "tenants/fair/scopes/hall-b", Probe: cropOf(1, 1)})
	w.want("matching", err, codes.PermissionDenied, "NOT_COVERED")
	want := map[string]bool{
		"GATE RevokeScope ROLE_NOT_ALLOWED":                                true, // written by another goroutine: the order is open
		"TENANT_OPERATOR RevokeScope tenants/gym/scopes/north NOT_COVERED": true,
		"AUDITOR GetSubject tenants/gym/scopes/north NOT_COVERED":          true,
		"GATE Identify tenants/fair/scopes/hall-b NOT_COVERED":             true,
	}
	for end := time.Now().Add(patience); len(want) > 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, line := range w.acts("auditor") {
			line = strings.Join(strings.Fields(line), " ")
			delete(want, line)
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v in %v", want, w.acts("auditor"))
	}
	if n := len(w.acts("gym auditor")); n != before {
		t.Errorf("another tenant wrote %d acts into this one's log", n-before)
	}
}

// TestQuota: so many refusals of a credential and of a tenant are written in a
// minute; the others are counted and told with the next, or at the minute's end.
func TestQuota(t *testing.T) {
	var q quota
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	refusal := func(tenant, credential string) audit.Event {
		return audit.Event{Tenant: scope.TenantID(tenant), Credential: credential, Time: at}
	}
	written := 0
	for range 25 {
		if _, ok := q.take(refusal("fair", "a")); ok {
			written++
		}
	}
	for i := range 100 {
		if _, ok := q.take(refusal("fair", fmt.Sprint(i))); ok {
			written++
		}
	}
	// The refusal that found room told of the 15 before it.
	if written != tenantRefusalsAMinute {
		t.Errorf("%d were written, want %d", written, tenantRefusalsAMinute)
	}
	if _, ok := q.take(refusal("gym", "b")); !ok {
		t.Error("another tenant pays for it")
	}
	at = at.Add(time.Minute)
	e, ok := q.take(refusal("fair", "a"))
	if want := uint64(125 - tenantRefusalsAMinute - 15); !ok || e.Suppressed != want {
		t.Errorf("a minute later: %v, %d were left out before it, want %d", ok, e.Suppressed, want)
	}
	for range refusalsAMinute + 3 {
		q.take(refusal("fair", "a"))
	}
	left := q.left()
	if len(left) != 1 || left[0].Suppressed != 3 || len(q.left()) != 0 {
		t.Errorf("left are %+v", left)
	}
}

// TestFullDisk: with the audit log's disk nearly full nothing is changed, for a
// reason that is told; what takes away goes on and is written; matching goes on, but
// for the scope that demands records.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment("v-1", cropOf(1, 0)))
	w.ok(err)
	strict := w.settings()
	strict.DecisionAudit = pb.DecisionAudit_DECISION_AUDIT_REQUIRED
	_, err = w.scopes("operator").CreateScope(w.ctx(), &pb.CreateScopeRequest{ScopeId: "strict", Scope: strict})
	w.ok(err)
	w.credential("strict gate", 4, "fair", "strict")
	w.credential("strict enroller", 3, "fair", "strict")
	_, err = w.enroll("strict enroller").Enroll(w.ctx(), w.enrollment("v-1", cropOf(1, 0)))
	w.ok(err)

	w.room.Store(1 << 62)
	for what, call := range map[string]func() error{
		"Enroll": func() error {
			_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment("v-2", cropOf(2, 0)))
			return err
		},
		"CreateScope": func() error {
			_, err := w.scopes("operator").CreateScope(w.ctx(), &pb.CreateScopeRequest{ScopeId: "more", Scope: w.settings()})
			return err
		},
		"CreateCredential": func() error {
			_, err := w.administer("operator").CreateCredential(w.ctx(), &pb.CreateCredentialRequest{Credential: &pb.Credential{Role: pb.Role_ROLE_AUDITOR}})
			return err
		},
		"CreateTenant": func() error {
			_, err := w.administer("admin").CreateTenant(w.ctx(), &pb.CreateTenantRequest{TenantId: "mall", Tenant: &pb.Tenant{}})
			return err
		},
	} {
		w.want(what, call(), codes.ResourceExhausted, "DISK_FULL")
	}
	verify := func(name string) (pb.Outcome, error) {
		got, err := w.match(name).Verify(w.ctx(), &pb.VerifyRequest{Subject: "v-1", Probe: cropOf(1, 1)})
		return got.GetDecision().GetOutcome(), err
	}
	if got, err := verify("gate"); err != nil || got != pb.Outcome_OUTCOME_MATCH {
		t.Errorf("matching: %v, %v", got, err)
	}
	w.awaitUnrecordable(verify)
	stream, err := w.match("strict gate").MatchStream(w.ctx())
	w.ok(err)
	w.ok(stream.Send(verifyItem(1, "v-1", cropOf(1, 1))))
	item, err := stream.Recv()
	w.ok(err)
	if item.GetError().GetReason() != "AUDIT_UNAVAILABLE" {
		t.Errorf("on a stream: %v", item)
	}
	_, err = w.enroll("enroller").WithdrawConsent(w.ctx(), &pb.WithdrawConsentRequest{Name: "tenants/fair/scopes/hall-a/subjects/v-1"})
	w.ok(err)
	_, err = w.scopes("operator").RevokeScope(w.ctx(), &pb.RevokeScopeRequest{Name: "tenants/fair/scopes/hall-b"})
	w.ok(err)
	w.wantActs("auditor", "ENROLLER WithdrawConsent tenants/fair/scopes/hall-a OK subject", "TENANT_OPERATOR RevokeScope tenants/fair/scopes/hall-b OK")

	w.room.Store(0)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		got, err := verify("strict gate")
		if err == nil && got == pb.Outcome_OUTCOME_MATCH {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("with room again: %v, %v", got, err)
		}
	}
}

// awaitUnrecordable asks until the log has noticed that it cannot write: what it
// takes in its last moment waits in memory and is written once there is room.
func (w *world) awaitUnrecordable(verify func(string) (pb.Outcome, error)) {
	w.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := verify("strict gate"); err != nil {
			w.want("a decision that cannot be recorded", err, codes.Unavailable, "AUDIT_UNAVAILABLE")
			return
		}
		if time.Now().After(end) {
			w.t.Fatal("decisions are answered that nobody can record")
		}
	}
}
