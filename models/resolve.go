package models

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// maxModelBytes bounds a model file. The largest pinned one has 261 MB.
const maxModelBytes = 1 << 30

// Resolved is a model whose bytes have been read and checked.
type Resolved struct {
	// Manifest with SHA256 filled in.
	Manifest Manifest
	// Data is the model file: exactly the bytes that were hashed. It must not
	// be changed; NewSession copies what it needs.
	Data []byte
	// Path is where it was read from. Empty for a builtin model.
	Path string
	// Notes are lines for the operator: what was taken for granted.
	Notes []string

	signature *signature // if recognition has read it already
}

// Resolve finds a model and checks its bytes. ref is a registry name, the path
// of a manifest (.yaml or .yml), or the path of a .onnx file. A .onnx file is
// described by the manifest of the same name beside it (model.yaml for
// model.onnx), else by the pinned manifest with the same sha256, else by what
// its inputs and outputs tell.
func (r *Registry) Resolve(ctx context.Context, ref string) (*Resolved, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch ext := strings.ToLower(filepath.Ext(ref)); {
	case ref == "":
		return nil, fmt.Errorf("%w: no model is named; give a registry name, a manifest or a .onnx file", ErrUnknownModel)
	case ext == ".yaml" || ext == ".yml":
		return r.resolveManifestFile(ref)
	case ext == ".onnx":
		return r.resolveONNX(ref)
	case strings.ContainsAny(ref, `/\`):
		return nil, noModelFile(ref)
	}
	found, err := r.resolveName(ref)
	if errors.Is(err, ErrUnknownModel) || errors.Is(err, ErrModelName) {
		if _, missing := os.Stat(ref); missing == nil {
			return nil, noModelFile(ref)
		}
	}
	return found, err
}

// noModelFile says what a path leads to that is neither a .onnx file nor a
// manifest by its ending, and what would be right.
func noModelFile(path string) error {
	const wanted = "a registry name (\"menshen models list\"), a .onnx file or a manifest (.yaml, .yml) is wanted"
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no file %s; %s", ErrAbsent, path, wanted)
	case err != nil:
		return fmt.Errorf("models: %w", err)
	case info.IsDir():
		return fmt.Errorf("%w: %s is a folder; %s", ErrNotModel, path, wanted)
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, 512))
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	kind, _, _ := strings.Cut(http.DetectContentType(head), ";")
	if kind == "application/octet-stream" {
		return fmt.Errorf("%w: %s does not end in .onnx; rename it if it is an ONNX model; %s", ErrNotModel, path, wanted)
	}
	return fmt.Errorf("%w: %s is a file of the type %s; %s", ErrNotModel, path, kind, wanted)
}

func (r *Registry) resolveName(name string) (*Resolved, error) {
	if b, ok := r.builtin(name); ok {
		data, err := b.Bytes()
		if err != nil {
			return nil, fmt.Errorf("built-in model %s: %w", name, err)
		}
		m := b.Manifest
		if err := checkHash(&m, data, "the built-in model "+name); err != nil {
			return nil, err
		}
		return &Resolved{Manifest: m, Data: data}, nil
	}
	m, err := r.manifest(name)
	if err != nil {
		return nil, err
	}
	if r.dir == "" {
		return nil, fmt.Errorf("%w: %s: %v", ErrAbsent, name, r.dirErr)
	}
	path := r.modelPath(name)
	data, err := readChecked(path, m)
	if errors.Is(err, ErrAbsent) {
		return nil, fmt.Errorf("%w: %s is known but not fetched; run \"menshen models pull %s\", or import a local copy", ErrAbsent, name, name)
	}
	if err != nil {
		return nil, err
	}
	return &Resolved{Manifest: *m, Data: data, Path: path}, nil
}

func (r *Registry) resolveManifestFile(path string) (*Resolved, error) {
	m, err := readManifest(path)
	if err != nil {
		return nil, missingFile(err, path)
	}
	if m.File == "" {
		return nil, fmt.Errorf("%w: %s names no file; set file: to the .onnx file beside it", ErrManifest, path)
	}
	file := filepath.Join(filepath.Dir(path), m.File)
	data, err := readChecked(file, m)
	if err != nil {
		return nil, err
	}
	return &Resolved{Manifest: *m, Data: data, Path: file}, nil
}

func (r *Registry) resolveONNX(path string) (*Resolved, error) {
	if beside, ok := manifestBeside(path); ok {
		m, err := readManifest(beside)
		if err != nil {
			return nil, err
		}
		if m.File != "" && m.File != filepath.Base(path) {
			return nil, fmt.Errorf("%w: %s stands beside %s but describes %s; set file: or rename one", ErrManifest, beside, filepath.Base(path), m.File)
		}
		data, err := readChecked(path, m)
		if err != nil {
			return nil, err
		}
		return &Resolved{Manifest: *m, Data: data, Path: path}, nil
	}
	data, err := readModel(path)
	if err != nil {
		return nil, err
	}
	return r.describe(path, data)
}

// describe finds a manifest for bytes that come without one.
func (r *Registry) describe(path string, data []byte) (*Resolved, error) {
	sum := hashOf(data)
	for _, m := range r.pinned {
		if m.SHA256 == sum {
			note := fmt.Sprintf("%s: no manifest beside it; its sha256 is that of %s, whose manifest is used", filepath.Base(path), m.Name)
			return &Resolved{Manifest: m, Data: data, Path: path, Notes: []string{note}}, nil
		}
	}
	if r.rt == nil {
		return nil, fmt.Errorf("%w: %s has no manifest beside it, and recognising it needs the ONNX Runtime library", ErrRuntimeMissing, path)
	}
	sig, err := readSignature(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m, note, err := recognise(sig, path, sum)
	if err != nil {
		return nil, err
	}
	return &Resolved{Manifest: m, Data: data, Path: path, Notes: []string{note}, signature: sig}, nil
}

// manifestBeside returns the manifest that belongs to a .onnx file.
func manifestBeside(onnxPath string) (string, bool) {
	stem := strings.TrimSuffix(onnxPath, filepath.Ext(onnxPath))
	for _, ext := range []string{".yaml", ".yml"} {
		if _, err := os.Stat(stem + ext); err == nil {
			return stem + ext, true
		}
	}
	return "", false
}

func readManifest(path string) (*Manifest, error) {
	data, err := readBounded(path, maxManifestBytes)
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// readChecked reads a model file and checks its hash (see compareHash).
func readChecked(path string, m *Manifest) ([]byte, error) {
	data, err := readModel(path)
	if err != nil {
		return nil, err
	}
	if err := checkHash(m, data, path); err != nil {
		return nil, err
	}
	return data, nil
}

func checkHash(m *Manifest, data []byte, what string) error {
	return compareHash(m, hashOf(data), what)
}

// compareHash checks a file's hash against the manifest's, or fills it in where
// the manifest has none.
func compareHash(m *Manifest, sum, what string) error {
	if m.SHA256 == "" {
		m.SHA256 = sum
		return nil
	}
	if m.SHA256 != sum {
		return fmt.Errorf("%w: %s has sha256 %s, the manifest of %s pins %s; the file is damaged or another model: fetch or import it again", ErrHashMismatch, what, sum, m.Name, m.SHA256)
	}
	return nil
}

func readModel(path string) ([]byte, error) {
	data, err := readBounded(path, maxModelBytes)
	return data, missingFile(err, path)
}

// missingFile turns "no such file" into ErrAbsent.
func missingFile(err error, path string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s does not exist", ErrAbsent, path)
	}
	return err
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("models: %s is not a file", path)
	}
	if fi.Size() > limit {
		return nil, fmt.Errorf("models: %s has %d bytes, at most %d are read", path, fi.Size(), limit)
	}
	data := make([]byte, 0, fi.Size()+1)
	data, err = appendAll(data, io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("models: %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("models: %s grew past %d bytes while it was read", path, limit)
	}
	return data, nil
}

// appendAll reads r to its end into buf's spare room, growing it if need be.
func appendAll(buf []byte, r io.Reader) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
