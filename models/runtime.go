package models

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	ort "github.com/yalue/onnxruntime_go"
)

// RuntimeVersion is the ONNX Runtime release that this version of Menshen is
// tested with and that fetch-runtime.sh installs. Any release from 1.24 on
// offers the API that the binding asks for.
const RuntimeVersion = "1.30.0"

// LibraryEnv is the environment variable that may name the ONNX Runtime shared
// library.
const LibraryEnv = "MENSHEN_ONNXRUNTIME"

// RuntimeOptions says which ONNX Runtime library to load.
type RuntimeOptions struct {
	// Library is the path of the shared library. Empty: $MENSHEN_ONNXRUNTIME,
	// then beside the executable (., ../lib), then the user's cache folder
	// where fetch-runtime.sh puts it, then the system's library path.
	Library string
	// Logger hears which library was loaded. nil: nobody.
	Logger *slog.Logger
}

// Runtime is the loaded ONNX Runtime. Safe for concurrent use. Several may be
// open in one process; they share one library.
type Runtime struct {
	library string
	mu      sync.Mutex
	closed  bool
}

// process holds the state of the ONNX Runtime library, which is global to the
// process whatever we do: one library, one environment. It is loaded by the
// first OpenRuntime and stays loaded until the process ends, because unloading
// it would pull code from under its own threads, and because creating and
// destroying environments again and again leaks memory. mu guards the fields
// and the calls that load the library; library is empty until that is done.
var process struct {
	mu      sync.Mutex
	library string
}

// OpenRuntime finds and loads the ONNX Runtime library, or joins the one that
// this process has loaded already. Asking for another library by path than the
// loaded one is an error. ErrRuntimeMissing lists where it looked.
func OpenRuntime(opt RuntimeOptions) (*Runtime, error) {
	log := opt.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	process.mu.Lock()
	defer process.mu.Unlock()

	if process.library != "" {
		if opt.Library != "" && !sameFile(opt.Library, process.library) {
			return nil, fmt.Errorf("%w: this process has loaded %s already and cannot load %s as well; use one library", ErrRuntimeMissing, process.library, opt.Library)
		}
		return &Runtime{library: process.library}, nil
	}

	var tried []string
	for _, path := range libraryCandidates(opt.Library) {
		if err := loadLibrary(path); err != nil {
			tried = append(tried, fmt.Sprintf("%s (%v)", path, err))
			continue
		}
		process.library = path
		log.Info("ONNX Runtime loaded", "library", path, "version", ort.GetVersion())
		return &Runtime{library: path}, nil
	}
	return nil, fmt.Errorf("%w; run \"make runtime\" to fetch it, or name it with $%s. Looked at: %s",
		ErrRuntimeMissing, LibraryEnv, strings.Join(tried, "; "))
}

// loadLibrary makes path the process's ONNX Runtime. The caller holds
// process.mu.
func loadLibrary(path string) error {
	if strings.ContainsRune(path, filepath.Separator) {
		fi, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return errors.New("no such file")
		case err != nil:
			return err
		case !fi.Mode().IsRegular():
			return errors.New("not a file")
		}
	}
	if err := silenceTelemetry(); err != nil {
		return err
	}
	ort.SetSharedLibraryPath(path)
	// The library's own log goes to stderr; what matters comes back as an
	// error too, so only the fatal is let through.
	if err := ort.InitializeEnvironment(ort.WithLogLevelFatal()); err != nil {
		return fmt.Errorf("cannot be loaded: %v", err)
	}
	return nil
}

// telemetryEnv is what ONNX Runtime asks, when it is loaded, whether it may
// collect events.
const telemetryEnv = "ORT_DISABLE_TELEMETRY"

// silenceTelemetry turns the telemetry of ONNX Runtime off, which the 1.30.0
// build that Microsoft publishes has on: it makes a device id, keeps a database
// of events in the user's cache folder and a session file in the temporary one,
// and holds the address of a collector. A gate's inferences are nobody's
// telemetry, so there is no setting to keep it. The variable has to be set
// before the library is loaded; none of these files is made then.
func silenceTelemetry() error {
	if err := os.Setenv(telemetryEnv, "1"); err != nil {
		return fmt.Errorf("cannot be kept from collecting telemetry: %w", err)
	}
	return nil
}

// libraryCandidates lists the places to look, in order. An explicit path is
// the only candidate: who names a library does not want another.
func libraryCandidates(explicit string) []string {
	if explicit != "" {
		return []string{absolute(explicit)}
	}
	if env := os.Getenv(LibraryEnv); env != "" {
		return []string{absolute(env)}
	}
	names := libraryNames()
	var out []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		dir := filepath.Dir(exe)
		for _, n := range names {
			out = append(out, filepath.Join(dir, n), filepath.Join(dir, "..", "lib", n))
		}
	}
	if cache, err := os.UserCacheDir(); err == nil {
		for _, n := range names {
			out = append(out, filepath.Join(cache, "menshen", "onnxruntime", RuntimeVersion, n))
		}
	}
	return append(out, names...)
}

// libraryNames are the file names of the library on this system.
func libraryNames() []string {
	if runtime.GOOS == "darwin" {
		return []string{"libonnxruntime." + RuntimeVersion + ".dylib", "libonnxruntime.1.dylib", "libonnxruntime.dylib"}
	}
	return []string{"libonnxruntime.so.1", "libonnxruntime.so"}
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func sameFile(a, b string) bool {
	fa, errA := os.Stat(a)
	fb, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(fa, fb)
}

// Version returns the version of the loaded library, for example "1.30.0".
func (rt *Runtime) Version() string { return ort.GetVersion() }

// Library returns the path or name under which the library was loaded.
func (rt *Runtime) Library() string { return rt.library }

// Close ends this use of the library. The library itself stays loaded (see
// process). Sessions of this Runtime stay usable until they are closed.
func (rt *Runtime) Close() {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.closed = true
}

func (rt *Runtime) isClosed() bool {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return rt.closed
}
