package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"
)

// A segment file, version 1, integers big-endian:
//
//	magic    "menshen-audit-1\n"
//	chain    length byte and name, such as tenants/fair/acts
//	first    uint64, position of the first record; also the file's name
//	prev     32 bytes, hash of the record before it
//	opened   int64, seconds since 1970: the records are of this UTC day
//	crc      uint32, CRC-32C of all before it
//	records  frames, one after another
//
// A frame:
//
//	length   uint32, bytes of the payload, at least 1
//	crc      uint32, CRC-32C of the length
//	payload  a Record in its one JSON spelling
//	hash     32 bytes, SHA-256(link, payload)
//
// The link of a record is the hash of the record before it; that of a segment's
// first record is SHA-256(prev, header), so that the header is in the chain.
// The checksum guards the length alone: with a wrong length, damage in
// the middle could pass for an incomplete end, which is cut off on Open. The
// hash guards the rest, better than a checksum would.
const (
	segmentMagic = "menshen-audit-1\n"
	frameHead    = 8
	// maxPayload bounds a record, so that a length is never believed blindly.
	maxPayload = 1 << 20
	segmentExt = ".log"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Hash is a link of a chain. It is written in hexadecimal.
type Hash [sha256.Size]byte

// String gives the hexadecimal form.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText gives the hexadecimal form.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads the hexadecimal form.
func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(h)) {
		return errors.New("a hash has 64 hexadecimal digits")
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// genesis is the hash before a chain's first record.
func genesis(chain string) Hash { return sha256.Sum256([]byte("menshen audit chain\x00" + chain)) }

// link hashes what comes next onto a chain.
func link(prev Hash, b []byte) Hash {
	var room [512]byte // for nearly every record
	return sha256.Sum256(append(append(room[:0], prev[:]...), b...))
}

// header begins a segment.
type header struct {
	chain  string
	first  uint64
	prev   Hash
	opened int64
}

func (h header) encode() []byte {
	b := append([]byte(segmentMagic), byte(len(h.chain)))
	b = append(b, h.chain...)
	b = binary.BigEndian.AppendUint64(b, h.first)
	b = append(b, h.prev[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.opened))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// link is that of the segment's first record.
func (h header) link() Hash { return link(h.prev, h.encode()) }

// name is the segment's file name.
func (h header) name() string { return fmt.Sprintf("%020d%s", h.first, segmentExt) }

// expired reports whether every record of the segment is older than keep.
func (h header) expired(now time.Time, keep time.Duration) bool {
	return keep > 0 && now.Add(-keep).Unix() >= (day(h.opened)+1)*secondsPerDay
}

const secondsPerDay = 24 * 60 * 60

// day numbers the UTC day of a time in seconds.
func day(seconds int64) int64 {
	d := seconds / secondsPerDay
	if seconds%secondsPerDay < 0 {
		d--
	}
	return d
}

// appendFrame appends a record's frame and returns its hash.
func appendFrame(b []byte, prev Hash, payload []byte) ([]byte, Hash) {
	h := link(prev, payload)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[len(b)-4:], castagnoli))
	b = append(b, payload...)
	return append(b, h[:]...), h
}

// Errors of reading a segment; the reader of a chain turns them into findings.
var (
	errHeader = errors.New("its header is not what was written")
	errFrame  = errors.New("the frame of a record is not what was written")
	errTorn   = errors.New("the last record is incomplete")
)

// segment reads one segment file in order.
type segment struct {
	head   header
	file   *os.File
	in     *bufio.Reader
	offset int64  // of the next frame
	size   int64  // bytes that belong to the segment
	link   Hash   // what the next record is chained to
	at     uint64 // its position
	buf    []byte
}

// frame is one record as it stands in the file. The payload is the segment's,
// until the next call.
type frame struct {
	offset  int64
	payload []byte
	hash    Hash // as stored
	holds   bool // the hash is that of link and payload
}

// openSegment opens a file and reads its header. size bounds what is read;
// negative: the whole file.
func openSegment(path string, size int64) (*segment, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if size < 0 {
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		size = info.Size()
	}
	s := &segment{file: f, in: bufio.NewReaderSize(f, int(min(size, 256<<10))), size: size}
	if err := s.readHeader(); err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

func (s *segment) close() { s.file.Close() }

// extend sets a new bound, as openSegment does, on a file that has grown since.
// What the buffer has read beyond the old one is forgotten: a failed write may have
// been taken back meanwhile.
func (s *segment) extend(size int64) error {
	if size < 0 {
		info, err := s.file.Stat()
		if err != nil {
			return err
		}
		size = info.Size()
	}
	if _, err := s.file.Seek(s.offset, io.SeekStart); err != nil {
		return err
	}
	s.in.Reset(s.file)
	s.size = size
	return nil
}

func (s *segment) readHeader() error {
	fixed := make([]byte, len(segmentMagic)+1)
	if err := s.fill(fixed); err != nil || !bytes.HasPrefix(fixed, []byte(segmentMagic)) {
		return notRead(err, errHeader)
	}
	rest := make([]byte, int(fixed[len(fixed)-1])+8+len(Hash{})+8+4)
	if err := s.fill(rest); err != nil {
		return notRead(err, errHeader)
	}
	n := len(rest) - 4 - 8 - len(Hash{}) - 8
	s.head.chain = string(rest[:n])
	s.head.first = binary.BigEndian.Uint64(rest[n:])
	copy(s.head.prev[:], rest[n+8:])
	s.head.opened = int64(binary.BigEndian.Uint64(rest[n+8+len(Hash{}):]))
	if !bytes.Equal(s.head.encode(), append(fixed, rest...)) || s.head.first == 0 {
		return errHeader
	}
	s.link, s.at = s.head.link(), s.head.first
	return nil
}

// fill reads exactly len(b) bytes of the segment.
func (s *segment) fill(b []byte) error {
	if s.size-s.offset < int64(len(b)) {
		return io.ErrUnexpectedEOF
	}
	n, err := io.ReadFull(s.in, b)
	s.offset += int64(n)
	return err
}

// notRead keeps a failure of the disk apart from a file that is too short.
func notRead(err, otherwise error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return otherwise
	}
	return err
}

// next reads the next record: io.EOF at the end, errTorn before an incomplete
// last record, errFrame where nothing can be made of the bytes. It goes on
// after a record whose hash does not hold, from the stored hash.
func (s *segment) next() (frame, error) {
	f := frame{offset: s.offset}
	switch left := s.size - s.offset; {
	case left == 0:
		return f, io.EOF
	case left < frameHead:
		return f, errTorn
	}
	var head [frameHead]byte
	if err := s.fill(head[:]); err != nil {
		return f, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if crc32.Checksum(head[:4], castagnoli) != binary.BigEndian.Uint32(head[4:]) || n == 0 || n > maxPayload {
		return f, errFrame
	}
	if s.size-s.offset < int64(n)+int64(len(f.hash)) {
		return f, errTorn
	}
	if cap(s.buf) < int(n)+len(f.hash) {
		s.buf = make([]byte, 2*(int(n)+len(f.hash)))
	}
	body := s.buf[:int(n)+len(f.hash)]
	if err := s.fill(body); err != nil {
		return f, err
	}
	f.payload = body[:n:n]
	copy(f.hash[:], body[n:])
	f.holds = link(s.link, f.payload) == f.hash
	s.link = f.hash
	return f, nil
}
