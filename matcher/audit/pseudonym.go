package audit

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/menshen-io/menshen/index/scope"
)

// Pseudonym stands for a subject of one scope during one UTC day: the day's
// number since 1970, a dot, and 128 bits of HMAC-SHA256 in base64url.
type Pseudonym string

const (
	pseudonymBytes   = 16
	pseudonymVersion = 1
	labelNext        = "menshen/v1/audit/next"
	labelTenant      = "menshen/v1/audit/tenant/"
	// maxAhead bounds how far one call goes from the oldest day, for a clock that stands
	// far in the future: a century, 20 ms.
	maxAhead = 36525
)

// Pseudonyms turns subjects into pseudonyms. There is a secret for each day,
// each derived from that of the day before by a one-way function, and from each
// the key of a tenant. Only the secret of the oldest day that may still be linked
// is kept. Once Forget has moved it on, the days before cannot be derived from
// anything that is left: their pseudonyms are random text, for the service too.
// Safe for many goroutines.
type Pseudonyms struct {
	save func(state []byte) error

	mu     sync.Mutex
	oldest int64 // day
	secret [32]byte
	last   int64 // day of lastSecret, so that one day's tenants do not walk again
	lastS  [32]byte
	keys   map[tenantDay][32]byte
}

type tenantDay struct {
	tenant scope.TenantID
	day    int64
}

// NewPseudonymState draws the state of pseudonyms that begin at a time: 41
// bytes, for sealed storage. The caller overwrites them once they are sealed.
func NewPseudonymState(now time.Time) []byte {
	var secret [32]byte
	rand.Read(secret[:]) // never fails: crypto/rand ends the program instead
	defer clear(secret[:])
	return pseudonymState(day(now.Unix()), secret[:])
}

func pseudonymState(oldest int64, secret []byte) []byte {
	b := append(make([]byte, 0, 41), pseudonymVersion)
	return append(binary.BigEndian.AppendUint64(b, uint64(oldest)), secret...)
}

// NewPseudonyms reads a state. The slice stays the caller's. save must replace
// the stored state durably, leaving no copy of the old one that still opens; its
// argument is overwritten when it returns. Error: ErrPseudonyms.
func NewPseudonyms(state []byte, save func(state []byte) error) (*Pseudonyms, error) {
	if len(state) != 41 || state[0] != pseudonymVersion || save == nil {
		return nil, fmt.Errorf("%w: want 41 bytes of version %d and a way to save", ErrPseudonyms, pseudonymVersion)
	}
	p := &Pseudonyms{save: save, keys: map[tenantDay][32]byte{}}
	p.oldest = int64(binary.BigEndian.Uint64(state[1:]))
	copy(p.secret[:], state[9:])
	if p.secret == [32]byte{} || p.oldest < 0 || p.oldest > 1<<32 {
		return nil, fmt.Errorf("%w: it holds no secret or no day", ErrPseudonyms)
	}
	p.last, p.lastS = p.oldest, p.secret
	return p, nil
}

// Of gives the subject's pseudonym at a time. A time before the oldest day, as
// of a clock that was set back, counts as the oldest.
func (p *Pseudonyms) Of(ref scope.Ref, subject scope.SubjectID, at time.Time) Pseudonym {
	d := day(at.Unix())
	key := p.key(ref.Tenant, &d)
	defer clear(key[:])
	var room [2*sha256.BlockSize + 2*scope.MaxIDLen]byte
	message := append(append(append(room[:0], ref.Scope...), 0), subject...)
	sum := mac(&key, message)
	var text [48]byte
	b := append(strconv.AppendInt(text[:0], d, 10), '.')
	return Pseudonym(base64.RawURLEncoding.AppendEncode(b, sum[:pseudonymBytes]))
}

// mac is HMAC-SHA256 (RFC 2104) with a key of 32 bytes, without what crypto/hmac
// allocates; a test holds it against that.
func mac(key *[32]byte, message []byte) [sha256.Size]byte {
	var room [2*sha256.BlockSize + 2*scope.MaxIDLen]byte
	defer clear(room[:])
	block := room[:sha256.BlockSize]
	for i := range block {
		block[i] = 0x36
	}
	for i, k := range key {
		block[i] ^= k
	}
	inner := sha256.Sum256(append(block, message...))
	for i := range block {
		block[i] ^= 0x36 ^ 0x5c
	}
	return sha256.Sum256(append(block, inner[:]...))
}

// key gives the key of a tenant at a day, which it moves into what is there.
func (p *Pseudonyms) key(tenant scope.TenantID, d *int64) [32]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	*d = min(max(*d, p.oldest), p.oldest+maxAhead)
	at := tenantDay{tenant, *d}
	if key, ok := p.keys[at]; ok {
		return key
	}
	if len(p.keys) >= 100_000 { // tenants times days; they are derived again
		clear(p.keys)
	}
	if p.last > *d {
		p.last, p.lastS = p.oldest, p.secret
	}
	for ; p.last < *d; p.last++ {
		p.lastS = derive(p.lastS, labelNext)
	}
	key := derive(p.lastS, labelTenant+string(tenant))
	p.keys[at] = key
	return key
}

// Forget makes the pseudonyms of the days before a time unlinkable, durably. It
// does nothing when they are so already. The error is that of save; the days can
// then still be linked.
func (p *Pseudonyms) Forget(before time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := min(day(before.Unix()), p.oldest+maxAhead)
	if to <= p.oldest {
		return nil
	}
	next := p.secret
	for range to - p.oldest {
		next = derive(next, labelNext)
	}
	state := pseudonymState(to, next[:])
	defer clear(state)
	if err := p.save(state); err != nil {
		return fmt.Errorf("save the state of the audit pseudonyms: %w; what is older can still be linked: try again", err)
	}
	p.oldest, p.secret = to, next
	p.last, p.lastS = to, next
	clear(p.keys)
	return nil
}

// derive is HKDF-SHA256 (RFC 5869) with a 32-byte output.
func derive(secret [32]byte, label string) (out [32]byte) {
	b, err := hkdf.Key(sha256.New, secret[:], nil, label, len(out))
	if err != nil { // only for outputs above 8,160 bytes, or under FIPS for short keys
		panic("audit: HKDF-SHA256 refused 32 bytes: " + err.Error())
	}
	copy(out[:], b)
	clear(b)
	return out
}
