package models

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ImportOptions describes the model to import.
type ImportOptions struct {
	// Name under which the registry will know the model. Empty: the name in
	// the manifest, or one made from the file's name. The name of a pinned
	// model imports a local copy of that very file.
	Name string
	// Manifest is the path of the model's manifest. Empty: the manifest of the
	// same name beside the file, a pinned one with the same sha256, or what
	// the file's inputs and outputs tell.
	Manifest string
	// Replace allows an imported model of the same name to be replaced.
	Replace bool
}

// Import copies a local .onnx file into the registry's folder, with a manifest
// that pins its sha256. With a Runtime in the registry's options the file is
// also loaded once and checked against the manifest. It returns the model as it
// can be resolved by name from now on; Notes say what was taken for granted.
//
// The file and its manifest appear whole or not at all; a model of the same
// name but other content is ErrModelExists unless Replace is set.
func (r *Registry) Import(ctx context.Context, onnxPath string, opt ImportOptions) (*Resolved, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if r.dir == "" {
		return nil, r.dirErr
	}
	res, err := r.resolveForImport(onnxPath, opt)
	if err != nil {
		return nil, err
	}
	m := &res.Manifest
	if opt.Name != "" {
		m.Name = opt.Name
	}
	if err := CheckName(m.Name); err != nil {
		return nil, err
	}
	if _, ok := r.builtin(m.Name); ok {
		return nil, fmt.Errorf("%w: %s is built in; choose another name", ErrModelExists, m.Name)
	}
	pinned := r.reserved(m.Name)
	if pinned {
		want, err := r.manifest(m.Name)
		if err != nil {
			return nil, err
		}
		if want.SHA256 != m.SHA256 {
			return nil, fmt.Errorf("%w: %s is a pinned model with sha256 %s, this file has %s; choose another name", ErrHashMismatch, m.Name, want.SHA256, m.SHA256)
		}
		*m = *want
	}
	if r.rt != nil {
		if err := fitsManifest(res); err != nil {
			return nil, err
		}
	}
	if !pinned {
		m.File = m.Name + ".onnx"
		if err := r.checkReplace(m, opt.Replace); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return nil, fmt.Errorf("models: import: %w; choose a models folder that can be written", err)
	}
	// The manifest comes last: without it the registry does not see the file.
	// Replacing takes the old manifest away first, so that a crash in between
	// leaves no manifest that disagrees with its file.
	if !pinned {
		if err := os.Remove(r.manifestPath(m.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("models: import: %w", err)
		}
	}
	if err := writeAtomically(r.modelPath(m.Name), res.Data); err != nil {
		return nil, fmt.Errorf("models: import: %w", err)
	}
	if !pinned {
		text, err := m.Marshal()
		if err != nil {
			return nil, err
		}
		if err := writeAtomically(r.manifestPath(m.Name), text); err != nil {
			return nil, fmt.Errorf("models: import: %w", err)
		}
	}
	res.Path = r.modelPath(m.Name)
	r.log.Info("model imported", "model", m.ID(), "from", onnxPath)
	return res, nil
}

func (r *Registry) manifestPath(name string) string { return filepath.Join(r.dir, name+".yaml") }

func (r *Registry) resolveForImport(onnxPath string, opt ImportOptions) (*Resolved, error) {
	if opt.Manifest == "" {
		return r.resolveONNX(onnxPath)
	}
	m, err := readManifest(opt.Manifest)
	if err != nil {
		return nil, missingFile(err, opt.Manifest)
	}
	data, err := readChecked(onnxPath, m)
	if err != nil {
		return nil, err
	}
	return &Resolved{Manifest: *m, Data: data, Path: onnxPath}, nil
}

// checkReplace refuses to put other content under a name that is taken.
func (r *Registry) checkReplace(m *Manifest, replace bool) error {
	old, err := r.importedManifest(m.Name)
	if errors.Is(err, fs.ErrNotExist) || replace {
		return nil
	}
	if err != nil {
		return err
	}
	if old.SHA256 != m.SHA256 {
		return fmt.Errorf("%w: %s is imported already with sha256 %s; choose another name, or replace it", ErrModelExists, m.Name, old.SHA256)
	}
	return nil
}

// fitsManifest loads the model once and compares it with its manifest.
func fitsManifest(res *Resolved) error {
	if res.signature == nil {
		sig, err := readSignature(res.Data)
		if err != nil {
			return err
		}
		res.signature = sig
	}
	_, _, err := res.signature.fit(&res.Manifest)
	return err
}

// writeAtomically writes a file beside path and renames it when it is durable.
func writeAtomically(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".import-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return publish(f, path)
}
