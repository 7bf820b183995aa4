package demo

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/menshen-io/menshen/bench/faces"
	"github.com/menshen-io/menshen/cmd/menshen/internal/screen"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// enrollmentShot is the shot of bench/faces that is enrolled; the others are
// what gates see.
const enrollmentShot = 0

// strangersFrom is the first person of the population who is enrolled nowhere,
// far beyond anybody who is.
const strangersFrom = 1_000_000

// visitorID is the pseudonym of a person of the population.
func visitorID(person int) string { return fmt.Sprintf("visitor-%05d", person) }

// picture makes a probe of a shot of a person: an aligned face crop, raw RGB.
func picture(people *faces.Generator, person, shot int) *menshenv1.Probe {
	return &menshenv1.Probe{Kind: &menshenv1.Probe_Crop{Crop: &menshenv1.FaceCrop{
		Pixels: &menshenv1.FaceCrop_Rgb{Rgb: people.Crop(person, shot).Pix},
	}}}
}

// portrait is a probe and whom it shows.
type portrait struct {
	person int
	probe  *menshenv1.Probe
}

// portraits draws a shot of each person, on all CPUs.
func portraits(ctx context.Context, people *faces.Generator, from, n, shot int) ([]portrait, error) {
	out := make([]portrait, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				out[i] = portrait{from + i, picture(people, from+i, shot)}
			}
		})
	}
	wg.Wait()
	return out, ctx.Err()
}

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
	var next atomic.Int64
	var drawing sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		drawing.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				select {
				case ready <- portrait{from + i, picture(s.people, from+i, enrollmentShot)}:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	go func() { drawing.Wait(); close(ready) }()
	consent := &menshenv1.Consent{Reference: "demo-consent", NoticeVersion: "demo-1", GiveTime: timestamppb.Now()}
	for p := range ready {
		if err := stream.Send(&menshenv1.BulkEnrollRequest{
			SequenceId: uint64(p.person),
			Enroll:     &menshenv1.EnrollRequest{Parent: h.name, SubjectId: visitorID(p.person), Consent: consent, Probes: []*menshenv1.Probe{p.probe}},
		}); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return stream.CloseSend()
}
