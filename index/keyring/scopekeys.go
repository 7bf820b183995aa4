package keyring

import (
	"crypto/hkdf"
	"crypto/sha256"
	"sync"
)

// The labels that part the uses of one key (the info of HKDF, RFC 5869). A
// label that is in use is never changed: its key would be another one.
const (
	labelRecords  = "menshen/v1/records"  // AEAD of stored records
	labelRotation = "menshen/v1/rotation" // secret rotation of a scope
	labelDecoy    = "menshen/v1/decoy"    // codes of subjects that are not there
	labelRoot     = "menshen/v1/keyring"  // root key -> key that wraps the file key
	labelRatchet  = "menshen/v1/ratchet"  // root key -> the root key after it
	labelTenant   = "menshen/v1/tenant"   // tenant key -> key that wraps its scopes' keys
)

// SealOverhead is how many bytes longer Seal's result is than its input: a
// 24-byte nonce and a 16-byte tag.
const SealOverhead = 24 + 16

// sealer is one key of 32 bytes and the keys that are derived from it. Safe for
// many goroutines; after wipe every use fails with gone.
type sealer struct {
	mu      sync.RWMutex
	gone    error // nil while the key is there
	key     [keyLen]byte
	records [keyLen]byte // derived once: sealing is on the path of every write
}

// newSealer takes the key by its place, so that no further copy is left behind.
func newSealer(key *[keyLen]byte) *sealer {
	s := &sealer{key: *key}
	deriveInto(&s.records, s.key[:], nil, labelRecords)
	return s
}

// derive is HKDF-SHA256 (RFC 5869) with a 32-byte output.
func derive(secret, salt []byte, label string) (out [keyLen]byte) {
	deriveInto(&out, secret, salt, label)
	return out
}

// deriveInto is derive for a place of the caller's.
func deriveInto(out *[keyLen]byte, secret, salt []byte, label string) {
	b, err := hkdf.Key(sha256.New, secret, salt, label, keyLen)
	if err != nil { // only for outputs above 8,160 bytes, or under FIPS for short keys
		panic("keyring: HKDF-SHA256 refused 32 bytes: " + err.Error())
	}
	copy(out[:], b)
	clear(b)
}

// wipe overwrites the keys; every later use returns why. It waits for those who
// seal or open.
func (s *sealer) wipe(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = why
	clear(s.key[:])
	clear(s.records[:])
}

// Seal encrypts and authenticates plain, and authenticates aad with it, by
// XChaCha20-Poly1305 under a fresh random nonce. The result is newly allocated,
// SealOverhead bytes longer than plain. Neither argument is kept. Fails only
// once the key is destroyed or the keyring closed.
func (s *sealer) Seal(plain, aad []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.gone != nil {
		return nil, s.gone
	}
	return sealRecord(&s.records, plain, aad)
}

// Open reverses Seal. ErrSealed when the bytes were altered, were sealed under
// another key or with other associated data; ErrDestroyed or ErrClosed once the
// key is gone.
func (s *sealer) Open(sealed, aad []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.gone != nil {
		return nil, s.gone
	}
	return openRecord(&s.records, sealed, aad)
}

// seed derives a named seed, or zeros once the key is gone.
func (s *sealer) seed(label string) (out [keyLen]byte, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.gone != nil {
		return out, s.gone
	}
	return derive(s.key[:], nil, label), nil
}

// ScopeKeys are the keys of one scope. A handle may be kept and used from many
// goroutines; it goes dead, with ErrDestroyed, when the scope's key is destroyed.
type ScopeKeys struct {
	sealer  *sealer
	wrapped []byte // the key, sealed under the tenant's; never changed
}

// Seal seals a record of the scope; see SystemKeys.Seal for the promises.
func (k *ScopeKeys) Seal(plain, aad []byte) ([]byte, error) { return k.sealer.Seal(plain, aad) }

// Open opens what Seal sealed: ErrSealed, ErrDestroyed or ErrClosed otherwise.
func (k *ScopeKeys) Open(sealed, aad []byte) ([]byte, error) { return k.sealer.Open(sealed, aad) }

// RotationSeed is the seed of the scope's secret rotation, the same as long as
// the scope's key lives. Its holder must treat it as the secret that it is.
func (k *ScopeKeys) RotationSeed() ([32]byte, error) { return k.sealer.seed(labelRotation) }

// DecoySeed is the seed of the codes that stand for subjects that are not there.
func (k *ScopeKeys) DecoySeed() ([32]byte, error) { return k.sealer.seed(labelDecoy) }

// SystemKeys seal what belongs to no scope: tenants, credentials, the settings
// of scopes, revocations. They live as long as the keyring file.
type SystemKeys struct{ sealer *sealer }

// Seal encrypts and authenticates plain and authenticates aad with it
// (XChaCha20-Poly1305, fresh random nonce). The result is newly allocated and
// SealOverhead bytes longer than plain; neither argument is kept. Safe for many
// goroutines. Fails only when the key is gone.
func (k *SystemKeys) Seal(plain, aad []byte) ([]byte, error) { return k.sealer.Seal(plain, aad) }

// Open opens what Seal sealed: ErrSealed, or ErrClosed, otherwise.
func (k *SystemKeys) Open(sealed, aad []byte) ([]byte, error) { return k.sealer.Open(sealed, aad) }
