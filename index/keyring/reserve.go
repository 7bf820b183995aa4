package keyring

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/menshen-io/menshen/index/reserve"
)

// The sizes of the reserves. Destroying a key writes the keyring and the root file
// beside those that are there; a root file has a few hundred bytes, or what a key
// management service makes of them.
const (
	ringReserve   = 1 << 20 // at least, and reserveFactor times the keyring
	reserveFactor = 4
	rootReserve   = 256 << 10
	// spareBytes are left free behind a destruction, for what others write of it: the
	// audit log's act, which has under a kilobyte, in a new file and folder perhaps.
	spareBytes = 64 << 10
)

// keptRoom is the reserve of one file system.
type keptRoom struct {
	file *reserve.File
	dir  string
	root bool
}

// openReserves finds the reserves: one beside the keyring, and one beside the root
// file where that stands on a file system of its own.
func (k *Keyring) openReserves() error {
	find := func(path string, root bool) {
		told := func(step string) { k.failpoint("keyring/reserve/" + step) }
		k.reserves = append(k.reserves, keptRoom{reserve.Open(path+".reserve", told), filepath.Dir(path), root})
	}
	find(k.path, false)
	if k.root.path == "" {
		return nil
	}
	var ring, root unix.Stat_t
	if err := errors.Join(unix.Stat(filepath.Dir(k.path), &ring), unix.Stat(filepath.Dir(k.root.path), &root)); err != nil {
		return err
	}
	if ring.Dev != root.Dev {
		find(k.root.path, true)
	}
	return nil
}

// reserveSize is how much a reserve is to hold at the keyring's present size.
func (k *Keyring) reserveSize(r keptRoom) int64 {
	if r.root {
		return rootReserve
	}
	var size int64
	if info, err := os.Stat(k.path); err == nil {
		size = info.Size()
	}
	return max(ringReserve, reserveFactor*size)
}

// KeepReserve takes room on the disk in advance, with which Destroy succeeds on a
// full one, and takes again what a destruction gave up, as far as there is room.
// Call it from time to time. The errors are those of the file system; the keyring
// works without a reserve too, but on a full disk no key can be destroyed then.
func (k *Keyring) KeepReserve() error {
	k.keeping.Store(true)
	var errs []error
	for _, r := range k.reserves {
		errs = append(errs, r.file.Fill(k.reserveSize(r), spareBytes))
	}
	return errors.Join(errs...)
}

// WithReserve calls f, and where the disk is full gives the reserve up and calls it
// again. It is for what must be written beside the keyring before a key is destroyed.
func (k *Keyring) WithReserve(f func() error) error {
	err := f()
	if !reserve.Full(err) {
		return err
	}
	gave := false
	for _, r := range k.reserves {
		given, gerr := r.file.GiveUp()
		gave, err = gave || given, errors.Join(err, gerr)
	}
	if !gave {
		return err
	}
	return f()
}

// settleReserve ends a destruction: of the room that it did not use some is left for
// the record of it, the rest is taken again at once, before somebody else does.
// What cannot be taken KeepReserve takes later.
func (k *Keyring) settleReserve() {
	if !k.keeping.Load() {
		return
	}
	for _, r := range k.reserves {
		size := k.reserveSize(r)
		if free, err := reserve.Free(r.dir); err == nil && free < spareBytes && r.file.Held() > size/2 {
			_, _ = r.file.GiveUp()
		}
		_ = r.file.Fill(size, spareBytes)
	}
}
