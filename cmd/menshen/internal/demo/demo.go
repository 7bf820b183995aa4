// Package demo drives a Menshen server through the whole life of a purpose:
// halls are opened, visitors are enrolled, gates verify and identify, the same
// faces are tried at another hall, and the purpose ends. It measures what is
// claimed of each step and says which claims held.
//
// Everything goes over gRPC with API keys of the proper roles, as gates and
// desks would do it. The one exception is the comparison of template codes
// across scopes, which no RPC offers: for it the Target hands out the scopes'
// rotation seeds. The visitors are the synthetic faces of bench/faces.
//
// What it does not show: how well a model tells real people apart. The rates
// are those of drawn faces under the reference model.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/models/align"
)

// Options of a run.
type Options struct {
	Visitors int           // enrolled at hall A
	Traffic  time.Duration // how long the gates are open at least
	Gates    int           // that work at the same time
	Seed     uint64        // of the population of faces
}

// Others is how many visitors of its own hall B has.
const Others = 200

// Target is a running server.
type Target struct {
	Address  string
	AdminKey string // of a platform admin
	// Describe lists what the server runs on, for the first lines.
	Describe string
	// IdentifyThreshold is the score from which the halls identify; 0 leaves it
	// to the server. Larger galleries want a higher one.
	IdentifyThreshold float64
	// RotationSeed gives the seed of a scope's secret rotation, and Embed the
	// embedding of a face: what the server computes inside.
	RotationSeed func(scope.Ref) ([32]byte, error)
	Embed        func(context.Context, *align.Crop) ([]float32, error)
}

// show is one run.
type show struct {
	target Target
	opt    Options
	out    io.Writer
	album  *album
	fair   *fair
	report Report
}

// Run plays the demo against a server and writes to out what happens. It
// returns the report of everything that was measured; the error tells that the
// demo could not be played to its end.
func Run(ctx context.Context, target Target, opt Options, out io.Writer) (Report, error) {
	s := &show{target: target, opt: opt, out: out, album: newAlbum(opt.Seed)}
	s.report.Visitors, s.report.Seed = opt.Visitors, opt.Seed
	started := time.Now()
	err := s.play(ctx)
	s.report.Seconds = time.Since(started).Seconds()
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	return s.report, err
}

func (s *show) play(ctx context.Context) (err error) {
	s.say("%s", s.target.Describe)
	if s.fair, err = openFair(ctx, s.target); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.fair.close()) }()
	s.say("Tenant %s with two scopes: hall-a and hall-b. Each has its own gallery, key and secret rotation.", tenantID)
	for _, act := range []func(context.Context) error{
		s.enroll, s.openGates, s.tryOtherHall, s.compareCodes, s.revoke,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// say writes a paragraph.
func (s *show) say(format string, args ...any) {
	fmt.Fprintf(s.out, format+"\n", args...)
}

// head writes the head of an act.
func (s *show) head(format string, args ...any) {
	fmt.Fprintf(s.out, "\n"+format+"\n", args...)
}
