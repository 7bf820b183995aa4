package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func (c *cli) tenantsCommand() *cobra.Command {
	return group("tenants", "manage", "Create, list and delete tenants (platform admin)",
		`A tenant is a legal entity that runs gates: a hall operator, a school, a gym chain.
Nothing is shared between tenants. "list" and "get" count a tenant's people: from
100,000 on it must file with the authority, in China within 30 working days.`,
		c.tenantsCreate(), c.tenantsGet(), c.tenantsList(), c.tenantsDelete())
}

func (c *cli) tenantsCreate() *cobra.Command {
	req := &menshenv1.CreateTenantRequest{Tenant: &menshenv1.Tenant{}}
	cmd := &cobra.Command{
		Use:     "create TENANT",
		Short:   "Create a tenant",
		Example: "  menshen tenants create acme --display-name \"Acme Fairs Ltd\"",
		Args:    exactly("TENANT"),
	}
	cmd.Flags().StringVar(&req.Tenant.DisplayName, "display-name", "", "a name for people")
	requestIDFlag(cmd, &req.RequestId)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		req.TenantId = args[0]
		resp, err := menshenv1.NewAdminServiceClient(conn).CreateTenant(ctx, req)
		if err != nil {
			return err
		}
		return c.printTenant(resp.Tenant)
	})
}

func (c *cli) tenantsGet() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get [TENANT]",
		Short:   "Show a tenant, by default the key's own",
		Example: "  menshen tenants get acme",
		Args:    atMostOne("TENANT"),
	}
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		resp, err := menshenv1.NewAdminServiceClient(conn).GetTenant(ctx, &menshenv1.GetTenantRequest{Name: tenantName(optional(args))})
		if err != nil {
			return err
		}
		return c.printTenant(resp.Tenant)
	})
}

func (c *cli) tenantsList() *cobra.Command {
	var deleted bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List all tenants",
		Example: "  menshen tenants list\n  menshen tenants list --json | jq -r .tenants[].name",
		Args:    exactly(),
	}
	cmd.Flags().BoolVar(&deleted, "deleted", false, "deleted tenants too")
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, _ []string) error {
		all := &menshenv1.ListTenantsResponse{}
		err := eachPage(func(token string) (string, error) {
			resp, err := menshenv1.NewAdminServiceClient(conn).ListTenants(ctx, &menshenv1.ListTenantsRequest{PageSize: pageSize, PageToken: token, ShowDeleted: deleted})
			all.Tenants = append(all.Tenants, resp.GetTenants()...)
			return resp.GetNextPageToken(), err
		})
		if err != nil {
			return err
		}
		if c.json {
			return c.printMessage(all)
		}
		heads := []string{"TENANT", "NAME", "SUBJECTS", "FILING", "CREATED"}
		if deleted {
			heads = append(heads, "DELETED")
		}
		t := newTable(heads...)
		for _, tenant := range all.Tenants {
			cells := []string{tenant.Name, tenant.DisplayName, strconv.FormatInt(tenant.SubjectCount, 10), filingText(tenant.FilingState), timeText(tenant.CreateTime)}
			if deleted {
				cells = append(cells, timeText(tenant.DeleteTime))
			}
			t.row(cells...)
		}
		return c.printTable(t, "no tenants yet; make one with: menshen tenants create TENANT")
	})
}

func (c *cli) tenantsDelete() *cobra.Command {
	var (
		req menshenv1.DeleteTenantRequest
		yes bool
	)
	cmd := &cobra.Command{
		Use:   "delete TENANT",
		Short: "End a tenant for ever: none of its credentials is accepted any more",
		Long: `Delete a tenant whose scopes have all been revoked: when this has returned, its keys
and certificates are refused, and none can be made for it. It cannot be undone, and
the id cannot be used again. The tenant's receipts and its audit log stay on the
server's disk, but nobody can ask for them any more: let its operator fetch them
first ("menshen receipts get --out", "menshen audit list"). At a terminal, the
tenant's id must be typed to confirm; elsewhere --yes is required. Repeating it is
answered like the first time.`,
		Example: "  menshen tenants delete acme\n  menshen tenants delete acme --yes --json",
		Args:    exactly("TENANT"),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	requestIDFlag(cmd, &req.RequestId)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		req.Name = tenantName(args[0])
		api := menshenv1.NewAdminServiceClient(conn)
		if !yes {
			err := c.confirm(deed{"delete", "deleting", "deleted", req.Name}, func() (string, error) {
				resp, err := api.GetTenant(ctx, &menshenv1.GetTenantRequest{Name: req.Name})
				who := req.Name
				if name := resp.GetTenant().GetDisplayName(); name != "" {
					who += " (" + oneLine(name) + ")"
				}
				return who + "\nAll its keys and certificates will be refused for ever, and its id is never used again", err
			})
			if err != nil {
				return err
			}
		}
		resp, err := api.DeleteTenant(ctx, &req)
		if err != nil {
			return err
		}
		if c.json {
			return c.printMessage(resp.Tenant)
		}
		_, err = fmt.Fprintf(c.stdout, "deleted %s: its credentials are refused, and its id is never used again\n", resp.Tenant.Name)
		return err
	})
}

func (c *cli) printTenant(t *menshenv1.Tenant) error {
	if c.json {
		return c.printMessage(t)
	}
	return c.printFields("name", t.Name, "display name", t.DisplayName, "created", timeText(t.CreateTime), "deleted", timeText(t.DeleteTime),
		"holds", plural(t.SubjectCount, "subject", "subjects"), "filing", filingText(t.FilingState))
}

// filingText says what a count of people means for the filing with the
// authority.
func filingText(s menshenv1.FilingState) string {
	switch s {
	case menshenv1.FilingState_FILING_STATE_BELOW:
		return "none due"
	case menshenv1.FilingState_FILING_STATE_APPROACHING:
		return "80,000 passed"
	case menshenv1.FilingState_FILING_STATE_NEAR:
		return "95,000 passed"
	case menshenv1.FilingState_FILING_STATE_REACHED:
		return "DUE: 100,000 reached"
	}
	return ""
}

// pageSize is what the list commands ask for: the server's maximum.
const pageSize = 1000

// eachPage calls fetch with "" and then with every next page token.
func eachPage(fetch func(token string) (next string, err error)) error {
	token := ""
	for {
		next, err := fetch(token)
		if err != nil || next == "" {
			return err
		}
		token = next
	}
}

func requestIDFlag(cmd *cobra.Command, id *string) {
	cmd.Flags().StringVar(id, "request-id", "", "makes the command safe to repeat: the same id with the same content (no +30d) is carried out once")
}

func atMostOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= 1 {
			return nil
		}
		return usagef("%s takes at most one %s; see \"%s --help\"", cmd.CommandPath(), name, cmd.CommandPath())
	}
}

func optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
