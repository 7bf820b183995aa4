package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/menshen-io/menshen/bench/target"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// StalledOptions say which clients stall.
type StalledOptions struct {
	Clients int
	Address string         // of the server; plain text
	Key     string         // of a gate
	Request target.Request // what they pretend to send
	Part    float64        // of the peak that the healthy send
}

// maxStalled bounds the connections that stall.
const maxStalled = 10_000

// stallKinds are the ways of stalling, with when the server promises to have cut
// off such a client, by default.
var stallKinds = []struct {
	name   string
	within time.Duration
	live   func(ctx context.Context, conn net.Conn, opt StalledOptions)
}{
	{"silent", 10 * time.Second, func(context.Context, net.Conn, StalledOptions) {}},
	{"preface, a byte a second", 10 * time.Second, func(ctx context.Context, conn net.Conn, _ StalledOptions) {
		trickle(ctx, conn, hello, func(b []byte) []byte { return b })
	}},
	{"headers only", 15 * time.Second, func(_ context.Context, conn net.Conn, opt StalledOptions) {
		say(conn, hello, headersOf(1, opt.Request.Method, opt))
	}},
	{"half a message", 15 * time.Second, func(_ context.Context, conn net.Conn, opt StalledOptions) {
		m := opt.message()
		say(conn, hello, headersOf(1, opt.Request.Method, opt), frame(frameData, 0, 1, m[:len(m)/2]))
	}},
	{"message, a byte a second", 15 * time.Second, func(ctx context.Context, conn net.Conn, opt StalledOptions) {
		say(conn, hello, headersOf(1, opt.Request.Method, opt))
		trickle(ctx, conn, opt.message(), func(b []byte) []byte { return frame(frameData, 0, 1, b) })
	}},
	{"stream item, a byte a second", 15 * time.Second, func(ctx context.Context, conn net.Conn, opt StalledOptions) {
		say(conn, hello, headersOf(1, pb.MatchService_MatchStream_FullMethodName, opt))
		trickle(ctx, conn, opt.message(), func(b []byte) []byte { return frame(frameData, 0, 1, b) })
	}},
	{"never reads answers", 50 * time.Second, deaf},
	{"idle streams, no pings answered", 50 * time.Second, func(_ context.Context, conn net.Conn, opt StalledOptions) {
		say(conn, hello)
		for i := range idleStreams {
			say(conn, headersOf(uint32(2*i+1), pb.MatchService_MatchStream_FullMethodName, opt))
		}
	}},
}

// StalledKind is what became of the clients of one kind.
type StalledKind struct {
	Kind     string  `json:"kind"`
	Opened   int     `json:"opened"`
	Open     int     `json:"open"`      // at the end
	WithinS  float64 `json:"within_s"`  // the server's promise
	LongestS float64 `json:"longest_s"` // until the last was cut off; 0: unknown
}

// Stalled compares the latencies of healthy clients beside clients that stall
// with those before. The stalled are of all kinds in equal numbers. They stay for
// Stages.Stalled, or until the server has cut off the last.
func Stalled(ctx context.Context, g *Generator, opt StalledOptions, stages Stages) (*Result, error) {
	if opt.Clients < 1 || opt.Clients > maxStalled {
		return nil, fmt.Errorf("%w: %d stalled clients; 1 to %d are possible", ErrOptions, opt.Clients, maxStalled)
	}
	stages = stages.orDefaults()
	r := &Result{Profile: "stalled"}
	peak, err := Peak(ctx, g, r, stages.Step)
	if err != nil {
		return nil, err
	}
	healthy := all(len(g.decks), opt.Part*peak, opt.Part*peak)
	before, err := g.Play(ctx, Phase{"healthy alone", stages.Steady, healthy})
	if err != nil {
		return nil, err
	}
	began := time.Now()
	crowd := newCrowd(ctx, opt)
	during, err := g.Play(ctx, Phase{"beside stalled", stages.Steady, healthy})
	crowd.wait(ctx, time.Until(began.Add(stages.Stalled)))
	r.StalledKinds = crowd.close()
	if err != nil {
		return nil, err
	}
	if len(crowd.clients) == 0 {
		return nil, fmt.Errorf("%w: no stalled client could connect: %w", ErrOptions, crowd.refused)
	}
	r.add(before[0], during[0])
	r.StalledP99Ratio = ratio(during[0].All.P99MS, before[0].All.P99MS)
	r.HealthyAnswered = ratio(during[0].All.Goodput, during[0].All.Rate)
	open := 0
	for _, k := range r.StalledKinds {
		open += k.Open
	}
	r.StalledOpened, r.StalledOpen = ptr(len(crowd.clients)), ptr(open)
	if len(crowd.clients) < opt.Clients {
		r.remark("%d of %d stalled clients could not connect, the last: %v", opt.Clients-len(crowd.clients), opt.Clients, crowd.refused)
	}
	r.finish(g, "beside stalled")
	return r, nil
}

// crowd is the clients that stall.
type crowd struct {
	clients []*stalledClient
	refused error
	end     context.CancelFunc
	group   sync.WaitGroup
	all     chan struct{} // closed when the server has cut off the last
}

type stalledClient struct {
	conn   *net.TCPConn
	kind   int
	opened time.Time
	gone   time.Duration // until the server closed it; 0: it has not
}

// opening is how long the crowd takes to connect: who opens calls all at once is
// refused most of them.
const opening = 4 * time.Second

