package keyring

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// keyLen is the length in bytes of every key and seed of this package: 256
// bits, the key size of XChaCha20-Poly1305 and the output of SHA-256.
const keyLen = 32

// rootKeyMagic begins a root key file, so that another file named by mistake
// is recognised and never used as a key.
const rootKeyMagic = "menshen-root-key-v1:"

// RootKey seals the keyring file. It prints, logs and marshals as a constant
// text and never as its bytes. The zero RootKey is refused everywhere. Values
// may be copied; keep few of them.
type RootKey struct{ b [keyLen]byte }

// redacted stands for a root key wherever one would be printed.
const redacted = "[root key]"

// NewRootKey draws a root key from the operating system's random source. It
// lives in memory only: CreateRootKey makes one that lasts.
func NewRootKey() RootKey {
	var k RootKey
	rand.Read(k.b[:]) // never fails: crypto/rand ends the program instead
	return k
}

// CreateRootKey draws a root key and writes it to a new file of mode 0600,
// durably. A file that exists is never overwritten: ErrRootKeyExists.
func CreateRootKey(path string) (RootKey, error) {
	k := NewRootKey()
	line := append([]byte(rootKeyMagic), base64.StdEncoding.EncodeToString(k.b[:])...)
	line = append(line, '\n')
	defer clear(line)
	if err := createDurably(path, line); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return RootKey{}, fmt.Errorf("%w: %s; load it, or name another file", ErrRootKeyExists, path)
		}
		return RootKey{}, fmt.Errorf("create the root key file: %w", err)
	}
	return k, nil
}

// LoadRootKey reads the file that CreateRootKey wrote. A file that its group or
// others may read or write is refused with ErrRootKeyMode; a file that is
// something else, with ErrRootKeyFormat. The error never quotes the file.
func LoadRootKey(path string) (RootKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return RootKey{}, fmt.Errorf("open the root key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return RootKey{}, fmt.Errorf("look at the root key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return RootKey{}, fmt.Errorf("%w: %s is not a regular file", ErrRootKeyFormat, path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return RootKey{}, fmt.Errorf("%w: %s has mode %04o; run: chmod 600 %s", ErrRootKeyMode, path, perm, path)
	}
	var buf [256]byte // a root key file has 65 bytes
	n, err := f.Read(buf[:])
	defer clear(buf[:])
	if err != nil || n == len(buf) {
		return RootKey{}, fmt.Errorf("%w: %s; name the file that was made for this server", ErrRootKeyFormat, path)
	}
	text, ok := bytes.CutPrefix(bytes.TrimRight(buf[:n], "\r\n"), []byte(rootKeyMagic))
	if !ok {
		return RootKey{}, fmt.Errorf("%w: %s does not begin with %q; name the file that was made for this server",
			ErrRootKeyFormat, path, rootKeyMagic)
	}
	var k RootKey
	if base64.StdEncoding.DecodedLen(len(text)) > keyLen+2 {
		return RootKey{}, fmt.Errorf("%w: %s is longer than a root key", ErrRootKeyFormat, path)
	}
	var raw [keyLen + 2]byte
	defer clear(raw[:])
	m, err := base64.StdEncoding.Strict().Decode(raw[:], text)
	if err != nil || m != keyLen {
		return RootKey{}, fmt.Errorf("%w: %s is cut short or altered; restore it from its copy", ErrRootKeyFormat, path)
	}
	copy(k.b[:], raw[:keyLen])
	if k.zero() {
		return RootKey{}, fmt.Errorf("%w: %s holds only zeros", ErrRootKeyFormat, path)
	}
	return k, nil
}

func (k RootKey) zero() bool { return k == RootKey{} }

// String hides the key.
func (k RootKey) String() string { return redacted }

// GoString hides the key.
func (k RootKey) GoString() string { return redacted }

// Format hides the key from every verb of fmt.
func (k RootKey) Format(s fmt.State, _ rune) { fmt.Fprint(s, redacted) }

// LogValue hides the key from slog.
func (k RootKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the key from encoders of text.
func (k RootKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON hides the key from JSON.
func (k RootKey) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// createDurably writes a new file of mode 0600 and syncs it and its folder.
func createDurably(path string, content []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
