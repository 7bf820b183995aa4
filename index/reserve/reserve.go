// Package reserve keeps room on a disk for what must be written when the disk is
// full: a file of allocated blocks, which is given up at that moment and made again
// once there is room.
//
// It promises that a file's blocks are taken when Fill returns, and free again,
// durably, when GiveUp does. It does not promise that nobody else takes them then:
// what is to be written has to follow at once.
package reserve

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// block is what sizes are rounded down to; a page of a tmpfs and the block of most
// file systems.
const block = 4 << 10

// File is the reserve of one file system. Safe for concurrent use.
type File struct {
	path string
	mu   sync.Mutex
	held int64
	step func(step string)
}

// Open finds what an earlier process left of the reserve at path. step, if not nil, is
// told when the reserve was given up ("given-up") and made ("made").
func Open(path string, step func(string)) *File {
	if step == nil {
		step = func(string) {}
	}
	f := &File{path: path, step: step}
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil {
		f.held = min(st.Size, st.Blocks*512) // what a crash left without blocks is no reserve
	}
	return f
}

// Held is how many bytes are kept.
func (f *File) Held() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held
}

// Full tells whether an error says that a file system, or what this user may take of
// it, is full.
func Full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// Free is the free space of a folder's file system, in bytes.
func Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// GiveUp frees the room, and reports whether there was any.
func (f *File) GiveUp() (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held == 0 {
		return false, nil
	}
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("give the reserve on the disk up: %w", err)
	}
	f.held = 0
	err := syncDir(filepath.Dir(f.path)) // without it a file system may keep the blocks
	f.step("given-up")
	return true, err
}

// Fill takes room until size bytes are held, or as many of them as leave spare
// bytes of the file system free. It never gives any up.
func (f *File) Fill(size, spare int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held >= size {
		return nil
	}
	free, err := Free(filepath.Dir(f.path))
	if err != nil {
		return fmt.Errorf("make the reserve on the disk: %w", err)
	}
	if size = min(size, f.held+free-spare) &^ (block - 1); size <= f.held {
		return nil
	}
	if err := f.take(size); err != nil {
		return fmt.Errorf("make the reserve on the disk: %w", err)
	}
	f.step("made")
	return nil
}

func (f *File) take(size int64) error {
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(file.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = writeZeros(file, size)
	}
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		err = errors.Join(err, file.Truncate(f.held))
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = syncDir(filepath.Dir(f.path))
	}
	if err == nil {
		f.held = size
	}
	return err
}

func writeZeros(file *os.File, size int64) error {
	zeros := make([]byte, 64<<10)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := file.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
