package rpc

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/auth"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/quality"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// packagesOfCalls are the packages whose errors a call can meet.
var packagesOfCalls = []string{
	"matcher", "matcher/admission", "matcher/auth", "matcher/idempotency", "matcher/notice", "matcher/receipt", "index", "index/code", "index/keyring", "index/scope", "index/store",
	"models", "models/decode", "models/align", "models/detect", "models/embed", "models/quality", "models/pipeline",
}

// Each exported sentinel error of those packages stands in the table.
func TestEverySentinelHasARow(t *testing.T) {
	root := fixtures.ModuleRoot(t)
	rows := map[string]bool{}
	file, err := parser.ParseFile(token.NewFileSet(), "status.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok || len(lit.Elts) != 6 {
			return true
		}
		if sel, ok := lit.Elts[0].(*ast.SelectorExpr); ok {
			rows[sel.X.(*ast.Ident).Name+"."+sel.Sel.Name] = true
		}
		return true
	})
	sentinels := 0
	for _, dir := range packagesOfCalls {
		for _, name := range sentinelsOf(t, filepath.Join(root, dir)) {
			sentinels++
			qualified := filepath.Base(dir) + "." + name
			if !rows[qualified] && qualified != "embed.ErrNotFinite" { // which is models.ErrNotFinite
				t.Errorf("%s has no row in status.go", qualified)
			}
		}
	}
	if sentinels < 80 {
		t.Errorf("only %d sentinels found", sentinels)
	}
}

// sentinelsOf finds the package-level Err... variables of a folder.
func sentinelsOf(t *testing.T, dir string) (names []string) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no Go files in %s: %v", dir, err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, spec := range gen.Specs {
				for _, id := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(id.Name, "Err") {
						names = append(names, id.Name)
					}
				}
			}
		}
	}
	return names
}

// Every row is reachable, has a reason in the API's spelling, and says
// something.
func TestRows(t *testing.T) {
	for _, v := range verdicts {
		if got := judge(fmt.Errorf("wrapped: %w", v.err)); got.reason != v.reason || got.code != v.code {
			t.Errorf("%v is told as %s %s, its own row says %s %s: an earlier row hides it", v.err, got.code, got.reason, v.code, v.reason)
		}
		if v.reason == "" || strings.Trim(v.reason, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" || v.code == codes.OK {
			t.Errorf("%v: code %s, reason %q", v.err, v.code, v.reason)
		}
		if v.unexpected() && v.text == own {
			t.Errorf("%v: a fault of the service tells its own text", v.err)
		}
		if (v.code == codes.Unavailable || v.code == codes.ResourceExhausted || v.code == codes.Aborted) != (v.retry > 0) {
			t.Errorf("%v: %s with a retry after %v", v.err, v.code, v.retry)
		}
		s := toStatus(fmt.Errorf("wrapped: %w", v.err))
		if s.Code() != v.code || s.Message() == "" {
			t.Errorf("%v: status %v", v.err, s)
		}
		if _, why := reason(s.Err()); why != v.reason {
			t.Errorf("%v: ErrorInfo %q, want %q", v.err, why, v.reason)
		}
	}
}

// What wraps is told, not what is wrapped.
func TestJudgesTheOuterError(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code codes.Code
		why  string
	}{
		{fmt.Errorf("%w: tenants/a/scopes/b: %w", matcher.ErrScopeDamaged, store.ErrDamaged), codes.DataLoss, "SCOPE_DAMAGED"},
		{fmt.Errorf("%w: %w", decode.ErrTruncated, errors.New("x")), codes.InvalidArgument, "IMAGE_TRUNCATED"},
		{fmt.Errorf("x: %w", keyring.ErrDestroyed), codes.FailedPrecondition, "SCOPE_REVOKED"},
		{context.Canceled, codes.Canceled, "CANCELED"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "DEADLINE_EXCEEDED"},
		{errors.New("something else"), codes.Internal, "INTERNAL"},
		{&auth.InvalidError{Violations: []auth.Violation{{Field: "a", Text: "b"}}}, codes.InvalidArgument, "INVALID_FIELD"},
	} {
		if c, why := reason(toStatus(tc.err).Err()); c != tc.code || why != tc.why {
			t.Errorf("%v: %s %s, want %s %s", tc.err, c, why, tc.code, tc.why)
		}
	}
	s := status.New(codes.Aborted, "as it was")
	if got := toStatus(s.Err()); got.Code() != codes.Aborted || got.Message() != "as it was" {
		t.Errorf("a status became %v", got)
	}
}

