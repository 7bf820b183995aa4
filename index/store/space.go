package store

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// freeSpace knows the free space, asked for at most every freeSpaceAge. Used by
// the committer alone but for last.
type freeSpace struct {
	dir  string
	ask  func(string) (uint64, error)
	min  uint64
	at   time.Time
	free atomic.Uint64
}

// freeSpaceAge bounds how old the knowledge is. In 250 ms the committer writes
// some 20 MiB at most, far less than the reserve.
const freeSpaceAge = 250 * time.Millisecond

func (f *freeSpace) last() uint64 { return f.free.Load() }

// check returns ErrNoSpace when a mutation may not be written.
func (f *freeSpace) check(now time.Time, reserve bool) error {
	if f.at.IsZero() || now.Sub(f.at) >= freeSpaceAge || now.Before(f.at) {
		free, err := f.ask(f.dir)
		if err != nil {
			return fmt.Errorf("%w: the free space of %s is not known: %w", ErrNoSpace, f.dir, err)
		}
		f.at = now
		f.free.Store(free)
	}
	floor := f.min
	if reserve {
		floor /= 8
	}
	if free := f.free.Load(); free < floor {
		return fmt.Errorf("%w: %s has %d MiB left and %d MiB are kept free; make room", ErrNoSpace, f.dir, free>>20, floor>>20)
	}
	return nil
}

func statfsFree(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}

// diskUse adds up what the files of a folder take up on disk, holes left out.
func diskUse(dir string) (total uint64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, entry := range entries {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, entry.Name()), &st) == nil {
			total += uint64(st.Blocks) * 512 // the unit of st_blocks, whatever the block size
		}
	}
	return total
}
