package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/menshen-io/menshen/bench/target"
)

// asIs is a codec of bytes.
type asIs struct{}

func (asIs) Name() string { return "proto" }

func (asIs) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (asIs) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// matched is a VerifyResponse whose decision is a match.
var matched = []byte{0x0a, 0x02, 0x08, 0x01}

// peer is a server of gRPC that answers /echo/long with a message of 3 MB, refuses
// /echo/busy by its headers, and never answers /echo/never.
type peer struct {
	t       *testing.T
	address string
	server  *grpc.Server

	mu       sync.Mutex
	received [][]byte
	keys     map[string]int
	most, in int
}

func newPeer(t *testing.T, options ...grpc.ServerOption) *peer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, address: listener.Addr().String(), keys: map[string]int{}}
	p.serve(listener, options...)
	return p
}

func (p *peer) serve(listener net.Listener, options ...grpc.ServerOption) {
	p.server = grpc.NewServer(append(options, grpc.ForceServerCodecV2(asIs{}), grpc.UnknownServiceHandler(p.handle),
		grpc.InTapHandle(func(ctx context.Context, info *tap.Info) (context.Context, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.keys[strings.Join(info.Header.Get("authorization"), ",")]++
			if info.FullMethodName == "/echo/busy" {
				return nil, status.Error(codes.ResourceExhausted, "busy")
			}
			return ctx, nil
		}))...)
	go p.server.Serve(listener)
	p.t.Cleanup(p.server.Stop)
}

func (p *peer) handle(_ any, stream grpc.ServerStream) error {
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	p.mu.Lock()
	p.received = append(p.received, message)
	p.in++
	p.most = max(p.most, p.in)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.in--
		p.mu.Unlock()
	}()
	switch method, _ := grpc.MethodFromServerStream(stream); method {
	case "/echo/never":
		<-stream.Context().Done()
		return stream.Context().Err()
	case "/echo/slow":
		time.Sleep(20 * time.Millisecond)
	case "/echo/long":
		long := append(bytes.Clone(matched), 0x12, 0x80, 0x80, 0xc0, 0x01) // field 2, 3 MiB
		long = append(long, make([]byte, 3<<20)...)
		return stream.SendMsg(&long)
	}
	return stream.SendMsg(&matched)
}

