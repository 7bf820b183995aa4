package keyring

import (
	"crypto/rand"
	"fmt"
)

// keyLen is the length in bytes of every key and seed of this package: 256
// bits, the key size of XChaCha20-Poly1305 and the output of SHA-256.
const keyLen = 32

// rootKey seals the keyring file. It prints as a constant text. The zero rootKey
// is refused everywhere. Values may be copied; keep few of them.
type rootKey struct{ b [keyLen]byte }

// redacted stands for a root key wherever one would be printed.
const redacted = "[root key]"

// newRootKey draws a root key from the operating system's random source.
func newRootKey() rootKey {
	var k rootKey
	rand.Read(k.b[:]) // never fails: crypto/rand ends the program instead
	return k
}

func (k rootKey) zero() bool { return k == rootKey{} }

// Format hides the key from every verb of fmt.
func (k rootKey) Format(s fmt.State, _ rune) { fmt.Fprint(s, redacted) }
