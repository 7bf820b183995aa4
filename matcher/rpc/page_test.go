package rpc

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/menshen-io/menshen/matcher/auth"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// walk pages through a listing and returns all names.
func walk(t *testing.T, list func(token string) (names []string, next string, err error)) (all []string) {
	t.Helper()
	for token := ""; ; {
		names, next, err := list(token)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, names...)
		if next == "" {
			return all
		}
		if len(names) == 0 || len(all) > 10_000 {
			t.Fatalf("a page of %d entries and a token after %d", len(names), len(all))
		}
		token = next
	}
}

func TestPagesGoThroughEverything(t *testing.T) {
	w := newWorld(t)
	desk, operator, admin := w.enroll("enroller"), w.scopes("operator"), w.administer("admin")
	for i := range 11 {
		_, err := desk.Enroll(w.ctx(), w.enrollment(fmt.Sprintf("v-%02d", i), vectorOf(uint16(i), 0)))
		w.ok(err)
		_, err = admin.CreateTenant(w.ctx(), &pb.CreateTenantRequest{TenantId: fmt.Sprintf("t-%02d", i)})
		w.ok(err)
		w.credential(fmt.Sprint("more ", i), auth.Auditor, "fair")
	}
	for i := range 3 {
		_, err := operator.CreateScope(w.ctx(), &pb.CreateScopeRequest{ScopeId: fmt.Sprintf("room-%d", i), Scope: w.settings()})
		w.ok(err)
	}
	for size := range int32(13) {
		subjects := walk(t, func(token string) (names []string, next string, err error) {
			r, err := desk.ListSubjects(w.ctx(), &pb.ListSubjectsRequest{PageSize: size, PageToken: token})
			for _, s := range r.GetSubjects() {
				names = append(names, s.GetName())
			}
			return names, r.GetNextPageToken(), err
		})
		scopes := walk(t, func(token string) (names []string, next string, err error) {
			r, err := operator.ListScopes(w.ctx(), &pb.ListScopesRequest{PageSize: size, PageToken: token})
			for _, s := range r.GetScopes() {
				names = append(names, s.GetName())
			}
			return names, r.GetNextPageToken(), err
		})
		own := walk(t, func(token string) (names []string, next string, err error) {
			r, err := w.scopes("both gate").ListScopes(w.ctx(), &pb.ListScopesRequest{PageSize: size, PageToken: token})
			for _, s := range r.GetScopes() {
				names = append(names, s.GetName())
			}
			return names, r.GetNextPageToken(), err
		})
		tenants := walk(t, func(token string) (names []string, next string, err error) {
			r, err := admin.ListTenants(w.ctx(), &pb.ListTenantsRequest{PageSize: size, PageToken: token})
			for _, s := range r.GetTenants() {
				names = append(names, s.GetName())
			}
			return names, r.GetNextPageToken(), err
		})
		credentials := walk(t, func(token string) (names []string, next string, err error) {
			r, err := admin.ListCredentials(w.ctx(), &pb.ListCredentialsRequest{Parent: "tenants/fair", PageSize: size, PageToken: token})
			for _, s := range r.GetCredentials() {
				names = append(names, s.GetName())
			}
			return names, r.GetNextPageToken(), err
		})
		for what, got := range map[string]struct {
			names []string
			want  int
		}{"subjects": {subjects, 11}, "scopes": {scopes, 5}, "own scopes": {own, 2}, "tenants": {tenants, 13}, "credentials": {credentials, 17}} {
			if len(got.names) != got.want || !slices.IsSorted(got.names) || len(slices.Compact(slices.Clone(got.names))) != got.want {
				t.Errorf("%s in pages of %d: %q, want %d in order", what, size, got.names, got.want)
			}
		}
	}
}

