package rpc

import (
	"crypto/sha256"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/menshen-io/menshen/matcher"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// identified is a request that carries a request_id.
type identified interface {
	proto.Message
	GetRequestId() string
}

// requestOf makes the idempotency of a request: its id, and a fingerprint over
// the method and everything of the request but the id. The request is the
// handler's own and is as before when requestOf returns.
func requestOf(method string, req identified) (idempotency.Request, error) {
	id := req.GetRequestId()
	if id == "" {
		return idempotency.Request{}, nil
	}
	r := idempotency.Request{ID: id}
	if err := r.Validate(); err != nil {
		return idempotency.Request{}, err
	}
	m := req.ProtoReflect()
	field := m.Descriptor().Fields().ByName("request_id")
	value := m.Get(field)
	m.Clear(field)
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	m.Set(field, value)
	if err != nil {
		return idempotency.Request{}, fmt.Errorf("fingerprint of %s: %w", method, err)
	}
	defer clear(content) // probes are in it
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s", len(method), method)
	h.Write(content)
	h.Sum(r.Fingerprint[:0])
	return r, nil
}

// violations collects what is wrong with the fields of a message.
type violations []matcher.Violation

func (v *violations) add(field, format string, args ...any) {
	*v = append(*v, matcher.Violation{Field: field, Text: fmt.Sprintf(format, args...)})
}

func (v violations) err() error {
	if len(v) == 0 {
		return nil
	}
	return &matcher.InvalidError{Violations: v}
}

// time reads a timestamp; the zero time where it is not set.
func (v *violations) time(field string, ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	if ts.CheckValid() != nil {
		v.add(field, "is out of range: years 1 to 9999, nanos 0 to 999999999")
		return time.Time{}
	}
	return ts.AsTime()
}

// maxDuration keeps times that are added to a duration inside the years that a
// timestamp can express.
const maxDuration = 100 * 366 * 24 * time.Hour

// duration reads a duration; zero where it is not set.
func (v *violations) duration(field string, d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	if d.CheckValid() != nil || d.AsDuration() > maxDuration || d.AsDuration() < 0 {
		v.add(field, "is out of range: 0 to 100 years")
		return 0
	}
	return d.AsDuration()
}

// stamp writes a time; unset for the zero time.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// span writes a duration; unset for zero.
func span(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
