package reserve

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// blocks is what a file takes up on the disk.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestFillAndGiveUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reserve")
	var steps []string
	f := Open(path, func(step string) { steps = append(steps, step) })
	if given, err := f.GiveUp(); given || err != nil {
		t.Fatalf("nothing was given up: %v, %v", given, err)
	}
	for _, size := range []int64{1 << 20, 1 << 19, 2<<20 + 5} {
		if err := f.Fill(size, 0); err != nil {
			t.Fatal(err)
		}
	}
	if f.Held() != 2<<20 || blocks(t, path) < 2<<20 {
		t.Fatalf("holds %d bytes in %d, want 2 MiB", f.Held(), blocks(t, path))
	}
	f = Open(path, func(step string) { steps = append(steps, step) }) // as the next start does
	if f.Held() != 2<<20 {
		t.Fatalf("opened again it holds %d", f.Held())
	}
	if given, err := f.GiveUp(); !given || err != nil || f.Held() != 0 {
		t.Fatalf("given up: %v, %v; holds %d", given, err, f.Held())
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the file: %v", err)
	}
	if !slices.Equal(steps, []string{"made", "made", "given-up"}) {
		t.Fatalf("steps %v", steps)
	}
}

func TestFillLeavesRoom(t *testing.T) {
	dir := t.TempDir()
	free, err := Free(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := Open(filepath.Join(dir, "reserve"), nil)
	if err := f.Fill(1<<20, free+1<<30); err != nil || f.Held() != 0 {
		t.Fatalf("took %d bytes of what was to be left (%v)", f.Held(), err)
	}
}

// A file without blocks, as a crash may leave it, is no reserve and is filled.
func TestHoleIsNoReserve(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reserve")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	f := Open(path, nil)
	if f.Held() != 0 {
		t.Fatalf("holds %d", f.Held())
	}
	if err := f.Fill(1<<20, 0); err != nil || blocks(t, path) < 1<<20 {
		t.Fatalf("%v; %d bytes on the disk", err, blocks(t, path))
	}
}

func TestFull(t *testing.T) {
	for err, want := range map[error]bool{syscall.ENOSPC: true, syscall.EDQUOT: true, &fs.PathError{Err: syscall.ENOSPC}: true, syscall.EIO: false, nil: false} {
		if Full(err) != want {
			t.Errorf("%v: %v", err, Full(err))
		}
	}
}
