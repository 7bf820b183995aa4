package signing

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// KeyID is the fingerprint of a public key: the first 16 bytes of its SHA-256
// in hexadecimal. It is short enough to be compared over the telephone, and
// finding a second key for it takes 2^128 trials.
type KeyID string

// keyVersion is the first byte of a marshalled private key.
const keyVersion = 1

// Key is a private signing key. Use it by pointer; it is safe for many
// goroutines. The zero Key signs nothing.
type Key struct {
	mu      sync.RWMutex
	private ed25519.PrivateKey // nil when there is none
	public  PublicKey
}

// NewKey draws a key.
func NewKey() *Key {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed) // never fails: crypto/rand ends the program instead
	defer clear(seed)
	k := &Key{}
	k.set(seed)
	return k
}

// KeyFromSeed makes the key of an Ed25519 seed (RFC 8032), which stays the
// caller's, to be overwritten.
func KeyFromSeed(seed *[ed25519.SeedSize]byte) *Key {
	k := &Key{}
	k.set(seed[:])
	return k
}

func (k *Key) set(seed []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.private)
	k.private = ed25519.NewKeyFromSeed(seed)
	copy(k.public.b[:], k.private[ed25519.SeedSize:])
}

// MarshalBinary gives the secret, 33 bytes, for sealed storage. The caller
// owns the slice and overwrites it (clear) once it is sealed.
func (k *Key) MarshalBinary() ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.private == nil {
		return nil, ErrWiped
	}
	return append([]byte{keyVersion}, k.private[:ed25519.SeedSize]...), nil
}

// UnmarshalBinary takes what MarshalBinary gave. The slice stays the caller's,
// to be overwritten. Error: ErrKeyForm, which leaves k as it was.
func (k *Key) UnmarshalBinary(b []byte) error {
	if len(b) != 1+ed25519.SeedSize || b[0] != keyVersion {
		return fmt.Errorf("%w: want %d bytes of version %d", ErrKeyForm, 1+ed25519.SeedSize, keyVersion)
	}
	k.set(b[1:])
	return nil
}

// Wipe overwrites the private key; signing fails with ErrWiped from then on. The
// public key stays. What the runtime copied earlier is beyond its reach.
func (k *Key) Wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.private)
	k.private = nil
}

// Public is the key that verifies.
func (k *Key) Public() PublicKey {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.public
}

// sign signs a message that signed composed.
func (k *Key) sign(message []byte) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.private == nil {
		return nil, ErrWiped
	}
	return ed25519.Sign(k.private, message), nil
}

// String names the key without showing it.
func (k *Key) String() string { return "signing key " + string(k.Public().ID()) }

// Format prints the same for every verb.
func (k *Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// LogValue makes slog print the same.
func (k *Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// PublicKey verifies. It is comparable; the zero PublicKey verifies nothing.
type PublicKey struct{ b [ed25519.PublicKeySize]byte }

// NewPublicKey makes one of its 32 bytes (RFC 8032).
func NewPublicKey(b [ed25519.PublicKeySize]byte) PublicKey { return PublicKey{b} }

// publicPrefix begins the text form of a public key.
const publicPrefix = "menshen-ed25519:"

// ID is the key's fingerprint.
func (p PublicKey) ID() KeyID {
	sum := sha256.Sum256(p.b[:])
	return KeyID(hex.EncodeToString(sum[:16]))
}

// String gives the text form that ParsePublicKey reads.
func (p PublicKey) String() string {
	return publicPrefix + base64.StdEncoding.EncodeToString(p.b[:])
}

// ParsePublicKey reads the text form. Error: ErrKeyForm.
func ParsePublicKey(text string) (PublicKey, error) {
	var p PublicKey
	encoded, ok := strings.CutPrefix(text, publicPrefix)
	b, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || len(b) != len(p.b) {
		return PublicKey{}, fmt.Errorf("%w: a public key reads %sBASE64", ErrKeyForm, publicPrefix)
	}
	copy(p.b[:], b)
	if p == (PublicKey{}) || p.String() != text {
		return PublicKey{}, fmt.Errorf("%w: a public key reads %sBASE64", ErrKeyForm, publicPrefix)
	}
	return p, nil
}

// PublicKeys is a set of keys, so that documents from before a change of keys
// still verify. A nil set verifies nothing.
type PublicKeys map[KeyID]PublicKey

// NewPublicKeys makes a set.
func NewPublicKeys(keys ...PublicKey) PublicKeys {
	set := PublicKeys{}
	for _, k := range keys {
		set[k.ID()] = k
	}
	return set
}

// ParsePublicKeys reads a list of keys in text form, one a line; empty lines
// and lines that begin with # are skipped. Error: ErrKeyForm with the line.
func ParsePublicKeys(text string) (PublicKeys, error) {
	set := PublicKeys{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		k, err := ParsePublicKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		set[k.ID()] = k
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("%w: the list names no key", ErrKeyForm)
	}
	return set, nil
}
