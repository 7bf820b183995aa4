package client

import (
	"context"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

func refusal(code codes.Code, reason string, after time.Duration) error {
	st, err := status.New(code, "x").WithDetails(&errdetails.ErrorInfo{Reason: reason}, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

// A call is repeated where that does no harm, and only then.
func TestRetry(t *testing.T) {
	busy := refusal(codes.ResourceExhausted, "OVERLOADED", time.Millisecond)
	leaving := refusal(codes.Unavailable, "SERVER_CLOSING", time.Millisecond)
	for _, tc := range []struct {
		name  string
		err   error
		req   any
		calls int
	}{
		{"busy", busy, &pb.VerifyRequest{}, tries},
		{"busy, a change", busy, &pb.EnrollRequest{}, tries},
		{"busy for longer than there is time", refusal(codes.ResourceExhausted, "OVERLOADED", time.Hour), &pb.VerifyRequest{}, 1},
		{"disk full", refusal(codes.ResourceExhausted, "DISK_FULL", time.Millisecond), &pb.EnrollRequest{}, 1},
		{"leaving, a change", leaving, &pb.EnrollRequest{}, 1},
		{"leaving, a change that can be repeated", leaving, &pb.EnrollRequest{RequestId: "r"}, tries},
		{"wrong", refusal(codes.InvalidArgument, "X", time.Millisecond), &pb.EnrollRequest{RequestId: "r"}, 1},
		{"fine", nil, &pb.EnrollRequest{}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			calls := 0
			err := retry(ctx, "/x/y", tc.req, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
				calls++
				return tc.err
			})
			if calls != tc.calls || status.Code(err) != status.Code(tc.err) {
				t.Errorf("%d calls, want %d; %v", calls, tc.calls, err)
			}
		})
	}
}
