package rpc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/audit"
	"github.com/menshen-io/menshen/matcher/auth"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// logOf is the chain that a request means: the acts of a tenant or the decisions of
// one of its scopes. The caller's own tenant's alone: to a platform admin that is
// none, and the chain the platform's.
func (c call) logOf(parent string) (chain string, err error) {
	own := c.caller.Tenant()
	if parent == "" {
		return audit.ActsOf(own), nil
	}
	var ref scope.Ref
	if strings.Contains(parent, "/scopes/") {
		if ref, err = parseScope("parent", parent); err != nil {
			return "", err
		}
		chain = audit.DecisionsOf(ref)
	} else {
		if ref.Tenant, err = parseTenant("parent", parent); err != nil {
			return "", err
		}
		chain = audit.ActsOf(ref.Tenant)
	}
	if own == "" || ref.Tenant != own {
		return "", auth.ErrDenied
	}
	return chain, nil
}

// queried is what ListEvents and WatchEvents have in common.
type queried interface {
	GetParent() string
	GetScope() string
	GetKinds() []pb.EventKind
}

// query reads the filter of a request.
func (c call) query(req queried) (q audit.Query, err error) {
	if q.Chain, err = c.logOf(req.GetParent()); err != nil {
		return q, err
	}
	if name := req.GetScope(); name != "" {
		ref, err := parseScope("scope", name)
		if err != nil {
			return q, err
		}
		if own := c.caller.Tenant(); own == "" || ref.Tenant != own {
			return q, auth.ErrDenied
		}
		q.Scope = ref.Scope
	}
	if n := len(req.GetKinds()); n > len(pb.EventKind_name) {
		return q, &fieldError{errRange, "kinds", fmt.Sprintf("has %d entries; there are fewer kinds", n)}
	}
	for i, k := range req.GetKinds() {
		kind, ok := kinds[k]
		if !ok {
			return q, &fieldError{errRange, fmt.Sprintf("kinds[%d]", i), fmt.Sprintf("is %d, which is no kind of event", k)}
		}
		q.Kinds = append(q.Kinds, kind)
	}
	return q, nil
}

var kinds = map[pb.EventKind]audit.Kind{
	pb.EventKind_EVENT_KIND_ACT: audit.KindAct, pb.EventKind_EVENT_KIND_DECISION: audit.KindDecision,
	pb.EventKind_EVENT_KIND_GAP: audit.KindGap, pb.EventKind_EVENT_KIND_HEADS: audit.KindHeads,
}

func (s *auditServer) ListEvents(ctx context.Context, req *pb.ListEventsRequest) (*pb.ListEventsResponse, error) {
	c := callOf(ctx)
	q, err := c.query(req)
	if err != nil {
		return nil, err
	}
	var v violations
	q.From, q.To = v.time("start_time", req.GetStartTime()), v.time("end_time", req.GetEndTime())
	if err := v.err(); err != nil {
		return nil, err
	}
	p, err := openPage(req.GetPageSize(), req.GetPageToken(), c.method, q.Chain, string(q.Scope), fmt.Sprint(q.Kinds), fmt.Sprint(q.From.UnixNano(), q.To.UnixNano()))
	if err != nil {
		return nil, err
	}
	if p.after != "" {
		if q.After, err = strconv.ParseUint(p.after, 10, 64); err != nil {
			return nil, &fieldError{errPageToken, "page_token", "is not a token of this service: send next_page_token of the page before, unchanged"}
		}
	}
	found, next, err := s.acts.log.List(ctx, q, p.size)
	if err != nil {
		return nil, err
	}
	out := &pb.ListEventsResponse{}
	for _, r := range found {
		out.Events = append(out.Events, eventMessage(c.caller.Tenant(), r))
	}
	if next != 0 {
		out.NextPageToken = p.token(strconv.FormatUint(next, 10))
	}
	return out, nil
}

// errEventWatchers: see maxEventWatchers.
var errEventWatchers = errors.New("the tenant watches its logs too often at a time: end other watches first, or page with ListEvents")

// maxEventWatchers bounds the watches of a tenant, which each look five times a
// second.
const maxEventWatchers = 16

