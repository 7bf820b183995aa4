package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/models"
)

// TestMain lets the test binary be menshen: for the scripts, which find it in
// their PATH, and for tests that start it as a child.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := os.Unsetenv(childEnv); err != nil {
			panic(err)
		}
		main()
		return
	}
	testscript.Main(m, map[string]func(){"menshen": main})
}

// childEnv, when set, makes the test binary run main.
const childEnv = "MENSHEN_TEST_CHILD"

// runtimeLibrary finds the ONNX Runtime library for child processes, whose
// cache folder is another one.
func runtimeLibrary(t testing.TB) string {
	t.Helper()
	rt, err := models.OpenRuntime(models.RuntimeOptions{})
	if errors.Is(err, models.ErrRuntimeMissing) {
		t.Skipf("run \"make runtime\" first: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	return rt.Library()
}

// runScripts runs testdata/script/<dir>/*.txtar.
func runScripts(t *testing.T, dir string, env func(*testscript.Env)) {
	t.Helper()
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script", dir),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                scriptCommands(),
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("no such condition: %q", name)
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, "cache"))
			e.Setenv("TMPDIR", filepath.Join(e.WorkDir, "tmp"))
			if err := os.MkdirAll(filepath.Join(e.WorkDir, "tmp"), 0o700); err != nil {
				return err
			}
			if env != nil {
				env(e)
			}
			return nil
		},
	})
}

// TestPlainScripts need neither models nor a server.
func TestPlainScripts(t *testing.T) { runScripts(t, "plain", nil) }

// TestServerScripts start servers with the reference model.
func TestServerScripts(t *testing.T) {
	library := runtimeLibrary(t)
	runScripts(t, "server", func(e *testscript.Env) { e.Setenv(models.LibraryEnv, library) })
}

// TestFixtureScripts use the real models and photographs.
func TestFixtureScripts(t *testing.T) {
	library, dir := runtimeLibrary(t), fixtures.Dir(t)
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	runScripts(t, "fixtures", func(e *testscript.Env) {
		e.Setenv(models.LibraryEnv, library)
		e.Setenv("FIXTURES", dir)
	})
}
