package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/audit"
	"github.com/menshen-io/menshen/matcher/idempotency"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// deed says how calls of a method that changes something are written down.
type deed struct {
	// urgent calls take away: they erase, revoke or suspend. They are carried out
	// whether or not the log can be written, and then written late.
	urgent bool
}

// deeds has one row for each method that changes something; a test that walks the
// descriptors demands it. Each call of one is an act in the audit log.
var deeds = map[string]deed{
	pb.EnrollmentService_Enroll_FullMethodName:          {},
	pb.EnrollmentService_BulkEnroll_FullMethodName:      {}, // item by item, as Enroll
	pb.EnrollmentService_DeleteTemplate_FullMethodName:  {urgent: true},
	pb.EnrollmentService_DeleteSubject_FullMethodName:   {urgent: true},
	pb.EnrollmentService_WithdrawConsent_FullMethodName: {urgent: true},

	pb.ScopeService_CreateScope_FullMethodName:  {},
	pb.ScopeService_UpdateScope_FullMethodName:  {},
	pb.ScopeService_SuspendScope_FullMethodName: {urgent: true},
	pb.ScopeService_ResumeScope_FullMethodName:  {},
	pb.ScopeService_RevokeScope_FullMethodName:  {urgent: true},

	pb.AdminService_CreateTenant_FullMethodName:     {},
	pb.AdminService_DeleteTenant_FullMethodName:     {urgent: true},
	pb.AdminService_CreateCredential_FullMethodName: {},
	pb.AdminService_RevokeCredential_FullMethodName: {urgent: true},
}

// outcomeOK is the outcome of an act that was carried out.
const outcomeOK = "OK"

// acts writes what credentials do, and are refused to do, into the audit log.
//
// A call that changes something is asked for room beforehand, carried out, and
// answered once its act is on the disk: in the log, or in the transaction of the change
// (matcher.Act), from where the log takes it over. A call that the caller may not make is
// written too, at most refusalsAMinute times for a credential and
// tenantRefusalsAMinute for a tenant; the others are counted, and the count written.
// So are failures of calls that change something; those that a malformed request,
// overload or the caller's own haste explain are nobody's act.
type acts struct {
	log  *audit.Log
	slog *slog.Logger
	now  func() time.Time

	// refused waits to be written; from the connections' readers, which must not
	// wait for a disk.
	refused chan audit.Event
	quota   quota
}

func newActs(log *audit.Log, logger *slog.Logger) *acts {
	return &acts{log: log, slog: logger, now: time.Now, refused: make(chan audit.Event, 256)}
}

// run writes refusals and, every minute, what was left out of them, until ctx ends.
func (a *acts) run(ctx context.Context) {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		select {
		case e := <-a.refused:
			a.write(e)
		case <-ticker.C:
			for _, e := range a.quota.left() {
				a.write(e)
			}
		case <-ctx.Done():
			for len(a.refused) > 0 {
				a.write(<-a.refused)
			}
			for _, e := range a.quota.left() {
				a.write(e)
			}
			return
		}
	}
}

// write writes a refusal. It was refused already; that it is not in the log is
// nothing the caller could be told.
func (a *acts) write(e audit.Event) {
	if err := a.log.Append(context.Background(), e); err != nil {
		a.slog.Error("a refusal could not be written to the audit log", "credential", e.Credential, "action", e.Action, "outcome", e.Outcome, "error", err.Error())
	}
}

// account carries a call out that changes something, and writes it down.
func account[Resp any](ctx context.Context, a *acts, c call, req any, do func(context.Context) (Resp, error)) (resp Resp, err error) {
	urgent := deeds[c.method].urgent
	if !urgent {
		if err := a.log.Writable(c.caller.Tenant()); err != nil {
			return resp, fmt.Errorf("%w: %w", errUnaudited, err)
		}
	}
	act := matcher.Act{Event: c.event(req)}
	act.Event.Outcome = outcomeOK
	if resp, err = do(matcher.WithAct(ctx, &act)); err != nil {
		a.failed(c, req, err, true)
		return resp, err
	}
	if act.Kept() {
		return resp, nil
	}
	e := act.Event
	if made, ok := any(resp).(*pb.CreateCredentialResponse); ok {
		e.Resource = made.GetCredential().GetName()
	}
	return resp, a.done(ctx, e, urgent)
}

