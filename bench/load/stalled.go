package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-io/menshen/bench/target"
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

// Stalled compares the latencies of healthy clients beside clients that stall
// with those before. The stalled are of four kinds in equal numbers: they
// connect and say nothing; they send HTTP/2's preface a byte a second; they begin
// a call and send its message a byte a second; they send calls and never read an
// answer.
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
	crowd, err := newCrowd(ctx, opt)
	if err != nil {
		return nil, err
	}
	during, err := g.Play(ctx, Phase{"beside stalled", stages.Steady, healthy})
	open := crowd.close()
	if err != nil {
		return nil, err
	}
	r.add(before[0], during[0])
	r.StalledP99Ratio = ratio(during[0].All.P99MS, before[0].All.P99MS)
	r.HealthyAnswered = ratio(during[0].All.Goodput, during[0].All.Rate)
	r.StalledOpened, r.StalledOpen = ptr(crowd.opened()), ptr(open)
	if crowd.opened() < opt.Clients {
		r.remark("%d of %d stalled clients could not connect, the last: %v", opt.Clients-crowd.opened(), opt.Clients, crowd.refused)
	}
	r.finish(g, "beside stalled")
	return r, nil
}

// crowd is the clients that stall.
type crowd struct {
	conns   []net.Conn
	refused error
	end     context.CancelFunc
	group   sync.WaitGroup
}

func newCrowd(ctx context.Context, opt StalledOptions) (*crowd, error) {
	c := &crowd{}
	ctx, c.end = context.WithCancel(ctx)
	dialer := net.Dialer{Timeout: time.Second}
	for i := range opt.Clients {
		conn, err := dialer.DialContext(ctx, "tcp", opt.Address)
		if err != nil {
			c.refused = err
			continue
		}
		c.conns = append(c.conns, conn)
		c.group.Go(func() { stall(ctx, conn, i%4, opt) })
	}
	if len(c.conns) == 0 {
		c.close()
		return nil, fmt.Errorf("%w: no stalled client could connect: %w", ErrOptions, c.refused)
	}
	return c, nil
}

func (c *crowd) opened() int { return len(c.conns) }

// close ends the clients and returns how many the server had not cut off.
func (c *crowd) close() (open int) {
	c.end()
	c.group.Wait()
	var still atomic.Int64
	var group sync.WaitGroup
	for _, conn := range c.conns {
		group.Go(func() {
			defer conn.Close()
			if isOpen(conn) {
				still.Add(1)
			}
		})
	}
	group.Wait()
	return int(still.Load())
}

// isOpen reads what was sent meanwhile, up to the end if there is one.
func isOpen(conn net.Conn) bool {
	buffer := make([]byte, 16<<10)
	if conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)) != nil {
		return false
	}
	for {
		if _, err := conn.Read(buffer); err != nil {
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
}

// stall is one client's life; write errors mean that the server has cut it off.
func stall(ctx context.Context, conn net.Conn, kind int, opt StalledOptions) {
	hello := append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(frameSettings, 0, 0, nil)...)
	message := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(opt.Request.Body)))
	message = append(message, opt.Request.Body...)
	switch kind {
	case 0: // says nothing
	case 1:
		trickle(ctx, conn, hello, func(b []byte) []byte { return b })
	case 2:
		if _, err := conn.Write(append(hello, call(1, opt)...)); err == nil {
			trickle(ctx, conn, message, func(b []byte) []byte { return frame(frameData, 0, 1, b) })
		}
	case 3:
		var calls []byte
		for i := range min(deafCalls, max(1, deafBytes/len(message))) {
			stream := uint32(2*i + 1)
			calls = append(calls, call(stream, opt)...)
			calls = append(calls, frame(frameData, endStream, stream, message)...)
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4 << 10) // the smaller, the sooner the server cannot send; any size will do
		}
		if conn.SetWriteDeadline(time.Now().Add(10*time.Second)) == nil {
			_, _ = conn.Write(append(hello, calls...))
		}
	}
	<-ctx.Done()
}

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

// Frames of HTTP/2 (RFC 9113, sections 4.1 and 6).
const (
	frameData     = 0x0
	frameHeaders  = 0x1
	frameSettings = 0x4
	endStream     = 0x1
	endHeaders    = 0x4
)

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// call is the HEADERS frame of a call.
func call(stream uint32, opt StalledOptions) []byte {
	var block []byte
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", opt.Request.Method}, {":authority", opt.Address},
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
