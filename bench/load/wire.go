package load

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// wire speaks gRPC over one HTTP/2 connection (RFC 9113), for calls of one message
// each way. gRPC's own client takes 100 us of a core for a call, mostly for one
// goroutine, several allocations and two system calls each; of 10,000 refused calls
// a second that is a whole core of the machine that is measured. Here all calls that
// are due leave in one write, one goroutine reads all answers, and what is the same
// in each call is one byte of its headers.
//
// It keeps to the server's windows and to its bound of streams: what does not fit
// waits here, and its latency goes on counting.
type wire struct {
	conn      net.Conn
	authority string
	key       string
	wake      chan struct{} // for the writer; room for one
	group     sync.WaitGroup

	mu        sync.Mutex
	over      bool // takes no further calls
	closed    bool
	queued    []*call // not begun, for want of streams or of a flush
	sending   []*call // begun, with a part of their message left
	calls     map[uint32]*call
	next      uint32 // stream
	heard     bool   // the server's settings: nothing begins before
	most      uint32 // streams at a time
	window    int64  // bytes of messages that the server takes
	initial   int64  // the same of a new stream
	control   []byte // frames that go before all others
	unclaimed uint32 // bytes of answers read and not yet given back to the server's window
	block     bytes.Buffer
	encoder   *hpack.Encoder
	table     uint32 // the server's limit for the encoder's table, not yet heeded
	resize    bool

	// The reader's own.
	decoder *hpack.Decoder
	ended   ending
}

// call is one call.
type call struct {
	method   string
	body     []byte
	deadline time.Time
	to       Ender

	stream uint32
	sent   int   // of prefix and body
	window int64 // of the stream
	answer []byte
}

// ending is what the headers of an answer tell.
type ending struct {
	status codes.Code
	given  bool
	last   bool // nothing follows
}

const (
	// maxAnswer is what a client of gRPC takes by default.
	maxAnswer = 4 << 20
	// connWindow is what the server may send beyond what was read, on all streams.
	connWindow = 64 << 20
	// writeSize is how much is written at a time: behind it a refusal can still spare
	// the rest of a message.
	writeSize = 128 << 10
	// writeTimeout is when a server that does not read is given up.
	writeTimeout = 30 * time.Second
)

func newWire(conn net.Conn, authority, key string) *wire {
	w := &wire{
		conn: conn, authority: authority, key: key, wake: make(chan struct{}, 1), calls: make(map[uint32]*call),
		next: 1, window: defaultWindow, initial: defaultWindow,
	}
	w.encoder = hpack.NewEncoder(&w.block)
	w.decoder = hpack.NewDecoder(4096, w.header)
	w.decoder.SetMaxStringLength(64 << 10)
	w.control = append(w.control, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"...)
	w.control = append(w.control, frame(frameSettings, 0, 0, binary.BigEndian.AppendUint32([]byte{0, settingInitialWindow}, maxAnswer))...)
	w.control = append(w.control, frame(frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, connWindow-defaultWindow))...)
	w.group.Go(w.write)
	w.group.Go(w.read)
	w.flush()
	return w
}

// send takes a call, which leaves with the next flush; false when the connection
// takes no more.
func (w *wire) send(c *call) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return false
	}
	w.queued = append(w.queued, c)
	return true
}

// flush wakes the writer if there is anything to write.
func (w *wire) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rouse()
}

func (w *wire) rouse() {
	if len(w.queued) == 0 && len(w.sending) == 0 && len(w.control) == 0 || w.closed {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// finish ends a call, if it has not ended yet. What is left of its message is not
// sent: the server has ended the stream.
func (w *wire) finish(stream uint32, reply Reply) {
	w.mu.Lock()
	c := w.calls[stream]
	if c == nil {
		w.mu.Unlock()
		return
	}
	delete(w.calls, stream)
	if c.sent < prefix+len(c.body) {
		w.control = append(w.control, frame(frameReset, 0, stream, binary.BigEndian.AppendUint32(nil, errorCancel))...)
		c.sent = prefix + len(c.body)
	}
	if len(w.queued) > 0 || len(w.control) > 0 {
		w.rouse() // there is a stream for another
	}
	w.mu.Unlock()
	if reply.Code == codes.Canceled && time.Now().After(c.deadline) {
		reply.Code = codes.DeadlineExceeded // the server was quicker to notice
	}
	if reply.Code == codes.OK {
		if len(c.answer) < prefix {
			reply.Code = codes.Internal
		} else {
			reply.Outcome = outcomeOf(c.answer[prefix:])
		}
	}
	c.to.Ended(reply)
}

// expire ends the calls whose deadline is over.
func (w *wire) expire(now time.Time) {
	w.mu.Lock()
	var late []*call
	waiting := w.queued[:0]
	for _, c := range w.queued {
		if now.After(c.deadline) {
			late = append(late, c)
		} else {
			waiting = append(waiting, c)
		}
	}
	clear(w.queued[len(waiting):])
	w.queued = waiting
	for stream, c := range w.calls {
		if now.After(c.deadline) {
			late = append(late, c)
			delete(w.calls, stream)
			w.control = append(w.control, frame(frameReset, 0, stream, binary.BigEndian.AppendUint32(nil, errorCancel))...)
			c.sent = prefix + len(c.body)
		}
	}
	w.rouse()
	w.mu.Unlock()
	for _, c := range late {
		c.to.Ended(Reply{Code: codes.DeadlineExceeded})
	}
}

// close ends the connection and waits for its goroutines.
func (w *wire) close() {
	w.conn.Close()
	w.group.Wait()
}
