package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"strings"
)

// An API key reads mk_ID_SECRET: the credential's id, which is no secret, and
// 32 random bytes in base64url without padding. The prefix lets scanners of
// source code and logs recognise a leaked key.
const keyPrefix = "mk_"

const (
	secretLen = 32                                   // bytes: 256 bits
	idBits    = 10                                   // bytes of randomness in a credential id
	idLen     = 16                                   // characters: idBits in base32
	textLen   = (secretLen*8 + 5) / 6                // characters of the secret
	keyLen    = len(keyPrefix) + idLen + 1 + textLen // characters of a key
)

// CredentialID names a credential across tenants: 16 characters of a-z and 2-7
// that the service draws. Two draws collide with a chance of 2^-80; Create
// checks nevertheless.
type CredentialID string

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newID draws an id.
func newID() CredentialID {
	var b [idBits]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return CredentialID(idEncoding.EncodeToString(b[:]))
}

// Valid reports whether id has the form of a credential id.
func (id CredentialID) Valid() bool {
	if len(id) != idLen {
		return false
	}
	for i := 0; i < len(id); i++ {
		if c := id[i]; !(c >= 'a' && c <= 'z' || c >= '2' && c <= '7') {
			return false
		}
	}
	return true
}

// digest is the SHA-256 of a secret. A secret of 256 random bits needs no slow
// or salted hash: there is nothing to guess.
type digest [sha256.Size]byte

// newKey draws the secret of a credential and returns the key to hand out and
// the digest to keep.
func newKey(id CredentialID) (key string, d digest) {
	var secret [secretLen]byte
	rand.Read(secret[:])
	key = keyPrefix + string(id) + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
	d = sha256.Sum256(secret[:])
	clear(secret[:])
	return key, d
}

// parseKey takes a key apart. A malformed key gives ok false and a digest that
// nothing has.
func parseKey(key string) (id CredentialID, d digest, ok bool) {
	if len(key) != keyLen || !strings.HasPrefix(key, keyPrefix) || key[len(keyPrefix)+idLen] != '_' {
		return "", digest{}, false
	}
	id = CredentialID(key[len(keyPrefix) : len(keyPrefix)+idLen])
	var secret [secretLen]byte
	n, err := base64.RawURLEncoding.Strict().Decode(secret[:], []byte(key[keyLen-textLen:]))
	if err != nil || n != secretLen || !id.Valid() {
		return "", digest{}, false
	}
	d = sha256.Sum256(secret[:])
	clear(secret[:])
	return id, d, true
}

func (d digest) equal(other digest) bool { return subtle.ConstantTimeCompare(d[:], other[:]) == 1 }
