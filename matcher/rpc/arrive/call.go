package arrive

import (
	"context"
	"encoding/binary"
	"time"
)

// Kind says how a call's messages come.
type Kind struct {
	// Client streams: any number of messages, whenever the client likes. Other
	// calls have one message, which is expected with the headers.
	Streams bool
	// Spared calls erase, revoke or administer.
	Spared bool
}

// Call is one call and what has come of its messages. The zero Call watches
// nothing. Its methods may be called from any goroutine; it is not copied after
// Begin.
type Call struct {
	watch *Watch
	conn  *conn // nil: not watched
	owner *owner
	kind  Kind
	id    uint32
	ctx   context.Context // ends with the call

	// Under conn.mu.
	handler  context.Context // nil: no handler has it yet
	over     bool
	reading  bool  // a handler of a stream waits for a message
	held     int64 // bytes counted
	prefix   [5]byte
	prefixed int   // bytes of the prefix that are there
	left     int64 // bytes of the message that are not
	got      int64 // bytes of the message that are there, prefix included
	since    int64 // when the message began to be waited for; 0: it is not
	from     int64 // got at that time
	begun    int64 // when the call began, or its unfinished message
	active   int64 // the look at which its last message was complete
	received bool  // a message is complete
	unread   []int64
	first    int // in unread: those before are handed over
	room     [1]int64
}

// Begin watches a call whose headers have just come: it must be called from
// gRPC's tap, where ctx is the call's and peer its connection's AuthInfo. The
// call is over with ctx at the latest.
func (w *Watch) Begin(ctx context.Context, call *Call, peer any, owner string, kind Kind) {
	p, ok := peer.(*Peer)
	if !ok || p.conn.watch != w {
		return
	}
	call.watch, call.conn, call.owner, call.kind, call.ctx = w, p.conn, w.owner(owner), kind, ctx
	call.id = p.conn.parser.headers
	call.unread = call.room[:0]
	call.begun, call.active = w.now(), w.looks.Load()
	if !kind.Streams {
		call.since = call.begun
	}
	p.conn.begin(call)
}

// Handle notes that a handler has the call: it can be cut off from now on.
func (c *Call) Handle(ctx context.Context) {
	if c.conn == nil {
		return
	}
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	c.handler = ctx
}

// Reading notes that the handler of a stream waits for a message.
func (c *Call) Reading() {
	if c.conn == nil {
		return
	}
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	c.reading = true
	if c.kind.Streams && c.got > 0 {
		// What was held back because nobody read is not the client's fault.
		c.since, c.from = c.watch.now(), c.got
	}
}

// Taken notes that a message was handed over.
func (c *Call) Taken() {
	if c.conn == nil {
		return
	}
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	c.reading = false
	if c.over || c.first == len(c.unread) {
		return
	}
	c.hold(-c.unread[c.first])
	if c.first++; c.first == len(c.unread) {
		c.unread, c.first = c.unread[:0], 0
	}
}

// Unread ends a call that was cut off because its client does not take the
// answers. A call whose message is too slow is over with its status and RST_STREAM,
// whatever else is on the connection. Of one that is not read gRPC keeps the answers
// that were handed over, at most the stream's window, and the status behind them,
// until the client takes them or the connection ends, and its interface has no way to
// reset the one stream. Nor can this package: it sees frames, but gRPC's writer alone
// knows where one may be put between its own, and what it has queued. So the
// connection is closed after another limit, unless calls are on it.
func (c *Call) Unread() {
	if c.conn == nil {
		return
	}
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	c.end()
	c.conn.unread = c.watch.looks.Load() + looksPerLimit + 1
}

// End ends the call. It may be called again.
func (c *Call) End() {
	if c.conn == nil {
		return
	}
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	c.end()
}

func (c *Call) end() {
	if c.over {
		return
	}
	c.over = true
	delete(c.conn.calls, c.id)
	c.hold(-c.held)
}

func (c *Call) hold(n int64) {
	c.held += n
	c.watch.hold(c.owner, n)
}

// receive takes note of bytes of the call's messages: each is a prefix of five
// bytes, which ends with the length, and as many bytes.
func (c *Call) receive(data []byte) {
	c.hold(int64(len(data)))
	whole := c.got == 0
	for len(data) > 0 {
		if c.prefixed < len(c.prefix) {
			n := copy(c.prefix[c.prefixed:], data)
			c.prefixed += n
			c.got += int64(n)
			data = data[n:]
			if c.prefixed < len(c.prefix) {
				break
			}
			c.left = int64(binary.BigEndian.Uint32(c.prefix[1:]))
		}
		n := min(c.left, int64(len(data)))
		c.left -= n
		c.got += n
		data = data[n:]
		if c.left == 0 {
			c.unread = append(c.unread, c.got)
			c.got, c.from, c.prefixed, c.since, c.received, whole = 0, 0, 0, 0, true, true
			c.active = c.watch.looks.Load()
		}
	}
	if whole && c.got > 0 && c.kind.Streams {
		c.begun = c.watch.now()
		if c.reading {
			c.since = c.begun
		}
	}
}

// stalls tells whether too little of the message has come.
func (c *Call) stalls(now int64) bool {
	late := now - c.since - int64(c.watch.opt.Limit)
	if c.since == 0 || late <= 0 || c.kind.Streams && !c.reading {
		return false
	}
	return float64(c.got-c.from) <= float64(late)/float64(time.Second)*float64(c.watch.opt.Rate)
}

// unfinished tells whether a message of the call has not come whole.
func (c *Call) unfinished() bool { return c.got > 0 || !c.kind.Streams && !c.received }

// spared tells that the call may stay whatever else is on its way.
func (c *Call) spared() bool {
	return c.kind.Spared && c.got+c.left <= sparedBytes
}
