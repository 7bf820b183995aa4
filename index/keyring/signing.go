package keyring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"time"
)

// Signing is the key that the server signs receipts and checkpoints with.
type Signing struct {
	// Seed of the Ed25519 key (RFC 8032). It is a secret; overwrite it when done.
	Seed [ed25519.SeedSize]byte
	// Drawn is when it came into use.
	Drawn time.Time
	// Retired are the public keys before it, the oldest first, for reading what
	// was signed with them. Their seeds are gone.
	Retired [][ed25519.PublicKeySize]byte
}

// newSigning draws a signing key. The one before goes to the retired ones.
func newSigning(before *signingContent) signingContent {
	s := signingContent{drawn: time.Now().Unix()}
	if before != nil {
		public := ed25519.NewKeyFromSeed(before.seed[:]).Public().(ed25519.PublicKey)
		s.retired = append(before.retired, [keyLen]byte(public))
	}
	rand.Read(s.seed[:])
	return s
}

// Signing returns the signing key. Error: ErrClosed.
func (k *Keyring) Signing() (Signing, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return Signing{}, ErrClosed
	}
	s := k.state.signing
	return Signing{Seed: s.seed, Drawn: time.Unix(s.drawn, 0).UTC(), Retired: append([][keyLen]byte(nil), s.retired...)}, nil
}

// RotateSigning draws a new signing key. What was signed before stays
// verifiable: the public key is kept. Errors: ErrClosed, that of the file system.
func (k *Keyring) RotateSigning() error {
	k.write.Lock()
	defer k.write.Unlock()
	return k.change(nil, func(s *state) error {
		s.signing = newSigning(&s.signing)
		return nil
	})
}

// maxPseudonyms bounds the state of the pseudonyms.
const maxPseudonyms = 1 << 10

// Pseudonyms returns the state of the audit log's pseudonyms as it was last
// saved, and nil when none was. The caller overwrites it when done. Error: ErrClosed.
func (k *Keyring) Pseudonyms() ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return nil, ErrClosed
	}
	return bytes.Clone(k.state.pseudonyms), nil
}

// SavePseudonyms replaces the state of the pseudonyms, at most 1 KiB, durably.
// The root key moves on as for Destroy, so that no copy of the state before, where
// there is one, opens any more. The slice stays the caller's. Errors: as Destroy's.
func (k *Keyring) SavePseudonyms(b []byte) error {
	if len(b) == 0 || len(b) > maxPseudonyms {
		return fmt.Errorf("%w: %d bytes; 1 to %d are kept", ErrPseudonyms, len(b), maxPseudonyms)
	}
	k.write.Lock()
	defer k.write.Unlock()
	move := generation.next
	k.mu.RLock()
	if len(k.state.pseudonyms) == 0 {
		move = nil // there is no state before
	}
	k.mu.RUnlock()
	return k.change(move, func(s *state) error {
		s.pseudonyms = bytes.Clone(b)
		return nil
	})
}
