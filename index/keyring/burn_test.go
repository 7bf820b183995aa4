package keyring

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"reflect"
	"runtime"
	"runtime/debug"
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
	// A collection may put the stack elsewhere, and with it what is looked for.
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	if n := residue(func() { discreetly(shallow, scatter) }); n != 0 {
		t.Errorf("%d words are left", n)
	}
	if n := residue(scatter); n == 0 {
		t.Error("nothing is left without burning either: this test shows nothing")
	}
}

// The mark is halves xor halved: it stands in no register of who looks for it,
// which the system may save below on a signal, and no address is like it.
var halves, halved uint64 = 0x9e3779b97f4a7c15, 0xd1b54a32d192ed03

//go:noinline
func scatter() {
	var room [stretch / 32]uint64
	for i := range room {
		room[i] = halves ^ halved
	}
	scattered(&room)
}

//go:noinline
func scattered(*[stretch / 32]uint64) {}

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
	var here uint64
	for i := range 2 * stretch / 8 {
		if *(*uint64)(unsafe.Add(unsafe.Pointer(&here), -8*i))^halves == halved {
			n++
		}
	}
	return n
}
