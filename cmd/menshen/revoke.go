package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/menshen-io/menshen/cmd/menshen/internal/client"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func (c *cli) scopesRevoke() *cobra.Command {
	var (
		tenant, id string
		yes        bool
	)
	cmd := &cobra.Command{
		Use:   "revoke SCOPE",
		Short: "End a purpose for ever: destroy its key and all its templates",
		Long: `Revoke a scope: when this has returned, nothing of the scope matches, its key is
destroyed, its records are removed and the files were searched for them; a receipt
states it. On a full disk the records and the receipt wait for room. It cannot be
undone, and the id cannot be used again. At a terminal, the scope's id must be
typed to confirm; elsewhere --yes is required. Repeating it is answered like the
first time.`,
		Example: "  menshen scopes revoke tenants/acme/scopes/hall-a\n  menshen scopes revoke hall-a --tenant acme --yes --json",
		Args:    exactly("SCOPE"),
	}
	cmd.Flags().StringVar(&tenant, "tenant", tenantDefault(), tenantUsage)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	requestIDFlag(cmd, &id)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		name, err := scopeName(args[0], tenant)
		if err != nil {
			return err
		}
		api := menshenv1.NewScopeServiceClient(conn)
		if !yes {
			err := c.confirm(deed{"revoke", "revoking", "revoked", name}, func() (string, error) {
				resp, err := api.GetScope(ctx, &menshenv1.GetScopeRequest{Name: name})
				return aboutRevoking(resp.GetScope()), err
			})
			if err != nil {
				return err
			}
		}
		resp, err := api.RevokeScope(ctx, &menshenv1.RevokeScopeRequest{Name: name, RequestId: id})
		if err != nil {
			return afterCut(err, name)
		}
		if c.json {
			return c.printMessage(resp)
		}
		fmt.Fprintf(c.stdout, "revoked %s: %s and %s erased, key destroyed\n", resp.Scope.Name,
			plural(resp.SubjectsErased, "subject", "subjects"), plural(resp.TemplatesErased, "template", "templates"))
		fmt.Fprintf(c.stdout, "receipt %s\n", resp.Receipt.GetName())
		return nil
	})
}

// aboutRevoking says what is about to be destroyed.
func aboutRevoking(s *menshenv1.Scope) string {
	return fmt.Sprintf("%s (%s)\n%s and %s will be destroyed", s.Name, oneLine(s.Purpose),
		plural(s.SubjectCount, "subject", "subjects"), plural(s.TemplateCount, "template", "templates"))
}

// afterCut adds to a revocation that was cut off, by the server's end or by the
// caller's patience, what is known of it: nothing.
func afterCut(err error, name string) error {
	if !client.Cut(err) {
		return err
	}
	return &advised{fmt.Errorf("it is not known whether the revocation of %s has begun: the answer did not arrive: %w", name, err),
		fmt.Sprintf("repeat it once the server is there: that is safe, and answered when all is destroyed; or look first: menshen scopes get %s", name)}
}
