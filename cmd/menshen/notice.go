package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func (c *cli) scopesNotice() *cobra.Command {
	var (
		tenant string
		page   bool
		req    menshenv1.GetNoticeRequest
	)
	cmd := &cobra.Command{
		Use:   "notice [SCOPE]",
		Short: "Write the notice that people are shown before they agree",
		Long: `Write what people must be told before they agree: what is collected, why, where,
how long, by whom, what they can use instead, how to refuse and how to be deleted.
It is made of the scope's own settings; read it before you put it up.`,
		Example: `  menshen scopes notice hall-a --tenant acme
  menshen scopes notice hall-a --tenant acme --language zh --html > notice.html`,
		Args: atMostOne("SCOPE"),
	}
	cmd.Flags().StringVar(&tenant, "tenant", tenantDefault(), tenantUsage)
	cmd.Flags().StringVar(&req.Language, "language", "en", "en, or zh for simplified Chinese")
	cmd.Flags().BoolVar(&page, "html", false, "write a web page, for phones and for printing")
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		var err error
		if req.Name, err = scopeName(optional(args), tenant); err != nil {
			return err
		}
		resp, err := menshenv1.NewScopeServiceClient(conn).GetNotice(ctx, &req)
		if err != nil {
			return err
		}
		switch {
		case c.json:
			return c.printMessage(resp.Notice)
		case page:
			_, err = fmt.Fprint(c.stdout, resp.Notice.GetHtml())
		default:
			_, err = fmt.Fprint(c.stdout, resp.Notice.GetText())
		}
		return err
	})
}
