package rpc

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/menshen-io/menshen/matcher/audit"
	"github.com/menshen-io/menshen/matcher/signing"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

const hallName = "tenants/fair/scopes/hall-a"

// record makes hall-a record its decisions.
func (w *world) record(way pb.DecisionAudit) {
	w.t.Helper()
	_, err := w.scopes("operator").UpdateScope(w.ctx(), &pb.UpdateScopeRequest{Scope: &pb.Scope{Name: hallName, DecisionAudit: way}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"decision_audit"}}})
	w.ok(err)
}

// decisions waits until so many decisions of hall-a are in the log.
func (w *world) decisions(n int) []*pb.Event {
	w.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		got, err := w.events("auditor").ListEvents(w.ctx(), &pb.ListEventsRequest{Parent: hallName, PageSize: 1000})
		w.ok(err)
		if len(got.GetEvents()) >= n {
			return got.GetEvents()
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d decisions, want %d", len(got.GetEvents()), n)
		}
	}
}

// TestDecisions: what stands in the log of what gates were told, in one call and on
// a stream, and what does not.
func TestDecisions(t *testing.T) {
	for _, way := range []pb.DecisionAudit{pb.DecisionAudit_DECISION_AUDIT_BEST_EFFORT, pb.DecisionAudit_DECISION_AUDIT_REQUIRED} {
		t.Run(way.String(), func(t *testing.T) {
			w := newWorld(t)
			_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment("visitor-1", cropOf(1, 0)))
			w.ok(err)
			gate := w.match("gate")
			_, err = gate.Verify(w.ctx(), &pb.VerifyRequest{Subject: "visitor-1", Probe: cropOf(1, 1)})
			w.ok(err) // not recorded yet
			w.record(way)
			match, err := gate.Verify(w.ctx(), &pb.VerifyRequest{Subject: "visitor-1", Probe: cropOf(1, 1)})
			w.ok(err)
			_, err = gate.Verify(w.ctx(), &pb.VerifyRequest{Subject: "visitor-1", Probe: cropOf(2, 1)})
			w.ok(err)
			_, err = gate.Identify(w.ctx(), &pb.IdentifyRequest{Probe: imageProbe(picture(t, 1, 1, 2)), FacePolicy: pb.FacePolicy_FACE_POLICY_EACH})
			w.ok(err)
			s, err := gate.MatchStream(w.ctx())
			w.ok(err)
			w.ok(s.Send(verifyItem(1, "visitor-1", vectorOf(1, 2))))
			_, err = s.Recv()
			w.ok(err)
			events := w.decisions(5)
			var lines []string
			for _, e := range events {
				d := e.GetDecision()
				if e.GetScope() != hallName || d.GetCredential() != string(w.ids["gate"]) || (d.GetSubject() != "") != (d.GetOutcome() == "MATCH") {
					t.Errorf("%v", e)
				}
				lines = append(lines, strings.TrimSpace(d.GetCall()+" "+d.GetOutcome()+" "+d.GetMargin()))
			}
			slices.Sort(lines[2:4])
			want := []string{"Verify MATCH CLEAR", "Verify NO_MATCH", "Identify MATCH CLEAR", "Identify NO_MATCH", "Verify MATCH CLEAR"}
			slices.Sort(want[2:4])
			if !slices.Equal(lines, want) {
				t.Errorf("%q, want %q", lines, want)
			}
			if events[0].GetDecision().GetDecisionId() != match.GetDecision().GetDecisionId() {
				t.Errorf("the gate was told %s, the log %s", match.GetDecision().GetDecisionId(), events[0].GetDecision().GetDecisionId())
			}
			if strings.Contains(events[0].String(), "visitor-1") {
				t.Errorf("a subject's id stands in the log: %v", events[0])
			}
		})
	}
}

