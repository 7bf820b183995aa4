package demo

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/menshen-io/menshen/cmd/menshen/internal/screen"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// strangersFrom is the first person of the population who is enrolled nowhere,
// far beyond anybody who is.
const strangersFrom = 1_000_000

// shownAgain is how many visitors of hall A try to get in at hall B, have their
// codes compared, and come again after the revocation, with the very pictures
// that they were enrolled with.
const shownAgain = 500

// visitorID is the pseudonym of a person of the population.
func visitorID(person int) string { return fmt.Sprintf("visitor-%05d", person) }

// enroll brings the visitors into hall A and the others into hall B.
func (s *show) enroll(ctx context.Context) error {
	s.head("Enrolling %d synthetic visitors at hall A and %d others at hall B (BulkEnroll, every one durable before it is confirmed)", s.opt.Visitors, Others)
	a, err := s.bulkEnroll(ctx, s.fair.a, 0, s.opt.Visitors)
	if err != nil {
		return err
	}
	b, err := s.bulkEnroll(ctx, s.fair.b, s.opt.Visitors, Others)
	if err != nil {
		return err
	}
	s.report.Enrollment = a
	s.claim("every visitor is enrolled",
		fmt.Sprintf("%d of %d and %d of %d, %.0f a second", a.Enrolled, a.Sent, b.Enrolled, b.Sent, a.PerSecond),
		a.Enrolled == a.Sent && b.Enrolled == b.Sent)
	if problem := a.FirstError + b.FirstError; problem != "" {
		s.say("  first refusal: %s", problem)
	}
	return nil
}

// Enrollment is what a bulk enrolment came to.
type Enrollment struct {
	Sent       int     `json:"sent"`
	Enrolled   int     `json:"enrolled"`
	PerSecond  float64 `json:"per_second"`
	FirstError string  `json:"first_error,omitempty"`
}

// bulkEnroll enrols n persons in a hall over one stream.
func (s *show) bulkEnroll(ctx context.Context, h *hall, from, n int) (Enrollment, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := h.desk.BulkEnroll(ctx)
	if err != nil {
		return Enrollment{}, fmt.Errorf("bulk enrolment: %w", err)
	}
	sent := make(chan error, 1)
	go func() { sent <- s.sendVisitors(ctx, stream, h, from, n) }()

	bar := screen.NewProgress(s.out, "  "+string(h.ref.Scope), "visitors")
	defer bar.End()
	started := time.Now()
	result := Enrollment{Sent: n}
	for answered := int64(0); ; {
		resp, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return result, fmt.Errorf("bulk enrolment: %w", err)
		}
		if refused := resp.GetError(); refused == nil {
			result.Enrolled++
		} else if result.FirstError == "" {
			result.FirstError = fmt.Sprintf("%s: %s", refused.Reason, refused.Message)
		}
		answered++
		bar.Set(answered, int64(n))
	}
	result.PerSecond = float64(n) / time.Since(started).Seconds()
	return result, <-sent
}

// sendVisitors draws the visitors on all CPUs and sends them as they are ready.
// gRPC's flow control holds it back where the server is slower.
func (s *show) sendVisitors(ctx context.Context, stream grpc.BidiStreamingClient[menshenv1.BulkEnrollRequest, menshenv1.BulkEnrollResponse], h *hall, from, n int) error {
	ready := make(chan portrait, runtime.GOMAXPROCS(0))
	drawn := make(chan error, 1)
	go func() {
		drawn <- parallel(ctx, n, func(i int) error {
			// The first of hall A will try to get in elsewhere, and afterwards.
			keep := h == s.fair.a && i < shownAgain
			select {
			case ready <- s.album.portrait(shot{from + i, enrollmentShot}, keep):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		close(ready)
	}()
	consent := &menshenv1.Consent{Reference: "demo-consent", NoticeVersion: "demo-1", GiveTime: timestamppb.Now()}
	for p := range ready {
		if err := stream.Send(&menshenv1.BulkEnrollRequest{
			SequenceId: uint64(p.person),
			Enroll:     &menshenv1.EnrollRequest{Parent: h.name, SubjectId: visitorID(p.person), Consent: consent, Probes: []*menshenv1.Probe{p.probe}},
		}); err != nil {
			return err
		}
	}
	if err := <-drawn; err != nil {
		return err
	}
	return stream.CloseSend()
}
