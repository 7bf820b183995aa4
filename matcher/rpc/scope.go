package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.einride.tech/aip/fieldmask"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/idempotency"
	"github.com/menshen-io/menshen/matcher/notice"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// scopeServer is the ScopeService.
type scopeServer struct {
	pb.UnimplementedScopeServiceServer
	*service
}

func (s *scopeServer) CreateScope(ctx context.Context, req *pb.CreateScopeRequest) (*pb.CreateScopeResponse, error) {
	c := callOf(ctx)
	t, err := c.tenantOf("parent", req.GetParent())
	if err != nil {
		return nil, err
	}
	ref := scope.Ref{Tenant: t, Scope: scope.ScopeID(req.GetScopeId())}
	if ref.Scope.Validate() != nil {
		return nil, &fieldError{errName, "scope_id", "must be 1 to 63 of a-z, 0-9 and inner '-'"}
	}
	grant, err := c.grant(ref)
	if err != nil {
		return nil, err
	}
	var v violations
	settings := readSettings(&v, req.GetScope())
	settings.Preset = readPreset(&v, req.GetPreset())
	if err := v.err(); err != nil {
		return nil, err
	}
	r, err := requestOf(c.method, req)
	if err != nil {
		return nil, err
	}
	made, err := s.matcher.CreateScope(ctx, grant, settings, r)
	if err != nil {
		return nil, err
	}
	return &pb.CreateScopeResponse{Scope: scopeMessage(made)}, nil
}

func (s *scopeServer) GetScope(ctx context.Context, req *pb.GetScopeRequest) (*pb.GetScopeResponse, error) {
	c := callOf(ctx)
	ref, err := c.scopeOf("name", req.GetName())
	if err != nil {
		return nil, err
	}
	grant, err := c.grant(ref)
	if err != nil {
		return nil, err
	}
	found, err := s.matcher.Scope(ctx, grant)
	if err != nil {
		return nil, err
	}
	return &pb.GetScopeResponse{Scope: scopeMessage(found)}, nil
}

func (s *scopeServer) ListScopes(ctx context.Context, req *pb.ListScopesRequest) (*pb.ListScopesResponse, error) {
	c := callOf(ctx)
	t, err := c.tenantOf("parent", req.GetParent())
	if err != nil {
		return nil, err
	}
	p, err := openPage(req.GetPageSize(), req.GetPageToken(), c.method, tenantName(t), strconv.FormatBool(req.GetShowRevoked()))
	if err != nil {
		return nil, err
	}
	list := s.tenantScopes
	if c.caller.Role().OfScopes() {
		list = s.ownScopes
	}
	found, err := list(ctx, c, t, p, req.GetShowRevoked())
	if err != nil {
		return nil, err
	}
	out := &pb.ListScopesResponse{}
	found, out.NextPageToken = cut(p, found, func(s matcher.Scope) string { return string(s.Ref.Scope) })
	for _, sc := range found {
		out.Scopes = append(out.Scopes, scopeMessage(sc))
	}
	return out, nil
}

// tenantScopes lists for callers that see their whole tenant.
func (s *scopeServer) tenantScopes(ctx context.Context, c call, t scope.TenantID, p page, showRevoked bool) ([]matcher.Scope, error) {
	grant, err := c.caller.TenantGrant(t)
	if err != nil {
		return nil, err
	}
	return s.matcher.Scopes(ctx, grant, scope.ScopeID(p.after), p.limit(), showRevoked)
}

// ownScopes lists, for callers that see single scopes, those.
func (s *scopeServer) ownScopes(ctx context.Context, c call, t scope.TenantID, p page, showRevoked bool) (out []matcher.Scope, err error) {
	for _, id := range c.caller.Scopes() {
		grant, err := c.grant(scope.Ref{Tenant: t, Scope: id})
		if err != nil {
			return nil, err
		}
		if string(id) <= p.after || len(out) == p.limit() {
			continue
		}
		sc, err := s.matcher.Scope(ctx, grant)
		if errors.Is(err, matcher.ErrNoScope) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if showRevoked || sc.State != scope.Revoked {
			out = append(out, sc)
		}
	}
	return out, nil
}

