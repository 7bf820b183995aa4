package models

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const quietChild = "MENSHEN_TEST_LOAD_RUNTIME"

// TestRuntimeLeavesNoTelemetry loads the library in a process of its own, whose
// home, cache and temporary folders are empty, and looks for what the library's
// telemetry would leave there.
func TestRuntimeLeavesNoTelemetry(t *testing.T) {
	if library := os.Getenv(quietChild); library != "" {
		rt, err := OpenRuntime(RuntimeOptions{Library: library})
		if err != nil {
			t.Fatal(err)
		}
		rt.Close()
		return
	}
	library := filepath.Join(t.TempDir(), "libonnxruntime.so.1")
	linkLibrary(t, library)
	home := t.TempDir()
	var env []string
	for _, v := range os.Environ() { // nothing of this process may help
		if !strings.HasPrefix(v, telemetryEnv+"=") && !strings.HasPrefix(v, "XDG_") {
			env = append(env, v)
		}
	}
	child := exec.Command(os.Args[0], "-test.run", "^TestRuntimeLeavesNoTelemetry$")
	child.Env = append(env, quietChild+"="+library, "HOME="+home, "TMPDIR="+home)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("loading the library left %s behind", strings.TrimPrefix(path, home))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// linkLibrary puts the library that this machine has at path.
func linkLibrary(t *testing.T, path string) {
	t.Helper()
	for _, candidate := range libraryCandidates("") {
		if found, err := filepath.EvalSymlinks(candidate); err == nil {
			if err := os.Symlink(found, path); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Skip("no ONNX Runtime library on this machine: run \"make runtime\"")
}
