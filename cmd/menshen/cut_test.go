package main

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// dying is a server that ends in the middle of a revocation.
type dying struct {
	menshenv1.UnimplementedScopeServiceServer
	server *grpc.Server
}

func (d *dying) RevokeScope(ctx context.Context, _ *menshenv1.RevokeScopeRequest) (*menshenv1.RevokeScopeResponse, error) {
	go d.server.Stop()
	<-ctx.Done()
	return nil, ctx.Err()
}

// A revocation that a kill cuts off says what is not known, what is safe, and how
// to look; one that never left says so.
func TestRevocationCutOff(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &dying{server: grpc.NewServer()}
	menshenv1.RegisterScopeServiceServer(d.server, d)
	go func() { _ = d.server.Serve(listener) }()
	t.Setenv("MENSHEN_API_KEY", "mk_test")
	revoke := func() string {
		var out, errs strings.Builder
		c := &cli{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
		status := c.run(t.Context(), []string{"scopes", "revoke", "tenants/acme/scopes/hall-a", "--yes", "--server", listener.Addr().String()})
		if status != exitError || out.Len() > 0 {
			t.Errorf("status %d, printed %q", status, out.String())
		}
		return errs.String()
	}
	text := revoke()
	for _, want := range []string{
		"it is not known whether the revocation of tenants/acme/scopes/hall-a has begun", "repeat it once the server is there: that is safe",
		"menshen scopes get tenants/acme/scopes/hall-a",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("cut off: %q lacks %q", text, want)
		}
	}
	if text := revoke(); !strings.Contains(text, "Nothing was sent") || strings.Contains(text, "not known") {
		t.Errorf("not there any more: %q", text)
	}
}
