package keyring

import (
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"reflect"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03, section 2.3): the first 16
// bytes of a nonce and the key give the key of a ChaCha20-Poly1305, whose nonce is
// 4 zero bytes and the other 8. Ready-made ciphers do the same and leave a copy of
// the key in memory for every record, which nobody can overwrite when the key is
// destroyed; here nothing is left.

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

// forget overwrites the key in a cipher that is not used any more. The package has
// no way to ask for it; its only field is the key, and a test looks whether it still is.
func forget(c cipher.AEAD) {
	v := reflect.ValueOf(c)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct || v.Elem().NumField() == 0 {
		return
	}
	if field := v.Elem().Field(0); field.Type() == reflect.TypeFor[[keyLen]byte]() {
		clear((*[keyLen]byte)(field.Addr().UnsafePointer())[:])
	}
}

// sealRecord seals under a fresh random nonce, which stands before the result.
func sealRecord(key *[keyLen]byte, plain, aad []byte) (out []byte, err error) {
	nonce := make([]byte, chacha20poly1305.NonceSizeX, len(plain)+SealOverhead)
	rand.Read(nonce)
	discreetly(shallow, func() { out, err = sealWith(key, nonce, plain, aad) })
	if err != nil {
		return nil, fmt.Errorf("seal a record: %w", err)
	}
	return out, nil
}

func sealWith(key *[keyLen]byte, nonce, plain, aad []byte) ([]byte, error) {
	c, short, err := underNonce(key, nonce)
	if err != nil {
		return nil, err
	}
	defer forget(c)
	return c.Seal(nonce, short[:], plain, aad), nil
}

// openRecord reverses sealRecord. Error: ErrSealed.
func openRecord(key *[keyLen]byte, sealed, aad []byte) (plain []byte, err error) {
	if len(sealed) < SealOverhead {
		return nil, ErrSealed
	}
	discreetly(shallow, func() { plain, err = openWith(key, sealed, aad) })
	return plain, err
}

func openWith(key *[keyLen]byte, sealed, aad []byte) ([]byte, error) {
	nonce, body := sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:]
	c, short, err := underNonce(key, nonce)
	if err != nil {
		return nil, fmt.Errorf("open a record: %w", err)
	}
	defer forget(c)
	plain, err := c.Open(nil, short[:], body, aad)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}
