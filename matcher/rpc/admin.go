package rpc

import (
	"context"
	"fmt"
	"strconv"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/auth"
	"github.com/menshen-io/menshen/models/pipeline"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// adminServer is the AdminService. What a caller may do to a tenant is checked
// by the Authority, which takes the caller.
type adminServer struct {
	pb.UnimplementedAdminServiceServer
	*service
}

func (s *adminServer) CreateTenant(ctx context.Context, req *pb.CreateTenantRequest) (*pb.CreateTenantResponse, error) {
	c := callOf(ctx)
	r, err := requestOf(c.method, req)
	if err != nil {
		return nil, err
	}
	made, err := s.authority.CreateTenant(ctx, c.caller, scope.TenantID(req.GetTenantId()), req.GetTenant().GetDisplayName(), r)
	if err != nil {
		return nil, err
	}
	return &pb.CreateTenantResponse{Tenant: s.tenantMessage(made)}, nil
}

func (s *adminServer) GetTenant(ctx context.Context, req *pb.GetTenantRequest) (*pb.GetTenantResponse, error) {
	c := callOf(ctx)
	id, err := c.tenantOf("name", req.GetName())
	if err != nil {
		return nil, err
	}
	found, err := s.authority.Tenant(c.caller, id)
	if err != nil {
		return nil, err
	}
	return &pb.GetTenantResponse{Tenant: s.tenantMessage(found)}, nil
}

func (s *adminServer) ListTenants(ctx context.Context, req *pb.ListTenantsRequest) (*pb.ListTenantsResponse, error) {
	c := callOf(ctx)
	p, err := openPage(req.GetPageSize(), req.GetPageToken(), c.method, strconv.FormatBool(req.GetShowDeleted()))
	if err != nil {
		return nil, err
	}
	found, err := s.authority.Tenants(c.caller, scope.TenantID(p.after), p.limit(), req.GetShowDeleted())
	if err != nil {
		return nil, err
	}
	out := &pb.ListTenantsResponse{}
	found, out.NextPageToken = cut(p, found, func(t auth.Tenant) string { return string(t.ID) })
	for _, t := range found {
		out.Tenants = append(out.Tenants, s.tenantMessage(t))
	}
	return out, nil
}

// DeleteTenant ends a tenant while none of its scopes lives and none can be made.
func (s *adminServer) DeleteTenant(ctx context.Context, req *pb.DeleteTenantRequest) (*pb.DeleteTenantResponse, error) {
	c := callOf(ctx)
	id, err := parseTenant("name", req.GetName())
	if err != nil {
		return nil, err
	}
	r, err := requestOf(c.method, req)
	if err != nil {
		return nil, err
	}
	var ended auth.Tenant
	err = s.matcher.CloseTenant(ctx, id, func() (err error) {
		ended, err = s.authority.DeleteTenant(ctx, c.caller, id, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &pb.DeleteTenantResponse{Tenant: s.tenantMessage(ended)}, nil
}

func (s *adminServer) CreateCredential(ctx context.Context, req *pb.CreateCredentialRequest) (*pb.CreateCredentialResponse, error) {
	c := callOf(ctx)
	t, err := c.parentOf(req.GetParent())
	if err != nil {
		return nil, err
	}
	spec, err := readSpec(t, req.GetCredential())
	if err != nil {
		return nil, err
	}
	r, err := requestOf(c.method, req)
	if err != nil {
		return nil, err
	}
	made, key, err := s.authority.CreateCredential(ctx, c.caller, spec, r)
	if err != nil {
		return nil, err
	}
	return &pb.CreateCredentialResponse{Credential: credentialMessage(made), ApiKey: key}, nil
}

func (s *adminServer) ListCredentials(ctx context.Context, req *pb.ListCredentialsRequest) (*pb.ListCredentialsResponse, error) {
	c := callOf(ctx)
	t, err := c.parentOf(req.GetParent())
	if err != nil {
		return nil, err
	}
	p, err := openPage(req.GetPageSize(), req.GetPageToken(), c.method, string(t))
	if err != nil {
		return nil, err
	}
	found, err := s.authority.Credentials(c.caller, t, auth.CredentialID(p.after), p.limit())
	if err != nil {
		return nil, err
	}
	out := &pb.ListCredentialsResponse{}
	found, out.NextPageToken = cut(p, found, func(c auth.Credential) string { return string(c.ID) })
	for _, cred := range found {
		out.Credentials = append(out.Credentials, credentialMessage(cred))
	}
	return out, nil
}

func (s *adminServer) RevokeCredential(ctx context.Context, req *pb.RevokeCredentialRequest) (*pb.RevokeCredentialResponse, error) {
	c := callOf(ctx)
	t, id, err := parseCredential("name", req.GetName())
	if err != nil {
		return nil, err
	}
	r, err := requestOf(c.method, req)
	if err != nil {
		return nil, err
	}
	revoked, err := s.authority.RevokeCredential(ctx, c.caller, t, id, r)
	if err != nil {
		return nil, err
	}
	return &pb.RevokeCredentialResponse{Credential: credentialMessage(revoked)}, nil
}

// parentOf is the tenant whose credentials are meant: the named one, or the
// caller's own, which for platform admins is none: the platform's.
func (c call) parentOf(name string) (scope.TenantID, error) {
	if name == "" {
		return c.caller.Tenant(), nil
	}
	return parseTenant("parent", name)
}

// readSpec reads what the maker of a credential decides; what the service sets
// by itself is passed over.
func readSpec(t scope.TenantID, c *pb.Credential) (auth.Spec, error) {
	var v violations
	spec := auth.Spec{
		Role: readRole(c.GetRole()), Tenant: t, DisplayName: c.GetDisplayName(),
		ExpireTime: v.time("credential.expire_time", c.GetExpireTime()), ClientCertificate: c.GetClientCertificate(),
	}
	if n := len(c.GetScopes()); n > auth.MaxScopes {
		v.add("credential.scopes", "names %d scopes; at most %d are allowed", n, auth.MaxScopes)
		return spec, v.err()
	}
	for i, name := range c.GetScopes() {
		ref, err := parseScope(fmt.Sprintf("credential.scopes[%d]", i), name)
		if err != nil {
			return spec, err
		}
		spec.Scopes = append(spec.Scopes, ref)
	}
	return spec, v.err()
}

// readRole gives the zero Role, which no credential can have, for a value that
// is none of the API's.
func readRole(r pb.Role) auth.Role {
	for _, role := range auth.Roles() {
		if roleMessage(role) == r {
			return role
		}
	}
	return 0
}

func roleMessage(r auth.Role) pb.Role {
	switch r {
	case auth.PlatformAdmin:
		return pb.Role_ROLE_PLATFORM_ADMIN
	case auth.TenantOperator:
		return pb.Role_ROLE_TENANT_OPERATOR
	case auth.Enroller:
		return pb.Role_ROLE_ENROLLER
	case auth.Gate:
		return pb.Role_ROLE_GATE
	case auth.Auditor:
		return pb.Role_ROLE_AUDITOR
	}
	return pb.Role_ROLE_UNSPECIFIED
}

func (s *adminServer) tenantMessage(t auth.Tenant) *pb.Tenant {
	f := s.matcher.Filing(t.ID)
	return &pb.Tenant{
		Name: tenantName(t.ID), DisplayName: t.DisplayName, CreateTime: stamp(t.CreateTime), DeleteTime: stamp(t.DeleteTime),
		SubjectCount: int64(f.Subjects), FilingState: filingMessage(f.State),
	}
}

func filingMessage(s matcher.FilingState) pb.FilingState {
	switch s {
	case matcher.FilingBelow:
		return pb.FilingState_FILING_STATE_BELOW
	case matcher.FilingApproaching:
		return pb.FilingState_FILING_STATE_APPROACHING
	case matcher.FilingNear:
		return pb.FilingState_FILING_STATE_NEAR
	case matcher.FilingReached:
		return pb.FilingState_FILING_STATE_REACHED
	}
	return pb.FilingState_FILING_STATE_UNSPECIFIED
}

func credentialMessage(c auth.Credential) *pb.Credential {
	out := &pb.Credential{
		Name: credentialName(c.Tenant, c.ID), Role: roleMessage(c.Role), DisplayName: c.DisplayName,
		CreateTime: stamp(c.CreateTime), ExpireTime: stamp(c.ExpireTime), RevokeTime: stamp(c.RevokeTime),
		ClientCertificate: string(c.ClientCertificate),
	}
	for _, id := range c.Scopes {
		out.Scopes = append(out.Scopes, scope.Ref{Tenant: c.Tenant, Scope: id}.String())
	}
	return out
}

func (s *adminServer) GetServerInfo(context.Context, *pb.GetServerInfoRequest) (*pb.GetServerInfoResponse, error) {
	out := &pb.GetServerInfoResponse{
		Version: s.info.Version, RuntimeVersion: s.info.RuntimeVersion, Kernel: s.info.Kernel,
		StartTime: stamp(s.info.Start), Limits: s.limits,
	}
	for _, m := range s.info.Models {
		out.Models = append(out.Models, modelMessage(m))
		out.Evaluation = out.Evaluation || m.Manifest.Evaluation
	}
	return out, nil
}

func modelMessage(m pipeline.ModelInfo) *pb.Model {
	return &pb.Model{
		Id: m.ID, Kind: string(m.Manifest.Kind), License: m.Manifest.License, NonCommercial: m.Manifest.NonCommercial,
		Evaluation: m.Manifest.Evaluation, Dimension: int32(m.Manifest.Output.Dimension), Threshold: m.Manifest.Threshold,
		Sha256: m.Manifest.SHA256,
	}
}

func limitsMessage(opt Options) *pb.Limits {
	return &pb.Limits{
		MaxImageBytes: int64(opt.Info.Images.MaxBytes), MaxImagePixels: opt.Info.Images.MaxPixels,
		MaxMessageBytes: int64(opt.MaxMessageBytes), MaxCandidates: index.MaxK,
		MaxProbes: matcher.MaxTemplates, MaxFaces: int32(opt.Matcher.MaxFaces()),
	}
}