// TestListEventsFilters chooses by kind, time and scope, and pages.
func TestListEventsFilters(t *testing.T) {
	w := newWorld(t)
	began := time.Now()
	for range 3 {
		for _, name := range []string{"hall-a", "hall-b"} {
			_, err := w.scopes("operator").SuspendScope(w.ctx(), &pb.SuspendScopeRequest{Name: "tenants/fair/scopes/" + name})
			w.ok(err)
		}
	}
	count := func(req *pb.ListEventsRequest) (n int) {
		for {
			got, err := w.events("operator").ListEvents(w.ctx(), req)
			w.ok(err)
			n += len(got.GetEvents())
			if req.PageToken = got.GetNextPageToken(); req.PageToken == "" {
				return n
			}
		}
	}
	all := count(&pb.ListEventsRequest{})
	for what, c := range map[string]struct {
		req  *pb.ListEventsRequest
		want int
	}{
		"pages of one":    {&pb.ListEventsRequest{PageSize: 1}, all},
		"the scope":       {&pb.ListEventsRequest{Scope: hallName, StartTime: timestamppb.New(began)}, 3},
		"from now on":     {&pb.ListEventsRequest{StartTime: timestamppb.New(time.Now().Add(time.Minute))}, 0},
		"before":          {&pb.ListEventsRequest{EndTime: timestamppb.New(began)}, all - 6},
		"kind":            {&pb.ListEventsRequest{Kinds: []pb.EventKind{pb.EventKind_EVENT_KIND_GAP}}, 0},
		"kinds":           {&pb.ListEventsRequest{Kinds: []pb.EventKind{pb.EventKind_EVENT_KIND_GAP, pb.EventKind_EVENT_KIND_ACT}}, all},
		"of no decisions": {&pb.ListEventsRequest{Parent: hallName}, 0},
	} {
		if got := count(c.req); got != c.want {
			t.Errorf("%s: %d events, want %d", what, got, c.want)
		}
	}
	first, err := w.events("operator").ListEvents(w.ctx(), &pb.ListEventsRequest{PageSize: 1})
	w.ok(err)
	for what, req := range map[string]*pb.ListEventsRequest{
		"another scope": {PageToken: first.GetNextPageToken(), Scope: hallName},
		"another log":   {PageToken: first.GetNextPageToken(), Parent: hallName},
		"nonsense":      {PageToken: "AAAA"},
	} {
		_, err := w.events("operator").ListEvents(w.ctx(), req)
		w.want(what, err, bad, "BAD_PAGE_TOKEN")
	}
	_, err = w.events("operator").ListEvents(w.ctx(), &pb.ListEventsRequest{Kinds: []pb.EventKind{17}})
	w.want("no kind", err, bad, "OUT_OF_RANGE")
	_, err = w.events("operator").ListEvents(w.ctx(), &pb.ListEventsRequest{Parent: "tenants/fair/credentials/x"})
	w.want("no log", err, bad, "BAD_NAME")
}

// TestWatchEvents follows the log, goes on where it was, and ends with the
// credential and with the server.
func TestWatchEvents(t *testing.T) {
	w := newWorld(t)
	watch := func(name string, req *pb.WatchEventsRequest) func() (*pb.WatchEventsResponse, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		t.Cleanup(cancel)
		s, err := w.events(name).WatchEvents(ctx, req)
		w.ok(err)
		_, err = s.Header()
		w.ok(err)
		return s.Recv
	}
	next := watch("auditor", &pb.WatchEventsRequest{})
	other := watch("gym auditor", &pb.WatchEventsRequest{})
	_, err := w.scopes("operator").SuspendScope(w.ctx(), &pb.SuspendScopeRequest{Name: hallName})
	w.ok(err)
	got, err := next()
	w.ok(err)
	if got.GetEvent().GetAct().GetAction() != "SuspendScope" {
		t.Errorf("%v", got)
	}
	_, err = w.scopes("operator").ResumeScope(w.ctx(), &pb.ResumeScopeRequest{Name: hallName})
	w.ok(err)
	seen := got.GetEvent().GetPosition()
	again := watch("operator", &pb.WatchEventsRequest{AfterPosition: &seen})
	for _, recv := range []func() (*pb.WatchEventsResponse, error){next, again} {
		if got, err = recv(); err != nil || got.GetEvent().GetPosition() != seen+1 {
			t.Errorf("%v, %v", got, err)
		}
	}
	_, err = w.administer("operator").RevokeCredential(w.ctx(), &pb.RevokeCredentialRequest{Name: credentialName("fair", w.ids["auditor"])})
	w.ok(err)
	_, err = next()
	w.want("a revoked credential", err, codes.Unauthenticated, "CREDENTIAL_INVALID")
	drained := make(chan struct{})
	go func() { defer close(drained); w.server.Drain(context.Background()) }()
	for err = nil; err == nil; {
		_, err = again() // its own RevokeCredential is still to come
	}
	w.want("a closing server", err, codes.Unavailable, "SERVER_CLOSING")
	_, err = other()
	w.want("the other tenant saw nothing until the end", err, codes.Unavailable, "SERVER_CLOSING")
	<-drained
}

