package store

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/menshen-io/menshen/index/scope"
)

// Digest is the sum modulo 2^128 of the first 16 bytes, big-endian, of the
// SHA-256 of key and stored value of each record. A sum does not depend on
// order and is kept by adding and subtracting. It shows loss and damage; against
// forgery stands the seal of each record and of the tip.
type Digest struct{ hi, lo uint64 }

// digestOf hashes one record as it stands in Badger. scratch is reused.
func digestOf(scratch []byte, key, value []byte) (Digest, []byte) {
	scratch = binary.BigEndian.AppendUint32(scratch[:0], uint32(len(key)))
	scratch = append(append(scratch, key...), value...)
	sum := sha256.Sum256(scratch)
	return Digest{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])}, scratch
}

func (d Digest) add(e Digest) Digest {
	lo, carry := bits.Add64(d.lo, e.lo, 0)
	hi, _ := bits.Add64(d.hi, e.hi, carry)
	return Digest{hi, lo}
}

func (d Digest) sub(e Digest) Digest {
	lo, borrow := bits.Sub64(d.lo, e.lo, 0)
	hi, _ := bits.Sub64(d.hi, e.hi, borrow)
	return Digest{hi, lo}
}

// String gives the digest in hexadecimal.
func (d Digest) String() string { return fmt.Sprintf("%016x%016x", d.hi, d.lo) }

// Head is what a space (a scope, or the system) should hold. It is written in
// the same transaction as every mutation of the space.
type Head struct {
	// Epoch of the last mutation. The system space counts its own.
	Epoch scope.Epoch
	// Records that the space holds.
	Records uint64
	// Digest over them.
	Digest Digest
}

// Sum is the SHA-256 over number and digest of the records, and the epoch: it
// stands for them in a receipt.
func (h Head) Sum() [sha256.Size]byte { return sha256.Sum256(h.encode()) }

const headLen = 1 + 8 + 8 + 16

// encode gives the head as it is stored: format version, epoch, records, digest.
func (h Head) encode() []byte {
	out := make([]byte, 0, headLen)
	out = append(out, formatVersion)
	out = binary.BigEndian.AppendUint64(out, uint64(h.Epoch))
	out = binary.BigEndian.AppendUint64(out, h.Records)
	out = binary.BigEndian.AppendUint64(out, h.Digest.hi)
	return binary.BigEndian.AppendUint64(out, h.Digest.lo)
}

func parseHead(b []byte) (Head, error) {
	if len(b) != headLen || b[0] != formatVersion {
		return Head{}, fmt.Errorf("%w: a head of %d bytes", ErrDamaged, len(b))
	}
	return Head{
		Epoch:   scope.Epoch(binary.BigEndian.Uint64(b[1:])),
		Records: binary.BigEndian.Uint64(b[9:]),
		Digest:  Digest{binary.BigEndian.Uint64(b[17:]), binary.BigEndian.Uint64(b[25:])},
	}, nil
}

// tip is the state of the whole store after a transaction.
type tip struct {
	seq   uint64 // transactions since the store was made
	heads Digest // over all heads
}

const tipLen = 8 + 16

func (t tip) encode() []byte {
	out := make([]byte, 0, tipLen)
	out = binary.BigEndian.AppendUint64(out, t.seq)
	out = binary.BigEndian.AppendUint64(out, t.heads.hi)
	return binary.BigEndian.AppendUint64(out, t.heads.lo)
}

func parseTip(b []byte) (tip, error) {
	if len(b) != tipLen {
		return tip{}, fmt.Errorf("%w: a tip of %d bytes", ErrDamaged, len(b))
	}
	return tip{
		seq:   binary.BigEndian.Uint64(b),
		heads: Digest{binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])},
	}, nil
}

// compare reports how the records found differ from the head.
func (h Head) compare(what string, got Head) error {
	if got.Records != h.Records {
		return fmt.Errorf("%w: %s holds %d records and should hold %d; restore the data directory from its copy",
			ErrDamaged, what, got.Records, h.Records)
	}
	if got.Digest != h.Digest {
		return fmt.Errorf("%w: %s holds %d records, as it should, but not those that were acknowledged; restore the data directory from its copy",
			ErrDamaged, what, got.Records)
	}
	return nil
}
