package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/menshen-io/menshen/internal/history"
	"github.com/menshen-io/menshen/matcher/auth"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// races is how often a test races an erasure against matches: MENSHEN_RACES, or
// the usual number.
func races(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("MENSHEN_RACES")); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		return max(1, usual/4)
	}
	return usual
}

const (
	raceClients  = 64
	raceConns    = 8   // the race detector's work grows with the goroutines
	raceBefore   = 8   // answers before the erasure begins; the others' calls are under way
	raceAfter    = 8   // one client in so many asks once more after it
	racesInBatch = 90  // a credential names at most 100 scopes
	racesInWorld = 900 // what is erased stays in the receipts, and is searched for
)

// 64 gates verify and identify one person, by calls and on streams, while it is
// erased, again and again: every history is linearisable, and no match leaves the
// server after the answer to the erasure.
func TestEraseRaces(t *testing.T) {
	for kind, usual := range map[string]int{"revoke": 40, "delete": 120, "withdraw": 120} {
		t.Run(kind, func(t *testing.T) {
			total, began := races(usual), time.Now()
			calls, matches := 0, 0
			for done := 0; done < total && !t.Failed(); done += racesInWorld {
				t.Run(strconv.Itoa(done), func(t *testing.T) {
					r := newRaceTrack(t, kind)
					for n := done; n < min(done+racesInWorld, total) && !t.Failed(); n += racesInBatch {
						for _, f := range r.run(n, min(racesInBatch, total-n, done+racesInWorld-n)) {
							r.ok(f.Check())
							a, m := f.Reads()
							calls, matches = calls+a, matches+m
						}
					}
				})
			}
			t.Logf("%d races of %d clients in %v: %d calls, %d of them matches", total, raceClients, time.Since(began).Round(time.Second), calls, matches)
		})
	}
}

