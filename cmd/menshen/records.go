package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func (c *cli) recordsCommand() *cobra.Command {
	return group("records", "manage", "Export the records of processing of a tenant",
		`The records of processing are what a tenant shows to whoever asks what it does with
faces: every purpose with its site, legal basis, assessment, retention and
alternative, what is held now, what was ended, who can reach it, and a signed
checkpoint of the audit log. They name no person.`,
		c.recordsExport())
}

// processingRecords is the export. Its field names are a format that others read.
type processingRecords struct {
	Format      string            `json:"format"`
	Made        time.Time         `json:"made"`
	Server      string            `json:"server_version"`
	Tenant      string            `json:"tenant"`
	DisplayName string            `json:"display_name,omitempty"`
	Scopes      []scopeRecord     `json:"scopes"`
	Credentials []roleRecord      `json:"credentials"`
	Checkpoint  *checkpointRecord `json:"audit_checkpoint"`
}

// recordsFormat names the format's meaning and version.
const recordsFormat = "menshen.processing-records.v1"

// scopeRecord is one purpose. Durations and times are as the commands print them.
type scopeRecord struct {
	Name                 string `json:"name"`
	State                string `json:"state"`
	Purpose              string `json:"purpose"`
	Site                 string `json:"site"`
	Alternative          string `json:"alternative"`
	LegalBasis           string `json:"legal_basis"`
	Contact              string `json:"contact,omitempty"`
	Assessment           string `json:"assessment_reference,omitempty"`
	NoticeVersion        string `json:"notice_version"`
	NoticeRequired       bool   `json:"current_notice_required"`
	Retention            string `json:"retention,omitempty"`
	TransmissionRequired bool   `json:"transmission_consent_required"`
	SingleUse            bool   `json:"single_use"`
	DecisionAudit        string `json:"decision_audit"`
	AuditRetention       string `json:"audit_retention,omitempty"`
	Created              string `json:"created"`
	Ends                 string `json:"ends"`
	Revoked              string `json:"revoked,omitempty"`
	Receipt              string `json:"receipt,omitempty"` // of the revocation
	ReceiptSHA256        string `json:"receipt_sha256,omitempty"`
	Erasures             int    `json:"erasures"` // of subjects and templates, with a receipt each
	Subjects             int64  `json:"subjects"`
	Templates            int64  `json:"templates"`
}

// roleRecord counts the credentials of a role.
type roleRecord struct {
	Role  string `json:"role"`
	Valid int    `json:"valid"`
	Ended int    `json:"ended"`
}

// checkpointRecord is the signed end of the tenant's acts.
type checkpointRecord struct {
	Position   uint64          `json:"position"`
	Document   json.RawMessage `json:"document"`
	PublicKeys []string        `json:"public_keys"`
}

func (c *cli) recordsExport() *cobra.Command {
	var (
		tenant, out string
		html        bool
	)
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the records of processing, as JSON or as a page to read",
		Example: `  menshen records export --tenant acme --html --out acme.html
  menshen records export --tenant acme --json`,
		Args: exactly(),
	}
	cmd.Flags().StringVar(&tenant, "tenant", tenantDefault(), tenantUsage+"; by default the key's own")
	cmd.Flags().StringVar(&out, "out", "", "write to this new file instead of printing")
	cmd.Flags().BoolVar(&html, "html", false, "write one HTML file that needs nothing else")
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, _ []string) error {
		if html == c.json {
			return usagef("give --html or --json")
		}
		r, err := collectRecords(ctx, conn, tenantName(tenant), time.Now())
		if err != nil {
			return err
		}
		content, err := r.encode(html)
		if err != nil {
			return err
		}
		if out != "" {
			return writeNew(out, content)
		}
		_, err = c.stdout.Write(content)
		return err
	})
}