// enterWatch counts a watch; leave gives its place back.
func (s *auditServer) enterWatch(t scope.TenantID) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers == nil {
		s.watchers = map[scope.TenantID]int{}
	}
	if s.watchers[t] >= maxEventWatchers {
		return nil, errEventWatchers
	}
	s.watchers[t]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.watchers[t]--; s.watchers[t] == 0 {
			delete(s.watchers, t)
		}
	}, nil
}

func (s *auditServer) WatchEvents(req *pb.WatchEventsRequest, stream grpc.ServerStreamingServer[pb.WatchEventsResponse]) error {
	c := callOf(stream.Context())
	err := s.watch(c, req, stream)
	if err != nil {
		s.acts.failed(c, req, err, false)
	}
	return err
}

func (s *auditServer) watch(c call, req *pb.WatchEventsRequest, stream grpc.ServerStreamingServer[pb.WatchEventsResponse]) error {
	q, err := c.query(req)
	if err != nil {
		return err
	}
	leave, err := s.enterWatch(c.caller.Tenant())
	if err != nil {
		return err
	}
	defer leave()
	if q.After = req.GetAfterPosition(); req.AfterPosition == nil {
		q.After = s.acts.log.End(q.Chain)
	}
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	go s.whileWelcome(ctx, c, end)
	// So that the client knows that nothing from here on is missed.
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	for r, err := range s.acts.log.Follow(ctx, q) {
		if err == nil {
			err = s.authority.Check(c.caller)
		}
		if err == nil {
			err = stream.Send(&pb.WatchEventsResponse{Event: eventMessage(c.caller.Tenant(), r)})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// whileWelcome ends a watch when its caller's credential does, or the server.
func (s *service) whileWelcome(ctx context.Context, c call, end context.CancelCauseFunc) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if err := s.authority.Check(c.caller); err != nil {
				end(err)
				return
			}
		case <-s.draining:
			end(errDraining)
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *auditServer) GetCheckpoint(ctx context.Context, req *pb.GetCheckpointRequest) (*pb.GetCheckpointResponse, error) {
	chain, err := callOf(ctx).logOf(req.GetParent())
	if err != nil {
		return nil, err
	}
	signed, err := s.acts.log.SignHead(chain)
	if err != nil {
		return nil, err
	}
	out := &pb.GetCheckpointResponse{Document: signed.Document, Position: signed.Position, SignTime: stamp(signed.Time)}
	for _, key := range s.acts.log.PublicKeys() {
		out.PublicKeys = append(out.PublicKeys, key.String())
	}
	return out, nil
}

// eventMessage shows a record of a tenant's chain. Of the ends of chains nothing is
// shown: they name every tenant's scopes, and serve "menshen audit verify" alone.
func eventMessage(tenant scope.TenantID, r audit.Record) *pb.Event {
	out := &pb.Event{Position: r.Position, Time: stamp(r.Time)}
	for message, kind := range kinds {
		if kind == r.Kind {
			out.Kind = message
		}
	}
	if r.Scope != "" {
		out.Scope = scope.Ref{Tenant: tenant, Scope: r.Scope}.String()
	}
	switch {
	case r.Act != nil:
		out.Content = &pb.Event_Act{Act: &pb.Act{
			Credential: r.Act.Credential, Role: r.Act.Role, Action: r.Act.Action, Resource: r.Act.Resource, Subject: string(r.Act.Subject),
			Outcome: r.Act.Outcome, RequestId: r.Act.RequestID, Suppressed: r.Act.Suppressed, Late: r.Act.Late,
		}}
	case r.Decision != nil:
		out.Content = &pb.Event_Decision{Decision: &pb.RecordedDecision{
			DecisionId: r.Decision.ID, Credential: r.Decision.Credential, Call: r.Decision.Call, Outcome: r.Decision.Outcome,
			Subject: string(r.Decision.Subject), Margin: string(r.Decision.Margin),
		}}
	case r.Gap != nil:
		out.Content = &pb.Event_Gap{Gap: &pb.Gap{Cause: string(r.Gap.Cause), Lost: r.Gap.Lost, Detail: r.Gap.Detail}}
	}
	return out
}
