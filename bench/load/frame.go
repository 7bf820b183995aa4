package load

import (
	"encoding/binary"

	"google.golang.org/grpc/codes"
)

// Frames of HTTP/2, their flags, settings and errors (RFC 9113, sections 4 to 7).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9

	endStream    = 0x1
	flagAck      = 0x1 // of settings and pings
	endHeaders   = 0x4
	flagPadded   = 0x8
	flagPriority = 0x20

	settingTable         = 0x1
	settingStreams       = 0x3
	settingInitialWindow = 0x4

	errorRefused = 0x7
	errorCancel  = 0x8
	errorCalm    = 0xb

	frameHead     = 9
	maxFrame      = 16 << 10 // nobody sends more unless it was agreed to
	defaultWindow = 65_535
	prefix        = 5 // bytes before a gRPC message
)

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	return append(appendHead(nil, len(payload), kind, flags, stream), payload...)
}

func appendHead(out []byte, length int, kind, flags byte, stream uint32) []byte {
	out = append(out, byte(length>>16), byte(length>>8), byte(length), kind, flags)
	return binary.BigEndian.AppendUint32(out, stream)
}

// unpad is a frame's payload without its padding; false where there is more of it
// than payload.
func unpad(flags byte, payload []byte) ([]byte, bool) {
	if flags&flagPadded == 0 {
		return payload, true
	}
	if len(payload) == 0 || len(payload) <= int(payload[0]) {
		return nil, false
	}
	return payload[1 : len(payload)-int(payload[0])], true
}

// prefixByte is a byte of what goes before a message: no compression, and its
// length.
func prefixByte(i, length int) byte {
	if i == 0 {
		return 0
	}
	return byte(length >> (8 * (prefix - 1 - i)))
}

// resetCode is what gRPC makes of an HTTP/2 error.
func resetCode(code uint32) codes.Code {
	switch code {
	case errorRefused:
		return codes.Unavailable
	case errorCancel:
		return codes.Canceled
	case errorCalm:
		return codes.ResourceExhausted
	}
	return codes.Internal
}
