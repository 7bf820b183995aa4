package rpc

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/auth"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// Each preset has its number in the API, and the other way round.
func TestPresetNumbers(t *testing.T) {
	if len(presets) != len(pb.ScopePreset_name) || len(presets) != len(matcher.Presets())+1 {
		t.Errorf("%d presets in the table, %d in the API, %d in the product and none", len(presets), len(pb.ScopePreset_name), len(matcher.Presets()))
	}
	for message, preset := range presets {
		if presetMessage(preset) != message {
			t.Errorf("%v becomes %v", message, presetMessage(preset))
		}
	}
	for _, a := range matcher.Presets() {
		if presetMessage(a.Preset) == pb.ScopePreset_SCOPE_PRESET_UNSPECIFIED {
			t.Errorf("%s has no number", a.Preset)
		}
	}
}

// openLockers makes the scope lockers with keys "desk" and "locker".
func openLockers(w *world) *pb.Scope {
	made, err := w.scopes("operator").CreateScope(w.ctx(), &pb.CreateScopeRequest{
		ScopeId: "lockers", Preset: pb.ScopePreset_SCOPE_PRESET_LOCKER,
		Scope: &pb.Scope{Purpose: "opening a locker", Site: "entrance 2", Contact: "desk 3"},
	})
	w.ok(err)
	w.credential("desk", auth.Enroller, "fair", "lockers")
	w.credential("locker", auth.Gate, "fair", "lockers")
	return made.Scope
}

func TestLockers(t *testing.T) {
	w := newWorld(t)
	s := openLockers(w)
	if s.Preset != pb.ScopePreset_SCOPE_PRESET_LOCKER || !s.SingleUse || !s.TransmissionConsentRequired || s.Contact != "desk 3" ||
		s.Retention.AsDuration() != 12*time.Hour || s.EndTime == nil || s.MaxTemplatesPerSubject != 1 {
		t.Errorf("the scope is %v", s)
	}
	req := w.enrollment("box-1", vectorOf(1, 0))
	_, err := w.enroll("desk").Enroll(w.ctx(), req)
	if code, why := reason(err); code != codes.FailedPrecondition || why != "NOTICE_NOT_CURRENT" || fieldsOf(err)[0] != "consent.notice_version" {
		t.Errorf("with another notice: %v", err)
	}
	req.Consent.NoticeVersion = s.CurrentNoticeVersion
	_, err = w.enroll("desk").Enroll(w.ctx(), req)
	if code, why := reason(err); code != codes.FailedPrecondition || why != "TRANSMISSION_CONSENT_REQUIRED" {
		t.Errorf("without consent to transmission: %v", err)
	}
	if got := fieldsOf(err); len(got) != 1 || got[0] != "consent.transmission" {
		t.Errorf("fields at fault: %v", got)
	}
	for i, id := range []string{"box-1", "box-2"} {
		req := w.enrollment(id, vectorOf(uint16(i+1), 0))
		req.Consent.Transmission, req.Consent.NoticeVersion = true, s.CurrentNoticeVersion
		_, err := w.enroll("desk").Enroll(w.ctx(), req)
		w.ok(err)
	}
	verify := func() pb.Outcome {
		d, err := w.match("locker").Verify(w.ctx(), &pb.VerifyRequest{Subject: s.Name + "/subjects/box-1", Probe: vectorOf(1, 1)})
		w.ok(err)
		return d.Decision.Outcome
	}
	if first, second := verify(), verify(); first != pb.Outcome_OUTCOME_MATCH || second != pb.Outcome_OUTCOME_NO_MATCH {
		t.Errorf("outcomes %v, %v; want MATCH, NO_MATCH", first, second)
	}

	// A match that waits on a stream is sent, though its subject is gone by
	// itself; not any more when the scope has ended.
	caller, err := w.authority.Authenticate(w.keys["locker"])
	w.ok(err)
	svc := &service{matcher: w.matcher, authority: w.authority, journal: w.server.journal}
	c := call{method: pb.MatchService_MatchStream_FullMethodName, row: w.server.policy[pb.MatchService_MatchStream_FullMethodName], caller: caller}
	item := &pb.MatchStreamRequest{SequenceId: 1, Request: &pb.MatchStreamRequest_Identify{Identify: &pb.IdentifyRequest{Probe: vectorOf(2, 1)}}}
	seal := svc.answer(context.Background(), c, item)
	if _, err := w.enroll("desk").GetSubject(w.ctx(), &pb.GetSubjectRequest{Name: s.Name + "/subjects/box-2"}); err == nil {
		t.Error("the subject of a match that is on its way is still there")
	}
	if got := taken(seal()).GetIdentify().GetResults(); len(got) != 1 || got[0].Decision.Outcome != pb.Outcome_OUTCOME_MATCH {
		t.Errorf("the match that waited: %v", got)
	}
	_, err = w.scopes("operator").SuspendScope(w.ctx(), &pb.SuspendScopeRequest{Name: s.Name})
	w.ok(err)
	if got := taken(seal()).GetError().GetReason(); got != "SCOPE_SUSPENDED" {
		t.Errorf("after the suspension: %q, want SCOPE_SUSPENDED", got)
	}
}

