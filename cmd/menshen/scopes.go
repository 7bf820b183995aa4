package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func (c *cli) scopesCommand() *cobra.Command {
	return group("scopes", "manage", "Create, change, suspend and revoke scopes (tenant operator)",
		`A scope is one purpose at one site for one period: the unit of consent, of search,
of keys and of revocation. A scope is named tenants/T/scopes/S; with --tenant or
MENSHEN_TENANT, S alone will do.`,
		c.scopesPresets(), c.scopesCreate(), c.scopesGet(), c.scopesList(), c.scopesNotice(), c.scopesUpdate(),
		c.scopesSuspend(), c.scopesResume(), c.scopesRevoke(), c.scopesRepair())
}

// scopeSettings are the flags of create and update.
type scopeSettings struct {
	scope     menshenv1.Scope
	end       string
	retention string
	audit     string // of decisions
	keepAudit string
	templates int32
}

// settingFlags maps the flags to the field names of the update mask.
var settingFlags = []struct{ flag, field string }{
	{"purpose", "purpose"}, {"site", "site"}, {"alternative", "alternative"}, {"legal-basis", "legal_basis"}, {"contact", "contact"},
	{"assessment-reference", "assessment_reference"}, {"notice-version", "notice_version"},
	{"end", "end_time"}, {"retention", "retention"}, {"transmission-consent", "transmission_consent_required"},
	{"verify-threshold", "verify_threshold"}, {"identify-threshold", "identify_threshold"},
	{"max-templates", "max_templates_per_subject"},
	{"decision-audit", "decision_audit"}, {"audit-retention", "audit_retention"}, {"current-notice", "current_notice_required"},
}

func (s *scopeSettings) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.scope.Purpose, "purpose", "", "what the faces are used for, in the words that people are shown")
	f.StringVar(&s.scope.Site, "site", "", "where: the site or the doors")
	f.StringVar(&s.scope.Alternative, "alternative", "", "what people can do who do not want their face used: the staffed lane, the card")
	f.StringVar(&s.scope.LegalBasis, "legal-basis", "", "for example \"separate consent\"")
	f.StringVar(&s.scope.Contact, "contact", "", "how people reach who answers for it, to ask, refuse or be deleted: a desk, a telephone number")
	f.BoolVar(&s.scope.TransmissionConsentRequired, "transmission-consent", false, "enrol nobody without separate consent to sending templates over a network; on for good")
	f.StringVar(&s.scope.AssessmentReference, "assessment-reference", "", "where the impact assessment is kept")
	f.StringVar(&s.scope.NoticeVersion, "notice-version", "", "your own name for the notice, such as 3; it begins the version that consents name")
	f.BoolVar(&s.scope.CurrentNoticeRequired, "current-notice", false, "enrol nobody who was shown another notice than the present one; on for good")
	f.StringVar(&s.end, "end", "", "when the purpose ends: 2026-12-31T18:00:00+08:00, or +30d from now")
	f.StringVar(&s.retention, "retention", "", "how long a subject is kept at most, such as 30d or 12h (default: to the end)")
	f.Float64Var(&s.scope.VerifyThreshold, "verify-threshold", 0, "score at and above which verify matches (default: the model's)")
	f.Float64Var(&s.scope.IdentifyThreshold, "identify-threshold", 0, "the same for identify; larger galleries want a higher one")
	f.StringVar(&s.audit, "decision-audit", "", "record what gates are told: off, best-effort, or required, which lets no answer leave unrecorded (default off)")
	f.StringVar(&s.keepAudit, "audit-retention", "", "how long those records are kept, in whole days (default 30d)")
	f.Int32Var(&s.templates, "max-templates", 0, "templates a subject may have, 1 to 10 (default 5)")
}

