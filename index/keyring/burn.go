package keyring

// stretch is the piece of stack that burn overwrites at a time, in bytes. HKDF
// and XChaCha20-Poly1305 use less than half of one.
const stretch = 4 << 10

// shallow and deep are how many stretches: below arithmetic alone, and below the
// writing of a file.
const (
	shallow = 1
	deep    = 6
)

// discreetly calls f on stack that is overwritten when it has returned: ciphers and
// hashes put their keys there, and a goroutine's stack is handed on as it is. The
// stack is grown before, since growing it leaves a copy behind. What f puts on the
// heap it overwrites itself. Out of reach are the processor's registers, and with
// them what the system saves of them when it interrupts f, and a garbage collection
// that shrinks the stack in the microseconds of f.
//
//go:noinline
func discreetly(stretches int, f func()) {
	burn(stretches)
	f()
	burn(stretches)
}

// burn overwrites the stack below its caller.
//
//go:noinline
func burn(stretches int) {
	var room [stretch]byte
	touch(&room)
	if stretches > 1 {
		burn(stretches - 1)
	}
}

// touch keeps the zeroing of a variable that nobody reads.
//
//go:noinline
func touch(*[stretch]byte) {}
