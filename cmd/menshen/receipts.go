package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/menshen-io/menshen/matcher/receipt"
	"github.com/menshen-io/menshen/matcher/signing"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func (c *cli) receiptsCommand() *cobra.Command {
	cmd := group("receipts", "manage", "Show and verify receipts of erasures",
		`Receipts state, signed, what an erasure destroyed: who asked, when each step was
done, how much there was, and what the search of the files found afterwards. Keep
them as files; "menshen receipts verify" checks one without a server.

The receipt of a subject names the subject by its pseudonym. It can be had while the
scope lives; when the scope is revoked its document becomes unreadable too.`,
		c.receiptsList(), c.receiptsGet(), c.receiptsVerify())
	cmd.Aliases = []string{"receipt"}
	return cmd
}

func (c *cli) receiptsList() *cobra.Command {
	var tenant, scope string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List complete receipts, in the order in which they were completed",
		Example: "  menshen receipts list --tenant acme\n  menshen receipts list --scope hall-a --tenant acme --json",
		Args:    exactly(),
	}
	cmd.Flags().StringVar(&scope, "scope", "", "only those of this scope")
	cmd.Flags().StringVar(&tenant, "tenant", tenantDefault(), tenantUsage)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, _ []string) error {
		name, err := scopeName(scope, tenant)
		if err != nil {
			return err
		}
		all := &menshenv1.ListReceiptsResponse{}
		err = eachPage(func(token string) (string, error) {
			resp, err := menshenv1.NewAuditServiceClient(conn).ListReceipts(ctx, &menshenv1.ListReceiptsRequest{
				Parent: tenantName(tenant), Scope: name, PageSize: int32(pageSize), PageToken: token})
			all.Receipts = append(all.Receipts, resp.GetReceipts()...)
			all.PendingCount = resp.GetPendingCount()
			return resp.GetNextPageToken(), err
		})
		if err != nil {
			return err
		}
		if c.json {
			return c.printMessage(all)
		}
		t := newTable("RECEIPT", "KIND", "CAUSE", "SCOPE", "COMPLETED")
		for _, r := range all.Receipts {
			t.row(r.Name, kindText(r.Kind), causeText(r.Cause), r.Scope, timeText(r.CompleteTime))
		}
		if n := all.PendingCount; n > 0 {
			fmt.Fprintf(c.stderr, "menshen: %s pending: nothing of it matches any more, and its bytes leave the files within seconds; ask again, or wait with \"menshen receipts get RECEIPT --wait 1m\"\n", plural(n, "receipt is", "receipts are"))
			return c.printTable(t, "no complete receipts yet")
		}
		return c.printTable(t, "no receipts")
	})
}

func kindText(k menshenv1.ReceiptKind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "RECEIPT_KIND_"))
}

func causeText(k menshenv1.ErasureCause) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "ERASURE_CAUSE_"))
}

func (c *cli) receiptsGet() *cobra.Command {
	var out, tenant string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "get RECEIPT",
		Short: "Show a receipt, or write its signed document to a file",
		Long: `Show a receipt. With --out the signed document is written to a new file, byte by
byte as it was signed. --wait waits while the receipt is pending: the sealed bytes of
a subject leave the files some seconds after its erasure.`,
		Example: "  menshen receipts get tenants/acme/receipts/hall-a-41 --wait 1m --out receipt.json\n  menshen receipts get hall-a-41 --tenant acme",
		Args:    exactly("RECEIPT"),
	}
	cmd.Flags().StringVar(&tenant, "tenant", tenantDefault(), tenantUsage)
	cmd.Flags().StringVar(&out, "out", "", "write the signed document to this new file")
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait for a pending receipt")
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		name, err := receiptName(args[0], tenant)
		if err != nil {
			return err
		}
		r, err := awaitReceipt(ctx, conn, name, wait)
		if err != nil {
			return err
		}
		if out == "" {
			if c.json {
				return c.printMessage(r)
			}
			return c.printReceipt(r)
		}
		if len(r.Document) == 0 {
			return fmt.Errorf("nothing was written: the document of %s cannot be had: %s", r.Name, receiptStateText(r))
		}
		f, err := createNew(out, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(r.Document)
		return errors.Join(err, f.Close())
	})
}

