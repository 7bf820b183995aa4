package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/menshen-io/menshen/cmd/menshen/internal/client"
	"github.com/menshen-io/menshen/index/scope"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

const tenantID = "autumn-fair"

// fair is the tenant with its two halls and the connections of its people.
type fair struct {
	address  string
	operator *grpc.ClientConn
	a, b     *hall
	conns    []*grpc.ClientConn
}

// hall is a scope with the connections of its enrolment desk and its gates.
type hall struct {
	name    string
	ref     scope.Ref
	desk    menshenv1.EnrollmentServiceClient
	gateKey string
	fair    *fair
}

// openFair makes the tenant, an operator's key and the two halls.
func openFair(ctx context.Context, t Target) (_ *fair, err error) {
	f := &fair{address: t.Address}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	adminConn, err := f.connect(t.AdminKey)
	if err != nil {
		return nil, err
	}
	admin := menshenv1.NewAdminServiceClient(adminConn)
	if _, err := admin.CreateTenant(ctx, &menshenv1.CreateTenantRequest{
		TenantId: tenantID, Tenant: &menshenv1.Tenant{DisplayName: "Autumn Fair"},
	}); err != nil {
		return nil, fmt.Errorf("create the tenant: %w", err)
	}
	key, err := newKey(ctx, admin, menshenv1.Role_ROLE_TENANT_OPERATOR)
	if err != nil {
		return nil, err
	}
	if f.operator, err = f.connect(key); err != nil {
		return nil, err
	}
	if f.a, err = f.openHall(ctx, "hall-a", "Hall A", t.IdentifyThreshold); err != nil {
		return nil, err
	}
	f.b, err = f.openHall(ctx, "hall-b", "Hall B", t.IdentifyThreshold)
	return f, err
}

func (f *fair) openHall(ctx context.Context, id, site string, threshold float64) (*hall, error) {
	resp, err := menshenv1.NewScopeServiceClient(f.operator).CreateScope(ctx, &menshenv1.CreateScopeRequest{
		Parent: "tenants/" + tenantID, ScopeId: id, Scope: &menshenv1.Scope{
			Purpose: "entry to the Autumn Fair", Site: site, Alternative: "staffed lane beside the gates",
			LegalBasis: "separate consent", NoticeVersion: "demo-1", EndTime: timestamppb.New(time.Now().Add(24 * time.Hour)),
			IdentifyThreshold: threshold,
		}})
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", id, err)
	}
	h := &hall{name: resp.Scope.Name, ref: scope.Ref{Tenant: tenantID, Scope: scope.ScopeID(id)}, fair: f}
	admin := menshenv1.NewAdminServiceClient(f.operator)
	deskKey, err := newKey(ctx, admin, menshenv1.Role_ROLE_ENROLLER, h.name)
	if err != nil {
		return nil, err
	}
	deskConn, err := f.connect(deskKey)
	if err != nil {
		return nil, err
	}
	h.desk = menshenv1.NewEnrollmentServiceClient(deskConn)
	h.gateKey, err = newKey(ctx, admin, menshenv1.Role_ROLE_GATE, h.name)
	return h, err
}

// gate opens the connection of one more gate of the hall.
func (h *hall) gate() (menshenv1.MatchServiceClient, error) {
	conn, err := h.fair.connect(h.gateKey)
	if err != nil {
		return nil, err
	}
	return menshenv1.NewMatchServiceClient(conn), nil
}

// subject is the resource name of a visitor in this hall.
func (h *hall) subject(person int) string { return h.name + "/subjects/" + visitorID(person) }

func (f *fair) connect(key string) (*grpc.ClientConn, error) {
	conn, err := client.Connect(f.address, insecure.NewCredentials(), client.BearerKey(key, true))
	if err == nil {
		f.conns = append(f.conns, conn)
	}
	return conn, err
}

func (f *fair) close() error {
	var errs []error
	for _, c := range f.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func newKey(ctx context.Context, admin menshenv1.AdminServiceClient, role menshenv1.Role, scopes ...string) (string, error) {
	resp, err := admin.CreateCredential(ctx, &menshenv1.CreateCredentialRequest{
		Parent:     "tenants/" + tenantID,
		Credential: &menshenv1.Credential{Role: role, Scopes: scopes, DisplayName: "demo"},
	})
	if err != nil {
		return "", fmt.Errorf("create a credential (%s): %w", role, err)
	}
	return resp.ApiKey, nil
}