// fill parses what is written as text into the scope.
func (s *scopeSettings) fill(now time.Time) error {
	end, err := parseInstant("end", s.end, now)
	if err != nil {
		return err
	}
	s.scope.EndTime = end
	s.scope.MaxTemplatesPerSubject = s.templates
	if s.retention != "" {
		d, err := parseDuration("retention", s.retention)
		if err != nil {
			return err
		}
		s.scope.Retention = durationpb.New(d)
	}
	if s.keepAudit != "" {
		d, err := parseDuration("audit-retention", s.keepAudit)
		if err != nil {
			return err
		}
		s.scope.AuditRetention = durationpb.New(d)
	}
	if s.scope.DecisionAudit, err = parseDecisionAudit(s.audit); err != nil {
		return err
	}
	return nil
}

func (c *cli) scopesCreate() *cobra.Command {
	var (
		s      scopeSettings
		tenant string
		preset string
		req    menshenv1.CreateScopeRequest
	)
	cmd := &cobra.Command{
		Use:   "create SCOPE",
		Short: "Open a scope",
		Long: `Open a scope. An id that was ever used in the tenant cannot be used again.

A preset fills what is left open with what suits the kind of place: alternative,
legal basis, retention, consent. Purpose and site are always yours to say; so is
the end, but for gym, locker, residence and workplace, where it is a year from
now. "menshen scopes presets" shows what each one says, and why.`,
		Example: `  menshen scopes create hall-a --tenant acme --preset exhibition \
    --purpose "entry to the Autumn Fair" --site "Hall A" \
    --contact "service desk, hall A, 010-5550-0100" --notice-version 1 --end +30d
  menshen scopes create lockers --tenant mall --preset locker \
    --purpose "opening a locker" --site "lockers at entrance 2"
  menshen scopes create hall-b --tenant acme --purpose "entry to the Autumn Fair" \
    --site "Hall B" --alternative "staffed lane at gate 3" \
    --legal-basis "separate consent" --end +30d`,
		Args: exactly("SCOPE"),
	}
	s.addFlags(cmd)
	cmd.Flags().StringVar(&preset, "preset", "", "kind of place: "+strings.Join(presetNames(), ", "))
	cmd.Flags().BoolVar(&s.scope.SingleUse, "single-use", false, "a match erases the subject: each template opens once")
	cmd.Flags().StringVar(&tenant, "tenant", tenantDefault(), tenantUsage+"; by default the key's own")
	requestIDFlag(cmd, &req.RequestId)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		err := s.fill(time.Now())
		if err != nil {
			return err
		}
		if req.Preset, err = readPreset(preset); err != nil {
			return err
		}
		req.ScopeId, req.Parent, req.Scope = args[0], tenantName(tenant), &s.scope
		resp, err := menshenv1.NewScopeServiceClient(conn).CreateScope(ctx, &req)
		if err != nil {
			return err
		}
		return c.printScope(resp.Scope)
	})
}

func (c *cli) scopesGet() *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use:     "get [SCOPE]",
		Short:   "Show a scope, by default the key's only one",
		Example: "  menshen scopes get tenants/acme/scopes/hall-a\n  menshen scopes get --api-key-file gate.key",
		Args:    atMostOne("SCOPE"),
	}
	cmd.Flags().StringVar(&tenant, "tenant", tenantDefault(), tenantUsage)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		name, err := scopeName(optional(args), tenant)
		if err != nil {
			return err
		}
		resp, err := menshenv1.NewScopeServiceClient(conn).GetScope(ctx, &menshenv1.GetScopeRequest{Name: name})
		if err != nil {
			return err
		}
		return c.printScope(resp.Scope)
	})
}

