package rpc

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// quick is long enough for a client that moves to do so on a busy machine.
func quick(opt *Options) { opt.StallLimit = 2 * time.Second }

// A request whose message does not come is cut off; a stream on which the
// client has nothing to say is not.
func TestStalledRequestIsCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	silent, err := w.match("gate").MatchStream(w.ctx())
	w.ok(err)
	call, err := w.as("gate").NewStream(w.ctx(), &grpc.StreamDesc{ClientStreams: true}, pb.MatchService_Verify_FullMethodName)
	w.ok(err)
	w.want("a request without its message", call.RecvMsg(&pb.VerifyResponse{}), codes.DeadlineExceeded, "STALLED")
	w.ok(silent.Send(identifyItem(7, vectorOf(1, 0))))
	if answer, err := silent.Recv(); err != nil || answer.GetSequenceId() != 7 {
		t.Errorf("a stream that was silent: %v, %v", answer, err)
	}
	if n := w.server.arrivals.Stats().Stalled; n != 1 {
		t.Errorf("%d calls cut off", n)
	}
}

// A client that sends and does not read is cut off, and others are not.
func TestSlowReaderIsCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	greedy, err := w.match("gate").MatchStream(w.ctx())
	w.ok(err)
	item := identifyItem(1, vectorOf(1, 0))
	go func() {
		for greedy.Send(item) == nil {
		}
	}()
	for w.server.stalls.cut.Load() == 0 {
		if err := greedy.Context().Err(); err != nil {
			t.Fatalf("a client that never reads was not cut off: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
	// What was sent before is still there, and then why no more comes.
	_, err = drainStream(greedy.Recv)
	w.want("a client that does not read", err, codes.DeadlineExceeded, "STALLED")
	_, err = w.match("gate").Identify(w.ctx(), &pb.IdentifyRequest{Probe: vectorOf(1, 0)})
	w.ok(err)
	if n := w.server.stalls.cut.Load(); n != 1 {
		t.Errorf("%d calls cut off", n)
	}
}

// Who goes on not reading after it was cut off, and answers pings, does not keep
// its connection: its answers would lie in the server as long as it likes.
func TestConnectionOfCutReaderIsClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	greedy, err := w.match("gate").MatchStream(w.ctx())
	w.ok(err)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for item := identifyItem(1, vectorOf(1, 0)); greedy.Send(item) == nil; {
		}
	}()
	select {
	case <-sent: // the connection is gone: a cut stream alone is told after what it does not read
	case <-time.After(patience):
		t.Fatal("a client that never reads keeps its connection")
	}
	if n := w.server.stalls.cut.Load(); n != 1 {
		t.Errorf("%d calls cut off", n)
	}
}

func TestHealthWatchesAreBounded(t *testing.T) {
	w := newWorld(t)
	health := grpc_health_v1.NewHealthClient(w.as(""))
	for range maxWatchers {
		s, err := health.Watch(w.ctx(), &grpc_health_v1.HealthCheckRequest{})
		w.ok(err)
		_, err = s.Recv()
		w.ok(err)
	}
	s, err := health.Watch(w.ctx(), &grpc_health_v1.HealthCheckRequest{})
	w.ok(err)
	_, err = s.Recv()
	w.want("one watch too many", err, codes.ResourceExhausted, "TOO_MANY_WATCHERS")
}

// Connections are bounded from each address and in all, and places are given
// back.
func TestConnectionsAreBounded(t *testing.T) {
	for name, bounds := range map[string][2]int{"in all": {2, 0}, "of an address": {0, 2}} {
		t.Run(name, func(t *testing.T) {
			plain, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l := Bound(plain, bounds[0], bounds[1], slog.New(slog.DiscardHandler))
			defer l.Close()
			accepted := make(chan net.Conn, 10)
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					accepted <- conn
				}
			}()
			dial := func() net.Conn {
				conn, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				return conn
			}
			dial()
			dial()
			first, second := <-accepted, <-accepted
			turned := dial()
			_ = turned.SetReadDeadline(time.Now().Add(patience))
			if _, err := turned.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("one too many was not closed: %v", err)
			}
			first.Close()
			first.Close() // gives one place back, not two
			dial()
			third := <-accepted
			if _, err := third.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			turned = dial()
			_ = turned.SetReadDeadline(time.Now().Add(patience))
			if _, err := turned.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a place was given back twice: %v", err)
			}
			second.Close()
			third.Close()
		})
	}
}

// A connection whose other side takes nothing is closed.
func TestConnectionThatTakesNothing(t *testing.T) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Bound(plain, 0, 0, slog.New(slog.DiscardHandler)).(*boundListener)
	l.stall = 200 * time.Millisecond
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	block := make([]byte, 1<<20)
	for range 1000 { // more than any buffer
		if _, err = conn.Write(block); err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("writing to somebody who does not read: %v", err)
	}
}
