// Package idempotency lets a mutating call be repeated safely.
//
// A caller that got no answer sends the same request id with the same content
// again and is told the result of the first call; the same id with other
// content is refused. The record of a call is written in the same mutation as
// its effect, so there is no moment at which one exists without the other.
// The package does not store anything itself and keeps no secret: a record
// holds a digest of the request and the resource name that it produced.
package idempotency

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Errors of request ids.
var (
	// ErrBadRequestID: the id is too long or holds unprintable characters.
	ErrBadRequestID = errors.New("malformed request_id")
	// ErrReused: the id was used before with other content.
	ErrReused = errors.New("request_id was used before with other content")
	// ErrRecord: a stored record is malformed.
	ErrRecord = errors.New("malformed idempotency record")
)

// MaxIDLen is the longest request id in bytes; a UUID has 36.
const MaxIDLen = 64

// Retention is how long a request id is remembered. Clients retry within
// seconds; a day leaves room for an operator's script that is run again.
const Retention = 24 * time.Hour

const (
	version   = 1
	headerLen = 1 + 8 + 32
)

// Request identifies one call. The zero Request asks for no idempotency.
type Request struct {
	// ID is the caller's request_id; empty means that none was given.
	ID string
	// Fingerprint is a SHA-256 over the method and the whole content of the
	// request but its id.
	Fingerprint [32]byte
}

// Given reports whether the caller asked for idempotency.
func (r Request) Given() bool { return r.ID != "" }

// Validate checks the id: at most MaxIDLen printable ASCII characters.
func (r Request) Validate() error {
	if len(r.ID) > MaxIDLen {
		return fmt.Errorf("%w: it has %d bytes; at most %d are allowed, a UUID is a good choice", ErrBadRequestID, len(r.ID), MaxIDLen)
	}
	for i := 0; i < len(r.ID); i++ {
		if c := r.ID[i]; c <= ' ' || c > '~' {
			return fmt.Errorf("%w: byte %d is not printable ASCII; a UUID is a good choice", ErrBadRequestID, i)
		}
	}
	return nil
}

// Key is a fixed-length name under which to store the request in a space: ids of
// different spaces never meet, and what a caller put into an id is not kept.
func (r Request) Key(space string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s%s", len(space), space, r.ID)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Record returns what is to be stored of a call that produced result (a
// resource id or name) at the time now.
func Record(r Request, result string, now time.Time) []byte {
	b := make([]byte, 0, headerLen+len(result))
	b = append(b, version)
	b = binary.BigEndian.AppendUint64(b, uint64(now.Unix()))
	b = append(b, r.Fingerprint[:]...)
	return append(b, result...)
}

// Match compares a stored record with a repeated call. It returns the result of
// the first call, or ErrReused when the content differs.
func Match(stored []byte, r Request) (result string, err error) {
	if len(stored) < headerLen || stored[0] != version {
		return "", ErrRecord
	}
	if !bytes.Equal(stored[9:headerLen], r.Fingerprint[:]) {
		return "", fmt.Errorf("%w: send a new request_id for a new request", ErrReused)
	}
	return string(stored[headerLen:]), nil
}

// Expired reports whether a stored record is older than Retention. A malformed
// record counts as expired.
func Expired(stored []byte, now time.Time) bool {
	if len(stored) < headerLen || stored[0] != version {
		return true
	}
	made := time.Unix(int64(binary.BigEndian.Uint64(stored[1:9])), 0)
	return now.Sub(made) > Retention
}