// done writes down what was carried out.
func (a *acts) done(ctx context.Context, e audit.Event, urgent bool) (err error) {
	for _, e := range everywhere(e) {
		err = errors.Join(err, a.log.Insist(context.WithoutCancel(ctx), e))
	}
	if err == nil {
		return nil
	}
	a.slog.Error("an act could not be written to the audit log yet; it is kept in memory until it can",
		"tenant", string(e.Tenant), "credential", e.Credential, "action", e.Action, "resource", e.Resource, "error", err.Error())
	if urgent {
		return nil
	}
	return fmt.Errorf("%w: %w", errAuditedLate, err)
}

// before writes down a call that gives much away before it does: what has left
// cannot be taken back when its act cannot be written.
func (a *acts) before(ctx context.Context, c call, req any) error {
	e := c.event(req)
	e.Outcome = outcomeOK
	err := a.log.Writable(e.Tenant)
	if err == nil {
		err = a.log.Append(ctx, e)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUnaudited, err)
	}
	return nil
}

// everywhere gives the act for each log that it belongs to: that of the caller's
// tenant, and what a platform admin did to a tenant also for that tenant's.
func everywhere(e audit.Event) []audit.Event {
	if name, ok := strings.CutPrefix(e.Resource, "tenants/"); ok && e.Tenant == "" {
		theirs := e
		id, _, _ := strings.Cut(name, "/")
		theirs.Tenant = scope.TenantID(id)
		return []audit.Event{e, theirs}
	}
	return []audit.Event{e}
}

// failed writes down that a call was refused, or one that changes something failed.
func (a *acts) failed(c call, req any, err error, changes bool) {
	v := judge(err)
	if c.caller.ID() == "" || v.code != codes.PermissionDenied && !changes {
		return
	}
	switch v.code {
	case codes.InvalidArgument, codes.ResourceExhausted, codes.Canceled, codes.DeadlineExceeded, codes.Unauthenticated:
		return
	}
	e := c.event(req)
	e.Outcome, e.Time = v.reason, a.now()
	if e, ok := a.quota.take(e); ok {
		a.write(e)
	}
}

// denied writes down that a call was refused by its headers. It does not block.
func (a *acts) denied(c call, err error) {
	e := c.event(nil)
	e.Outcome, e.Time = judge(err).reason, a.now()
	e, ok := a.quota.take(e)
	if !ok {
		return
	}
	select {
	case a.refused <- e:
	default:
		a.quota.leave(e)
	}
}

// How many refusals are written in a minute: 30 MiB a day for a tenant that asks
// for what it may not have without end.
const (
	refusalsAMinute       = 10
	tenantRefusalsAMinute = 60
)

// quota bounds the refusals that are written. The zero quota is ready.
type quota struct {
	mu      sync.Mutex
	minute  int64
	credits map[string]int               // by credential, this minute
	tenants map[scope.TenantID]int       // this minute
	silent  map[scope.TenantID]*leftover // since the last one that was written
}

// leftover is what was not written: the newest, and how many before it.
type leftover struct {
	last audit.Event
	n    uint64
}

// take tells whether the refusal is to be written, and completes it.
func (q *quota) take(e audit.Event) (audit.Event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if m := e.Time.Unix() / 60; m != q.minute || q.credits == nil {
		q.minute, q.credits, q.tenants = m, map[string]int{}, map[scope.TenantID]int{}
	}
	if q.credits[e.Credential] >= refusalsAMinute || q.tenants[e.Tenant] >= tenantRefusalsAMinute {
		q.add(e, 1)
		return e, false
	}
	q.credits[e.Credential]++
	q.tenants[e.Tenant]++
	if l := q.silent[e.Tenant]; l != nil {
		e.Suppressed = l.n
		delete(q.silent, e.Tenant)
	}
	return e, true
}

