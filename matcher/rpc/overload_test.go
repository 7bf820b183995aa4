package rpc

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/menshen-io/menshen/matcher/admission"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// fill takes the whole machine away and lets calls of a tenant wait for it, as
// many as may. What it returns gives the machine back.
func (w *world) fill(tenant string) (release func()) {
	w.t.Helper()
	l := w.matcher.Admission()
	work := admission.Ask{Tenant: tenant, Work: admission.Work{Probe: admission.Image, Pixels: 1 << 20}}
	var held []admission.Ticket
	for l.Stats().Running < testCores {
		ticket, err := l.Admit(w.ctx(), work)
		w.ok(err)
		held = append(held, ticket)
	}
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan error, 1000)
	n := 0
	for ; ; n++ {
		go func() {
			_, err := l.Admit(ctx, work)
			waiting <- err
		}()
		for len(waiting) == 0 && l.Stats().Waiting <= n {
			runtime.Gosched()
		}
		if len(waiting) > 0 {
			break
		}
	}
	return func() {
		cancel()
		for range n + 1 {
			<-waiting
		}
		for i := range held {
			held[i].Done(errors.New("only held"))
		}
	}
}

// A busy machine refuses by the headers alone and says when to come again,
// while other tenants are served and nothing that erases or administers is
// refused.
func TestOverload(t *testing.T) {
	w := newWorld(t)
	_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment("v-1", cropOf(1, 0)))
	w.ok(err)
	release := w.fill("fair")
	runs := w.models.runs.Load()

	_, err = w.match("gate").Verify(w.ctx(), &pb.VerifyRequest{Subject: "tenants/fair/scopes/hall-a/subjects/v-1", Probe: cropOf(1, 1)})
	w.want("verify on a busy machine", err, codes.ResourceExhausted, "OVERLOADED")
	var retry time.Duration
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			retry = r.GetRetryDelay().AsDuration()
		}
	}
	if retry <= 0 || retry > 15*time.Second {
		t.Errorf("retry after %v", retry)
	}
	if w.models.runs.Load() != runs {
		t.Error("inference was spent on a call that was refused")
	}
	// The message is not needed for that.
	header := metadata.Pairs("authorization", "Bearer "+w.keys["gate"])
	a := &admittance{policy: w.server.policy, authority: w.authority, limiter: w.matcher.Admission(), acts: w.server.acts}
	for _, method := range []string{pb.MatchService_Verify_FullMethodName, pb.MatchService_Identify_FullMethodName} {
		if _, err := a.admit(t.Context(), method, header); !errors.Is(err, admission.ErrOverloaded) {
			t.Errorf("%s by its headers: %v", method, err)
		}
	}
	// Another tenant's headers pass: its call is next.
	if _, err := a.admit(t.Context(), pb.MatchService_Verify_FullMethodName, metadata.Pairs("authorization", "Bearer "+w.keys["gym gate"])); err != nil {
		t.Errorf("the other tenant: %v", err)
	}
	// What erases and administers goes on.
	_, err = w.enroll("operator").WithdrawConsent(w.ctx(), &pb.WithdrawConsentRequest{Name: "tenants/fair/scopes/hall-a/subjects/v-1"})
	w.ok(err)
	_, err = w.scopes("operator").RevokeScope(w.ctx(), &pb.RevokeScopeRequest{Name: "tenants/fair/scopes/hall-a"})
	w.ok(err)
	if strings.Contains(w.log.String(), "call refused") {
		t.Error("a busy machine fills the log")
	}
	release()
	_, err = w.match("gym gate").Identify(w.ctx(), &pb.IdentifyRequest{Probe: cropOf(1, 1)})
	w.ok(err)
}
