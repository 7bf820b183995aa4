package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestPrepareFolder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	folder := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tc := range []struct {
		path   string
		create bool
		want   error
	}{
		{file, true, errNotFolder},
		{filepath.Join(file, "below"), true, errNotFolder},
		{filepath.Join(dir, "missing"), false, errNotSetUp},
		{filepath.Join(dir, "made"), true, nil},
		{folder("private", 0o700), false, nil},
		{folder("readable", 0o755), false, nil},
		{folder("group", 0o770), false, errOpenFolder},
		{folder("world", 0o777), true, errOpenFolder},
	} {
		if err := prepareFolder(tc.path, tc.create); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", filepath.Base(tc.path), err, tc.want)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "made")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder that was made: %v, %v", info.Mode(), err)
	}
}
