package keyring

import "sync"

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
	mu   sync.RWMutex
	gone error // nil while the keys are there
	keys *slot // nil once they are gone
	safe *safe
}

// newSealer takes the key by its place, so that no further copy is left behind. The
// caller overwrites that place, and burns the stack.
func newSealer(in *safe, key *[keyLen]byte) (*sealer, error) {
	keys, err := in.take()
	if err != nil {
		return nil, err
	}
	keys.key = *key
	deriveInto(&keys.records, keys.key[:], nil, labelRecords)
	return &sealer{keys: keys, safe: in}, nil
}

// wipe overwrites the keys; every later use returns why. It waits for those who
// seal or open.
func (s *sealer) wipe(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = why
	if s.keys != nil {
		s.safe.give(s.keys)
		s.keys = nil
	}
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
	return sealRecord(&s.keys.records, plain, aad)
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
	return openRecord(&s.keys.records, sealed, aad)
}

// with derives a named seed and shows it to use. It stands where it is overwritten
// afterwards, together with what use leaves on its stack.
func (s *sealer) with(label string, use func(seed *[keyLen]byte) error) (err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.gone != nil {
		return s.gone
	}
	discreetly(deep, func() {
		var seed [keyLen]byte // on the heap, since nobody knows what use does with it
		defer clear(seed[:])
		deriveInto(&seed, s.keys.key[:], nil, label)
		err = use(&seed)
	})
	return err
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

// WithRotationSeed shows use the seed of the scope's secret rotation, the same as
// long as the scope's key lives. use must neither keep it nor put copies of it where
// they stay: what is on its stack is overwritten afterwards. Errors: ErrDestroyed,
// ErrClosed, that of use.
func (k *ScopeKeys) WithRotationSeed(use func(seed *[32]byte) error) error {
	return k.sealer.with(labelRotation, use)
}

// WithDecoySeed is WithRotationSeed for the seed of the codes that stand for subjects
// that are not there.
func (k *ScopeKeys) WithDecoySeed(use func(seed *[32]byte) error) error {
	return k.sealer.with(labelDecoy, use)
}

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
