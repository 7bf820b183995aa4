package keyring

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// fullDisk fails every write while the reserve stands, as a disk does on which
// nothing else is left.
type fullDisk struct {
	reserve string
	full    bool
	wholly  bool // another program takes what is given up
}

func (d *fullDisk) fault() error {
	if _, err := os.Stat(d.reserve); d.full && (d.wholly || err == nil) {
		return syscall.ENOSPC
	}
	return nil
}

// On a full disk no scope gets a key, and one is destroyed: in the file, in the root
// key and in memory.
func TestDestroyOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	path, rootFile := filepath.Join(dir, "keyring"), filepath.Join(dir, "root")
	root, err := CreateRoot(rootFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	disk := &fullDisk{reserve: path + ".reserve"}
	var steps []string
	opt := Options{Create: true, Fault: disk.fault, Failpoint: func(step string) {
		if filepath.Dir(step) == "keyring/reserve" {
			steps = append(steps, filepath.Base(step))
		}
	}}
	k := reopen(t, path, root, opt)
	mustCreate(t, k, hallA, hallB)
	held := mustKeys(t, k, hallA)
	copyFile(t, path, path+".copy")
	disk.full, disk.wholly = true, true
	if err := k.Destroy(hallB); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("without a reserve: %v, want ENOSPC", err)
	}
	disk.wholly = false
	if err := k.KeepReserve(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(disk.reserve); err != nil || info.Size() != ringReserve {
		t.Fatalf("the reserve: %v, %v", info, err)
	}
	if err := k.Create(hallB); !errors.Is(err, ErrDestroyed) && !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("creating on a full disk: %v", err)
	}
	for _, ref := range k.List() {
		if err := k.Destroy(ref); err != nil {
			t.Fatalf("destroying on a full disk: %v", err)
		}
	}
	if err := k.Destroy(hallB); err != nil {
		t.Fatalf("destroying again on a full disk: %v", err)
	}
	if !slices.Equal(steps, []string{"made", "given-up", "made", "given-up", "made"}) {
		t.Errorf("the reserve went through %v", steps)
	}
	if held.sealer.keys != nil {
		t.Error("the key is still in memory")
	}
	if info, err := os.Stat(disk.reserve); err != nil || info.Size() < ringReserve-2*spareBytes {
		t.Errorf("the reserve was not made again: %v, %v", info, err)
	}
	k.Close()
	root, err = LoadRoot(rootFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	k = reopen(t, path, root, Options{})
	if _, err := k.Keys(hallA); !errors.Is(err, ErrDestroyed) || len(k.List()) != 0 {
		t.Errorf("opened again: %v, live %v", err, k.List())
	}
	k.Close()
	if root, err = LoadRoot(rootFile, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path+".copy", root, Options{}); !errors.Is(err, ErrOldCopy) {
		t.Errorf("a copy from before opens: %v", err)
	}
}

// Where another program takes what is given up, the destruction fails, says so, and
// succeeds when there is room.
func TestDestroyWithoutAnyRoom(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keyring")
	disk := &fullDisk{reserve: path + ".reserve"}
	k := reopen(t, path, NewRoot(), Options{Create: true, Fault: disk.fault})
	mustCreate(t, k, hallA)
	if err := k.KeepReserve(); err != nil {
		t.Fatal(err)
	}
	disk.full, disk.wholly = true, true
	if err := k.Destroy(hallA); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%v, want ENOSPC", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	disk.wholly = false
	if err := k.Destroy(hallA); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(newName(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a new file is left: %v", err)
	}
}
