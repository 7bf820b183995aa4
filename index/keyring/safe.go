package keyring

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slot is the room of one sealer's keys.
type slot struct {
	key     [keyLen]byte
	records [keyLen]byte // derived once: sealing is on the path of every write
}

const (
	// drawer is how many slots are mapped at a time: 64 KiB.
	drawer     = 1024
	drawerSize = drawer * int(unsafe.Sizeof(slot{}))
)

// safe is memory for keys outside Go's heap: left out of core dumps, and locked
// against being swapped out as far as the limits of the process permit (16,000 scopes
// at Debian's 1 MiB). It grows by drawers. Safe for many goroutines.
type safe struct {
	mu      sync.Mutex
	drawers [][]byte
	free    []*slot
}

// take gives an empty slot.
func (s *safe) take() (*slot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		b, err := unix.Mmap(-1, 0, drawerSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return nil, fmt.Errorf("memory for keys: %w", err)
		}
		_ = unix.Mlock(b) // as far as RLIMIT_MEMLOCK goes
		_ = unix.Madvise(b, unix.MADV_DONTDUMP)
		s.drawers = append(s.drawers, b)
		slots := unsafe.Slice((*slot)(unsafe.Pointer(unsafe.SliceData(b))), drawer)
		for i := range slots {
			s.free = append(s.free, &slots[i])
		}
	}
	last := len(s.free) - 1
	out := s.free[last]
	s.free = s.free[:last]
	return out, nil
}

// give overwrites a slot and takes it back. Nobody may use it any more.
func (s *safe) give(used *slot) {
	*used = slot{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, used)
}

// close gives the memory back. Every slot must have been given back before.
func (s *safe) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = nil
	for len(s.drawers) > 0 {
		last := len(s.drawers) - 1
		if err := unix.Munmap(s.drawers[last]); err != nil {
			return fmt.Errorf("memory for keys: %w", err)
		}
		s.drawers = s.drawers[:last]
	}
	return nil
}
