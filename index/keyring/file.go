package keyring

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/menshen-io/menshen/index/scope"
)

// The keyring file, version 2, integers big-endian:
//
//	magic      "menshen-keyring-v2\n"
//	generation of the root key that opens it, uint64
//	salt       32 random bytes, new at every write
//	wrapped    the file key, sealed under HKDF(root key, salt); aad = all before
//	payload    the keys, sealed under the file key; aad = all before
//
// Payload:
//
//	system key                  32 bytes
//	signing key                 seed of 32 bytes, int64 Unix time it was drawn at
//	count of retired ones       uint32, then for each the public key, 32 bytes
//	state of the pseudonyms     uint32 of its length, and its bytes
//	count of tenants            uint32, then for each, ordered:
//	    tenant                      length byte and bytes
//	    key                         32 bytes
//	count of live scopes        uint32, then for each, ordered by tenant and scope:
//	    tenant, scope               length byte and bytes, twice
//	    key                         32 bytes, sealed under the tenant's key; aad = the names
//	count of destroyed scopes   uint32, then tenant and scope of each
//
// Version 1 had no generation (it is 0), no signing keys, no tenants, and scope
// keys as they are. It is read, and written as version 2.
const (
	fileMagic   = "menshen-keyring-v2\n"
	fileMagicV1 = "menshen-keyring-v1\n"
	wrappedLen  = keyLen + SealOverhead
	keyWrapLen  = keyLen + SealOverhead
)

// maxFileBytes bounds what Open reads: more than a million scopes of usual names.
const maxFileBytes = 256 << 20

// content is what the file says, in memory.
type content struct {
	system     [keyLen]byte
	signing    signingContent
	pseudonyms []byte
	tenants    map[scope.TenantID][keyLen]byte
	live       map[scope.Ref]*[keyLen]byte
	wrapped    map[scope.Ref][]byte // live, sealed under the tenants' keys
	destroyed  map[scope.Ref]struct{}
}

type signingContent struct {
	seed    [keyLen]byte
	drawn   int64
	retired [][keyLen]byte
}

// wipe overwrites the keys.
func (c *content) wipe() {
	clear(c.system[:])
	clear(c.signing.seed[:])
	clear(c.pseudonyms)
	for _, key := range c.live {
		clear(key[:])
	}
	clear(c.tenants)
}

// wrapScope seals a scope's key under that of its tenant.
func wrapScope(tenant [keyLen]byte, ref scope.Ref, key *[keyLen]byte) ([]byte, error) {
	wrapping := derive(tenant[:], nil, labelTenant)
	return sealRecord(&wrapping, key[:], appendRef(nil, ref))
}

// encode seals the content under a generation of the root key. It reads wrapped, not
// live. Keys that it leaves on the stack the caller burns.
func (c *content) encode(root generation) ([]byte, error) {
	plain := make([]byte, 0, 256+len(c.pseudonyms)+len(c.signing.retired)*keyLen+len(c.tenants)*(1+scope.MaxIDLen+keyLen)+len(c.wrapped)*(2+2*scope.MaxIDLen+keyWrapLen)+len(c.destroyed)*(2+2*scope.MaxIDLen))
	plain = append(plain, c.system[:]...)
	plain = append(plain, c.signing.seed[:]...)
	plain = binary.BigEndian.AppendUint64(plain, uint64(c.signing.drawn))
	plain = binary.BigEndian.AppendUint32(plain, uint32(len(c.signing.retired)))
	for _, public := range c.signing.retired {
		plain = append(plain, public[:]...)
	}
	plain = binary.BigEndian.AppendUint32(plain, uint32(len(c.pseudonyms)))
	plain = append(plain, c.pseudonyms...)
	plain = binary.BigEndian.AppendUint32(plain, uint32(len(c.tenants)))
	for _, id := range slices.Sorted(maps.Keys(c.tenants)) {
		key := c.tenants[id]
		plain = append(append(plain, byte(len(id))), id...)
		plain = append(plain, key[:]...)
	}
	plain = binary.BigEndian.AppendUint32(plain, uint32(len(c.wrapped)))
	for _, ref := range slices.SortedFunc(maps.Keys(c.wrapped), compareRefs) {
		plain = append(appendRef(plain, ref), c.wrapped[ref]...)
	}
	plain = binary.BigEndian.AppendUint32(plain, uint32(len(c.destroyed)))
	for _, ref := range slices.SortedFunc(maps.Keys(c.destroyed), compareRefs) {
		plain = appendRef(plain, ref)
	}
	defer clear(plain[:cap(plain)])

	var fileKey [keyLen]byte
	rand.Read(fileKey[:])
	head := binary.BigEndian.AppendUint64([]byte(fileMagic), root.number)
	salt := make([]byte, keyLen)
	rand.Read(salt)
	head = append(head, salt...)
	wrapping := derive(root.key.b[:], salt, labelRoot)
	wrapped, err := sealRecord(&wrapping, fileKey[:], head)
	if err != nil {
		return nil, err
	}
	head = append(head, wrapped...)
	payload, err := sealRecord(&fileKey, plain, head)
	if err != nil {
		return nil, err
	}
	return append(head, payload...), nil
}

