package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/menshen-io/menshen/bench/inference/wire"
	"github.com/menshen-io/menshen/matcher/auth"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// BenchmarkCost holds Verify and MatchStream with embedding probes against a
// bare gRPC echo of as many bytes, client and server in two processes of this
// machine, in turns:
//
//	go test ./matcher/rpc -run '^$' -bench Cost -benchtime 12x
//
// One iteration is one turn of each; the figures are medians over the turns.
func BenchmarkCost(b *testing.B) {
	for _, dim := range []int{128, 512} {
		b.Run(fmt.Sprintf("dim=%d", dim), func(b *testing.B) { benchmarkCost(b, dim) })
	}
}

const (
	costLanes   = 16 // callers
	costConns   = 4
	costStreams = 4
	costWindow  = 16 // in flight on a stream
	costTurn    = 400 * time.Millisecond
)

func benchmarkCost(b *testing.B, dim int) {
	s := startServed(b, dim)
	ctx := context.Background()
	keyed := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+s.key)
	verify := s.target(b, dim, 1)
	verify.Method, verify.Check = pb.MatchService_Verify_FullMethodName, checkVerified
	stream := s.target(b, dim, costWindow)
	stream.Method, stream.Check = pb.MatchService_MatchStream_FullMethodName, checkStreamed
	echo := wire.Target{
		Method: wire.EchoMethod, Conns: dialAll(b, s.echo), Requests: [][]byte{wire.EchoRequest(len(verify.Requests[0]))},
		Check: func([]byte) error { return nil },
	}
	var echoes, verifies, streams, costs, gains []float64
	turn := func() {
		e, err := wire.Unary(ctx, echo, costLanes, costTurn)
		if err != nil {
			b.Fatal(err)
		}
		v, err := wire.Unary(keyed, verify, costLanes, costTurn)
		if err != nil {
			b.Fatal(err)
		}
		m, err := wire.Stream(keyed, stream, costStreams, costTurn)
		if err != nil {
			b.Fatal(err)
		}
		echoes, verifies, streams = append(echoes, e), append(verifies, v), append(streams, m)
		costs, gains = append(costs, v/e), append(gains, m/v)
	}
	turn() // warm-up
	echoes, verifies, streams, costs, gains = nil, nil, nil, nil, nil
	for b.Loop() {
		turn()
	}
	for name, values := range map[string][]float64{
		"echo/s": echoes, "verify/s": verifies, "stream/s": streams, "embedding_ratio": costs, "stream_ratio": gains,
	} {
		slices.Sort(values)
		b.ReportMetric(values[len(values)/2], name)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkAudit holds Verify in a scope that demands that every decision is recorded
// against one that records none, in turns, on one server:
//
//	go test ./matcher/rpc -run '^$' -bench Audit -benchtime 12x
//
// Every answer is a MATCH, which costs the log most.
func BenchmarkAudit(b *testing.B) {
	for _, dim := range []int{128, 512} {
		b.Run(fmt.Sprintf("dim=%d", dim), func(b *testing.B) {
			s := startServed(b, dim)
			target := s.target(b, dim, 1)
			target.Method, target.Check = pb.MatchService_Verify_FullMethodName, checkVerified
			turn := func(key string) float64 {
				rate, err := wire.Unary(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+key), target, costLanes, costTurn)
				if err != nil {
					b.Fatal(err)
				}
				return rate
			}
			turn(s.key)
			turn(s.strict)
			var off, required, shares []float64
			for b.Loop() {
				before, with, after := turn(s.key), turn(s.strict), turn(s.key)
				off, required = append(off, (before+after)/2), append(required, with)
				shares = append(shares, 2*with/(before+after))
			}
			for name, values := range map[string][]float64{"off/s": off, "required/s": required, "required_share": shares} {
				slices.Sort(values)
				b.ReportMetric(values[len(values)/2], name)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func checkVerified(answer []byte) error {
	var m pb.VerifyResponse
	if err := proto.Unmarshal(answer, &m); err != nil {
		return err
	}
	if m.GetDecision().GetOutcome() != pb.Outcome_OUTCOME_MATCH {
		return fmt.Errorf("answered %v", &m)
	}
	return nil
}

func checkStreamed(answer []byte) error {
	var m pb.MatchStreamResponse
	if err := proto.Unmarshal(answer, &m); err != nil {
		return err
	}
	if m.GetVerify().GetDecision().GetOutcome() != pb.Outcome_OUTCOME_MATCH {
		return fmt.Errorf("answered %v", &m)
	}
	return nil
}

// served is a server in a process of its own.
type served struct {
	addr, echo, key string
	strict          string // the key of a gate whose scope demands that decisions are recorded
	pid             int
}

// target asks about one subject. With one request it is that of a unary Verify,
// with more they are those of a stream.
func (s *served) target(t testing.TB, dim, requests int) wire.Target {
	out := wire.Target{Conns: dialAll(t, s.addr)}
	probe := vectorProbe(fakeModelID(), embeddingIn(dim, 1, 1)...)
	for i := range uint64(requests) {
		var m proto.Message = &pb.VerifyRequest{Subject: "v-1", Probe: probe}
		if requests > 1 {
			m = verifyItem(i+1, "v-1", probe)
		}
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		out.Requests = append(out.Requests, b)
	}
	return out
}

func dialAll(t testing.TB, addr string) (conns []*grpc.ClientConn) {
	for range costConns {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn)
	}
	return conns
}

// servedEnv tells a process that it is to serve, and the dimension.
const servedEnv = "MENSHEN_TEST_SERVE"

// startServed runs this test binary again as a server. It ends when its input
// does. MENSHEN_TEST_PROFILE names a file for its CPU profile.
func startServed(t testing.TB, dim int) *served {
	t.Helper()
	args := []string{"-test.run=^TestServe$", "-test.timeout=10m"}
	if file := os.Getenv("MENSHEN_TEST_PROFILE"); file != "" {
		args = append(args, "-test.cpuprofile="+file)
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), servedEnv+"="+strconv.Itoa(dim))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) != 4 {
		t.Fatalf("the server says %q, %v", line, err)
	}
	return &served{words[0], words[1], words[2], words[3], cmd.Process.Pid}
}

// TestServe is the process that startServed starts: the whole service and an
// echo on the loopback interface.
func TestServe(t *testing.T) {
	dim, err := strconv.Atoi(os.Getenv(servedEnv))
	if err != nil {
		t.Skip("the server of BenchmarkCost; not a test")
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	w := newWorldOf(t, &fakeModels{dim: dim}, func(o *Options) { o.Logger = log })
	probe := vectorProbe(fakeModelID(), embeddingIn(dim, 1, 0)...)
	_, err = w.enroll("enroller").Enroll(w.ctx(), w.enrollment("v-1", probe))
	w.ok(err)
	answer, err := w.match("gate").Verify(w.ctx(), &pb.VerifyRequest{Subject: "v-1", Probe: probe})
	w.ok(err)
	strict := w.settings()
	strict.DecisionAudit = pb.DecisionAudit_DECISION_AUDIT_REQUIRED
	_, err = w.scopes("operator").CreateScope(w.ctx(), &pb.CreateScopeRequest{ScopeId: "strict", Scope: strict})
	w.ok(err)
	w.credential("strict enroller", auth.Enroller, "fair", "strict")
	w.credential("strict gate", auth.Gate, "fair", "strict")
	_, err = w.enroll("strict enroller").Enroll(w.ctx(), w.enrollment("v-1", probe))
	w.ok(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.ok(err)
	go func() {
		if err := w.server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	}()
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	w.ok(err)
	echo := wire.ServeEcho(bare, proto.Size(answer))
	defer echo.Stop()
	fmt.Printf("%s %s %s %s\n", l.Addr(), bare.Addr(), w.keys["gate"], w.keys["strict gate"])
	_, _ = io.Copy(io.Discard, os.Stdin)
}
