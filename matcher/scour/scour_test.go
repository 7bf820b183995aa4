package scour

import (
	"bytes"
	"os"
	"runtime"
	"testing"
	"unsafe"
)

// What was freed is gone from the memory afterwards, and threads go on.
func TestMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("NOT RUN: reads /proc, which Linux alone has; CI runs it")
	}
	secret := []byte("scoured away")
	where := fill(secret)
	if !stands(t, where, secret) {
		t.Fatal("it cannot be found before: the test shows nothing")
	}
	kept = nil
	for range 3 {
		Memory()
	}
	if stands(t, where, secret) {
		t.Error("freed memory still holds what stood in it")
	}
}

// kept keeps the secret in memory until it is freed.
var kept []byte

// fill makes a large object full of the secret and tells where it is.
func fill(secret []byte) uintptr {
	kept = bytes.Repeat(secret, 1<<16)
	return uintptr(unsafe.Pointer(unsafe.SliceData(kept)))
}

// stands reads the process's memory from outside.
func stands(t *testing.T, where uintptr, secret []byte) bool {
	t.Helper()
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Skip("NOT RUN: ", err)
	}
	defer mem.Close()
	b := make([]byte, 4<<10)
	if _, err := mem.ReadAt(b, int64(where)+4096); err != nil {
		t.Skip("NOT RUN: ", err) // freed pages stay mapped, so it is not for everybody to read here
	}
	return bytes.Contains(b, secret)
}