// header is the part of a keyring file that is not sealed.
type header struct {
	version    int
	generation uint64
	salted     int // length of magic, generation and salt
}

func parseHeader(file []byte) (header, error) {
	h := header{version: 2, salted: len(fileMagic) + 8 + keyLen}
	if bytes.HasPrefix(file, []byte(fileMagicV1)) {
		h = header{version: 1, salted: len(fileMagicV1) + keyLen}
	} else if !bytes.HasPrefix(file, []byte(fileMagic)) {
		return h, fmt.Errorf("%w: it is no keyring file of version 1 or 2", ErrDamaged)
	}
	if len(file) < h.salted+wrappedLen+SealOverhead {
		return h, fmt.Errorf("%w: it is cut short", ErrDamaged)
	}
	if h.version == 2 {
		h.generation = binary.BigEndian.Uint64(file[len(fileMagic):])
	}
	return h, nil
}

// decode opens what encode sealed; of its stack too the caller burns. ErrWrongRoot when the wrapped file key does
// not open, ErrDamaged when the file is not a keyring or its payload is altered.
func decode(file []byte, root rootKey) (*content, error) {
	h, err := parseHeader(file)
	if err != nil {
		return nil, err
	}
	salted, head := file[:h.salted], file[:h.salted+wrappedLen]
	wrapping := derive(root.b[:], salted[len(salted)-keyLen:], labelRoot)
	fileKey, err := openRecord(&wrapping, head[h.salted:], salted)
	if err != nil {
		return nil, ErrWrongRoot
	}
	defer clear(fileKey)
	plain, err := openRecord((*[keyLen]byte)(fileKey), file[len(head):], head)
	if err != nil {
		return nil, fmt.Errorf("%w: its payload does not open", ErrDamaged)
	}
	defer clear(plain)
	return parse(plain, h.version)
}

// parse reads the payload. It was authenticated, so that a failure here means a
// fault of the writer.
func parse(plain []byte, version int) (*content, error) {
	c := &content{
		tenants: map[scope.TenantID][keyLen]byte{}, live: map[scope.Ref]*[keyLen]byte{},
		wrapped: map[scope.Ref][]byte{}, destroyed: map[scope.Ref]struct{}{},
	}
	r := reader{rest: plain}
	c.system = r.key()
	if version > 1 {
		c.signing.seed = r.key()
		c.signing.drawn = int64(r.uint64())
		for range r.uint32() {
			if c.signing.retired = append(c.signing.retired, r.key()); r.bad {
				break
			}
		}
		if n := r.uint32(); n <= maxPseudonyms {
			c.pseudonyms = bytes.Clone(r.take(int(n)))
		} else {
			r.bad = true
		}
		for range r.uint32() {
			id := scope.TenantID(r.text())
			key := r.key()
			if r.bad = r.bad || id.Validate() != nil; r.bad {
				break
			}
			c.tenants[id] = key
		}
	}
	for range r.uint32() {
		if c.scope(&r, version); r.bad {
			break
		}
	}
	for range r.uint32() {
		ref := r.ref()
		if r.bad {
			break
		}
		c.destroyed[ref] = struct{}{}
	}
	if r.bad || len(r.rest) != 0 {
		return nil, fmt.Errorf("%w: its payload is not what was written", ErrDamaged)
	}
	return c, nil
}

// scope reads one live scope.
func (c *content) scope(r *reader, version int) {
	ref := r.ref()
	if version == 1 {
		key := r.key()
		c.live[ref] = &key
		return
	}
	wrapped := bytes.Clone(r.take(keyWrapLen))
	tenant, ok := c.tenants[ref.Tenant]
	if r.bad = r.bad || !ok; r.bad {
		return
	}
	wrapping := derive(tenant[:], nil, labelTenant)
	raw, err := openRecord(&wrapping, wrapped, appendRef(nil, ref))
	if r.bad = err != nil; r.bad {
		return
	}
	c.live[ref] = (*[keyLen]byte)(raw)
	c.wrapped[ref] = wrapped
}

// reader takes fields off the front of a payload; bad sticks once it ran out.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || len(r.rest) < n {
		r.bad = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint32() uint32 {
	b := r.take(4)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func (r *reader) uint64() uint64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func (r *reader) key() (key [keyLen]byte) {
	copy(key[:], r.take(keyLen))
	return key
}

func (r *reader) text() string {
	n := r.take(1)
	if n == nil {
		return ""
	}
	return string(r.take(int(n[0])))
}

func (r *reader) ref() scope.Ref {
	ref := scope.Ref{Tenant: scope.TenantID(r.text()), Scope: scope.ScopeID(r.text())}
	if !r.bad && ref.Validate() != nil {
		r.bad = true
	}
	return ref
}

func appendRef(b []byte, ref scope.Ref) []byte {
	b = append(append(b, byte(len(ref.Tenant))), ref.Tenant...)
	return append(append(b, byte(len(ref.Scope))), ref.Scope...)
}

func compareRefs(a, b scope.Ref) int {
	if c := strings.Compare(string(a.Tenant), string(b.Tenant)); c != 0 {
		return c
	}
	return strings.Compare(string(a.Scope), string(b.Scope))
}
