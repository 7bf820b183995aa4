package rpc

import (
	"fmt"

	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/auth"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// level says what a method is about, and so what a handler must ask for.
type level uint8

const (
	// open methods need no credential and touch no data.
	open level = 1 + iota
	// anyone methods need a credential, of whatever role.
	anyone
	// platform methods are about tenants, credentials and logs; matcher/auth and
	// the handlers of audit.go check the caller against what they name.
	platform
	// tenant methods are about the scopes of a tenant and need a TenantGrant,
	// or a grant for each scope that they show.
	tenant
	// scoped methods are about one scope and need a Grant for the row's use.
	scoped
)

// row says who may call a method and what for. A row with several uses is a
// stream whose items each need one of them.
type row struct {
	level level
	roles roles
	use   scope.Use
}

// administrative methods change or show what is kept, rather than compare or
// add faces. Each of their calls is worth a line in the log.
func (r row) administrative() bool {
	return r.level == platform || r.level == scoped && r.use&(scope.UseManage|scope.UseErase) != 0
}

// weighed reports whether each call of a method costs core time, so that it may
// be refused by its headers alone when the machine is busy. The items of streams
// are weighed one by one; what erases, revokes or administers never is.
func weighed(method string) bool {
	switch method {
	case pb.MatchService_Verify_FullMethodName, pb.MatchService_Identify_FullMethodName, pb.EnrollmentService_Enroll_FullMethodName:
		return true
	}
	return false
}

// roles is a set of roles.
type roles uint8

func of(list ...auth.Role) (s roles) {
	for _, r := range list {
		s |= 1 << r
	}
	return s
}

func (s roles) has(r auth.Role) bool { return r.Valid() && s&(1<<r) != 0 }

// policy has one row for each method that the server answers; methods are
// matched whole, byte by byte. A method that is not here is refused.
type policy map[string]row

// newPolicy is the table. Reflection describes the API and nothing else; it
// needs a credential unless openReflection is set, as on a development server.
func newPolicy(openReflection bool) policy {
	var (
		gate      = of(auth.Gate)
		enroller  = of(auth.Enroller)
		operator  = of(auth.TenantOperator)
		admin     = of(auth.PlatformAdmin)
		auditor   = of(auth.Auditor)
		everybody = of(auth.Roles()...)
		inTenant  = everybody &^ admin
		reflect   = row{level: anyone, roles: everybody}
	)
	if openReflection {
		reflect = row{level: open}
	}
	return policy{
		pb.MatchService_Verify_FullMethodName:      {scoped, gate, scope.UseVerify},
		pb.MatchService_Identify_FullMethodName:    {scoped, gate, scope.UseIdentify},
		pb.MatchService_MatchStream_FullMethodName: {scoped, gate, scope.UseVerify | scope.UseIdentify},

		pb.EnrollmentService_Enroll_FullMethodName:          {scoped, enroller, scope.UseEnroll},
		pb.EnrollmentService_BulkEnroll_FullMethodName:      {scoped, enroller, scope.UseEnroll},
		pb.EnrollmentService_GetSubject_FullMethodName:      {scoped, enroller | operator | auditor, scope.UseRead},
		pb.EnrollmentService_ListSubjects_FullMethodName:    {scoped, enroller | operator | auditor, scope.UseRead},
		pb.EnrollmentService_DeleteTemplate_FullMethodName:  {scoped, enroller | operator, scope.UseErase},
		pb.EnrollmentService_DeleteSubject_FullMethodName:   {scoped, enroller | operator, scope.UseErase},
		pb.EnrollmentService_WithdrawConsent_FullMethodName: {scoped, enroller | operator, scope.UseErase},

		pb.ScopeService_CreateScope_FullMethodName:  {scoped, operator, scope.UseManage},
		pb.ScopeService_GetScope_FullMethodName:     {scoped, inTenant, scope.UseSettings},
		pb.ScopeService_ListScopes_FullMethodName:   {tenant, inTenant, scope.UseSettings},
		pb.ScopeService_GetNotice_FullMethodName:    {scoped, inTenant, scope.UseSettings},
		pb.ScopeService_UpdateScope_FullMethodName:  {scoped, operator, scope.UseManage},
		pb.ScopeService_SuspendScope_FullMethodName: {scoped, operator, scope.UseManage},
		pb.ScopeService_ResumeScope_FullMethodName:  {scoped, operator, scope.UseManage},
		pb.ScopeService_RevokeScope_FullMethodName:  {scoped, operator, scope.UseManage},

		pb.AdminService_CreateTenant_FullMethodName:     {platform, admin, 0},
		pb.AdminService_GetTenant_FullMethodName:        {platform, admin | operator | auditor, 0},
		pb.AdminService_ListTenants_FullMethodName:      {platform, admin, 0},
		pb.AdminService_DeleteTenant_FullMethodName:     {platform, admin, 0},
		pb.AdminService_CreateCredential_FullMethodName: {platform, admin | operator, 0},
		pb.AdminService_ListCredentials_FullMethodName:  {platform, admin | operator | auditor, 0},
		pb.AdminService_RevokeCredential_FullMethodName: {platform, admin | operator, 0},
		pb.AdminService_GetServerInfo_FullMethodName:    {anyone, everybody, 0},
		pb.AdminService_Backup_FullMethodName:           {platform, admin, 0},

		pb.AuditService_GetReceipt_FullMethodName:   {scoped, enroller | operator | auditor, scope.UseRead},
		pb.AuditService_ListReceipts_FullMethodName: {tenant, enroller | operator | auditor, scope.UseRead},

		pb.AuditService_ListEvents_FullMethodName:    {platform, admin | operator | auditor, 0},
		pb.AuditService_WatchEvents_FullMethodName:   {platform, admin | operator | auditor, 0},
		pb.AuditService_GetCheckpoint_FullMethodName: {platform, admin | operator | auditor, 0},

		// Load balancers ask without a key and learn one word.
		grpc_health_v1.Health_Check_FullMethodName: {open, 0, 0},
		grpc_health_v1.Health_List_FullMethodName:  {open, 0, 0},
		grpc_health_v1.Health_Watch_FullMethodName: {open, 0, 0},

		reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName:    reflect,
		reflectionalpha.ServerReflection_ServerReflectionInfo_FullMethodName: reflect,
	}
}

// check reports the first row that contradicts the roles: a role that may call
// a method but never gets a grant for its use, or a method that nobody reaches.
func (p policy) check() error {
	for method, r := range p {
		if (r.level == open) != (r.roles == 0) || (r.level == scoped || r.level == tenant) != (r.use != 0) {
			return fmt.Errorf("rpc: the policy row of %s contradicts itself", method)
		}
		for _, role := range auth.Roles() {
			if r.roles.has(role) && role.Uses()&r.use != r.use {
				return fmt.Errorf("rpc: the policy lets %s call %s, but it does not %s", role, method, r.use)
			}
		}
	}
	return nil
}
