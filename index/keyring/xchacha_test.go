package keyring

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
)

// What is sealed here opens with tink's XChaCha20-Poly1305, and the other way round.
func TestSealingIsXChaCha20Poly1305(t *testing.T) {
	var key [keyLen]byte
	rand.Read(key[:])
	peer, err := subtle.NewXChaCha20Poly1305(key[:])
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 63, 64, 517, 70_000} {
		plain, aad := make([]byte, n), []byte("place")
		rand.Read(plain)
		ours, err := sealRecord(&key, plain, aad)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := peer.Decrypt(ours, aad); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes sealed here do not open elsewhere: %v", n, err)
		}
		theirs, err := peer.Encrypt(plain, aad)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := openRecord(&key, theirs, aad); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes sealed elsewhere do not open here: %v", n, err)
		}
		if len(ours) != n+SealOverhead || len(theirs) != len(ours) {
			t.Errorf("%d bytes become %d here and %d elsewhere", n, len(ours), len(theirs))
		}
	}
}
