package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// witness is the file outside Badger that holds the tip of the last
// acknowledged transaction. It has two slots of slotStride bytes which are
// written in turn, so that a torn write leaves the slot before it whole. A slot
// is witnessMagic, the tip, and the first 16 bytes of the SHA-256 of both.
//
// It is opened with O_DSYNC: a write returns once the bytes are durable. Its
// size never changes, so that no metadata has to be written with them.
type witness struct {
	f    *os.File
	last tip
}

const (
	witnessMagic = "menshenW"
	slotLen      = len(witnessMagic) + tipLen + 16
	slotStride   = 4096 // a page and, on common disks, a sector of its own
)

// openWitness opens the file; found is false where there is none yet.
func openWitness(path string) (w *witness, found bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_DSYNC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, err
	}
	w = &witness{f: f}
	whole := 0
	for slot := range int64(2) {
		b := make([]byte, slotLen)
		if _, err := f.ReadAt(b, slot*slotStride); err != nil {
			continue
		}
		if t, ok := parseSlot(b); ok && (whole == 0 || t.seq > w.last.seq) {
			w.last = t
			whole++
		} else if ok {
			whole++
		}
	}
	if whole == 0 {
		f.Close()
		return nil, true, fmt.Errorf("%w: %s holds no whole slot; restore the data directory from its copy", ErrDamaged, path)
	}
	return w, true, nil
}

// createWitness makes the file with the tip of an empty store, durably.
func createWitness(path string) (*witness, error) {
	b := make([]byte, 2*slotStride)
	copy(b, slotOf(tip{}))
	next := path + ".new"
	err := os.WriteFile(next, b, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syncPath(next); err != nil {
		return nil, err
	}
	if err := os.Rename(next, path); err != nil {
		return nil, err
	}
	if err := syncPath(filepath.Dir(path)); err != nil {
		return nil, err
	}
	w, _, err := openWitness(path)
	return w, err
}

// write makes t the last acknowledged tip, durably.
func (w *witness) write(t tip) error {
	if _, err := w.f.WriteAt(slotOf(t), int64(t.seq%2)*slotStride); err != nil {
		return err
	}
	w.last = t
	return nil
}

func (w *witness) close() error { return w.f.Close() }

func slotOf(t tip) []byte {
	out := append([]byte(witnessMagic), t.encode()...)
	sum := sha256.Sum256(out)
	return append(out, sum[:16]...)
}

func parseSlot(b []byte) (tip, bool) {
	body := b[:slotLen-16]
	sum := sha256.Sum256(body)
	if !bytes.HasPrefix(b, []byte(witnessMagic)) || !bytes.Equal(sum[:16], b[len(body):]) {
		return tip{}, false
	}
	t, err := parseTip(body[len(witnessMagic):])
	return t, err == nil
}

// syncPath makes a file's content, or a folder's names, durable.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
