package rpc

import (
	"context"
	"strconv"
	"sync"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/receipt"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// auditServer is the AuditService.
type auditServer struct {
	pb.UnimplementedAuditServiceServer
	*service

	mu       sync.Mutex
	watchers map[scope.TenantID]int // of events
}

func (s *auditServer) GetReceipt(ctx context.Context, req *pb.GetReceiptRequest) (*pb.GetReceiptResponse, error) {
	ref, id, err := parseReceipt("name", req.GetName())
	if err != nil {
		return nil, err
	}
	grant, err := callOf(ctx).grant(ref)
	if err != nil {
		return nil, err
	}
	found, err := s.matcher.Receipt(ctx, grant, id)
	if err != nil {
		return nil, err
	}
	return &pb.GetReceiptResponse{Receipt: receiptMessage(found)}, nil
}

func (s *auditServer) ListReceipts(ctx context.Context, req *pb.ListReceiptsRequest) (*pb.ListReceiptsResponse, error) {
	c := callOf(ctx)
	t, err := c.tenantOf("parent", req.GetParent())
	if err != nil {
		return nil, err
	}
	p, err := openPage(req.GetPageSize(), req.GetPageToken(), c.method, tenantName(t), req.GetScope())
	if err != nil {
		return nil, err
	}
	after, err := strconv.ParseUint("0"+p.after, 10, 64)
	if err != nil {
		return nil, &fieldError{errPageToken, "page_token", "is not a token of this service: send next_page_token of the page before, unchanged"}
	}
	found, pending, err := s.receipts(ctx, c, t, req.GetScope(), after, p.limit())
	if err != nil {
		return nil, err
	}
	out := &pb.ListReceiptsResponse{PendingCount: int64(pending)}
	found, out.NextPageToken = cut(p, found, func(r matcher.Receipt) string { return strconv.FormatUint(r.Number, 10) })
	for _, r := range found {
		out.Receipts = append(out.Receipts, receiptMessage(r))
	}
	return out, nil
}

// receipts lists those of one scope for callers that name one or see no more,
// and those of the tenant for the others; and counts those that are pending. These
// are counted first, so that one which is completed meanwhile is told twice rather
// than not at all.
func (s *auditServer) receipts(ctx context.Context, c call, t scope.TenantID, name string, after uint64, limit int) (found []matcher.Receipt, pending int, err error) {
	if name == "" && !c.caller.Role().OfScopes() {
		grant, err := c.caller.TenantGrant(t)
		if err != nil {
			return nil, 0, err
		}
		if pending, err = s.matcher.PendingReceipts(grant); err != nil {
			return nil, 0, err
		}
		found, err = s.matcher.Receipts(ctx, grant, after, limit)
		return found, pending, err
	}
	ref, err := c.scopeOf("scope", name)
	if err != nil {
		return nil, 0, err
	}
	if ref.Tenant != t {
		return nil, 0, &fieldError{errName, "scope", "is not a scope of " + tenantName(t)}
	}
	grant, err := c.grant(ref)
	if err != nil {
		return nil, 0, err
	}
	if pending, err = s.matcher.ScopePendingReceipts(grant); err != nil {
		return nil, 0, err
	}
	found, err = s.matcher.ScopeReceipts(ctx, grant, after, limit)
	return found, pending, err
}

// patternReceipt is the name of a receipt. Its id begins with the id of its
// scope, which says who may see it.
const patternReceipt = "tenants/{tenant}/receipts/{receipt}"

// parseReceipt reads the name of a receipt and the scope that it speaks of.
func parseReceipt(field, name string) (scope.Ref, string, error) {
	var t, id string
	if err := scan(field, name, patternReceipt, &t, &id); err != nil {
		return scope.Ref{}, "", err
	}
	s, _, ok := matcher.ReceiptScope(id)
	ref := scope.Ref{Tenant: scope.TenantID(t), Scope: s}
	if !ok || ref.Validate() != nil {
		return scope.Ref{}, "", &fieldError{errName, field, "must be of the form tenants/tenant/receipts/receipt, as the call that erased told it"}
	}
	return ref, id, nil
}

func receiptName(t scope.TenantID, id string) string { return tenantName(t) + "/receipts/" + id }

func receiptMessage(r matcher.Receipt) *pb.Receipt {
	return &pb.Receipt{
		Name: receiptName(r.Tenant, r.ID), State: pb.ReceiptState(r.State), Kind: kindMessage(r.Kind),
		Scope: scope.Ref{Tenant: r.Tenant, Scope: r.Scope}.String(), Cause: causeMessage(r.Cause), ScopeEpoch: uint64(r.Epoch),
		CompleteTime: stamp(r.Completed), Number: r.Number, Document: r.Document, DocumentSha256: r.Sum,
	}
}

func kindMessage(k receipt.Kind) pb.ReceiptKind {
	switch k {
	case receipt.Scope:
		return pb.ReceiptKind_RECEIPT_KIND_SCOPE
	case receipt.Subject:
		return pb.ReceiptKind_RECEIPT_KIND_SUBJECT
	case receipt.Template:
		return pb.ReceiptKind_RECEIPT_KIND_TEMPLATE
	case receipt.Subjects:
		return pb.ReceiptKind_RECEIPT_KIND_SUBJECTS
	}
	return pb.ReceiptKind_RECEIPT_KIND_UNSPECIFIED
}

func causeMessage(c receipt.Cause) pb.ErasureCause {
	switch c {
	case receipt.Revoked:
		return pb.ErasureCause_ERASURE_CAUSE_REVOKED
	case receipt.Withdrawn:
		return pb.ErasureCause_ERASURE_CAUSE_WITHDRAWN
	case receipt.Expired:
		return pb.ErasureCause_ERASURE_CAUSE_EXPIRED
	case receipt.Used:
		return pb.ErasureCause_ERASURE_CAUSE_USED
	}
	return pb.ErasureCause_ERASURE_CAUSE_UNSPECIFIED
}
