package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func (c *cli) enrollCommand() *cobra.Command {
	var (
		req                             menshenv1.EnrollRequest
		consent                         menshenv1.Consent
		scope, tenant, consentTime, end string
		crop                            bool
	)
	cmd := &cobra.Command{
		Use:     "enroll --consent-reference REF --notice-version VERSION IMAGE...",
		GroupID: "faces",
		Short:   "Enrol a person in a scope, with their consent (enroller)",
		Long: `Enrol one person from one or more images. Each image must show exactly one face,
and every image becomes a template, or none does.

The subject id is a pseudonym: a ticket number, never a name or an ID number.
Without --subject the server draws one and the command prints it.`,
		Example: `  menshen enroll --scope tenants/acme/scopes/hall-a --subject v-0412 \
    --consent-reference form-2026-0412 --notice-version 3 face.jpg
  menshen enroll --subject pupil-7 --consent-reference f-7 --notice-version 3 \
    --minor --guardian-reference g-7 front.jpg left.jpg right.jpg
  menshen enroll --subject v-0412 --add --consent-reference form-2026-0412 \
    --notice-version 3 --crop aligned.png`,
		Args: atLeastOne("IMAGE"),
	}
	f := cmd.Flags()
	f.StringVar(&scope, "scope", "", "the scope, tenants/T/scopes/S; by default the key's only one")
	f.StringVar(&tenant, "tenant", tenantDefault(), tenantUsage)
	f.StringVar(&req.SubjectId, "subject", "", "the subject's id in the scope: a-z, 0-9 and inner '-'; by default drawn at random")
	f.StringVar(&consent.Reference, "consent-reference", "", "where the signed agreement is kept (required)")
	f.StringVar(&consentTime, "consent-time", "", "when the person agreed, such as 2026-11-20T09:30:00+08:00 (default: now)")
	f.StringVar(&consent.NoticeVersion, "notice-version", "", "version of the notice that the person was shown (required)")
	f.BoolVar(&consent.Minor, "minor", false, "the person is under 14")
	f.StringVar(&consent.GuardianReference, "guardian-reference", "", "where the guardian's agreement is kept; with --minor")
	f.BoolVar(&consent.Transmission, "transmission", false, "the person separately agreed to sending the template over a network")
	f.StringVar(&end, "expire", "", "when the subject stops matching: an instant, or +12h from now (default: the scope's retention)")
	f.BoolVar(&req.AddTemplates, "add", false, "the subject exists: add templates to it")
	f.BoolVar(&crop, "crop", false, cropUsage)
	requestIDFlag(cmd, &req.RequestId)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		var err error
		now := time.Now()
		if req.RequestId != "" && consentTime == "" {
			return usagef("--request-id wants --consent-time: the time of the call, which is taken otherwise, differs when it is repeated")
		}
		if req.Parent, err = scopeName(scope, tenant); err != nil {
			return err
		}
		if req.ExpireTime, err = parseInstant("expire", end, now); err != nil {
			return err
		}
		if consent.GiveTime, err = parseInstant("consent-time", consentTime, now); err != nil {
			return err
		}
		if consent.GiveTime == nil {
			consent.GiveTime = timestamppb.New(now)
		}
		req.Consent = &consent
		if req.Probes, err = readProbes(args, crop); err != nil {
			return err
		}
		resp, err := menshenv1.NewEnrollmentServiceClient(conn).Enroll(ctx, &req)
		if err != nil {
			return blame(err, args)
		}
		return c.printEnrolled(resp, args)
	})
}

func (c *cli) printEnrolled(resp *menshenv1.EnrollResponse, files []string) error {
	if c.json {
		return c.printMessage(resp)
	}
	s := resp.Subject
	how := ""
	if len(resp.Reports) == 0 {
		how = " by an earlier call with this --request-id"
	}
	fmt.Fprintf(c.stdout, "enrolled %s%s: %s, expires %s\n", s.Name, how,
		plural(int64(len(s.Templates)), "template", "templates"), timeText(s.ExpireTime))
	for i, r := range resp.Reports {
		for _, finding := range r.Findings {
			name := fmt.Sprintf("image %d", i+1)
			if i < len(files) {
				name = files[i]
			}
			fmt.Fprintf(c.stdout, "  %s: %s\n", oneLine(name), findingText(finding))
		}
	}
	return nil
}

func findingText(f *menshenv1.QualityFinding) string {
	if f.Text == "" {
		return f.Code
	}
	return f.Code + ": " + f.Text
}

func findingCodes(findings []*menshenv1.QualityFinding) string {
	var codes []string
	for _, f := range findings {
		codes = append(codes, f.Code)
	}
	return strings.Join(codes, " ")
}
