package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/menshen-io/menshen/cmd/menshen/internal/screen"
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
states it. It cannot be undone, and the id cannot be
used again. At a terminal, the scope's id must be typed to confirm; elsewhere
--yes is required. Repeating it is answered like the first time.`,
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
			if !screen.Terminal(c.stdin) {
				return usagef("revoking %s cannot be undone, and there is no terminal to ask at; give --yes if it is meant", name)
			}
			resp, err := api.GetScope(ctx, &menshenv1.GetScopeRequest{Name: name})
			if err != nil {
				return err
			}
			if err := confirmRevoke(c.stdin, c.stderr, resp.Scope); err != nil {
				return err
			}
		}
		resp, err := api.RevokeScope(ctx, &menshenv1.RevokeScopeRequest{Name: name, RequestId: id})
		if err != nil {
			return err
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

// confirmRevoke shows what is about to be destroyed and wants the scope's id
// typed. Nothing else is a yes.
func confirmRevoke(in io.Reader, out io.Writer, s *menshenv1.Scope) error {
	id := s.Name[strings.LastIndexByte(s.Name, '/')+1:]
	fmt.Fprintf(out, "%s (%s)\n%s and %s will be destroyed. This cannot be undone.\nType %s to revoke it: ",
		s.Name, oneLine(s.Purpose), plural(s.SubjectCount, "subject", "subjects"), plural(s.TemplateCount, "template", "templates"), id)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && line == "" {
		return fmt.Errorf("nothing was revoked: no answer: %w", err)
	}
	if strings.TrimSpace(line) != id {
		return fmt.Errorf("nothing was revoked: %q is not %q", strings.TrimSpace(line), id)
	}
	return nil
}
