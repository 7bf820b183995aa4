package load

import (
	"strconv"
	"time"

	"golang.org/x/net/http2/hpack"
)

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