func (s *scopeServer) UpdateScope(ctx context.Context, req *pb.UpdateScopeRequest) (*pb.UpdateScopeResponse, error) {
	ref, err := parseScope("scope.name", req.GetScope().GetName())
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	grant, err := c.grant(ref)
	if err != nil {
		return nil, err
	}
	patch, err := readPatch(req.GetScope(), req.GetUpdateMask())
	if err != nil {
		return nil, err
	}
	r, err := requestOf(c.method, req)
	if err != nil {
		return nil, err
	}
	changed, err := s.matcher.UpdateScope(ctx, grant, patch, r)
	if err != nil {
		return nil, err
	}
	out := &pb.UpdateScopeResponse{Scope: scopeMessage(changed.Scope)}
	if changed.NoticeChanged {
		out.Warnings = append(out.Warnings, warnNotice(changed.Settings))
	}
	return out, nil
}

// warnNotice is said when people are told something else than those before them.
func warnNotice(s matcher.Settings) string {
	text := fmt.Sprintf("the notice says something else now and has the version %s: put it up, tell those who are enrolled already, and let consents name that version", s.CurrentNotice())
	if s.CurrentNoticeRequired {
		text += "; enrolments that name another are refused from now on"
	}
	return text
}

func (s *scopeServer) GetNotice(ctx context.Context, req *pb.GetNoticeRequest) (*pb.GetNoticeResponse, error) {
	c := callOf(ctx)
	ref, err := c.scopeOf("name", req.GetName())
	if err != nil {
		return nil, err
	}
	grant, err := c.grant(ref)
	if err != nil {
		return nil, err
	}
	lang, err := notice.ParseLanguage(req.GetLanguage())
	if err != nil {
		return nil, err
	}
	sc, n, err := s.matcher.Notice(ctx, grant, s.authority.DisplayName(ref.Tenant), lang)
	if err != nil {
		return nil, err
	}
	return &pb.GetNoticeResponse{Notice: &pb.Notice{
		Scope: ref.String(), Language: string(n.Language), Version: sc.CurrentNotice(), Title: n.Title, Text: n.Text, Html: n.HTML,
	}}, nil
}

func (s *scopeServer) SuspendScope(ctx context.Context, req *pb.SuspendScopeRequest) (*pb.SuspendScopeResponse, error) {
	grant, r, err := s.command(ctx, req.GetName(), req)
	if err != nil {
		return nil, err
	}
	changed, err := s.matcher.SuspendScope(ctx, grant, r)
	if err != nil {
		return nil, err
	}
	return &pb.SuspendScopeResponse{Scope: scopeMessage(changed)}, nil
}

func (s *scopeServer) ResumeScope(ctx context.Context, req *pb.ResumeScopeRequest) (*pb.ResumeScopeResponse, error) {
	grant, r, err := s.command(ctx, req.GetName(), req)
	if err != nil {
		return nil, err
	}
	changed, err := s.matcher.ResumeScope(ctx, grant, r)
	if err != nil {
		return nil, err
	}
	return &pb.ResumeScopeResponse{Scope: scopeMessage(changed)}, nil
}

func (s *scopeServer) RevokeScope(ctx context.Context, req *pb.RevokeScopeRequest) (*pb.RevokeScopeResponse, error) {
	grant, r, err := s.command(ctx, req.GetName(), req)
	if err != nil {
		return nil, err
	}
	done, err := s.matcher.RevokeScope(ctx, grant, r)
	if err != nil {
		return nil, err
	}
	return &pb.RevokeScopeResponse{
		Scope: scopeMessage(done.Scope), SubjectsErased: int64(done.Subjects), TemplatesErased: int64(done.Templates),
		Receipt: receiptMessage(done.Receipt),
	}, nil
}

