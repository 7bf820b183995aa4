package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/menshen-io/menshen/index/scope"
)

// Contents is what a backup says of itself.
type Contents struct {
	Origin Origin
	Spaces []Space // the system's first
	// Tenants and Credentials are the names of those records: tenant ids, and the
	// credentials' tenant and id. Names stand in clear in keys.
	Tenants     []scope.TenantID
	Credentials []Key
	Records     uint64
	Bytes       uint64
	Sum         [sha256.Size]byte
}

// VerifyBackup reads a whole backup without any key of the server: that nothing
// is missing at its end or altered, and that the counts of each space are right. The
// records stay sealed. Errors: ErrBackup, which wraps that of r.
func VerifyBackup(r io.Reader) (Contents, error) {
	b := newBackupReader(r)
	err := b.read(visitor{})
	return b.contents, err
}

// visitor takes what stands in a backup, in its order. Each may be nil.
type visitor struct {
	origin  func(Origin) error
	space   func(Space) error             // begins
	record  func(key, value []byte) error // good for the call only
	close   func(Space) error             // with what was counted
	trailer func(sum, sealed []byte) error
}

type backupReader struct {
	r        *bufio.Reader
	hash     hash.Hash
	buf      []byte
	contents Contents
}

func newBackupReader(r io.Reader) *backupReader {
	return &backupReader{r: bufio.NewReaderSize(r, 256<<10), hash: sha256.New()}
}

func badBackup(format string, args ...any) error {
	return fmt.Errorf("%w: %w; use another backup", ErrBackup, fmt.Errorf(format, args...))
}

// next reads a frame; the payload is good until the next one. The trailer is
// not hashed.
func (b *backupReader) next() (kind byte, payload []byte, err error) {
	var head [5]byte
	if err := b.full(head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, badBackup("a frame of %d bytes", n)
	}
	if cap(b.buf) < int(n) {
		b.buf = make([]byte, n)
	}
	payload = b.buf[:n]
	if err := b.full(payload); err != nil {
		return 0, nil, err
	}
	if head[0] != frameTrailer {
		b.hash.Write(head[:])
		b.hash.Write(payload)
	}
	return head[0], payload, nil
}

func (b *backupReader) full(p []byte) error {
	n, err := io.ReadFull(b.r, p)
	b.contents.Bytes += uint64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badBackup("it is cut off after %d bytes", b.contents.Bytes)
	} else if err != nil {
		return badBackup("after %d bytes: %w", b.contents.Bytes, err)
	}
	return nil
}

// read reads the whole backup and checks its form and its counts.
func (b *backupReader) read(v visitor) error {
	magic := make([]byte, len(backupMagic))
	if err := b.full(magic); err != nil {
		return err
	}
	if string(magic) != backupMagic {
		return badBackup("it begins with something else than a backup of this version")
	}
	b.hash.Write(magic)
	kind, payload, err := b.next()
	if err != nil {
		return err
	}
	if kind != frameOrigin || json.Unmarshal(payload, &b.contents.Origin) != nil {
		return badBackup("it does not say where it comes from")
	}
	if v.origin != nil {
		if err := v.origin(b.contents.Origin); err != nil {
			return err
		}
	}
	for {
		kind, payload, err := b.next()
		if err != nil {
			return err
		}
		if kind == frameTrailer {
			return b.end(payload, v)
		}
		if kind != frameSpace {
			return badBackup("a frame %q outside of a space", kind)
		}
		if err := b.readSpace(payload, v); err != nil {
			return err
		}
	}
}

// readSpace reads a space from its first frame to its last.
func (b *backupReader) readSpace(first []byte, v visitor) error {
	sp, err := parseSpace(first)
	if err != nil {
		return badBackup("%w", err)
	}
	system := sp.Ref == (scope.Ref{})
	if system != (len(b.contents.Spaces) == 0) {
		return badBackup("the spaces are out of order")
	}
	if v.space != nil {
		if err := v.space(sp); err != nil {
			return err
		}
	}
	prefix := []byte{spaceSystem}
	if !system {
		prefix = scopePrefix(sp.Ref)
	}
	var last, scratch []byte
	for begun := !system; ; {
		kind, payload, err := b.next()
		if err != nil {
			return err
		}
		if kind == frameClose {
			return b.closeSpace(sp, payload, v)
		}
		if kind != frameRecord || len(payload) < 2 || len(payload)-2 < int(binary.BigEndian.Uint16(payload)) {
			return badBackup("a frame %q among the records of a space", kind)
		}
		n := int(binary.BigEndian.Uint16(payload))
		key, value := payload[2:2+n], payload[2+n:]
		b.contents.Records++
		if !begun { // the system space begins with the format record
			if begun = bytes.Equal(key, keyFormat); !begun {
				return badBackup("no format record")
			}
		} else {
			if !bytes.HasPrefix(key, prefix) || bytes.Compare(key, last) <= 0 {
				return badBackup("a record out of its place")
			}
			last = append(last[:0], key...)
			var d Digest
			d, scratch = digestOf(scratch, key, value)
			sp.Records++
			sp.Digest = sp.Digest.add(d)
			if system {
				b.name(key)
			}
		}
		if v.record != nil {
			if err := v.record(key, value); err != nil {
				return err
			}
		}
	}
}

// name notes whose record stands in the system space.
func (b *backupReader) name(key []byte) {
	k, err := parseKey(key)
	switch {
	case err != nil:
	case k.Kind == KindTenant:
		b.contents.Tenants = append(b.contents.Tenants, k.Ref.Tenant)
	case k.Kind == KindCredential:
		b.contents.Credentials = append(b.contents.Credentials, k)
	}
}

func (b *backupReader) closeSpace(sp Space, payload []byte, v visitor) error {
	if len(payload) != 1+headLen || payload[0] > 1 {
		return badBackup("the end of a space of %d bytes", len(payload))
	}
	want, err := parseHead(payload[1:])
	if err != nil || want.Records != sp.Records || want.Digest != sp.Digest {
		return badBackup("a space holds %d records and should hold %d", sp.Records, want.Records)
	}
	sp.Erased = payload[0] == 1
	b.contents.Spaces = append(b.contents.Spaces, sp)
	if v.close != nil {
		return v.close(sp)
	}
	return nil
}

// end checks the trailer, and that nothing comes behind it.
func (b *backupReader) end(payload []byte, v visitor) error {
	sum := b.hash.Sum(nil)
	if len(payload) < 8+sha256.Size || len(b.contents.Spaces) == 0 {
		return badBackup("a trailer of %d bytes", len(payload))
	}
	if n := binary.BigEndian.Uint64(payload); n != b.contents.Records {
		return badBackup("it holds %d records and should hold %d", b.contents.Records, n)
	}
	if !bytes.Equal(payload[8:8+sha256.Size], sum) {
		return badBackup("its SHA-256 is not the one in its trailer")
	}
	copy(b.contents.Sum[:], sum)
	if v.trailer != nil {
		if err := v.trailer(sum, payload[8+sha256.Size:]); err != nil {
			return err
		}
	}
	switch _, err := b.r.ReadByte(); {
	case err == nil:
		return badBackup("bytes behind its trailer")
	case !errors.Is(err, io.EOF):
		return badBackup("behind its trailer: %w", err)
	}
	return nil
}
