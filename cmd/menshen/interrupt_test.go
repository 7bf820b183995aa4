package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// interruptedAt is a server during whose n-th answer the command is interrupted.
type interruptedAt struct {
	menshenv1.MatchServiceClient
	n         int
	interrupt context.CancelFunc
}

func (s *interruptedAt) Identify(context.Context, *menshenv1.IdentifyRequest, ...grpc.CallOption) (*menshenv1.IdentifyResponse, error) {
	if s.n--; s.n == 0 {
		s.interrupt()
		return nil, status.Error(codes.Canceled, "context canceled")
	}
	return &menshenv1.IdentifyResponse{Results: []*menshenv1.FaceResult{{Decision: &menshenv1.Decision{Outcome: menshenv1.Outcome_OUTCOME_MATCH}}}}, nil
}

// TestInterrupted interrupts commands: they say so, and identify prints what it
// knows by then.
func TestInterrupted(t *testing.T) {
	photo := filepath.Join(t.TempDir(), "photo.jpg")
	if err := os.WriteFile(photo, []byte("as good as a picture here"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	c := &cli{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
	ctx, interrupt := context.WithCancel(t.Context())
	err := c.identifyFiles(ctx, &interruptedAt{n: 3, interrupt: interrupt}, new(menshenv1.IdentifyRequest), []string{photo, photo, photo, photo}, false)
	if err != context.Canceled || strings.Count(out.String(), "MATCH") != 2 || errs.Len() > 0 {
		t.Errorf("%v; printed:\n%s%s", err, &out, &errs)
	}

	out.Reset()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("mk_aaaaaaaaaaaaaaaa__AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := c.run(ctx, []string{"tenants", "list", "--server", "127.0.0.1:1", "--api-key-file", key}); code != exitError || out.Len() > 0 ||
		!strings.HasPrefix(errs.String(), "menshen: interrupted\n  next: what was asked of the server may or may not have been done") {
		t.Errorf("exit status %d:\n%s%s", code, &out, &errs)
	}
}
