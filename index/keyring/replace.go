package keyring

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// oldName and newName stand beside a file while it is replaced.
func oldName(path string) string { return path + ".old" }
func newName(path string) string { return path + ".new" }

// steps is told each step of a replacement, "replace/...", and may let writing fail.
// The zero steps does neither.
type steps struct {
	told  func(step string)
	fault func() error
}

func (s steps) at(step string) {
	if s.told != nil {
		s.told("replace/" + step)
	}
}

// failure is the error that a test wants of writing a file.
func (s steps) failure() error {
	if s.fault == nil {
		return nil
	}
	return s.fault()
}

// readFile reads a keyring file; fs.ErrNotExist when there is none.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(b) > maxFileBytes {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrDamaged, maxFileBytes)
	}
	return b, err
}

// replaceFile puts new content in the place of the file, durably: after a crash
// at any point there is the whole old file or the whole new one. The old file is
// kept under a second name until the new one is durable, then overwritten and
// unlinked; finishReplace does that after a crash.
func replaceFile(path string, content []byte, step steps) error {
	if err := finishReplace(path, step); err != nil {
		return err
	}
	if err := createDurably(newName(path), content, step); err != nil {
		return err
	}
	return promoteFile(path, step)
}

// promoteFile puts the new file, which is durable, into the place of the old one.
// Called again after an error it goes on.
func promoteFile(path string, step steps) error {
	hasOld := true
	if err := os.Link(path, oldName(path)); errors.Is(err, fs.ErrNotExist) {
		hasOld = false
	} else if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep the replaced file until it is overwritten: %w", err)
	}
	step.at("linked")
	// A new file that is missing was put there by an earlier call.
	if err := os.Rename(newName(path), path); err != nil && !(hasOld && errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	step.at("renamed")
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	step.at("durable")
	if hasOld {
		return finishReplace(path, step)
	}
	return nil
}

// finishReplace overwrites and unlinks what an interrupted replacement left.
func finishReplace(path string, step steps) error {
	removed := false
	for _, name := range []string{newName(path), oldName(path)} {
		was, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		now, err := os.Stat(path)
		if err != nil && !(errors.Is(err, fs.ErrNotExist) && name == newName(path)) {
			return err // never remove the only copy that is left
		}
		// A crash between link and rename leaves two names of the live file:
		// then only the second name goes.
		if err != nil || !os.SameFile(was, now) {
			if err := overwrite(name, was.Size()); err != nil {
				return fmt.Errorf("overwrite the replaced file: %w", err)
			}
			step.at("overwritten")
		}
		if err := os.Remove(name); err != nil {
			return err
		}
		step.at("removed")
		removed = true
	}
	if !removed {
		return nil
	}
	return syncDir(filepath.Dir(path))
}

// overwrite puts durable zeros over the bytes of a file.
func overwrite(name string, size int64) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	zeros := make([]byte, 64<<10)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// createDurably writes a new file of mode 0600 and syncs it and its folder.
func createDurably(path string, content []byte, step steps) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = step.failure(); err == nil {
		_, err = f.Write(content)
	}
	step.at("written")
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(path)
	}
	step.at("created")
	return err
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
