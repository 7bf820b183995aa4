package client

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/menshen-io/menshen/cmd/menshen/internal/config"
)

// maxKeyFile is far above the length of any API key: a file that is larger is
// something else.
const maxKeyFile = 4096

// key finds the API key: --api-key-file, $MENSHEN_API_KEY,
// $MENSHEN_API_KEY_FILE, and for a server on this machine the admin key that
// `menshen serve --dev` left in its default data directory. With a client
// certificate there may be none: that key is not taken then, and the result is
// empty.
func (o *Options) key(host string, stdin io.Reader, stderr io.Writer) (string, error) {
	switch {
	case o.KeyFile == "-":
		return readKey(stdin, "standard input")
	case o.KeyFile != "":
		return readKeyFile(o.KeyFile, stderr)
	case os.Getenv("MENSHEN_API_KEY") != "":
		return readKey(strings.NewReader(os.Getenv("MENSHEN_API_KEY")), "$MENSHEN_API_KEY")
	case os.Getenv("MENSHEN_API_KEY_FILE") != "":
		return readKeyFile(os.Getenv("MENSHEN_API_KEY_FILE"), stderr)
	}
	if o.TLSCert != "" {
		return "", nil
	}
	if config.ReachOf(host) == config.Loopback {
		if dir, err := config.DevDataDir(); err == nil {
			key, err := readKeyFile(filepath.Join(dir, config.AdminKeyName), stderr)
			if !errors.Is(err, fs.ErrNotExist) {
				return key, err
			}
		}
	}
	return "", fmt.Errorf("%w: give --api-key-file FILE or set MENSHEN_API_KEY; a platform admin makes keys with \"menshen credentials create\"", ErrKey)
}

func readKeyFile(path string, stderr io.Writer) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrKey, err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o077 != 0 {
		fmt.Fprintf(stderr, "menshen: warning: other users can read the API key in %s; run: chmod 600 %s\n", path, path)
	}
	return readKey(f, path)
}

// readKey reads one line of printable ASCII. What it read is never in an error.
func readKey(r io.Reader, from string) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxKeyFile+1))
	if err != nil {
		return "", fmt.Errorf("%w: %s: %v", ErrKey, from, err)
	}
	key := strings.TrimSpace(string(data))
	switch {
	case key == "":
		return "", fmt.Errorf("%w: %s is empty; it must hold the key that \"menshen credentials create\" printed", ErrKey, from)
	case len(data) > maxKeyFile:
		return "", fmt.Errorf("%w: %s has more than %d bytes; it must hold an API key and nothing else", ErrKey, from, maxKeyFile)
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return "", fmt.Errorf("%w: %s holds something other than one API key in one line", ErrKey, from)
		}
	}
	return key, nil
}
