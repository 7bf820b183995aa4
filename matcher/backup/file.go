package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// File is the file that a backup is written to. It is named PATH.partial until
// the backup is whole and durable, so that a file of the name PATH is never half
// of one, whenever the machine or the program stops. Not for concurrent use.
type File struct {
	f    *os.File
	path string
	step func(string)
}

// Create begins the file; what an interrupted backup left of the same name is
// written over. step, unless nil, is called at each step with its name; tests end
// the process there. Keep or Discard is to follow. Errors: that a file of the name
// exists, those of the file system.
func Create(path string, step func(string)) (*File, error) {
	if step == nil {
		step = func(string) {}
	}
	if err := absent(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path+".partial", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	step("backup/file/created")
	return &File{f: f, path: path, step: step}, nil
}

// Write appends.
func (b *File) Write(p []byte) (int, error) {
	n, err := b.f.Write(p)
	b.step("backup/file/written")
	return n, err
}

// Keep gives the file its name. It is to be called once the backup is whole. After
// an error nothing of it is left, unless the error is that of making the name
// durable.
func (b *File) Keep() error {
	err := b.f.Sync()
	b.step("backup/file/durable")
	if err == nil {
		err = absent(b.path)
	}
	if err == nil {
		err = os.Rename(b.f.Name(), b.path)
	}
	if err != nil {
		return errors.Join(err, b.Discard())
	}
	b.step("backup/file/named")
	folder, err := os.Open(filepath.Dir(b.path))
	if err != nil {
		return errors.Join(err, b.f.Close())
	}
	return errors.Join(b.f.Close(), folder.Sync(), folder.Close())
}

// Discard removes what was written.
func (b *File) Discard() error { return errors.Join(b.f.Close(), os.Remove(b.f.Name())) }

func absent(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists and is not overwritten; name another file", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
