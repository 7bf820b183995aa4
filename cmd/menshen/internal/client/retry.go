package client

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// serviceConfig repeats calls that met a server which was going away or not
// there yet, where a repetition does no harm: matching and reading. Of several
// addresses each is used in turn.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [
      {"service": "menshen.v1.MatchService"},
      {"service": "menshen.v1.EnrollmentService", "method": "GetSubject"},
      {"service": "menshen.v1.EnrollmentService", "method": "ListSubjects"},
      {"service": "menshen.v1.ScopeService", "method": "GetScope"},
      {"service": "menshen.v1.ScopeService", "method": "ListScopes"},
      {"service": "menshen.v1.AdminService", "method": "GetTenant"},
      {"service": "menshen.v1.AdminService", "method": "ListTenants"},
      {"service": "menshen.v1.AdminService", "method": "ListCredentials"},
      {"service": "menshen.v1.AdminService", "method": "GetServerInfo"}
    ],
    "retryPolicy": {
      "maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

// comeBack looks for a server that restarts sooner than gRPC does by itself.
var comeBack = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// tries is how often a call is made at most.
const tries = 5

// retry repeats a call that a busy server refused, when the server said, and a
// change that met a server going away, provided that it carries a request_id,
// with which it is done once. It gives up where the call's time does not reach.
func retry(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	for try := 1; ; try++ {
		err := call(ctx, method, req, reply, conn, opts...)
		if err == nil || try == tries {
			return err
		}
		pause, again := pauseAfter(err, req, try)
		if deadline, ok := ctx.Deadline(); !again || ok && time.Until(deadline) < pause {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// pauseAfter tells whether a call that failed may be repeated, and when.
func pauseAfter(err error, req any, try int) (time.Duration, bool) {
	st := status.Convert(err)
	var reason string
	var said time.Duration
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.RetryInfo:
			said = d.GetRetryDelay().AsDuration()
		}
	}
	switch st.Code() {
	case codes.ResourceExhausted:
		return said, reason == "OVERLOADED" && said > 0 // nothing was done
	case codes.Unavailable:
		once, ok := req.(interface{ GetRequestId() string })
		pause := time.Duration(try) * (50 + rand.N[time.Duration](100)) * time.Millisecond
		return max(pause, said), ok && once.GetRequestId() != ""
	}
	return 0, false
}