// The races find it when the server lets a match out after the answer: without
// the wait for passages, and without the last fence. MENSHEN_MUTANTS=1 builds
// servers with these faults, which take their time besides, and wants the races to
// fail; a server that is only slow passes.
func TestRacesFindFaults(t *testing.T) {
	if os.Getenv("MENSHEN_MUTANTS") == "" {
		t.Skip("set MENSHEN_MUTANTS=1 to build servers with faults")
	}
	type edit struct{ file, before, after string }
	const fence = "now := m.now()\n\tif err := sc.usable(now); err != nil {"
	slow := edit{"audited.go", "func (m *Matcher) record(d Decision) error {", "func (m *Matcher) record(d Decision) error {\n\ttime.Sleep(2 * time.Millisecond)"}
	for _, mutant := range []struct {
		name  string
		sound bool
		edits []edit
	}{
		{"slow", true, []edit{slow}},
		{"nobody waits for passages", false, []edit{slow, {"passage.go", "if !sc.departures.wait(departPatience) {", "if false {"}}},
		{"no fence", false, []edit{{"decide.go", fence, "time.Sleep(2 * time.Millisecond)\n\tif true {\n\t\treturn nil\n\t}\n\t" + fence}}},
	} {
		t.Run(mutant.name, func(t *testing.T) {
			dir := t.TempDir()
			replace := map[string]string{}
			for _, e := range mutant.edits {
				path, err := filepath.Abs(filepath.Join("..", e.file))
				if err != nil {
					t.Fatal(err)
				}
				source, err := os.ReadFile(path)
				if err != nil || strings.Count(string(source), e.before) != 1 {
					t.Fatalf("%s has not one %q: %v", path, e.before, err)
				}
				replace[path] = filepath.Join(dir, e.file)
				if err := os.WriteFile(replace[path], []byte(strings.Replace(string(source), e.before, e.after, 1)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			overlay, err := json.Marshal(map[string]any{"Replace": replace})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("go", "test", "-overlay", filepath.Join(dir, "overlay.json"), "-run", "^TestEraseRaces$", ".")
			cmd.Env = append(os.Environ(), "MENSHEN_RACES=90")
			out, err := cmd.CombinedOutput()
			found := regexp.MustCompile(`(?m)a (match left the server|call that began|call matched that began) .*$`).Find(out)
			if (err == nil) != mutant.sound || (found == nil) != mutant.sound {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", found)
		})
	}
}

// raceTrack is a world in which people are erased one after the other.
type raceTrack struct {
	*world
	kind    string
	conns   []*grpc.ClientConn // of the clients
	office  *grpc.ClientConn   // the operator's
	desk    *grpc.ClientConn   // the enroller's
	within  context.Context
	flags   sync.Map // *history.Flag by name of the subject
	erasing atomic.Pointer[history.Flag]
}

// racer is a person that is going to be erased.
type racer struct {
	history.Flag
	scope, subject string // names
	probe          *pb.Probe
	over           chan struct{} // closed once the erasure is answered
}

func newRaceTrack(t *testing.T, kind string) *raceTrack {
	r := &raceTrack{kind: kind}
	r.world = newWorldOf(t, &fakeModels{}, func(o *Options) {
		o.watch, o.Logger = r, slog.New(slog.DiscardHandler)
	})
	r.office, r.desk = r.as("operator"), r.as("enroller")
	var cancel context.CancelFunc
	r.within, cancel = context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	for range raceConns {
		r.conns = append(r.conns, r.dial())
	}
	return r
}

// TagRPC, HandleRPC, TagConn and HandleConn see what leaves the server. A message
// is reported when the transport has it.
func (r *raceTrack) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (r *raceTrack) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (r *raceTrack) HandleConn(context.Context, stats.ConnStats)                       {}
func (r *raceTrack) HandleRPC(_ context.Context, s stats.RPCStats) {
	out, ok := s.(*stats.OutPayload)
	if !ok {
		return
	}
	switch m := out.Payload.(type) {
	case *departure:
		if d := decisionIn(m.message); d.GetOutcome() == pb.Outcome_OUTCOME_MATCH {
			if f, ok := r.flags.Load(d.Subject); ok {
				f.(*racer).Left()
			}
		}
	case *pb.RevokeScopeResponse, *pb.DeleteSubjectResponse, *pb.WithdrawConsentResponse:
		r.erasing.Load().Told()
	}
}

// decisionIn finds the decision of an answer; nil where there is none.
func decisionIn(m any) *pb.Decision {
	switch m := m.(type) {
	case *pb.VerifyResponse:
		return m.GetDecision()
	case *pb.IdentifyResponse:
		if len(m.GetResults()) > 0 {
			return m.Results[0].GetDecision()
		}
	case *pb.MatchStreamResponse:
		if v := m.GetVerify(); v != nil {
			return v.GetDecision()
		}
		return decisionIn(m.GetIdentify())
	}
	return nil
}

// run races so many people, from number n on, and returns their histories.
func (r *raceTrack) run(n, count int) []*racer {
	people, key := r.enrol(n, count)
	ctx := metadata.AppendToOutgoingContext(r.within, "authorization", "Bearer "+key)
	var at atomic.Int64 // the one that is raced
	var clients sync.WaitGroup
	for c := range raceClients {
		clients.Go(func() {
			g := &racingGate{track: r, match: pb.NewMatchServiceClient(r.conns[c%raceConns]), calls: c}
			defer g.close()
			for last := 0; ; {
				i := int(at.Load())
				for ; last < min(i, count); last++ {
					if (last+c)%raceAfter == 0 {
						g.ask(ctx, people[last])
					}
				}
				if i == count || r.t.Failed() {
					return
				}
				if !g.ask(ctx, people[i]) {
					<-people[i].over
				}
			}
		})
	}
	for _, p := range people {
		for all := 0; all < raceBefore && !r.t.Failed(); all, _ = p.Reads() {
			time.Sleep(100 * time.Microsecond)
		}
		r.erasing.Store(&p.Flag)
		began := time.Now()
		err := r.erase(p)
		p.Erased(began)
		at.Add(1)
		close(p.over)
		if err != nil {
			r.t.Error(err)
		}
	}
	clients.Wait()
	return people
}

// enrol makes the people of a batch, in a scope of their own each where scopes are
// to be revoked, and a key for all.
func (r *raceTrack) enrol(n, count int) (people []*racer, key string) {
	const many = 16
	errs := make(chan error, count)
	turn := make(chan struct{}, many)
	var scopes []string
	for i := range count {
		s := "hall-a"
		if r.kind == "revoke" {
			s = fmt.Sprint("tour-", n+i)
			scopes = append(scopes, s)
		}
		id, person := fmt.Sprint("v-", n+i), uint16(n+i)
		p := &racer{scope: "tenants/fair/scopes/" + s, subject: "tenants/fair/scopes/" + s + "/subjects/" + id, probe: vectorOf(person, 1), over: make(chan struct{})}
		people = append(people, p)
		r.flags.Store(p.subject, p)
		if r.kind == "revoke" {
			_, err := pb.NewScopeServiceClient(r.office).CreateScope(r.within, &pb.CreateScopeRequest{ScopeId: s, Scope: r.settings()})
			r.ok(err)
		}
	}
	keys := [2]string{"gate", "enroller"}
	desk := pb.NewEnrollmentServiceClient(r.desk)
	if r.kind == "revoke" {
		keys = [2]string{fmt.Sprint("gate ", n), fmt.Sprint("enroller ", n)}
		r.credential(keys[0], auth.Gate, "fair", scopes...)
		r.credential(keys[1], auth.Enroller, "fair", scopes...)
		desk = r.enroll(keys[1])
	}
	for i, p := range people {
		turn <- struct{}{}
		go func() {
			_, err := desk.Enroll(r.within, &pb.EnrollRequest{Parent: p.scope, SubjectId: fmt.Sprint("v-", n+i), Consent: r.consent(), Probes: []*pb.Probe{vectorOf(uint16(n+i), 0)}})
			<-turn
			errs <- err
		}()
	}
	for range people {
		r.ok(<-errs)
	}
	return people, r.keys[keys[0]]
}

func (r *raceTrack) erase(p *racer) (err error) {
	switch r.kind {
	case "revoke":
		_, err = pb.NewScopeServiceClient(r.office).RevokeScope(r.within, &pb.RevokeScopeRequest{Name: p.scope})
	case "delete":
		_, err = pb.NewEnrollmentServiceClient(r.desk).DeleteSubject(r.within, &pb.DeleteSubjectRequest{Name: p.subject})
	case "withdraw":
		_, err = pb.NewEnrollmentServiceClient(r.desk).WithdrawConsent(r.within, &pb.WithdrawConsentRequest{Name: p.subject})
	}
	return err
}

// racingGate is one client. One question in eight is a Verify, one an Identify,
// and the others are items of its stream of one kind or the other.
type racingGate struct {
	track  *raceTrack
	match  pb.MatchServiceClient
	stream grpc.BidiStreamingClient[pb.MatchStreamRequest, pb.MatchStreamResponse]
	calls  int
}

// ask asks about somebody, notes what it was told, and reports whether it matched.
func (g *racingGate) ask(ctx context.Context, p *racer) bool {
	g.calls++
	began := time.Now()
	var answer any
	var err error
	var reason string
	verify := &pb.VerifyRequest{Subject: p.subject, Probe: p.probe}
	identify := &pb.IdentifyRequest{Scope: p.scope, Probe: p.probe}
	switch g.calls % 8 {
	case 0:
		answer, err = g.match.Verify(ctx, verify)
	case 1:
		answer, err = g.match.Identify(ctx, identify)
	default:
		item := &pb.MatchStreamRequest{Request: &pb.MatchStreamRequest_Verify{Verify: verify}}
		if g.calls%2 == 0 {
			item.Request = &pb.MatchStreamRequest_Identify{Identify: identify}
		}
		var m *pb.MatchStreamResponse
		if m, err = g.converse(ctx, item); err == nil {
			answer, reason = m, m.GetError().GetReason()
		}
	}
	if err != nil {
		for _, d := range status.Convert(err).Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				reason = info.GetReason()
			}
		}
	}
	d := decisionIn(answer)
	matched := d.GetOutcome() == pb.Outcome_OUTCOME_MATCH
	switch {
	case d != nil:
		p.Read(began, matched)
		if matched && d.Subject != p.subject {
			g.track.t.Errorf("%s matched as %s", p.subject, d.Subject)
		}
	case reason == "OVERTAKEN" || reason == "SCOPE_REVOKED" && g.track.kind == "revoke":
		p.Read(began, false)
	default:
		g.track.t.Errorf("a call beside an erasure: %v %v %s", answer, err, reason)
	}
	return matched
}

func (g *racingGate) converse(ctx context.Context, item *pb.MatchStreamRequest) (_ *pb.MatchStreamResponse, err error) {
	if g.stream == nil {
		if g.stream, err = g.match.MatchStream(ctx); err != nil {
			return nil, err
		}
	}
	if err := g.stream.Send(item); err != nil {
		return nil, err
	}
	return g.stream.Recv()
}

func (g *racingGate) close() {
	if g.stream != nil {
		g.stream.CloseSend()
		g.stream.Recv()
	}
}
