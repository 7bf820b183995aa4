package demo

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// OtherHall is what came of the visitors of hall A at hall B.
type OtherHall struct {
	Identified answers `json:"identified"` // visitors of A, searched for at B
	Verified   answers `json:"verified"`   // visitors of A who claim their id at B
	Own        answers `json:"own"`        // visitors of B at B
}

// tryOtherHall shows the faces that hall A knows to the gates of hall B. They
// come as they were enrolled, in the very pictures: nothing could match better.
func (s *show) tryOtherHall(ctx context.Context) error {
	n := min(shownAgain, s.opt.Visitors)
	s.head("The same faces at hall B: %d visitors of hall A show the very pictures that they were enrolled with", n)
	visitors, err := s.album.portraits(ctx, 0, n, enrollmentShot)
	if err != nil {
		return err
	}
	own, err := s.album.portraits(ctx, s.opt.Visitors, Others, gateShot)
	if err != nil {
		return err
	}
	b, r := s.fair.b, &s.report.OtherHall
	r.Identified, err = s.askAll(ctx, b, visitors, func(ctx context.Context, api menshenv1.MatchServiceClient, p portrait) (*menshenv1.Decision, error) {
		return identify(ctx, api, b.name, p.probe)
	})
	if err != nil {
		return err
	}
	r.Verified, err = s.askAll(ctx, b, visitors, func(ctx context.Context, api menshenv1.MatchServiceClient, p portrait) (*menshenv1.Decision, error) {
		resp, err := api.Verify(ctx, &menshenv1.VerifyRequest{Subject: b.subject(p.person), Probe: p.probe})
		return resp.GetDecision(), err
	})
	if err != nil {
		return err
	}
	r.Own, err = s.askAll(ctx, b, own, func(ctx context.Context, api menshenv1.MatchServiceClient, p portrait) (*menshenv1.Decision, error) {
		return identify(ctx, api, b.name, p.probe)
	})
	if err != nil {
		return err
	}
	s.say("  verified with their own ids at hall B: %d of %d; searched for at hall B: %d of %d match; hall B's own visitors: %s identified",
		r.Verified.matched(), r.Verified.Asked, r.Identified.matched(), r.Identified.Asked, share(r.Own.Right, r.Own.Asked))
	s.claim("no visitor of hall A is verified at hall B",
		fmt.Sprintf("%d of %d match", r.Verified.matched(), r.Verified.Asked), r.Verified.Asked > 0 && r.Verified.matched() == 0)
	// A visitor of A may look like one of B's own, as any stranger may.
	s.claim(fmt.Sprintf("searched for at hall B, visitors of hall A are strangers (at most %.0f%% match)", 100*wantStrangers),
		fmt.Sprintf("%d of %d match", r.Identified.matched(), r.Identified.Asked), atMost(r.Identified.matched(), r.Identified.Asked, wantStrangers))
	s.claim(fmt.Sprintf("hall B identifies at least %.0f%% of its own visitors", 100*wantOwn),
		share(r.Own.Right, r.Own.Asked), atLeast(r.Own.Right, r.Own.Asked, wantOwn))
	return nil
}

// askAll asks one question about every portrait at the gates of a hall, which
// share the work.
func (s *show) askAll(ctx context.Context, h *hall, shown []portrait, ask func(context.Context, menshenv1.MatchServiceClient, portrait) (*menshenv1.Decision, error)) (answers, error) {
	var (
		next  atomic.Int64
		mu    sync.Mutex
		sum   answers
		first error
		gates sync.WaitGroup
	)
	for range s.opt.Gates {
		api, err := h.gate()
		if err != nil {
			return sum, err
		}
		gates.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(shown); i = int(next.Add(1)) - 1 {
				d, err := ask(ctx, api, shown[i])
				mu.Lock()
				if err != nil && first == nil {
					first = err
				}
				stop := first != nil
				if !stop {
					sum.add(d, h.subject(shown[i].person))
				}
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	gates.Wait()
	return sum, first
}