func newCrowd(ctx context.Context, opt StalledOptions) *crowd {
	c := &crowd{all: make(chan struct{})}
	ctx, c.end = context.WithCancel(ctx)
	c.group.Go(func() {
		c.open(ctx, opt)
		c.watch(ctx)
	})
	return c
}

func (c *crowd) open(ctx context.Context, opt StalledOptions) {
	// A server that gives a client up which does not take what was sent cannot tell
	// it so: only who asks learns it, and these ask by TCP alone.
	alive := net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: 2 * time.Second}
	dialer := net.Dialer{Timeout: time.Second, KeepAliveConfig: alive}
	began := time.Now()
	for i := range opt.Clients {
		time.Sleep(time.Until(began.Add(opening * time.Duration(i) / time.Duration(opt.Clients))))
		conn, err := dialer.DialContext(ctx, "tcp", opt.Address)
		if err != nil {
			c.refused = err
			continue
		}
		client := &stalledClient{conn: conn.(*net.TCPConn), kind: i % len(stallKinds), opened: time.Now()}
		c.clients = append(c.clients, client)
		c.group.Go(func() {
			stallKinds[client.kind].live(ctx, conn, opt)
			<-ctx.Done()
		})
	}
}

// watchEvery is how often the crowd looks who was cut off.
const watchEvery = 250 * time.Millisecond

// watch notes who was cut off, and when, without reading.
func (c *crowd) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	left := c.clients
	for len(left) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		closed := hungUp(left)
		var still []*stalledClient
		for i, client := range left {
			if closed[i] {
				client.gone = time.Since(client.opened)
			} else {
				still = append(still, client)
			}
		}
		left = still
	}
	close(c.all)
}

// wait waits until the last was cut off, for d at most.
func (c *crowd) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.all:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// close ends the clients and returns what became of them.
func (c *crowd) close() []StalledKind {
	c.end()
	c.group.Wait()
	kinds := make([]StalledKind, len(stallKinds))
	for i, k := range stallKinds {
		kinds[i] = StalledKind{Kind: k.name, WithinS: k.within.Seconds()}
	}
	open := make([]bool, len(c.clients))
	var group sync.WaitGroup
	for i, client := range c.clients {
		group.Go(func() {
			open[i] = client.gone == 0 && isOpen(client.conn)
			client.conn.Close()
		})
	}
	group.Wait()
	for i, client := range c.clients {
		k := &kinds[client.kind]
		k.Opened++
		if open[i] {
			k.Open++
		}
		k.LongestS = max(k.LongestS, client.gone.Seconds())
	}
	return kinds
}

// isOpen asks, and reads what was sent meanwhile, up to the end if there is one. Who
// did not read has no room for being told of the end, but a server that has gone
// resets what still writes.
func isOpen(conn net.Conn) bool {
	buffer := make([]byte, 16<<10)
	if conn.SetDeadline(time.Now().Add(50*time.Millisecond)) != nil {
		return false
	}
	say(conn, frame(framePing, 0, 0, make([]byte, 8)))
	for {
		if _, err := conn.Read(buffer); err != nil {
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
}

// hello is how HTTP/2 begins.
var hello = append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(frameSettings, 0, 0, nil)...)

// message is what is pretended to be sent, as gRPC sends it.
func (o StalledOptions) message() []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(o.Request.Body))), o.Request.Body...)
}

// say sends; an error means that the server has cut the client off.
func say(conn net.Conn, parts ...[]byte) {
	_, _ = conn.Write(bytes.Join(parts, nil))
}

// deaf sends calls and never reads.
func deaf(_ context.Context, conn net.Conn, opt StalledOptions) {
	message := opt.message()
	calls := [][]byte{hello}
	for i := range min(deafCalls, max(1, deafBytes/len(message))) {
		stream := uint32(2*i + 1)
		calls = append(calls, headersOf(stream, opt.Request.Method, opt), frame(frameData, endStream, stream, message))
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(4 << 10) // the smaller, the sooner the server cannot send; any size will do
	}
	if conn.SetWriteDeadline(time.Now().Add(10*time.Second)) == nil {
		say(conn, calls...)
	}
}

// idleStreams are what a client opens and then leaves.
const idleStreams = 10

// deafCalls are what a client that never reads asks; together they stay within
// the 65,535 bytes that HTTP/2 lets it send at first.
const (
	deafCalls = 50
	deafBytes = 60_000
)

// trickle sends a byte a second.
func trickle(ctx context.Context, conn net.Conn, text []byte, wrap func([]byte) []byte) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := range text {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if _, err := conn.Write(wrap(text[i : i+1])); err != nil {
			return
		}
	}
}

// headersOf is the HEADERS frame of a call.
func headersOf(stream uint32, method string, opt StalledOptions) []byte {
	var block []byte
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", opt.Address},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"authorization", "Bearer " + opt.Key},
	} {
		// A literal that is not indexed, with a new name (RFC 7541, section 6.2.2).
		block = append(block, 0)
		block = appendString(appendString(block, h[0]), h[1])
	}
	return frame(frameHeaders, endHeaders, stream, block)
}

// appendString writes a string without Huffman coding (RFC 7541, section 5).
func appendString(b []byte, s string) []byte {
	n := len(s)
	if n < 127 {
		b = append(b, byte(n))
	} else {
		b = append(b, 127)
		for n -= 127; n >= 128; n >>= 7 {
			b = append(b, byte(n)|128)
		}
		b = append(b, byte(n))
	}
	return append(b, s...)
}
