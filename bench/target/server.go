package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ServerOptions say what server to start.
type ServerOptions struct {
	// Binary is the menshen program; "" is the one beside this program.
	Binary string
	// Detector and Embedder are model references; "" are none and the reference
	// model. Runtime is the path of the ONNX Runtime library; "" is the usual one.
	Detector, Embedder, Runtime string
	// Args are further flags of menshen serve.
	Args []string
}

// Server is a development server on loopback with data of its own.
type Server struct {
	*Process
	AdminKey string

	program string
	dir     string
}

// Binary returns the menshen program beside this one. Error: ErrChild.
func Binary() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrChild, err)
	}
	path := filepath.Join(filepath.Dir(self), "menshen")
	if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() {
		return "", fmt.Errorf("%w: there is no menshen beside this program; build both with \"make build\", or name one with --menshen", ErrChild)
	}
	return path, nil
}

// Start runs a server and waits until it is ready. Close ends it and removes its
// data. Error: ErrChild.
func Start(ctx context.Context, opt ServerOptions) (_ *Server, err error) {
	if opt.Binary == "" {
		if opt.Binary, err = Binary(); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "menshen-bench-")
	if err != nil {
		return nil, fmt.Errorf("%w: no room for its data: %v", ErrChild, err)
	}
	s := &Server{program: opt.Binary, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	address, data := filepath.Join(dir, "address"), filepath.Join(dir, "data")
	args := []string{"serve", "--dev", "--listen", "127.0.0.1:0", "--address-file", address, "--data-dir", data, "--log-level", "warn", "--min-free", "64MiB"}
	for _, f := range [][2]string{{"--detector", opt.Detector}, {"--embedder", opt.Embedder}, {"--runtime", opt.Runtime}} {
		if f[1] != "" {
			args = append(args, f[0], f[1])
		}
	}
	if s.Process, err = Run(ctx, address, opt.Binary, append(args, opt.Args...)...); err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(data, "admin.key"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: it left no admin key: %v", ErrChild, err), s.Process.Close())
	}
	s.AdminKey = strings.TrimSpace(string(key))
	return s, nil
}

// Close ends the server and removes its data.
func (s *Server) Close() error { return errors.Join(s.Process.Close(), os.RemoveAll(s.dir)) }

// PublicKey ends the server and returns the public key that its receipts are
// signed with, as "menshen keys show" tells it. Its data stay until Close.
// Error: ErrChild.
func (s *Server) PublicKey(ctx context.Context) (string, error) {
	if err := s.Process.Close(); err != nil {
		return "", err
	}
	data := filepath.Join(s.dir, "data")
	cmd := exec.CommandContext(ctx, s.program, "keys", "show", "--json", "--data-dir", data, "--root-key-file", filepath.Join(data, "root.key"))
	cmd.Env = environment()
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: menshen keys show: %v", ErrChild, err)
	}
	var keys struct {
		Public string `json:"signing_public_key"`
	}
	if err := json.Unmarshal(text, &keys); err != nil || keys.Public == "" {
		return "", fmt.Errorf("%w: menshen keys show told no public key", ErrChild)
	}
	return keys.Public, nil
}
