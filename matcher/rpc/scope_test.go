package rpc

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

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
	if code, why := reason(err); code != codes.FailedPrecondition || why != "TRANSMISSION_CONSENT_REQUIRED" {
		t.Errorf("without consent to transmission: %v", err)
	}
	if got := fieldsOf(err); len(got) != 1 || got[0] != "consent.transmission" {
		t.Errorf("fields at fault: %v", got)
	}
	for i, id := range []string{"box-1", "box-2"} {
		req := w.enrollment(id, vectorOf(uint16(i+1), 0))
		req.Consent.Transmission = true
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
	if got := seal().GetIdentify().GetResults(); len(got) != 1 || got[0].Decision.Outcome != pb.Outcome_OUTCOME_MATCH {
		t.Errorf("the match that waited: %v", got)
	}
	_, err = w.scopes("operator").SuspendScope(w.ctx(), &pb.SuspendScopeRequest{Name: s.Name})
	w.ok(err)
	if got := seal().GetError().GetReason(); got != "SCOPE_SUSPENDED" {
		t.Errorf("after the suspension: %q, want SCOPE_SUSPENDED", got)
	}
}