func lanes(t *testing.T, p *peer, count int, keys ...string) *Lanes {
	t.Helper()
	d, err := target.NewDialer(p.address, "", false)
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLanes(t.Context(), d, count, keys...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestCalls(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	l := lanes(t, p, 1, "one", "two")
	large := bytes.Repeat([]byte("0123456789abcdef"), 200_000) // 3.2 MB: beyond every window
	tests := []struct {
		method string
		body   []byte
		want   Reply
	}{
		{"/echo/ok", []byte("hello"), Reply{Outcome: 1}},
		{"/echo/ok", nil, Reply{Outcome: 1}},
		{"/echo/ok", large, Reply{Outcome: 1}},
		{"/echo/long", []byte("x"), Reply{Outcome: 1}},
		{"/echo/busy", []byte("y"), Reply{Code: codes.ResourceExhausted}},
		{"/echo/busy", large, Reply{Code: codes.ResourceExhausted}},
		{"/echo/ok", []byte("again"), Reply{Outcome: 1}},
	}
	for i, test := range tests {
		if got := l.Call(t.Context(), 0, i%2, &target.Request{Method: test.method, Body: test.body}); got != test.want {
			t.Errorf("%d, %s of %d bytes: %+v, want %+v", i, test.method, len(test.body), got, test.want)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	want := [][]byte{[]byte("hello"), nil, large, []byte("x"), []byte("again")}
	if len(p.received) != len(want) {
		t.Fatalf("%d messages arrived, want %d", len(p.received), len(want))
	}
	for i, message := range p.received {
		if !bytes.Equal(message, want[i]) {
			t.Errorf("message %d of %d bytes is not what was sent", i, len(message))
		}
	}
	if p.keys["Bearer one"] != 4 || p.keys["Bearer two"] != 3 {
		t.Errorf("keys: %v", p.keys)
	}
}

// Hundreds of calls on one connection at once, more than it may have streams,
// some larger than its window, some refused: each ends once and rightly.
func TestManyCalls(t *testing.T) {
	t.Parallel()
	const most = 16
	p := newPeer(t, grpc.MaxConcurrentStreams(most))
	l := lanes(t, p, 1, "key")
	body := make([]byte, 100_000)
	var ends []waiting
	for i := range 400 {
		r := &target.Request{Method: "/echo/slow", Body: body[:1+i%2*99_999]}
		if i%3 == 0 {
			r.Method = "/echo/busy"
		}
		end := make(waiting, 2)
		l.Send(0, 0, r, time.Now().Add(time.Minute), end)
		ends = append(ends, end)
		if i%50 == 0 {
			l.Flush()
		}
	}
	l.Flush()
	for i, end := range ends {
		want := Reply{Outcome: 1}
		if i%3 == 0 {
			want = Reply{Code: codes.ResourceExhausted}
		}
		if got := <-end; got != want {
			t.Errorf("call %d: %+v, want %+v", i, got, want)
		}
	}
	for i, end := range ends {
		if len(end) != 0 {
			t.Errorf("call %d ended twice", i)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.most > most {
		t.Errorf("%d calls at once, %d are allowed", p.most, most)
	}
}

func TestDeadlineAndCancel(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	l := lanes(t, p, 1, "key")
	never := &target.Request{Method: "/echo/never"}
	end := make(waiting, 1)
	began := time.Now()
	l.Send(0, 0, never, began.Add(50*time.Millisecond), end)
	l.Flush()
	if got := <-end; got.Code != codes.DeadlineExceeded || time.Since(began) < 45*time.Millisecond {
		t.Errorf("%+v after %s", got, time.Since(began))
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if got := l.Call(ctx, 0, 0, never); got.Code != codes.Canceled {
		t.Errorf("%+v, want canceled", got)
	}
}

// A server that goes away ends the calls, and is found again when it is back.
func TestReconnect(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	l := lanes(t, p, 1, "key")
	end := make(waiting, 1)
	l.Send(0, 0, &target.Request{Method: "/echo/never"}, time.Now().Add(time.Minute), end)
	l.Flush()
	for arrived := false; !arrived; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		arrived = p.in > 0
		p.mu.Unlock()
	}
	p.server.Stop()
	if got := <-end; got.Code == codes.OK || got.Code == codes.DeadlineExceeded {
		t.Errorf("%+v from a server that is gone", got)
	}
	r := &target.Request{Method: "/echo/ok"}
	for l.Call(t.Context(), 0, 0, r).Code != codes.Unavailable { // the end of the connection takes a moment
		time.Sleep(time.Millisecond)
	}
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		t.Skip(err) // somebody else took the port
	}
	p.serve(listener)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for l.Call(ctx, 0, 0, r).Code != codes.OK {
		if ctx.Err() != nil {
			t.Fatal("the server is back, and is not found")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// nobodyAt is an address that is taken, so that nobody else gets it, and where nobody
// listens.
func nobodyAt(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
}

func TestNobodyThere(t *testing.T) {
	d, err := target.NewDialer(nobodyAt(t), "", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewLanes(t.Context(), d, 2, "key"); err == nil {
		t.Error("connected to nobody")
	}
}

// Whatever a server sends, the wire neither panics nor ends a call twice.
func FuzzWire(f *testing.F) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, h := range []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "grpc-status", Value: "8"}} {
		if err := e.WriteField(h); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(frame(frameHeaders, endHeaders|endStream, 1, block.Bytes()))
	f.Add(append(frame(frameSettings, 0, 0, []byte{0, 4, 0, 0, 0, 1}), frame(frameData, flagPadded, 1, []byte{1, 2, 3})...))
	f.Add(append(frame(frameWindowUpdate, 0, 0, []byte{0xff, 0xff, 0xff, 0xff}), frame(frameGoAway, 0, 0, make([]byte, 8))...))
	f.Add(append(frame(frameReset, 0, 1, make([]byte, 4)), frame(frameContinuation, endHeaders, 1, nil)...))
	f.Fuzz(func(t *testing.T, sent []byte) {
		ours, theirs := net.Pipe()
		w := newWire(ours, "x", "key")
		go io.Copy(io.Discard, theirs)
		end := make(waiting, 2)
		if w.send(&call{method: "/x", body: make([]byte, 10), deadline: time.Now().Add(time.Minute), to: end}) {
			w.flush()
		}
		if _, err := theirs.Write(sent); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
		theirs.Close()
		w.close()
		if len(end) != 1 {
			t.Errorf("the call ended %d times", len(end))
		}
	})
}
