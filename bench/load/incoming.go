package load

import (
	"bufio"
	"encoding/binary"
	"math"
	"strconv"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

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
