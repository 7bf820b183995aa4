package models

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// pinnedFiles holds the manifests of known public models.
//
//go:embed manifests/*.yaml
var pinnedFiles embed.FS

// Builtin is a model that is part of the program.
type Builtin struct {
	Manifest Manifest
	// Bytes returns the model file; it is called when the model is used.
	Bytes func() ([]byte, error)
}

// Options of a Registry.
type Options struct {
	// Dir is the folder of imported and fetched models. Empty: DefaultDir.
	// It is made when something is first put there.
	Dir string
	// Builtins are models that the program carries.
	Builtins []Builtin
	// HTTPClient fetches models. nil: a client that honours the proxy
	// environment variables.
	HTTPClient *http.Client
	// Runtime is needed only to recognise a bare .onnx file without a
	// manifest, and to import one.
	Runtime *Runtime
	// Logger hears of imports and downloads. nil: nobody.
	Logger *slog.Logger
}

// DefaultDir is the folder of imported and fetched models when none is named:
// menshen/models in the user's cache folder (see os.UserCacheDir).
func DefaultDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("models: no cache folder for models: %w; name a folder for them", err)
	}
	return filepath.Join(cache, "menshen", "models"), nil
}

// State tells whether a model can be used on this machine.
type State string

// The states of a registry entry.
const (
	StateBuiltin State = "builtin" // part of the program
	StatePresent State = "present" // the file is here and its hash is right
	StateAbsent  State = "absent"  // the file is not here
	StateDamaged State = "damaged" // the file is here and its hash is wrong, or it cannot be read
)

// Entry is one model that the registry knows.
type Entry struct {
	Manifest Manifest
	State    State
	// Path is where the file is or would be. Empty for a builtin model.
	Path string
	// Problem says what is wrong with a damaged entry.
	Problem string
}

// Registry knows models by name: those built in, those with a manifest pinned
// in the program, and those imported into its folder. It keeps no state of the
// folder in memory, so several processes may use one folder. Safe for
// concurrent use.
type Registry struct {
	dir      string // empty: there is none, see dirErr
	dirErr   error
	builtins []Builtin
	pinned   []Manifest
	client   *http.Client
	rt       *Runtime
	log      *slog.Logger
}

// OpenRegistry checks the built-in and pinned manifests. It touches no disk.
func OpenRegistry(opt Options) (*Registry, error) {
	r := &Registry{dir: opt.Dir, builtins: opt.Builtins, client: opt.HTTPClient, rt: opt.Runtime, log: opt.Logger}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.dir == "" {
		// Without a folder, what is built in or named by path still works.
		r.dir, r.dirErr = DefaultDir()
	}
	if r.client == nil {
		r.client = defaultClient()
	}
	pinned, err := PinnedManifests()
	if err != nil {
		return nil, err
	}
	r.pinned = pinned
	seen := map[string]bool{}
	for _, m := range pinned {
		seen[m.Name] = true
	}
	for _, b := range opt.Builtins {
		if err := b.Manifest.Validate(); err != nil {
			return nil, err
		}
		if seen[b.Manifest.Name] || b.Bytes == nil {
			return nil, fmt.Errorf("%w: built-in model %q is given twice or has no bytes", ErrModelExists, b.Manifest.Name)
		}
		seen[b.Manifest.Name] = true
	}
	return r, nil
}

