//go:build !linux

package kernel

import "testing"

// guarded is plain memory: guard pages are tested on Linux.
type guarded struct{ usable []byte }

func newGuarded(t *testing.T, n int) guarded {
	t.Log("NOT RUN: guard pages, which are for Linux; reads behind the inputs go unseen here")
	return guarded{make([]byte, n)}
}
