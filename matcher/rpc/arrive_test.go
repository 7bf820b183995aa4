package rpc

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// rawClient speaks HTTP/2 by frames, so that it can send half of something.
type rawClient struct {
	w    *world
	conn net.Conn
	fr   *http2.Framer
	next uint32
}

func (w *world) raw() *rawClient {
	w.t.Helper()
	conn, err := w.listener.DialContext(w.ctx())
	w.ok(err)
	w.t.Cleanup(func() { conn.Close() })
	w.ok(conn.SetDeadline(time.Now().Add(patience))) // a client that hangs fails its test
	_, err = io.WriteString(conn, http2.ClientPreface)
	w.ok(err)
	c := &rawClient{w: w, conn: conn, fr: http2.NewFramer(conn, conn), next: 1}
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.ok(c.fr.WriteSettings())
	return c
}

// headers begins a call with the named key.
func (c *rawClient) headers(method, key string) (stream uint32) {
	c.w.t.Helper()
	stream, c.next = c.next, c.next+2
	var block writer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "menshen"},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"authorization", "Bearer " + c.w.keys[key]},
	} {
		c.w.ok(enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
	}
	c.w.ok(c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true}))
	return stream
}

type writer []byte

func (w *writer) Write(b []byte) (int, error) { *w = append(*w, b...); return len(b), nil }

// status reads until the connection ends or a call does, and returns its status.
func (c *rawClient) status() (code codes.Code, ended error) {
	for {
		f, err := c.fr.ReadFrame()
		if err != nil {
			return 0, err
		}
		h, ok := f.(*http2.MetaHeadersFrame)
		if !ok || !h.StreamEnded() {
			continue
		}
		for _, field := range h.Fields {
			if field.Name == "grpc-status" {
				n, err := strconv.Atoi(field.Value)
				return codes.Code(n), err
			}
		}
	}
}

