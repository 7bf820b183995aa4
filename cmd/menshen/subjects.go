package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func (c *cli) subjectsCommand() *cobra.Command {
	return group("subjects", "manage", "List, show and erase subjects (enroller, tenant operator)",
		`A subject is a person inside one scope, under a pseudonym. Subjects are added with
"menshen enroll". A subject is named tenants/T/scopes/S/subjects/U.`,
		c.subjectsList(), c.subjectsGet(), c.subjectsDelete(), c.subjectsWithdraw(), c.subjectsDeleteTemplate())
}

func (c *cli) subjectsList() *cobra.Command {
	var scope, tenant string
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the subjects of a scope",
		Example: "  menshen subjects list --scope tenants/acme/scopes/hall-a --limit 20",
		Args:    exactly(),
	}
	cmd.Flags().StringVar(&scope, "scope", "", "the scope; by default the key's only one")
	cmd.Flags().StringVar(&tenant, "tenant", tenantDefault(), tenantUsage)
	cmd.Flags().IntVar(&limit, "limit", 0, "list at most so many; 0 lists all")
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, _ []string) error {
		parent, err := scopeName(scope, tenant)
		if err != nil {
			return err
		}
		if limit < 0 {
			return usagef("--limit: %d is negative", limit)
		}
		size := pageSize
		if limit > 0 {
			size = min(size, limit)
		}
		all := &menshenv1.ListSubjectsResponse{}
		err = eachPage(func(token string) (string, error) {
			resp, err := menshenv1.NewEnrollmentServiceClient(conn).ListSubjects(ctx, &menshenv1.ListSubjectsRequest{
				Parent: parent, PageSize: int32(size), PageToken: token})
			all.Subjects = append(all.Subjects, resp.GetSubjects()...)
			if limit > 0 && len(all.Subjects) >= limit {
				all.Subjects = all.Subjects[:limit]
				return "", err
			}
			return resp.GetNextPageToken(), err
		})
		if err != nil {
			return err
		}
		if c.json {
			return c.printMessage(all)
		}
		t := newTable("SUBJECT", "TEMPLATES", "CONSENT", "ENROLLED", "EXPIRES")
		for _, s := range all.Subjects {
			t.row(s.Name, strconv.Itoa(len(s.Templates)), s.Consent.GetReference(), timeText(s.CreateTime), timeText(s.ExpireTime))
		}
		return c.printTable(t, "no subjects; add one with: menshen enroll")
	})
}

func (c *cli) subjectsGet() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get SUBJECT",
		Short:   "Show a subject and its consent",
		Example: "  menshen subjects get tenants/acme/scopes/hall-a/subjects/v-0412",
		Args:    exactly("SUBJECT"),
	}
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		resp, err := menshenv1.NewEnrollmentServiceClient(conn).GetSubject(ctx, &menshenv1.GetSubjectRequest{Name: args[0]})
		if err != nil {
			return err
		}
		return c.printSubject(resp.Subject)
	})
}

func (c *cli) printSubject(s *menshenv1.Subject) error {
	if c.json {
		return c.printMessage(s)
	}
	consent := s.Consent
	guardian := ""
	if consent.GetMinor() {
		guardian = "yes, guardian's consent " + consent.GetGuardianReference()
	}
	fields := []string{
		"name", s.Name, "consent", consent.GetReference(), "given", timeText(consent.GetGiveTime()),
		"notice version", consent.GetNoticeVersion(), "minor", guardian,
		"transmission", onText(consent.GetTransmission(), "agreed"),
		"enrolled", timeText(s.CreateTime), "expires", timeText(s.ExpireTime),
	}
	for _, t := range s.Templates {
		fields = append(fields, "template", fmt.Sprintf("%s  %s  %s", t.Name, t.ModelId, timeText(t.CreateTime)))
	}
	return c.printFields(fields...)
}

func (c *cli) subjectsDelete() *cobra.Command {
	var req menshenv1.DeleteSubjectRequest
	cmd := &cobra.Command{
		Use:     "delete SUBJECT",
		Short:   "Erase a subject and all its templates",
		Example: "  menshen subjects delete tenants/acme/scopes/hall-a/subjects/v-0412",
		Args:    exactly("SUBJECT"),
	}
	requestIDFlag(cmd, &req.RequestId)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		req.Name = args[0]
		resp, err := menshenv1.NewEnrollmentServiceClient(conn).DeleteSubject(ctx, &req)
		if err != nil {
			return err
		}
		if c.json {
			return c.printMessage(resp)
		}
		return c.printErased(req.Name, resp.TemplatesErased, resp.Receipt)
	})
}

func (c *cli) subjectsWithdraw() *cobra.Command {
	var req menshenv1.WithdrawConsentRequest
	cmd := &cobra.Command{
		Use:     "withdraw SUBJECT",
		Short:   "Erase a subject because its consent was withdrawn",
		Example: "  menshen subjects withdraw tenants/acme/scopes/hall-a/subjects/v-0412",
		Args:    exactly("SUBJECT"),
	}
	requestIDFlag(cmd, &req.RequestId)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		req.Name = args[0]
		resp, err := menshenv1.NewEnrollmentServiceClient(conn).WithdrawConsent(ctx, &req)
		if err != nil {
			return err
		}
		if c.json {
			return c.printMessage(resp)
		}
		return c.printErased(req.Name, resp.TemplatesErased, resp.Receipt)
	})
}

func (c *cli) subjectsDeleteTemplate() *cobra.Command {
	var req menshenv1.DeleteTemplateRequest
	cmd := &cobra.Command{
		Use:     "delete-template TEMPLATE",
		Short:   "Erase one template of a subject",
		Example: "  menshen subjects delete-template tenants/acme/scopes/hall-a/subjects/v-0412/templates/2",
		Args:    exactly("TEMPLATE"),
	}
	requestIDFlag(cmd, &req.RequestId)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		req.Name = args[0]
		resp, err := menshenv1.NewEnrollmentServiceClient(conn).DeleteTemplate(ctx, &req)
		if err != nil {
			return err
		}
		if c.json {
			return c.printMessage(resp)
		}
		return c.printErased(req.Name, 1, resp.Receipt)
	})
}

func (c *cli) printErased(name string, templates int32, receipt string) error {
	_, err := fmt.Fprintf(c.stdout, "erased %s: %s\nreceipt %s\n", name, plural(int64(templates), "template", "templates"), receipt)
	return err
}