func TestNotice(t *testing.T) {
	w := newWorld(t)
	s := openLockers(w)
	get := func(key, name, lang string) *pb.Notice {
		resp, err := w.scopes(key).GetNotice(w.ctx(), &pb.GetNoticeRequest{Name: name, Language: lang})
		w.ok(err)
		return resp.Notice
	}
	n := get("locker", "", "zh-CN")
	if n.Scope != s.Name || n.Language != "zh" || len(n.Version) != 8 || !strings.Contains(n.Text, "版本："+n.Version) || !strings.Contains(n.Text, "到服务台领取钥匙") || strings.Contains(n.Text, "service desk") {
		t.Errorf("the Chinese notice is %v", n)
	}
	if n := get("auditor", s.Name, ""); n.Language != "en" || !strings.Contains(n.Text, "Operator: fair\n") || !strings.Contains(n.Html, "service desk") || strings.Contains(n.Html, "服务台") {
		t.Errorf("the English notice is %v", n)
	}
	_, err := w.scopes("locker").GetNotice(w.ctx(), &pb.GetNoticeRequest{Language: "tlh"})
	w.want("another language", err, codes.InvalidArgument, "BAD_LANGUAGE")

	update := func(s *pb.Scope, paths ...string) []string {
		s.Name = "tenants/fair/scopes/lockers"
		resp, err := w.scopes("operator").UpdateScope(w.ctx(), &pb.UpdateScopeRequest{Scope: s, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
		w.ok(err)
		return resp.Warnings
	}
	for _, tc := range []struct {
		warnings int
		scope    *pb.Scope
		paths    []string
	}{
		{1, &pb.Scope{NoticeVersion: "1"}, []string{"notice_version"}},
		{1, &pb.Scope{Contact: "desk 4"}, []string{"contact"}},
		{0, &pb.Scope{Contact: "desk 4"}, []string{"contact"}}, // as it was
		{1, &pb.Scope{Contact: "desk 5", NoticeVersion: "2"}, []string{"contact", "notice_version"}},
		{0, &pb.Scope{VerifyThreshold: 0.7, AssessmentReference: "dpia-1"}, []string{"verify_threshold", "assessment_reference"}}, // people are not told
		{1, &pb.Scope{Alternative: "the side door"}, []string{"alternative"}},
	} {
		if got := update(tc.scope, tc.paths...); len(got) != tc.warnings {
			t.Errorf("changing %v: warnings %q, want %d", tc.paths, got, tc.warnings)
		}
	}
	if n := get("desk", s.Name, "en"); !strings.HasPrefix(n.Version, "2-") || n.Version != get("desk", s.Name, "zh").Version || !strings.Contains(n.Text, "desk 5") || !strings.Contains(n.Text, "the side door") {
		t.Errorf("after the changes: %v", n)
	}
	_, err = w.scopes("operator").RevokeScope(w.ctx(), &pb.RevokeScopeRequest{Name: s.Name})
	w.ok(err)
	get("auditor", s.Name, "en") // what people were told can still be asked for
}

// A tenant's people are counted for whoever may see the tenant.
func TestTenantCount(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"v-1", "v-2"} {
		_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment(id, vectorOf(1, 0)))
		w.ok(err)
	}
	got, err := w.administer("operator").GetTenant(w.ctx(), &pb.GetTenantRequest{})
	w.ok(err)
	if got.Tenant.SubjectCount != 2 || got.Tenant.FilingState != pb.FilingState_FILING_STATE_BELOW {
		t.Errorf("the tenant is %v", got.Tenant)
	}
	all, err := w.administer("admin").ListTenants(w.ctx(), &pb.ListTenantsRequest{})
	w.ok(err)
	if len(all.Tenants) != 2 || all.Tenants[0].SubjectCount != 2 || all.Tenants[1].SubjectCount != 0 {
		t.Errorf("the tenants are %v", all.Tenants)
	}
	for state := matcher.FilingBelow; state <= matcher.FilingReached; state++ {
		if message := filingMessage(state); int(message) != int(state)+1 {
			t.Errorf("state %d is told as %v", state, message)
		}
	}
}

// Of 64 calls at once, over unary calls and streams, one is told MATCH.
func TestLockerOpensOnce(t *testing.T) {
	w := newWorld(t)
	s := openLockers(w)
	for round := range 5 {
		id := fmt.Sprintf("box-%d", round)
		req := w.enrollment(id, vectorOf(1, 0))
		req.Consent.Transmission, req.Consent.NoticeVersion = true, s.CurrentNoticeVersion
		_, err := w.enroll("desk").Enroll(w.ctx(), req)
		w.ok(err)
		outcomes := make(chan pb.Outcome, 64)
		for range 4 {
			stream, err := w.match("locker").MatchStream(w.ctx())
			w.ok(err)
			for n := range 8 {
				w.ok(stream.Send(&pb.MatchStreamRequest{SequenceId: uint64(n), Request: &pb.MatchStreamRequest_Verify{
					Verify: &pb.VerifyRequest{Subject: s.Name + "/subjects/" + id, Probe: vectorOf(1, byte(n+1))},
				}}))
			}
			go func() {
				for range 8 {
					resp, err := stream.Recv()
					if err != nil || resp.GetError() != nil {
						t.Errorf("on a stream: %v, %v", resp.GetError(), err)
					}
					outcomes <- resp.GetVerify().GetDecision().GetOutcome()
				}
			}()
		}
		gate := w.match("locker")
		for n := range 32 {
			go func() {
				d, err := gate.Identify(w.ctx(), &pb.IdentifyRequest{Probe: vectorOf(1, byte(n+1))})
				if err != nil || len(d.Results) != 1 {
					t.Errorf("identify: %v, %v", d, err)
					outcomes <- pb.Outcome_OUTCOME_UNSPECIFIED
					return
				}
				outcomes <- d.Results[0].Decision.Outcome
			}()
		}
		count := map[pb.Outcome]int{}
		for range 64 {
			count[<-outcomes]++
		}
		if count[pb.Outcome_OUTCOME_MATCH] != 1 || count[pb.Outcome_OUTCOME_NO_MATCH] != 63 {
			t.Errorf("round %d: %v, want 1 MATCH and 63 NO_MATCH", round, count)
		}
	}
}