// wireMessage is a message as gRPC sends it.
func wireMessage(t testing.TB, m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// Whoever sends a part of a call and then nothing more, or next to nothing, is
// told so and disconnected. Their connections serve others as before, and a
// stream on which nothing is to be said stays.
func TestStalledClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	verify := wireMessage(t, &pb.VerifyRequest{Probe: vectorOf(1, 0)})
	item := wireMessage(t, identifyItem(1, vectorOf(1, 0)))
	clients := map[string]*rawClient{}
	for name, begin := range map[string]func(*rawClient){
		"headers only": func(c *rawClient) { c.headers(pb.MatchService_Verify_FullMethodName, "gate") },
		"half a message": func(c *rawClient) {
			w.ok(c.fr.WriteData(c.headers(pb.MatchService_Verify_FullMethodName, "gate"), false, verify[:len(verify)/2]))
		},
		"half a message on a stream": func(c *rawClient) {
			w.ok(c.fr.WriteData(c.headers(pb.MatchService_MatchStream_FullMethodName, "gate"), false, append(item, item[:9]...)))
		},
		"a trickle on a stream": func(c *rawClient) {
			stream := c.headers(pb.MatchService_MatchStream_FullMethodName, "gate")
			go func() {
				for _, b := range item {
					if c.fr.WriteData(stream, false, []byte{b}) != nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
		},
	} {
		clients[name] = w.raw()
		begin(clients[name])
	}
	// One bad call on a connection with good ones: these go on.
	mixed := w.raw()
	w.ok(mixed.fr.WriteData(mixed.headers(pb.MatchService_MatchStream_FullMethodName, "gate"), false, item))
	stalled := mixed.headers(pb.MatchService_Verify_FullMethodName, "gate")
	for name, c := range clients {
		t.Run(name, func(t *testing.T) {
			if code, err := c.status(); code != codes.DeadlineExceeded || err != nil {
				t.Fatalf("%v, %v", code, err)
			}
			if _, err := c.status(); err == nil || isTimeout(err) {
				t.Errorf("the connection is still open: %v", err)
			}
		})
	}
	if code, err := mixed.status(); code != codes.DeadlineExceeded || err != nil {
		t.Fatalf("%v, %v", code, err)
	}
	for reset := false; !reset; { // and nothing more of it is taken
		f, err := mixed.fr.ReadFrame()
		w.ok(err)
		_, reset = f.(*http2.RSTStreamFrame)
		reset = reset && f.Header().StreamID == stalled
	}
	if n := w.server.arrivals.Stats().Stalled; n != 5 {
		t.Errorf("%d calls cut off", n)
	}
	w.ok(mixed.fr.WriteData(1, true, item))
	if code, err := mixed.status(); code != codes.OK || err != nil {
		t.Errorf("a stream beside a stalled call: %v, %v", code, err)
	}
}

// Who is refused by the headers and leaves the message unfinished has nothing to wait
// for: the connection is closed.
func TestRefusedHalfMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	defer w.fill("fair")()
	verify := wireMessage(t, &pb.VerifyRequest{Probe: vectorOf(1, 0)})
	c := w.raw()
	w.ok(c.fr.WriteData(c.headers(pb.MatchService_Verify_FullMethodName, "gate"), false, verify[:len(verify)/2]))
	if code, err := c.status(); code != codes.ResourceExhausted || err != nil {
		t.Fatalf("%v, %v", code, err)
	}
	if _, err := c.status(); err == nil || isTimeout(err) {
		t.Errorf("the connection of half a message is still open: %v", err)
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// A tenant whose messages do not end cannot take the memory away: it is refused
// and its calls are cut off, the others are served, and it can still revoke.
func TestArrivingBytesAreBounded(t *testing.T) {
	const bound = 2 << 20
	w := newWorld(t, func(o *Options) { o.ArrivingBytes = bound })
	image := wireMessage(t, &pb.VerifyRequest{Probe: imageProbe(make([]byte, 40_000))})
	c := w.raw()
	cut, refused := 0, 0
	for cut == 0 || refused == 0 {
		// The connection's window is 65,535 bytes until the server widens it.
		stream := c.headers(pb.MatchService_Verify_FullMethodName, "gate")
		w.ok(c.fr.WriteData(stream, false, image[:16_000]))
		w.ok(c.fr.WriteData(stream, false, image[16_000:32_000]))
		if s := w.server.arrivals.Stats(); s.Refused+s.Crowded == 0 {
			continue
		}
		code, err := c.status()
		if code != codes.ResourceExhausted || err != nil {
			t.Fatalf("%v, %v", code, err)
		}
		s := w.server.arrivals.Stats()
		cut, refused = int(s.Crowded), int(s.Refused)
		// What arrives before the one who cuts off has woken up is little.
		if s.Held > 2*bound {
			t.Fatalf("%d bytes on their way, %d are allowed", s.Held, bound)
		}
		_, err = w.match("gym gate").Identify(w.ctx(), &pb.IdentifyRequest{Probe: vectorOf(1, 0)})
		w.ok(err)
	}
	_, err := w.scopes("operator").RevokeScope(w.ctx(), &pb.RevokeScopeRequest{Name: "tenants/fair/scopes/hall-a"})
	w.ok(err)
}

// What is on its way is counted while it is, and no longer.
func TestArrivalsAreGivenBack(t *testing.T) {
	w := newWorld(t)
	_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment("v-1", cropOf(1, 0)))
	w.ok(err)
	stream, err := w.match("gate").MatchStream(w.ctx())
	w.ok(err)
	for i := range 50 {
		w.ok(stream.Send(identifyItem(uint64(i+1), cropOf(1, 1))))
	}
	w.ok(stream.CloseSend())
	if answers, err := drainStream(stream.Recv); len(answers) != 50 || err != nil {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	call, err := w.as("gate").NewStream(w.ctx(), &grpc.StreamDesc{ClientStreams: true}, pb.MatchService_Verify_FullMethodName)
	w.ok(err)
	for w.server.arrivals.Stats().Held == 0 {
		w.ok(w.ctx().Err())
		time.Sleep(time.Millisecond)
	}
	w.ok(call.SendMsg(&pb.VerifyRequest{Subject: "tenants/fair/scopes/hall-a/subjects/v-1", Probe: cropOf(1, 1)}))
	w.ok(call.CloseSend())
	w.ok(call.RecvMsg(&pb.VerifyResponse{}))
	ctx := w.ctx()
	for w.server.arrivals.Stats().Held != 0 { // the handlers end after their answers
		if ctx.Err() != nil {
			t.Fatalf("%+v", w.server.arrivals.Stats())
		}
		time.Sleep(time.Millisecond)
	}
}