// awaitReceipt asks until the receipt is complete or the patience is over.
func awaitReceipt(ctx context.Context, conn *grpc.ClientConn, name string, patience time.Duration) (*menshenv1.Receipt, error) {
	for deadline := time.Now().Add(patience); ; {
		resp, err := menshenv1.NewAuditServiceClient(conn).GetReceipt(ctx, &menshenv1.GetReceiptRequest{Name: name})
		if err != nil {
			return nil, err
		}
		if resp.Receipt.GetState() == menshenv1.ReceiptState_RECEIPT_STATE_COMPLETE || !time.Now().Before(deadline) {
			return resp.Receipt, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func receiptStateText(r *menshenv1.Receipt) string {
	switch {
	case r.State != menshenv1.ReceiptState_RECEIPT_STATE_COMPLETE:
		return "pending: nothing matches any more, the sealed bytes are still to be removed from the files"
	case len(r.Document) == 0:
		return "complete; it named a subject, and became unreadable with the key of its scope"
	}
	return "complete"
}

func (c *cli) printReceipt(r *menshenv1.Receipt) error {
	number := ""
	if r.Number > 0 {
		number = strconv.FormatUint(r.Number, 10)
	}
	return c.printFields("name", r.Name, "state", receiptStateText(r), "kind", kindText(r.Kind), "cause", causeText(r.Cause), "scope", r.Scope,
		"completed", timeText(r.CompleteTime), "number", number, "sha256", r.DocumentSha256)
}

func (c *cli) receiptsVerify() *cobra.Command {
	var keys string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a receipt without a server",
		Long: `Check that a receipt was signed by a server and not changed since, and show what it
states. The public key is what "menshen keys show" tells at the server: get it from
the operator by another way than the receipt. --public-key takes the key itself or a
file with a key in each line. Exit status 0: it holds; 1: it does not.`,
		Example: "  menshen receipts verify receipt.json --public-key menshen-ed25519:q83v...\n  menshen receipts verify receipt.json --public-key keys.txt",
		Args:    exactly("FILE"),
	}
	cmd.Flags().StringVar(&keys, "public-key", "", "public key, or a file of them (required)")
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if keys == "" {
			return usagef("give --public-key: a receipt proves nothing without the key of the server that signed it")
		}
		known, err := signing.ParsePublicKeys(keys)
		if err != nil {
			text, ferr := os.ReadFile(keys)
			if ferr != nil {
				return fmt.Errorf("--public-key is neither a key (%w) nor a file (%w)", err, ferr)
			}
			if known, err = signing.ParsePublicKeys(string(text)); err != nil {
				return fmt.Errorf("--public-key: %w", err)
			}
		}
		doc, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		r, key, err := receipt.Parse(doc, known)
		if err != nil {
			return fmt.Errorf("%s does not hold: %w", args[0], err)
		}
		if c.json {
			return c.printJSON(r)
		}
		return c.printStatement(r, key)
	}
	return cmd
}

// printStatement shows what a verified receipt says.
func (c *cli) printStatement(r receipt.Receipt, key signing.KeyID) error {
	at := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Format("2006-01-02T15:04:05.000Z")
	}
	what := fmt.Sprintf("tenants/%s/scopes/%s", r.Tenant, r.Scope)
	if r.Subject != "" {
		what += "/subjects/" + string(r.Subject)
	}
	if r.Template != 0 {
		what += fmt.Sprintf("/templates/%d", r.Template)
	}
	d := r.Destroyed
	fields := []string{
		"receipt", r.ID, "signed by", string(key), "erased", what, "kind", strings.ToLower(string(r.Kind)), "cause", strings.ToLower(string(r.Cause)),
		"asked by", r.RequestedBy.Credential + " (" + r.RequestedBy.Role + ")",
		"asked", at(r.Times.Requested), "fenced", at(r.Times.Fenced), "key destroyed", at(r.Times.KeyDestroyed),
		"bytes removed", at(r.Times.Erased), "files searched", at(r.Times.Verified),
		"destroyed", fmt.Sprintf("%s, %s, %d records, %d bytes", plural(int64(d.Subjects), "subject", "subjects"), plural(int64(d.Templates), "template", "templates"), d.Records, d.Bytes),
		"digest", d.Digest,
	}
	if r.Scan != nil {
		fields = append(fields, "search", fmt.Sprintf("%d bytes in %d files, %d bytes left", r.Scan.Bytes, r.Scan.Files, r.Scan.Left))
	}
	return c.printFields(append(fields, "server", r.ServerVersion)...)
}