// leave counts a refusal that was to be written and was not.
func (q *quota) leave(e audit.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(e, 1+e.Suppressed)
}

func (q *quota) add(e audit.Event, n uint64) {
	if q.silent == nil {
		q.silent = map[scope.TenantID]*leftover{}
	}
	l := q.silent[e.Tenant]
	if l == nil {
		l = new(leftover)
		q.silent[e.Tenant] = l
	}
	l.last, l.n = e, l.n+n
}

// left takes what was not written: the newest of each tenant, with the number of
// those before it.
func (q *quota) left() (out []audit.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.silent {
		l.last.Suppressed = l.n - 1
		out = append(out, l.last)
	}
	clear(q.silent)
	return out
}

// event is the act of a call, without its outcome. req is nil where it was not read.
func (c call) event(req any) audit.Event {
	e := audit.Event{
		Tenant: c.caller.Tenant(), Credential: string(c.caller.ID()), Role: c.caller.Role().String(), Action: path.Base(c.method),
	}
	ref, subject, resource := c.about(req)
	e.Resource = resource
	if ref.Tenant == e.Tenant && ref.Validate() == nil {
		e.Scope = ref.Scope
		if subject.Validate() == nil {
			e.Subject = subject
		}
	}
	if r, ok := req.(interface{ GetRequestId() string }); ok {
		if id := (idempotency.Request{ID: r.GetRequestId()}); id.Validate() == nil {
			e.RequestID = id.ID
		}
	}
	return e
}

// about finds what a request is about, in the fields that name things. What does
// not parse is left out: it is the caller's own text. A subject is never part of the
// resource.
func (c call) about(req any) (ref scope.Ref, subject scope.SubjectID, resource string) {
	if req == nil {
		return scope.Ref{}, "", ""
	}
	name := nameIn(req)
	err := error(errName)
	// Only what has the right number of parts is parsed: the error of a name that
	// is none costs more than writing the act.
	switch parts := strings.Count(name, "/") + 1; {
	case name == "":
		ref, err = c.caller.OnlyScope()
	case parts == 4:
		ref, err = parseScope("", name)
	case parts == 6:
		ref, subject, err = parseSubject("", name)
	case parts == 8:
		if r, n, _, err := parseTemplate("", name); err == nil {
			return r, n, r.String()
		}
	}
	if r, ok := req.(interface{ GetSubjectId() string }); ok && err == nil {
		subject = scope.SubjectID(r.GetSubjectId())
	}
	if err == nil {
		return ref, subject, ref.String()
	}
	if _, _, err := parseCredential("", name); err == nil {
		return scope.Ref{}, "", name
	}
	tenant, err := c.tenantOf("", name)
	switch r := req.(type) {
	case *pb.CreateTenantRequest:
		tenant, err = parseTenant("", tenantName(scope.TenantID(r.GetTenantId())))
	case *pb.CreateScopeRequest:
		ref = scope.Ref{Tenant: tenant, Scope: scope.ScopeID(r.GetScopeId())}
		if err == nil && ref.Validate() == nil {
			return ref, "", ref.String()
		}
	}
	if err != nil {
		return scope.Ref{}, "", ""
	}
	return scope.Ref{}, "", tenantName(tenant)
}

// nameIn is the resource name that a request carries.
func nameIn(req any) string {
	switch r := req.(type) {
	case *pb.VerifyRequest:
		return r.GetSubject()
	case *pb.IdentifyRequest:
		return r.GetScope()
	case interface{ GetScope() *pb.Scope }:
		if name := r.GetScope().GetName(); name != "" {
			return name
		}
	case interface{ GetName() string }:
		return r.GetName()
	}
	if r, ok := req.(interface{ GetParent() string }); ok {
		return r.GetParent()
	}
	return ""
}
