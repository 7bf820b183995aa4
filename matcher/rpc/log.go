package rpc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// journal writes about calls: who, what, how it ended and how long it took.
// Never what was in them.
type journal struct {
	log *slog.Logger
	// refusals of callers that are admitted: a gate that goes on asking a
	// revoked scope must not fill the disk either.
	refused *refusals
}

// ended notes a call that was admitted.
func (j journal) ended(ctx context.Context, c call, began time.Time, err error) {
	code := status.Code(err)
	lv := slog.LevelInfo
	switch code {
	case codes.OK:
		if !c.row.administrative() {
			lv = slog.LevelDebug // a gate makes hundreds of calls a second
		}
	case codes.Internal, codes.DataLoss, codes.Unknown:
		lv = slog.LevelError
	}
	silent := 0
	if lv == slog.LevelInfo && code != codes.OK {
		var speak bool
		if silent, speak = j.refused.admit(); !speak {
			return
		}
	}
	if !j.log.Enabled(ctx, lv) {
		return // before the attributes are made
	}
	j.log.LogAttrs(ctx, lv, "call", slog.Int("not_logged_before", silent), slog.String("method", c.method), slog.String("code", code.String()),
		slog.Duration("took", time.Since(began)), slog.String("credential", string(c.caller.ID())), slog.String("tenant", string(c.caller.Tenant())))
}

// status turns an error into what the caller is told. The service's own faults
// are logged in full under an incident id that the caller is told too.
func (j journal) status(ctx context.Context, method string, err error) *status.Status {
	if _, ok := status.FromError(err); ok || !judge(err).unexpected() {
		return toStatus(err)
	}
	var b [6]byte
	rand.Read(b[:]) // never fails: crypto/rand
	incident := hex.EncodeToString(b[:])
	j.log.ErrorContext(ctx, "call failed", "incident", incident, "method", method, "error", err.Error())
	return toStatusWith(err, map[string]string{"incident": incident})
}

// guarded runs f and turns a panic into an error. The stack is logged; what was
// passed to panic is not sent to the caller.
func (j journal) guarded(ctx context.Context, method string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = j.panicked(ctx, method, p)
		}
	}()
	return f()
}

// panicked logs a panic that was caught, while its stack is still there.
func (j journal) panicked(ctx context.Context, method string, p any) error {
	j.log.ErrorContext(ctx, "panic", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return errPanic
}

// refusals logs calls that were not admitted, a bounded number of them a
// second: whoever knocks with a wrong key must not fill the disk.
type refusals struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	second int64
	n      int
	silent int
}

// refusalsASecond is how many refusals are logged in one second.
const refusalsASecond = 10

func (r *refusals) note(ctx context.Context, method string, err error) {
	silent, speak := r.admit()
	if !speak {
		return
	}
	from := ""
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	r.log.WarnContext(ctx, "call refused", "method", clip(method, 200), "reason", judge(err).reason, "from", from, "not_logged_before", silent)
}

func (r *refusals) admit() (silent int, speak bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.now().Unix(); s != r.second {
		r.second, r.n = s, 0
	}
	if r.n++; r.n > refusalsASecond {
		r.silent++
		return 0, false
	}
	silent, r.silent = r.silent, 0
	return silent, true
}
