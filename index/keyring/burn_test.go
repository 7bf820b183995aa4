package keyring

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"reflect"
	"testing"
	"unsafe"

	"golang.org/x/crypto/chacha20poly1305"
)

// The derivation is HKDF-SHA256 as the standard library has it, and leaves nothing on
// the heap.
func TestDeriveIsHKDF(t *testing.T) {
	var secret, salt [keyLen]byte
	rand.Read(secret[:])
	rand.Read(salt[:])
	for _, salt := range [][]byte{nil, salt[:]} {
		for _, label := range []string{labelRecords, labelRotation, labelDecoy, labelRoot, labelRatchet, labelTenant} {
			want, err := hkdf.Key(sha256.New, secret[:], salt, label, keyLen)
			if err != nil {
				t.Fatal(err)
			}
			var got [keyLen]byte
			deriveInto(&got, secret[:], salt, label)
			if !bytes.Equal(got[:], want) {
				t.Errorf("%s: %x, want %x", label, got, want)
			}
			if n := testing.AllocsPerRun(10, func() { deriveInto(&got, secret[:], salt, label) }); n > 0 {
				t.Errorf("%s: %v allocations, in which keys stay", label, n)
			}
		}
	}
}

// A cipher that was used holds no key any more.
func TestForget(t *testing.T) {
	var key [keyLen]byte
	rand.Read(key[:])
	c, err := chacha20poly1305.New(key[:])
	if err != nil {
		t.Fatal(err)
	}
	own := func() []byte {
		v := reflect.ValueOf(c)
		return unsafe.Slice((*byte)(v.UnsafePointer()), v.Elem().Type().Size())
	}
	if !bytes.Contains(own(), key[:]) {
		t.Fatal("the key stands elsewhere in the cipher: this test shows nothing, and neither does forget")
	}
	forget(c)
	if i := bytes.IndexFunc(own(), func(r rune) bool { return r != 0 }); i >= 0 {
		t.Errorf("byte %d of the cipher is not overwritten", i)
	}
}

// Nothing of what f had on its stack is below it afterwards.
func TestDiscreetly(t *testing.T) {
	if n := residue(func() { discreetly(shallow, scatter) }); n != 0 {
		t.Errorf("%d bytes are left", n)
	}
	if n := residue(scatter); n == 0 {
		t.Error("nothing is left without burning either: this test shows nothing")
	}
}

const mark = 0xa7

//go:noinline
func scatter() {
	var room [stretch / 4]byte
	for i := range room {
		room[i] = mark
	}
	scattered(&room)
}

//go:noinline
func scattered(*[stretch / 4]byte) {}

// residue calls f and counts what it left below.
//
//go:noinline
func residue(f func()) int {
	burn(deep)
	f()
	return marks()
}

// marks counts the marks below its frame.
//
//go:noinline
//go:nocheckptr
func marks() (n int) {
	var here byte
	for i := range 2 * stretch {
		if *(*byte)(unsafe.Add(unsafe.Pointer(&here), -i)) == mark {
			n++
		}
	}
	return n
}