func TestPageTokens(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"enroller", "gym enroller"} {
		for i := range 3 {
			_, err := w.enroll(name).Enroll(w.ctx(), w.enrollment(fmt.Sprintf("v-%d", i), vectorOf(uint16(i), 0)))
			w.ok(err)
		}
	}
	first, err := w.enroll("enroller").ListSubjects(w.ctx(), &pb.ListSubjectsRequest{PageSize: 1})
	w.ok(err)
	token := first.GetNextPageToken()
	list := func(key, token string) error {
		_, err := w.enroll(key).ListSubjects(w.ctx(), &pb.ListSubjectsRequest{PageToken: token})
		return err
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	w.ok(err)
	flip := func(i int) string {
		b := slices.Clone(raw)
		b[i] ^= 1
		return base64.RawURLEncoding.EncodeToString(b)
	}
	w.ok(list("enroller", token))
	scopes, err := w.scopes("operator").ListScopes(w.ctx(), &pb.ListScopesRequest{PageSize: 1})
	w.ok(err)
	for what, call := range map[string]func() error{
		"of another tenant": func() error { return list("gym enroller", token) },
		"of another method": func() error { return list("enroller", scopes.GetNextPageToken()) },
		"of another filter": func() error {
			_, err := w.scopes("operator").ListScopes(w.ctx(), &pb.ListScopesRequest{PageToken: scopes.GetNextPageToken(), ShowRevoked: true})
			return err
		},
		"of another scope": func() error {
			_, err := w.enroll("auditor").ListSubjects(w.ctx(), &pb.ListSubjectsRequest{Parent: "tenants/fair/scopes/hall-b", PageToken: token})
			return err
		},
		"not base64": func() error { return list("enroller", "not a token!") },
		"an id":      func() error { return list("enroller", "v-1") },
		"padded":     func() error { return list("enroller", token+"==") },
		"cut":        func() error { return list("enroller", token[:10]) },
		"no id":      func() error { return list("enroller", base64.RawURLEncoding.EncodeToString(raw[:17])) },
		"version":    func() error { return list("enroller", flip(0)) },
		"sum":        func() error { return list("enroller", flip(5)) },
		"huge":       func() error { return list("enroller", strings.Repeat("A", 1<<20)) },
	} {
		err := call()
		w.want("a token "+what, err, codes.InvalidArgument, "BAD_PAGE_TOKEN")
		if got := fieldsOf(err); !slices.Equal(got, []string{"page_token"}) {
			t.Errorf("%s: fields %q", what, got)
		}
	}
	// The token of a listing works for whoever may list the same.
	w.ok(func() error {
		_, err := w.enroll("auditor").ListSubjects(w.ctx(), &pb.ListSubjectsRequest{Parent: "tenants/fair/scopes/hall-a", PageToken: token})
		return err
	}())
	for _, size := range []int32{-1, -1 << 31} {
		_, err := w.enroll("enroller").ListSubjects(w.ctx(), &pb.ListSubjectsRequest{PageSize: size})
		w.want("negative page size", err, codes.InvalidArgument, "BAD_PAGE_SIZE")
	}
	all, err := w.enroll("enroller").ListSubjects(w.ctx(), &pb.ListSubjectsRequest{PageSize: 1<<31 - 1})
	w.ok(err)
	if len(all.GetSubjects()) != 3 || all.GetNextPageToken() != "" {
		t.Errorf("the largest page size: %v", all)
	}
}

// A token that is forged to go on at any text leads nowhere else.
func TestForgedCursor(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"enroller", "gym enroller"} {
		_, err := w.enroll(name).Enroll(w.ctx(), w.enrollment("v-1", vectorOf(1, 0)))
		w.ok(err)
	}
	p, err := openPage(1, "", pb.EnrollmentService_ListSubjects_FullMethodName, "tenants/fair/scopes/hall-a")
	w.ok(err)
	for _, after := range []string{"\x00", "\xff\xff", "../", "\x00\x00tenants", "v-0\x00gym\x00north\x00\x11", " ", strings.Repeat("z", 100)} {
		_, token := cut(p, []string{after, "x"}, func(s string) string { return s })
		got, err := w.enroll("enroller").ListSubjects(w.ctx(), &pb.ListSubjectsRequest{PageToken: token})
		w.ok(err)
		for _, s := range got.GetSubjects() {
			if !strings.HasPrefix(s.GetName(), "tenants/fair/scopes/hall-a/") {
				t.Errorf("after %q: %s", after, s.GetName())
			}
		}
	}
}