func (c *cli) scopesList() *cobra.Command {
	var (
		tenant  string
		revoked bool
	)
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the scopes of a tenant",
		Example: "  menshen scopes list --tenant acme\n  menshen scopes list --revoked --json",
		Args:    exactly(),
	}
	cmd.Flags().StringVar(&tenant, "tenant", tenantDefault(), tenantUsage+"; by default the key's own")
	cmd.Flags().BoolVar(&revoked, "revoked", false, "also list revoked scopes")
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, _ []string) error {
		all := &menshenv1.ListScopesResponse{}
		err := eachPage(func(token string) (string, error) {
			resp, err := menshenv1.NewScopeServiceClient(conn).ListScopes(ctx, &menshenv1.ListScopesRequest{
				Parent: tenantName(tenant), PageSize: pageSize, PageToken: token, ShowRevoked: revoked})
			all.Scopes = append(all.Scopes, resp.GetScopes()...)
			return resp.GetNextPageToken(), err
		})
		if err != nil {
			return err
		}
		if c.json {
			return c.printMessage(all)
		}
		t := newTable("SCOPE", "STATE", "SUBJECTS", "TEMPLATES", "ENDS", "PURPOSE")
		for _, s := range all.Scopes {
			t.row(s.Name, stateText(s.State), strconv.FormatInt(s.SubjectCount, 10), strconv.FormatInt(s.TemplateCount, 10), timeText(s.EndTime), s.Purpose)
		}
		return c.printTable(t, "no scopes; open one with: menshen scopes create SCOPE")
	})
}

func (c *cli) scopesUpdate() *cobra.Command {
	var (
		s      scopeSettings
		tenant string
		req    menshenv1.UpdateScopeRequest
	)
	cmd := &cobra.Command{
		Use:   "update SCOPE",
		Short: "Change settings of a scope; what is not named stays",
		Long: `Change settings of a scope. Only the settings whose flags are given change.
The end can only be brought forward: a longer period is a new purpose. When people
are told something else, the notice has another version: a warning says so.`,
		Example: "  menshen scopes update tenants/acme/scopes/hall-a --end +2d\n  menshen scopes update hall-a --tenant acme --identify-threshold 0.5",
		Args:    exactly("SCOPE"),
	}
	s.addFlags(cmd)
	cmd.Flags().StringVar(&tenant, "tenant", tenantDefault(), tenantUsage)
	requestIDFlag(cmd, &req.RequestId)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		name, err := scopeName(args[0], tenant)
		if err != nil {
			return err
		}
		if err := s.fill(time.Now()); err != nil {
			return err
		}
		mask := &fieldmaskpb.FieldMask{}
		var flags []string
		for _, sf := range settingFlags {
			flags = append(flags, "--"+sf.flag)
			if cmd.Flags().Changed(sf.flag) {
				mask.Paths = append(mask.Paths, sf.field)
			}
		}
		if len(mask.Paths) == 0 {
			return usagef("nothing to change: give one of %s", strings.Join(flags, ", "))
		}
		s.scope.Name = name
		req.Scope, req.UpdateMask = &s.scope, mask
		resp, err := menshenv1.NewScopeServiceClient(conn).UpdateScope(ctx, &req)
		if err != nil {
			return err
		}
		for _, warning := range resp.Warnings {
			fmt.Fprintf(c.stderr, "menshen: warning: %s\n", oneLine(warning))
		}
		return c.printScope(resp.Scope)
	})
}

func (c *cli) scopesSuspend() *cobra.Command {
	return c.scopeTransition("suspend SCOPE", "Stop matching and enrolment until resume; erasure goes on",
		func(ctx context.Context, api menshenv1.ScopeServiceClient, name, id string) (*menshenv1.Scope, error) {
			resp, err := api.SuspendScope(ctx, &menshenv1.SuspendScopeRequest{Name: name, RequestId: id})
			return resp.GetScope(), err
		})
}

func (c *cli) scopesResume() *cobra.Command {
	return c.scopeTransition("resume SCOPE", "End a suspension",
		func(ctx context.Context, api menshenv1.ScopeServiceClient, name, id string) (*menshenv1.Scope, error) {
			resp, err := api.ResumeScope(ctx, &menshenv1.ResumeScopeRequest{Name: name, RequestId: id})
			return resp.GetScope(), err
		})
}