// An error that nobody thought of is not quoted.
func TestUnknownErrorsTellNothing(t *testing.T) {
	w := newWorld(t)
	secret := errors.New("open /var/lib/menshen/keyring: the root key is tangerine")
	s := w.server.journal.status(context.Background(), "/x/y", secret)
	if s.Code() != codes.Internal || strings.Contains(s.Proto().String(), "tangerine") {
		t.Errorf("status %v", s)
	}
	var incident string
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			incident = info.GetMetadata()["incident"]
		}
	}
	if incident == "" || !strings.Contains(w.log.String(), incident) || !strings.Contains(w.log.String(), "tangerine") {
		t.Errorf("incident %q is not in the log with its error", incident)
	}
}

func TestPanicsAreCaught(t *testing.T) {
	w := newWorld(t)
	w.models.panic.Store(true)
	_, err := w.match("gate").Identify(w.ctx(), &pb.IdentifyRequest{Probe: cropOf(1, 0)})
	w.want("unary", err, codes.Internal, "INTERNAL")
	s, err2 := w.match("gate").MatchStream(w.ctx())
	w.ok(err2)
	w.ok(s.Send(&pb.MatchStreamRequest{SequenceId: 7, Request: &pb.MatchStreamRequest_Identify{Identify: &pb.IdentifyRequest{Probe: cropOf(1, 0)}}}))
	got, err2 := s.Recv()
	w.ok(err2)
	if got.GetSequenceId() != 7 || got.GetError().GetReason() != "INTERNAL" {
		t.Errorf("stream: %v", got)
	}
	if strings.Contains(err.Error()+got.String(), "secret") {
		t.Error("the panic's text reached the caller")
	}
	w.models.panic.Store(false)
	w.ok(s.Send(&pb.MatchStreamRequest{SequenceId: 8, Request: &pb.MatchStreamRequest_Identify{Identify: &pb.IdentifyRequest{Probe: cropOf(1, 0)}}}))
	if got, err := s.Recv(); err != nil || got.GetIdentify() == nil {
		t.Errorf("after the panic: %v, %v", got, err)
	}
}

// Texts are short and printable whatever was quoted in them.
func TestTextsAreClipped(t *testing.T) {
	long := strings.Repeat("门", 10_000) + "\x1b[31m\x00\xff"
	many := &matcher.InvalidError{}
	for i := range 100 {
		many.Violations = append(many.Violations, matcher.Violation{Field: fmt.Sprint("f", i), Text: long})
	}
	for _, err := range []error{
		fmt.Errorf("%w: %s", matcher.ErrNoScope, long), many,
		&matcher.ProbeError{Index: 3, Err: fmt.Errorf("%w: %s", decode.ErrFormat, long)},
		&matcher.QualityError{Findings: []quality.Finding{quality.Blurred}},
	} {
		s := toStatus(err)
		if n := len(s.Proto().String()); n > 8000 || !utf8.ValidString(s.Message()) || strings.ContainsAny(s.Message(), "\x1b\x00") {
			t.Errorf("%T: a status of %d bytes: %.80q", err, n, s.Message())
		}
	}
	if got := clip("a\x1b[31mb\x00\xffc\u202e", 100); got != "a\uFFFD[31mb\uFFFDc\uFFFD" {
		t.Errorf("clip = %q", got)
	}
	s := toStatus(&matcher.ProbeError{Index: 3, Err: decode.ErrFormat})
	if got := fieldsOf(s.Err()); len(got) != 1 || got[0] != "probes[3]" || !strings.HasPrefix(s.Message(), "probes[3]: image format") {
		t.Errorf("fields %v, text %q", got, s.Message())
	}
}

func scopeRef(t, s string) scope.Ref {
	return scope.Ref{Tenant: scope.TenantID(t), Scope: scope.ScopeID(s)}
}
