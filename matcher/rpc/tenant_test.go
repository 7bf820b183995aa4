package rpc

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// A tenant is deleted once its scopes are revoked, and then nobody of it is let in,
// on streams that were open neither.
func TestDeleteTenant(t *testing.T) {
	w := newWorld(t)
	admin, gym := w.administer("admin"), &pb.DeleteTenantRequest{Name: "tenants/gym"}
	_, err := admin.DeleteTenant(w.ctx(), gym)
	w.want("with a live scope", err, codes.FailedPrecondition, "TENANT_HAS_SCOPES")
	_, err = admin.DeleteTenant(w.ctx(), &pb.DeleteTenantRequest{Name: "tenants/nobody"})
	w.want("unknown", err, codes.NotFound, "TENANT_NOT_FOUND")
	_, err = admin.DeleteTenant(w.ctx(), &pb.DeleteTenantRequest{})
	w.want("unnamed", err, codes.InvalidArgument, "FIELD_MISSING")
	if _, err := w.scopes("gym operator").GetScope(w.ctx(), &pb.GetScopeRequest{Name: "tenants/gym/scopes/north"}); err != nil {
		t.Fatalf("the refusals changed something: %v", err)
	}

	watch, err := w.events("gym auditor").WatchEvents(w.ctx(), &pb.WatchEventsRequest{})
	w.ok(err)
	_, err = w.scopes("gym operator").RevokeScope(w.ctx(), &pb.RevokeScopeRequest{Name: "tenants/gym/scopes/north"})
	w.ok(err)
	gone, err := admin.DeleteTenant(w.ctx(), gym)
	w.ok(err)
	if gone.GetTenant().GetName() != "tenants/gym" || gone.GetTenant().GetDeleteTime() == nil {
		t.Errorf("DeleteTenant = %v", gone)
	}
	again, err := admin.DeleteTenant(w.ctx(), gym)
	if err != nil || !proto.Equal(gone, again) {
		t.Errorf("deleted again: %v, %v", again, err)
	}
	for err == nil {
		_, err = watch.Recv()
	}
	w.want("the auditor's stream", err, codes.Unauthenticated, "CREDENTIAL_INVALID")
	_, err = w.scopes("gym operator").CreateScope(w.ctx(), &pb.CreateScopeRequest{ScopeId: "south", Scope: w.settings()})
	w.want("its operator", err, codes.Unauthenticated, "CREDENTIAL_INVALID")
	_, err = admin.CreateCredential(w.ctx(), &pb.CreateCredentialRequest{Parent: "tenants/gym", Credential: &pb.Credential{Role: pb.Role_ROLE_TENANT_OPERATOR}})
	w.want("a credential for it", err, codes.FailedPrecondition, "TENANT_DELETED")
	_, err = admin.CreateTenant(w.ctx(), &pb.CreateTenantRequest{TenantId: "gym"})
	w.want("its id", err, codes.AlreadyExists, "TENANT_EXISTS")

	for show, want := range map[bool]int{false: 1, true: 2} {
		list, err := admin.ListTenants(w.ctx(), &pb.ListTenantsRequest{ShowDeleted: show})
		w.ok(err)
		if len(list.GetTenants()) != want {
			t.Errorf("ListTenants, deleted %t: %v", show, list)
		}
	}
	w.wantActs("admin", "PLATFORM_ADMIN DeleteTenant tenants/gym OK", "PLATFORM_ADMIN DeleteTenant tenants/gym OK",
		"PLATFORM_ADMIN CreateCredential tenants/gym TENANT_DELETED", "PLATFORM_ADMIN CreateTenant tenants/gym TENANT_EXISTS")
}