func (c *cli) scopeTransition(use, short string, call func(ctx context.Context, api menshenv1.ScopeServiceClient, name, requestID string) (*menshenv1.Scope, error)) *cobra.Command {
	var tenant, id string
	verb, _, _ := strings.Cut(use, " ")
	cmd := &cobra.Command{
		Use:     use,
		Short:   short,
		Example: fmt.Sprintf("  menshen scopes %s tenants/acme/scopes/hall-a", verb),
		Args:    exactly("SCOPE"),
	}
	cmd.Flags().StringVar(&tenant, "tenant", tenantDefault(), tenantUsage)
	requestIDFlag(cmd, &id)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		name, err := scopeName(args[0], tenant)
		if err != nil {
			return err
		}
		s, err := call(ctx, menshenv1.NewScopeServiceClient(conn), name, id)
		if err != nil {
			return err
		}
		return c.printScope(s)
	})
}

func (c *cli) printScope(s *menshenv1.Scope) error {
	if c.json {
		return c.printMessage(s)
	}
	return c.printFields(
		"name", s.Name, "state", stateText(s.State), "preset", presetText(s.Preset), "purpose", s.Purpose, "site", s.Site,
		"alternative", s.Alternative, "legal basis", s.LegalBasis, "contact", s.Contact,
		"assessment", s.AssessmentReference, "notice version", noticeText(s),
		"ends", timeText(s.EndTime), "retention", durationText(s.Retention),
		"single use", onText(s.SingleUse, "a match erases the subject"),
		"transmission", onText(s.TransmissionConsentRequired, "separate consent is required"),
		"decisions", decisionAuditText(s),
		"thresholds", fmt.Sprintf("verify %.4g, identify %.4g", s.VerifyThreshold, s.IdentifyThreshold),
		"templates per subject", fmt.Sprintf("at most %d", s.MaxTemplatesPerSubject),
		"model", s.ModelId,
		"holds", plural(s.SubjectCount, "subject", "subjects")+", "+plural(s.TemplateCount, "template", "templates"),
		"epoch", strconv.FormatUint(s.Epoch, 10),
		"created", timeText(s.CreateTime), "updated", timeText(s.UpdateTime), "revoked", timeText(s.RevokeTime))
}

// noticeText is the version that consents name.
func noticeText(s *menshenv1.Scope) string {
	return s.CurrentNoticeVersion + onText(s.CurrentNoticeRequired, ", which every consent must name")
}

func stateText(s menshenv1.ScopeState) string {
	return strings.TrimPrefix(s.String(), "SCOPE_STATE_")
}

const decisionAuditPrefix = "DECISION_AUDIT_"

// parseDecisionAudit reads off, best-effort or required; empty is none of them.
func parseDecisionAudit(text string) (menshenv1.DecisionAudit, error) {
	switch text {
	case "":
		return menshenv1.DecisionAudit_DECISION_AUDIT_UNSPECIFIED, nil
	case "off":
		return menshenv1.DecisionAudit_DECISION_AUDIT_OFF, nil
	case "best-effort":
		return menshenv1.DecisionAudit_DECISION_AUDIT_BEST_EFFORT, nil
	case "required":
		return menshenv1.DecisionAudit_DECISION_AUDIT_REQUIRED, nil
	}
	return 0, usagef("--decision-audit: %q is none of off, best-effort, required", text)
}

// decisionAuditText says how decisions are recorded; nothing where they are not.
func decisionAuditText(s *menshenv1.Scope) string {
	if s.DecisionAudit <= menshenv1.DecisionAudit_DECISION_AUDIT_OFF {
		return ""
	}
	return fmt.Sprintf("recorded (%s), kept for %s", strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(s.DecisionAudit.String(), decisionAuditPrefix), "_", "-")), durationText(s.AuditRetention))
}