// command reads and authorises a request that names a scope and changes it.
func (s *scopeServer) command(ctx context.Context, name string, req identified) (scope.Grant, idempotency.Request, error) {
	ref, err := parseScope("name", name)
	if err != nil {
		return scope.Grant{}, idempotency.Request{}, err
	}
	c := callOf(ctx)
	grant, err := c.grant(ref)
	if err != nil {
		return scope.Grant{}, idempotency.Request{}, err
	}
	r, err := requestOf(c.method, req)
	return grant, r, err
}

// readSettings reads what an operator decides about a scope; what the service
// sets by itself is passed over.
func readSettings(v *violations, s *pb.Scope) matcher.Settings {
	return matcher.Settings{
		Purpose: s.GetPurpose(), Site: s.GetSite(), Alternative: s.GetAlternative(), LegalBasis: s.GetLegalBasis(),
		AssessmentReference: s.GetAssessmentReference(), NoticeVersion: s.GetNoticeVersion(),
		EndTime: v.time("scope.end_time", s.GetEndTime()), Retention: v.duration("scope.retention", s.GetRetention()),
		VerifyThreshold: code.Threshold(s.GetVerifyThreshold()), IdentifyThreshold: code.Threshold(s.GetIdentifyThreshold()),
		MaxTemplates: int(s.GetMaxTemplatesPerSubject()), Contact: s.GetContact(),
		TransmissionRequired: s.GetTransmissionConsentRequired(), CurrentNoticeRequired: s.GetCurrentNoticeRequired(), SingleUse: s.GetSingleUse(),
		DecisionAudit: readDecisionAudit(v, s.GetDecisionAudit()), AuditRetention: v.duration("scope.audit_retention", s.GetAuditRetention()),
	}
}

// decisionAudits are the ways to record decisions as the API numbers them.
var decisionAudits = map[pb.DecisionAudit]matcher.DecisionAudit{
	pb.DecisionAudit_DECISION_AUDIT_UNSPECIFIED: "",
	pb.DecisionAudit_DECISION_AUDIT_OFF:         "",
	pb.DecisionAudit_DECISION_AUDIT_BEST_EFFORT: matcher.AuditBestEffort,
	pb.DecisionAudit_DECISION_AUDIT_REQUIRED:    matcher.AuditRequired,
}

func readDecisionAudit(v *violations, a pb.DecisionAudit) matcher.DecisionAudit {
	return readNumber(v, "scope.decision_audit", "way to record", decisionAudits, a)
}

func decisionAuditMessage(a matcher.DecisionAudit) pb.DecisionAudit {
	if a == "" {
		return pb.DecisionAudit_DECISION_AUDIT_OFF // of the two that mean it
	}
	return numberOf(decisionAudits, a)
}

// readNumber reads one of a kind of things that the API numbers.
func readNumber[N ~int32, T any](v *violations, field, kind string, things map[N]T, n N) T {
	thing, known := things[n]
	if !known {
		v.add(field, "is %d, which is no %s that this server knows", n, kind)
	}
	return thing
}

// numberOf is the API's number of a thing; 0, which the API leaves unspecified, of
// one that has none.
func numberOf[N ~int32, T comparable](things map[N]T, thing T) (number N) {
	for n, t := range things {
		if t == thing {
			return n
		}
	}
	return number
}

// presets are the presets as the API numbers them.
var presets = map[pb.ScopePreset]matcher.Preset{
	pb.ScopePreset_SCOPE_PRESET_UNSPECIFIED: "",
	pb.ScopePreset_SCOPE_PRESET_EXHIBITION:  matcher.Exhibition,
	pb.ScopePreset_SCOPE_PRESET_CAMPUS:      matcher.Campus,
	pb.ScopePreset_SCOPE_PRESET_GYM:         matcher.Gym,
	pb.ScopePreset_SCOPE_PRESET_LOCKER:      matcher.Locker,
	pb.ScopePreset_SCOPE_PRESET_RESIDENCE:   matcher.Residence,
	pb.ScopePreset_SCOPE_PRESET_WORKPLACE:   matcher.Workplace,
}