func TestIdempotency(t *testing.T) {
	w := newWorld(t)
	ctx, desk := w.ctx(), w.enroll("enroller")
	req := w.enrollment("", cropOf(1, 0))
	req.RequestId = "r-1"
	first, err := desk.Enroll(ctx, req)
	w.ok(err)
	again, err := desk.Enroll(ctx, req)
	w.ok(err)
	if again.GetSubject().GetName() != first.GetSubject().GetName() || len(again.GetReports()) != 0 || !proto.Equal(again.GetSubject(), first.GetSubject()) {
		t.Errorf("repeated: %v, want the subject of %v", again, first)
	}
	b, err := desk.BulkEnroll(ctx) // an item with the same content repeats it too
	w.ok(err)
	w.ok(b.Send(&pb.BulkEnrollRequest{Enroll: req}))
	item, err := b.Recv()
	w.ok(err)
	if item.GetEnrolled().GetSubject().GetName() != first.GetSubject().GetName() {
		t.Errorf("repeated in bulk: %v", item)
	}
	changed := w.enrollment("", cropOf(2, 0))
	changed.Consent.GiveTime, changed.RequestId = req.Consent.GiveTime, "r-1"
	_, err = desk.Enroll(ctx, changed)
	w.want("other content", err, codes.InvalidArgument, "REQUEST_ID_REUSED")
	if got := fieldsOf(err); !slices.Equal(got, []string{"request_id"}) {
		t.Errorf("fields %q", got)
	}
	_, err = desk.DeleteSubject(ctx, &pb.DeleteSubjectRequest{Name: first.GetSubject().GetName(), RequestId: "r-1"})
	w.want("other method", err, codes.InvalidArgument, "REQUEST_ID_REUSED")
	other, err := w.enroll("gym enroller").Enroll(ctx, req)
	w.ok(err)
	if !strings.HasPrefix(other.GetSubject().GetName(), "tenants/gym/") || len(other.GetReports()) != 1 {
		t.Errorf("the id in another tenant: %v", other)
	}
	for range 2 {
		gone, err := desk.DeleteSubject(ctx, &pb.DeleteSubjectRequest{Name: first.GetSubject().GetName(), RequestId: "d-1"})
		w.ok(err)
		if gone.GetTemplatesErased() != 1 {
			t.Errorf("DeleteSubject = %v", gone)
		}
	}
	_, err = desk.DeleteSubject(ctx, &pb.DeleteSubjectRequest{Name: first.GetSubject().GetName()})
	w.want("deleted again without an id", err, codes.NotFound, "SUBJECT_NOT_FOUND")
	w.repeatable("CreateScope", func() (proto.Message, error) {
		return w.scopes("operator").CreateScope(ctx, &pb.CreateScopeRequest{ScopeId: "hall-c", Scope: &pb.Scope{
			Purpose: "p", Site: "s", Alternative: "a", LegalBasis: "l", EndTime: first.GetSubject().GetExpireTime(),
		}, RequestId: "s-1"})
	})
	w.repeatable("SuspendScope", func() (proto.Message, error) {
		return w.scopes("operator").SuspendScope(ctx, &pb.SuspendScopeRequest{Name: "tenants/fair/scopes/hall-c", RequestId: "s-2"})
	})
	w.repeatable("CreateTenant", func() (proto.Message, error) {
		return w.administer("admin").CreateTenant(ctx, &pb.CreateTenantRequest{TenantId: "school", RequestId: "t-1"})
	})
	made := &pb.CreateCredentialRequest{Credential: &pb.Credential{Role: pb.Role_ROLE_AUDITOR}, RequestId: "c-1"}
	key, err := w.administer("operator").CreateCredential(ctx, made)
	w.ok(err)
	repeated, err := w.administer("operator").CreateCredential(ctx, made)
	w.ok(err)
	if key.GetApiKey() == "" || repeated.GetApiKey() != "" || !proto.Equal(key.GetCredential(), repeated.GetCredential()) {
		t.Errorf("CreateCredential = %v, then %v", key, repeated)
	}
}

func (w *world) repeatable(what string, call func() (proto.Message, error)) {
	w.t.Helper()
	first, err := call()
	w.ok(err)
	again, err := call()
	if err != nil || !proto.Equal(first, again) {
		w.t.Errorf("%s: %v, %v; want %v", what, again, err, first)
	}
}
