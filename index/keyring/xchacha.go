package keyring

import (
	"crypto/cipher"
	"crypto/rand"
	"fmt"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03, section 2.3): the first 16
// bytes of a nonce and the key give the key of a ChaCha20-Poly1305, whose nonce is
// 4 zero bytes and the other 8. Ready-made ciphers do the same and leave a copy of
// the key in memory for every record, which nobody can overwrite when the key is
// destroyed; here only keys that fit a single record are left.

// underNonce makes the cipher for one nonce of 24 bytes, and the nonce to use it with.
func underNonce(key *[keyLen]byte, nonce []byte) (c cipher.AEAD, short [chacha20poly1305.NonceSize]byte, err error) {
	own, err := chacha20.HChaCha20(key[:], nonce[:16])
	if err != nil {
		return nil, short, err
	}
	defer clear(own)
	copy(short[4:], nonce[16:])
	c, err = chacha20poly1305.New(own)
	return c, short, err
}

// sealRecord seals under a fresh random nonce, which stands before the result.
func sealRecord(key *[keyLen]byte, plain, aad []byte) ([]byte, error) {
	out := make([]byte, chacha20poly1305.NonceSizeX, len(plain)+SealOverhead)
	rand.Read(out)
	c, nonce, err := underNonce(key, out)
	if err != nil {
		return nil, fmt.Errorf("seal a record: %w", err)
	}
	return c.Seal(out, nonce[:], plain, aad), nil
}

// openRecord reverses sealRecord. Error: ErrSealed.
func openRecord(key *[keyLen]byte, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < SealOverhead {
		return nil, ErrSealed
	}
	nonce, body := sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:]
	c, short, err := underNonce(key, nonce)
	if err != nil {
		return nil, fmt.Errorf("open a record: %w", err)
	}
	plain, err := c.Open(nil, short[:], body, aad)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}