func readPreset(v *violations, p pb.ScopePreset) matcher.Preset {
	return readNumber(v, "preset", "preset", presets, p)
}

func presetMessage(p matcher.Preset) pb.ScopePreset { return numberOf(presets, p) }

// maxMask bounds the paths of a field mask; a scope has fewer fields.
const maxMask = 32

// readPatch reads an update. Fields that the mask does not name are passed
// over, even where they are malformed.
func readPatch(s *pb.Scope, mask *fieldmaskpb.FieldMask) (matcher.SettingsPatch, error) {
	paths := slices.Compact(slices.Sorted(slices.Values(mask.GetPaths())))
	bad := func(text string) (matcher.SettingsPatch, error) {
		return matcher.SettingsPatch{}, &fieldError{errFieldMask, "update_mask", text}
	}
	switch {
	case len(paths) == 0:
		return bad("is required: name the fields to change, for example alternative")
	case len(paths) > maxMask:
		return bad(fmt.Sprintf("names %d fields; a scope has fewer", len(paths)))
	case slices.Contains(paths, fieldmask.WildcardPath):
		return bad("must name the fields: '*' would change those that cannot change")
	}
	for _, path := range paths {
		if strings.Contains(path, ".") || fieldmask.Validate(&fieldmaskpb.FieldMask{Paths: []string{path}}, s) != nil {
			return bad(fmt.Sprintf("names %q, which is no field of Scope: write names as in the .proto, for example end_time", clip(path, 60)))
		}
	}
	var v violations
	patch := matcher.SettingsPatch{Settings: readSettings(&v, s), Fields: paths}
	v = slices.DeleteFunc(v, func(f matcher.Violation) bool {
		return !slices.Contains(paths, strings.TrimPrefix(f.Field, "scope."))
	})
	return patch, v.err()
}

func scopeMessage(s matcher.Scope) *pb.Scope {
	return &pb.Scope{
		Name: s.Ref.String(), Purpose: s.Purpose, Site: s.Site, Alternative: s.Alternative, LegalBasis: s.LegalBasis,
		AssessmentReference: s.AssessmentReference, NoticeVersion: s.NoticeVersion,
		EndTime: stamp(s.EndTime), Retention: span(s.Retention),
		VerifyThreshold: float64(s.VerifyThreshold), IdentifyThreshold: float64(s.IdentifyThreshold),
		MaxTemplatesPerSubject: int32(s.MaxTemplates), State: stateMessage(s.State), ModelId: s.ModelID, Epoch: uint64(s.Epoch),
		SubjectCount: int64(s.Subjects), TemplateCount: int64(s.Templates),
		CreateTime: stamp(s.CreateTime), UpdateTime: stamp(s.UpdateTime), RevokeTime: stamp(s.RevokeTime),
		Preset: presetMessage(s.Preset), TransmissionConsentRequired: s.TransmissionRequired, SingleUse: s.SingleUse, Contact: s.Contact,
		DecisionAudit: decisionAuditMessage(s.DecisionAudit), AuditRetention: span(s.AuditRetention),
		CurrentNoticeRequired: s.CurrentNoticeRequired, CurrentNoticeVersion: s.CurrentNotice(),
	}
}

func stateMessage(s scope.State) pb.ScopeState {
	switch s {
	case scope.Active:
		return pb.ScopeState_SCOPE_STATE_ACTIVE
	case scope.Suspended:
		return pb.ScopeState_SCOPE_STATE_SUSPENDED
	case scope.Revoked:
		return pb.ScopeState_SCOPE_STATE_REVOKED
	}
	return pb.ScopeState_SCOPE_STATE_UNSPECIFIED
}
