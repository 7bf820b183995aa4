package arrive

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// Credentials are c whose connections are watched. gRPC must read from them
// without a buffer of its own (ReadBufferSize(0)): what is read counts as taken
// up.
func (w *Watch) Credentials(c credentials.TransportCredentials) credentials.TransportCredentials {
	return watched{c, w}
}

type watched struct {
	credentials.TransportCredentials
	watch *Watch
}

func (c watched) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	watched := c.watch.newConn(secured, raw)
	return watched, &Peer{info, watched}, nil
}

func (c watched) Clone() credentials.TransportCredentials {
	return watched{c.TransportCredentials.Clone(), c.watch}
}

// Peer is the AuthInfo of a connection that is watched, around what it was.
type Peer struct {
	credentials.AuthInfo
	conn *conn
}

// readBuffer is gRPC's own default.
const readBuffer = 32 << 10

// conn is a connection, above TLS.
type conn struct {
	net.Conn
	raw    net.Conn // below TLS
	watch  *Watch
	reader *bufio.Reader
	parser parser // of gRPC's reading goroutine

	mu    sync.Mutex
	calls map[uint32]*Call
	cuts  bool // a call was cut off, and none begun since
	// unread is from which look on the connection is of no use, if no call is
	// begun before, because answers were not read; 0: none were left.
	unread int64
	open   uint32 // what parser.open was after the last Read
	// lingers is for how many looks the client has left lingering open while no
	// call was under way.
	lingering uint32
	lingers   int
}

func (w *Watch) newConn(secured, raw net.Conn) *conn {
	c := &conn{Conn: secured, raw: raw, watch: w, reader: bufio.NewReaderSize(&forgetful{Reader: secured}, readBuffer), calls: make(map[uint32]*Call)}
	c.parser.skip = len(preface)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = struct{}{}
	return c
}

// forgetful reads into a buffer of which it overwrites what it read last, once more is
// asked for: all of that has been taken by then. So faces stand in it no longer than
// until the connection falls silent.
type forgetful struct {
	io.Reader
	last []byte
}

func (f *forgetful) Read(b []byte) (int, error) {
	if len(b) >= len(f.last) && len(f.last) > 0 && &b[0] == &f.last[0] {
		clear(f.last)
	}
	n, err := f.Reader.Read(b)
	f.last = b[:n]
	return n, err
}

// Read takes note of what gRPC reads.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.reader.Read(b)
	if n > 0 {
		c.parser.read(b[:n], c.receive)
		c.mu.Lock()
		c.open = c.parser.open
		c.mu.Unlock()
	}
	return n, err
}

// Close closes the connection and ends its calls.
func (c *conn) Close() error {
	c.watch.mu.Lock()
	delete(c.watch.conns, c)
	c.watch.mu.Unlock()
	c.mu.Lock()
	for _, call := range c.calls {
		call.end()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

func (c *conn) receive(stream uint32, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if call := c.calls[stream]; call != nil {
		call.receive(data)
	}
}

func (c *conn) begin(call *Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[call.id] = call
	c.cuts, c.unread = false, 0
	call.hold(CallBytes)
}

// look returns the calls that stall, which are over then, and whether the
// connection is of no use: nothing is left on it after calls were cut off at an
// earlier look, or for the limit its client has neither ended nor reset the last
// call that it began, which was refused or answered, and began no other. An honest
// client sends the whole message at once or learns that it is over; who goes on
// calling, and be it refused every time, keeps its connection.
func (c *conn) look(now int64) (stalled []context.Context, useless bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) > 0 || c.open != c.lingering {
		c.lingering, c.lingers = c.open, 0
	} else if c.open != 0 {
		c.lingers++
	}
	left := c.cuts || c.unread != 0 && c.watch.looks.Load() >= c.unread
	useless = left && len(c.calls) == 0 || c.lingers > looksPerLimit
	for _, call := range c.calls {
		switch {
		case call.ctx.Err() != nil: // gRPC ended it, maybe before there was a handler
			call.end()
		case call.handler != nil && call.stalls(now):
			call.end()
			c.cuts = true
			stalled = append(stalled, call.handler)
		}
	}
	return stalled, useless
}

// cut ends a call that shall be cut off; false if it is over.
func (c *conn) cut(call *Call) (context.Context, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if call.over {
		return nil, false
	}
	call.end()
	c.cuts = true
	return call.handler, true
}

// candidates adds the calls that may be cut off to make room.
func (c *conn) candidates(to map[*owner][]candidate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.calls {
		idle := !call.unfinished()
		if call.handler == nil || call.spared() || idle && (!call.kind.Streams || call.first < len(call.unread)) {
			continue
		}
		since := call.begun
		if idle {
			since = call.active
		}
		to[call.owner] = append(to[call.owner], candidate{call, idle, since})
	}
}

// preface is what a client's side of a connection begins with (RFC 9113,
// section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Frames (RFC 9113, sections 4.1, 6.1, 6.2 and 6.4).
const (
	frameHeader  = 9
	typeData     = 0x0
	typeHeaders  = 0x1
	typeReset    = 0x3
	endStream    = 0x1
	flagPadded   = 0x8
	streamIDMask = 1<<31 - 1
)

// parser follows the frames of a client's side of a connection.
type parser struct {
	skip    int    // bytes that are not looked at: the preface, other frames, padding
	headers uint32 // the stream of the last HEADERS frame
	open    uint32 // the same, until the client ends or resets it; 0 then

	head   [frameHeader]byte
	headed int    // bytes of the frame's header that are there
	stream uint32 // of the DATA frame
	data   int    // bytes of the DATA frame that are to come
	padded bool   // one more, before them, tells how many of them are padding
}

// read takes the next bytes and hands over those of DATA frames.
func (p *parser) read(b []byte, data func(stream uint32, b []byte)) {
	for len(b) > 0 {
		var n int
		switch {
		case p.padded:
			n = 1
			padding := min(int(b[0]), p.data)
			p.padded, p.data, p.skip = false, p.data-padding, padding
		case p.data > 0:
			n = min(p.data, len(b))
			p.data -= n
			data(p.stream, b[:n])
		case p.skip > 0:
			n = min(p.skip, len(b))
			p.skip -= n
		default:
			n = copy(p.head[p.headed:], b)
			if p.headed += n; p.headed == frameHeader {
				p.begin()
			}
		}
		b = b[n:]
	}
}

// begin takes up a frame.
func (p *parser) begin() {
	p.headed = 0
	length := int(p.head[0])<<16 | int(p.head[1])<<8 | int(p.head[2])
	stream := binary.BigEndian.Uint32(p.head[5:]) & streamIDMask
	kind, flags := p.head[3], p.head[4]
	switch {
	case kind == typeHeaders:
		p.headers, p.open = stream, stream
	case kind == typeReset && stream == p.open:
		p.open = 0
	}
	if (kind == typeHeaders || kind == typeData) && flags&endStream != 0 && stream == p.open {
		p.open = 0
	}
	if kind == typeData {
		p.stream, p.data = stream, length
		if flags&flagPadded != 0 && length > 0 {
			p.padded, p.data = true, length-1
		}
		return
	}
	p.skip = length
}