// PinnedManifests returns the manifests of known public models, by name.
func PinnedManifests() ([]Manifest, error) {
	files, err := fs.Glob(pinnedFiles, "manifests/*.yaml")
	if err != nil {
		return nil, err
	}
	var out []Manifest
	for _, f := range files {
		data, err := pinnedFiles.ReadFile(f)
		if err != nil {
			return nil, err
		}
		m, err := ParseManifest(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b Manifest) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Dir returns the folder of imported and fetched models; empty where none was
// named and the user has no cache folder.
func (r *Registry) Dir() string { return r.dir }

// List returns all known models: built in, then pinned, then imported, each by
// name. It reads and hashes every file that is present.
func (r *Registry) List() ([]Entry, error) {
	var out []Entry
	for _, b := range r.builtins {
		out = append(out, Entry{Manifest: b.Manifest, State: StateBuiltin})
	}
	for _, m := range r.pinned {
		out = append(out, r.inspect(m))
	}
	names, err := r.importedNames()
	if err != nil {
		return out, err
	}
	for _, n := range names {
		m, err := r.importedManifest(n)
		if err != nil {
			out = append(out, Entry{Manifest: Manifest{Name: n}, State: StateDamaged, Path: r.modelPath(n), Problem: err.Error()})
			continue
		}
		out = append(out, r.inspect(*m))
	}
	return out, nil
}

// Lookup returns one known model. ErrUnknownModel lists what there is.
func (r *Registry) Lookup(name string) (Entry, error) {
	if b, ok := r.builtin(name); ok {
		return Entry{Manifest: b.Manifest, State: StateBuiltin}, nil
	}
	m, err := r.manifest(name)
	if err != nil {
		return Entry{}, err
	}
	return r.inspect(*m), nil
}

// Verify reads a model's bytes and checks them against its manifest. It
// returns nil only for a model that can be used: ErrAbsent, ErrHashMismatch or
// ErrUnknownModel otherwise.
func (r *Registry) Verify(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := r.resolveName(name)
	return err
}

func (r *Registry) builtin(name string) (Builtin, bool) {
	for _, b := range r.builtins {
		if b.Manifest.Name == name {
			return b, true
		}
	}
	return Builtin{}, false
}

// manifest finds a pinned or imported manifest.
func (r *Registry) manifest(name string) (*Manifest, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	for _, m := range r.pinned {
		if m.Name == name {
			return &m, nil
		}
	}
	m, err := r.importedManifest(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %q; known are %s; or name a manifest (.yaml) or a .onnx file", ErrUnknownModel, name, strings.Join(r.names(), ", "))
	}
	return m, err
}

func (r *Registry) names() []string {
	var out []string
	for _, b := range r.builtins {
		out = append(out, b.Manifest.Name)
	}
	for _, m := range r.pinned {
		out = append(out, m.Name)
	}
	imported, err := r.importedNames()
	if err != nil {
		r.log.Warn("models folder cannot be listed", "dir", r.dir, "err", err)
	}
	return append(out, imported...)
}

// importedNames lists the manifests in the registry's folder whose names are
// not pinned or built in.
func (r *Registry) importedNames() ([]string, error) {
	if r.dir == "" {
		return nil, nil
	}
	files, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("models: cannot list the models folder: %w", err)
	}
	var out []string
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".yaml")
		if ok && validName(name) && !r.reserved(name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// reserved reports whether a name belongs to a built-in or pinned model.
func (r *Registry) reserved(name string) bool {
	_, ok := r.builtin(name)
	return ok || slices.ContainsFunc(r.pinned, func(m Manifest) bool { return m.Name == name })
}

func (r *Registry) importedManifest(name string) (*Manifest, error) {
	if r.dir == "" {
		return nil, fs.ErrNotExist
	}
	path := r.manifestPath(name)
	m, err := readManifest(path)
	if err != nil {
		return nil, err
	}
	if m.Name != name || m.SHA256 == "" {
		return nil, fmt.Errorf("%w: %s was changed after the import (name %q, sha256 %q); import the model again", ErrManifest, path, m.Name, m.SHA256)
	}
	return m, nil
}

// modelPath is where the registry keeps the file of a pinned or imported model.
func (r *Registry) modelPath(name string) string { return filepath.Join(r.dir, name+".onnx") }

func (r *Registry) inspect(m Manifest) Entry {
	if r.dir == "" {
		return Entry{Manifest: m, State: StateAbsent}
	}
	e := Entry{Manifest: m, State: StatePresent, Path: r.modelPath(m.Name)}
	f, err := os.Open(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		e.State = StateAbsent
		return e
	}
	if err == nil {
		defer f.Close()
		var sum string
		if sum, err = hashFile(f); err == nil {
			err = compareHash(&m, sum, e.Path)
		}
	}
	if err != nil {
		e.State, e.Problem = StateDamaged, err.Error()
	}
	return e
}