// TestWatchesAreBounded: a tenant cannot take every place, and gives places back.
func TestWatchesAreBounded(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range maxEventWatchers {
		s, err := w.events("auditor").WatchEvents(ctx, &pb.WatchEventsRequest{})
		w.ok(err)
		_, err = s.Header()
		w.ok(err)
	}
	s, err := w.events("auditor").WatchEvents(ctx, &pb.WatchEventsRequest{})
	w.ok(err)
	_, err = s.Recv()
	w.want("one more", err, codes.ResourceExhausted, "TOO_MANY_WATCHERS")
	other, err := w.events("gym auditor").WatchEvents(ctx, &pb.WatchEventsRequest{})
	w.ok(err)
	_, err = other.Header()
	w.ok(err)
	cancel()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		s, err := w.events("auditor").WatchEvents(w.ctx(), &pb.WatchEventsRequest{})
		w.ok(err)
		if header, err := s.Header(); err == nil && header != nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("places are not given back")
		}
	}
}

// TestCheckpoint: the signed end of a log verifies with the public key that comes
// with it, and exposes a log that was cut afterwards.
func TestCheckpoint(t *testing.T) {
	w := newWorld(t)
	for name, chain := range map[string]string{"auditor": audit.ActsOf("fair"), "admin": audit.ActsOf("")} {
		got, err := w.events(name).GetCheckpoint(w.ctx(), &pb.GetCheckpointRequest{})
		w.ok(err)
		key, err := signing.ParsePublicKey(got.GetPublicKeys()[0])
		w.ok(err)
		c, _, err := audit.ParseCheckpoint(got.GetDocument(), signing.NewPublicKeys(key))
		w.ok(err)
		if c.Chain != chain || c.Position != got.GetPosition() || c.Position != w.audit.End(chain) || !got.GetSignTime().AsTime().Equal(c.Time) {
			t.Errorf("%s: %+v, %v", name, c, got)
		}
	}
}

// TestPlatformSeesNoScope: the platform's log names no tenant's scopes, although the
// ends of their chains are written into it.
func TestPlatformSeesNoScope(t *testing.T) {
	w := newWorld(t)
	w.record(pb.DecisionAudit_DECISION_AUDIT_REQUIRED)
	_, err := w.match("gate").Verify(w.ctx(), &pb.VerifyRequest{Subject: "v-1", Probe: cropOf(1, 1)})
	w.ok(err)
	_, err = w.audit.Checkpoint(w.ctx())
	w.ok(err)
	got, err := w.events("admin").ListEvents(w.ctx(), &pb.ListEventsRequest{})
	w.ok(err)
	heads := 0
	for _, e := range got.GetEvents() {
		if e.GetKind() == pb.EventKind_EVENT_KIND_HEADS {
			heads++
		}
	}
	if text := got.String(); heads != 1 || regexp.MustCompile(`\b(hall-a|north)\b`).MatchString(text) {
		t.Errorf("%d records of ends, and %s", heads, text)
	}
}
