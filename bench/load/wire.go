package load

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"math"
	"net"
	"strconv"
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

// write writes what there is, as long as there is something.
func (w *wire) write() {
	out := make([]byte, 0, writeSize+maxFrame)
	for range w.wake {
		for {
			w.mu.Lock()
			out = w.fill(out[:0])
			w.mu.Unlock()
			if len(out) == 0 {
				break
			}
			err := w.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if err == nil {
				_, err = w.conn.Write(out)
			}
			if err != nil {
				w.conn.Close() // the reader ends the calls
				break
			}
		}
	}
}

// fill appends frames that may be sent now.
func (w *wire) fill(out []byte) []byte {
	out = append(out, w.control...)
	w.control = w.control[:0]
	for begun, c := range w.queued {
		if len(w.calls) >= int(w.most) || len(out) >= writeSize {
			w.queued = append(w.queued[:0], w.queued[begun:]...)
			return w.messages(out)
		}
		out = w.begin(out, c)
		w.sending = append(w.sending, c)
		if len(w.sending) == 1 {
			out = w.messages(out)
		}
	}
	clear(w.queued)
	w.queued = w.queued[:0]
	return w.messages(out)
}

// begin appends the headers of a call.
func (w *wire) begin(out []byte, c *call) []byte {
	c.stream, c.window = w.next, w.initial
	w.next += 2
	w.calls[c.stream] = c
	if w.resize {
		w.encoder.SetMaxDynamicTableSizeLimit(w.table)
		w.resize = false
	}
	w.block.Reset()
	// In whole milliseconds, rounded up, so that calls mostly have the same and the table holds it.
	timeout := max(1, (time.Until(c.deadline) + time.Millisecond - 1).Milliseconds())
	for _, h := range [...]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: c.method}, {Name: ":authority", Value: w.authority},
		{Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "menshen-bench"}, {Name: "te", Value: "trailers"},
		{Name: "grpc-timeout", Value: strconv.FormatInt(timeout, 10) + "m"}, {Name: "authorization", Value: "Bearer " + w.key},
	} {
		_ = w.encoder.WriteField(h) // into memory
	}
	out = appendHead(out, w.block.Len(), frameHeaders, endHeaders, c.stream)
	return append(out, w.block.Bytes()...)
}

// messages appends what the windows allow of the messages that are being sent,
// the oldest first.
func (w *wire) messages(out []byte) []byte {
	left := w.sending[:0]
	for _, c := range w.sending {
		for len(out) < writeSize && w.window > 0 && c.window > 0 && c.sent < prefix+len(c.body) {
			out = w.data(out, c)
		}
		if c.sent < prefix+len(c.body) {
			left = append(left, c)
		}
	}
	clear(w.sending[len(left):])
	w.sending = left
	return out
}

// data appends one frame of a call's message; the windows are open.
func (w *wire) data(out []byte, c *call) []byte {
	n := min(int64(prefix+len(c.body)-c.sent), w.window, c.window, maxFrame)
	flags := byte(0)
	if c.sent+int(n) == prefix+len(c.body) {
		flags = endStream
	}
	out = appendHead(out, int(n), frameData, flags, c.stream)
	w.window -= n
	c.window -= n
	for ; n > 0 && c.sent < prefix; n-- {
		out = append(out, prefixByte(c.sent, len(c.body)))
		c.sent++
	}
	from := c.sent - prefix
	c.sent += int(n)
	return append(out, c.body[max(from, 0):max(from, 0)+int(n)]...)
}

// read reads until the connection ends, and ends the calls with it.
func (w *wire) read() {
	r := bufio.NewReaderSize(w.conn, 4*maxFrame)
	for w.readFrame(r) {
	}
	w.conn.Close()
	w.mu.Lock()
	w.over, w.closed = true, true
	left := w.queued
	for _, c := range w.calls {
		left = append(left, c)
	}
	w.queued, w.sending = nil, nil
	clear(w.calls)
	close(w.wake)
	w.mu.Unlock()
	for _, c := range left {
		c.to.Ended(Reply{Code: codes.Unavailable})
	}
}

// readFrame reads one frame; false at the end, and after what no server may send.
func (w *wire) readFrame(r *bufio.Reader) bool {
	head, err := r.Peek(frameHead)
	if err != nil {
		return false
	}
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	kind, flags := head[3], head[4]
	stream := binary.BigEndian.Uint32(head[5:]) &^ (1 << 31)
	if length > maxFrame {
		return false
	}
	payload, err := r.Peek(frameHead + length)
	if err != nil {
		return false
	}
	ok := w.handle(kind, flags, stream, payload[frameHead:])
	_, err = r.Discard(frameHead + length)
	return ok && err == nil
}