// collectRecords asks the server.
func collectRecords(ctx context.Context, conn *grpc.ClientConn, tenant string, now time.Time) (*processingRecords, error) {
	admin := menshenv1.NewAdminServiceClient(conn)
	info, err := admin.GetServerInfo(ctx, &menshenv1.GetServerInfoRequest{})
	if err != nil {
		return nil, err
	}
	about, err := admin.GetTenant(ctx, &menshenv1.GetTenantRequest{Name: tenant})
	if err != nil {
		return nil, err
	}
	r := &processingRecords{
		Format: recordsFormat, Made: now.UTC().Truncate(time.Second), Server: info.Version,
		Tenant: about.Tenant.Name, DisplayName: about.Tenant.DisplayName, Scopes: []scopeRecord{}, Credentials: []roleRecord{},
	}
	err = eachPage(func(token string) (string, error) {
		resp, err := menshenv1.NewScopeServiceClient(conn).ListScopes(ctx, &menshenv1.ListScopesRequest{
			Parent: r.Tenant, PageSize: pageSize, PageToken: token, ShowRevoked: true})
		for _, s := range resp.GetScopes() {
			r.Scopes = append(r.Scopes, recordOfScope(s))
		}
		return resp.GetNextPageToken(), err
	})
	if err != nil {
		return nil, err
	}
	if err := r.addReceipts(ctx, conn); err != nil {
		return nil, err
	}
	if r.Credentials, err = countCredentials(ctx, admin, r.Tenant, now); err != nil {
		return nil, err
	}
	checkpoint, err := menshenv1.NewAuditServiceClient(conn).GetCheckpoint(ctx, &menshenv1.GetCheckpointRequest{Parent: r.Tenant})
	if err != nil {
		return nil, err
	}
	r.Checkpoint = &checkpointRecord{checkpoint.Position, checkpoint.Document, checkpoint.PublicKeys}
	return r, nil
}

// addReceipts states what was erased: by name for scopes, by number for persons.
func (r *processingRecords) addReceipts(ctx context.Context, conn *grpc.ClientConn) error {
	scopes := map[string]*scopeRecord{}
	for i := range r.Scopes {
		scopes[r.Scopes[i].Name] = &r.Scopes[i]
	}
	return eachPage(func(token string) (string, error) {
		resp, err := menshenv1.NewAuditServiceClient(conn).ListReceipts(ctx, &menshenv1.ListReceiptsRequest{Parent: r.Tenant, PageSize: pageSize, PageToken: token})
		for _, receipt := range resp.GetReceipts() {
			s := scopes[receipt.Scope]
			switch {
			case s == nil: // created since the scopes were listed
			case receipt.Kind == menshenv1.ReceiptKind_RECEIPT_KIND_SCOPE:
				s.Receipt, s.ReceiptSHA256 = receipt.Name, receipt.DocumentSha256
			default:
				s.Erasures++
			}
		}
		return resp.GetNextPageToken(), err
	})
}

func recordOfScope(s *menshenv1.Scope) scopeRecord {
	decisions := decisionAuditText(s)
	if decisions == "" {
		decisions = "not recorded"
	}
	return scopeRecord{
		Name: s.Name, State: stateText(s.State), Purpose: s.Purpose, Site: s.Site, Alternative: s.Alternative, LegalBasis: s.LegalBasis,
		Contact: s.Contact, Assessment: s.AssessmentReference, NoticeVersion: s.CurrentNoticeVersion, NoticeRequired: s.CurrentNoticeRequired, Retention: durationText(s.Retention),
		TransmissionRequired: s.TransmissionConsentRequired, SingleUse: s.SingleUse, DecisionAudit: decisions, AuditRetention: durationText(s.AuditRetention),
		Created: timeText(s.CreateTime), Ends: timeText(s.EndTime), Revoked: timeText(s.RevokeTime),
		Subjects: s.SubjectCount, Templates: s.TemplateCount,
	}
}

// countCredentials counts by role, in the order of the roles.
func countCredentials(ctx context.Context, admin menshenv1.AdminServiceClient, tenant string, now time.Time) ([]roleRecord, error) {
	valid, ended := map[menshenv1.Role]int{}, map[menshenv1.Role]int{}
	err := eachPage(func(token string) (string, error) {
		resp, err := admin.ListCredentials(ctx, &menshenv1.ListCredentialsRequest{Parent: tenant, PageSize: pageSize, PageToken: token})
		for _, cred := range resp.GetCredentials() {
			if cred.RevokeTime != nil || cred.ExpireTime != nil && !cred.ExpireTime.AsTime().After(now) {
				ended[cred.Role]++
			} else {
				valid[cred.Role]++
			}
		}
		return resp.GetNextPageToken(), err
	})
	out := []roleRecord{}
	for _, r := range roles {
		if valid[r.role]+ended[r.role] > 0 {
			out = append(out, roleRecord{r.word, valid[r.role], ended[r.role]})
		}
	}
	return out, err
}

//go:embed records.html
var recordsPage string

// encode writes the export. The page escapes whatever people wrote.
func (r *processingRecords) encode(html bool) ([]byte, error) {
	var b bytes.Buffer
	if html {
		page, err := template.New("records").Parse(recordsPage)
		if err != nil {
			return nil, fmt.Errorf("the page of the export: %w", err)
		}
		err = page.Execute(&b, r)
		return b.Bytes(), err
	}
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(r)
	return b.Bytes(), err
}
