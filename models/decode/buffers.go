package decode

import "sync"

// maxLent is the largest buffer that is kept for the next picture, 8 MiB: the
// planes of 4 megapixels at full size. Larger ones are rare and go back to the
// garbage collector at once.
const maxLent = 8 << 20

// Buffers lends the memory of decoded pictures, so that a gate's stream of
// pictures does not make garbage of each. What is idle is given up by the
// garbage collector, at the latest in its second cycle.
//
// A buffer comes with what its last user left in it. It is lent only to a
// decoder that writes every byte that is read later.
//
// The standard library allocates for itself: without libjpeg-turbo nothing is
// lent. The zero value is ready. Safe for concurrent use; nil is allowed and keeps
// nothing.
type Buffers struct{ idle sync.Pool }

func (b *Buffers) put(buf []byte) {
	if b != nil && cap(buf) > 0 && cap(buf) <= maxLent {
		b.idle.Put(&buf)
	}
}