func (w *wire) handle(kind, flags byte, stream uint32, payload []byte) bool {
	switch kind {
	case frameHeaders:
		w.ended = ending{status: codes.Unknown, last: flags&endStream != 0}
		return w.headers(kind, flags, stream, payload)
	case frameContinuation:
		return w.headers(kind, flags, stream, payload)
	case frameData:
		if !w.answer(flags, stream, payload) {
			return false
		}
		if flags&endStream != 0 { // and no status
			w.finish(stream, Reply{Code: codes.Unknown})
		}
	case frameReset:
		if len(payload) != 4 {
			return false
		}
		w.finish(stream, Reply{Code: resetCode(binary.BigEndian.Uint32(payload))})
	case frameSettings:
		return w.settings(flags, payload)
	case framePing:
		if flags&flagAck == 0 {
			w.mu.Lock()
			w.control = append(w.control, frame(framePing, flagAck, 0, payload)...)
			w.rouse()
			w.mu.Unlock()
		}
	case frameGoAway:
		return w.goAway(payload)
	case frameWindowUpdate:
		return w.update(stream, payload)
	}
	return true
}

// header is told each field of a block.
func (w *wire) header(f hpack.HeaderField) {
	if f.Name == "grpc-status" {
		code, err := strconv.Atoi(f.Value)
		if err != nil || code < 0 || code > int(codes.Unauthenticated) {
			code = int(codes.Unknown)
		}
		w.ended.status, w.ended.given = codes.Code(code), true
	}
}

func (w *wire) headers(kind, flags byte, stream uint32, block []byte) bool {
	if kind == frameHeaders {
		var ok bool
		if block, ok = unpad(flags, block); !ok {
			return false
		}
		if flags&flagPriority != 0 {
			if len(block) < 5 {
				return false
			}
			block = block[5:]
		}
	}
	if _, err := w.decoder.Write(block); err != nil {
		return false
	}
	if flags&endHeaders == 0 {
		return true
	}
	if w.decoder.Close() != nil {
		return false
	}
	if w.ended.given || w.ended.last {
		w.finish(stream, Reply{Code: w.ended.status})
	}
	return true
}

// answer keeps a part of an answer's message and gives the connection's window
// back. A stream's window holds the largest answer.
func (w *wire) answer(flags byte, stream uint32, payload []byte) bool {
	data, ok := unpad(flags, payload)
	if !ok {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.calls[stream]; c != nil {
		if len(c.answer)+len(data) > maxAnswer {
			return false
		}
		c.answer = append(c.answer, data...)
	}
	w.unclaimed += uint32(len(payload))
	if w.unclaimed > connWindow/4 {
		w.control = append(w.control, frame(frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, w.unclaimed))...)
		w.unclaimed = 0
		w.rouse()
	}
	return true
}

func (w *wire) settings(flags byte, payload []byte) bool {
	if flags&flagAck != 0 {
		return true
	}
	if len(payload)%6 != 0 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.heard {
		w.heard, w.most = true, math.MaxInt32
	}
	for ; len(payload) > 0; payload = payload[6:] {
		value := binary.BigEndian.Uint32(payload[2:])
		switch binary.BigEndian.Uint16(payload) {
		case settingTable:
			w.table, w.resize = value, true
		case settingStreams:
			w.most = value
		case settingInitialWindow:
			for _, c := range w.calls {
				c.window += int64(value) - w.initial
			}
			w.initial = int64(value)
		}
	}
	w.control = append(w.control, frame(frameSettings, flagAck, 0, nil)...)
	w.rouse()
	return true
}

func (w *wire) update(stream uint32, payload []byte) bool {
	if len(payload) != 4 {
		return false
	}
	more := int64(binary.BigEndian.Uint32(payload) &^ (1 << 31))
	w.mu.Lock()
	defer w.mu.Unlock()
	if stream == 0 {
		w.window += more
	} else if c := w.calls[stream]; c != nil {
		c.window += more
	}
	if len(w.sending) > 0 {
		w.rouse()
	}
	return true
}

// goAway lets the calls go on that the server still answers.
func (w *wire) goAway(payload []byte) bool {
	if len(payload) < 8 {
		return false
	}
	last := binary.BigEndian.Uint32(payload) &^ (1 << 31)
	w.mu.Lock()
	w.over = true
	var left []uint32
	for stream := range w.calls {
		if stream > last {
			left = append(left, stream)
		}
	}
	queued := w.queued
	w.queued = nil
	w.mu.Unlock()
	for _, c := range queued {
		c.to.Ended(Reply{Code: codes.Unavailable})
	}
	for _, stream := range left {
		w.finish(stream, Reply{Code: codes.Unavailable})
	}
	return true
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
