package store

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/menshen-io/menshen/index/reserve"
)

// freeSpace knows the free space, asked for at most every freeSpaceAge. Used by
// the committer alone but for last and reserve.
//
// On a disk that is wholly full the room of the reserve is given up to what must
// be written, which is little: erasures and revocations. What rewrites
// tables, removing the bytes, has to leave as much free as the reserve would take.
type freeSpace struct {
	reserve *reserve.File // nil: none
	size    int64         // of the reserve, once it is whole
	dir     string
	ask     func(string) (uint64, error)
	min     uint64
	at      time.Time
	free    atomic.Uint64
}

// freeSpaceAge bounds how old the knowledge is. In 250 ms the committer writes
// some 20 MiB at most, far less than the reserve.
const freeSpaceAge = 250 * time.Millisecond

func (f *freeSpace) last() uint64 { return f.free.Load() }

// look asks for the free space, unless that was done just now.
func (f *freeSpace) look(now time.Time) error {
	if !f.at.IsZero() && now.Sub(f.at) < freeSpaceAge && !now.Before(f.at) {
		return nil
	}
	free, err := f.ask(f.dir)
	if err != nil {
		return fmt.Errorf("%w: the free space of %s is not known: %w", ErrNoSpace, f.dir, err)
	}
	f.at = now
	f.free.Store(free)
	return nil
}

// check returns ErrNoSpace when a mutation may not be written.
func (f *freeSpace) check(now time.Time, reserved bool) error {
	if err := f.look(now); err != nil {
		return err
	}
	if !reserved {
		return f.atLeast(f.min)
	}
	if f.free.Load() >= f.floor() || f.reserve == nil {
		return f.atLeast(f.floor())
	}
	if given, err := f.reserve.GiveUp(); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	} else if given {
		f.at = time.Time{}
		if err := f.look(now); err != nil {
			return err
		}
	}
	return f.atLeast(f.floor())
}

// checkRewrite returns ErrNoSpace when tables may not be rewritten.
func (f *freeSpace) checkRewrite(now time.Time) error {
	if err := f.look(now); err != nil {
		return err
	}
	least := f.floor()
	if f.reserve != nil {
		least += uint64(max(0, f.size-f.reserve.Held()))
	}
	return f.atLeast(least)
}

// floor is what is left free in any case.
func (f *freeSpace) floor() uint64 { return f.min / 8 }

func (f *freeSpace) atLeast(least uint64) error {
	if free := f.free.Load(); free < least {
		return fmt.Errorf("%w: %s has %d MiB left and %d MiB are kept free; make room", ErrNoSpace, f.dir, free>>20, least>>20)
	}
	return nil
}

// KeepReserve takes the room again that erasures and revocations used on a full
// disk, as far as there is some. Call it from time to time; errors are those
// of the file system.
func (s *Store) KeepReserve() error {
	if s.free.reserve == nil {
		return nil
	}
	return s.free.reserve.Fill(s.free.size, int64(s.free.floor()))
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
