package keyring

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"
)

// The keyring file, version 1:
//
//	magic     "menshen-keyring-v1\n"
//	salt      32 random bytes, new at every write
//	wrapped   the file key, sealed under HKDF(root key, salt); aad = magic, salt
//	payload   the keys, sealed under the file key; aad = magic, salt, wrapped
//
// Payload, integers big-endian:
//
//	system key                32 bytes
//	count of live scopes      uint32, then for each, ordered by tenant and scope:
//	    tenant, scope             length byte and bytes, twice
//	    key                       32 bytes
//	count of destroyed scopes uint32, then tenant and scope of each
const (
	fileMagic  = "menshen-keyring-v1\n"
	wrappedLen = keyLen + SealOverhead
	headerLen  = len(fileMagic) + keyLen + wrappedLen
)

// maxFileBytes bounds what Open reads: a million scopes of the longest names.
const maxFileBytes = 256 << 20

// content is what the file says, in memory.
type content struct {
	system    [keyLen]byte
	live      map[scope.Ref][keyLen]byte
	destroyed map[scope.Ref]struct{}
}

// encode seals the content under the root key.
func (c *content) encode(root RootKey) ([]byte, error) {
	plain := make([]byte, 0, keyLen+8+len(c.live)*(2+2*scope.MaxIDLen+keyLen)+len(c.destroyed)*(2+2*scope.MaxIDLen))
	plain = append(plain, c.system[:]...)
	plain = binary.BigEndian.AppendUint32(plain, uint32(len(c.live)))
	for _, ref := range slices.SortedFunc(maps.Keys(c.live), compareRefs) {
		key := c.live[ref]
		plain = append(appendRef(plain, ref), key[:]...)
	}
	plain = binary.BigEndian.AppendUint32(plain, uint32(len(c.destroyed)))
	for _, ref := range slices.SortedFunc(maps.Keys(c.destroyed), compareRefs) {
		plain = appendRef(plain, ref)
	}
	defer clear(plain[:cap(plain)])

	var fileKey [keyLen]byte
	defer clear(fileKey[:])
	rand.Read(fileKey[:])
	head := make([]byte, 0, headerLen)
	head = append(head, fileMagic...)
	head = append(head, make([]byte, keyLen)...)
	salt := head[len(fileMagic):]
	rand.Read(salt)
	wrapping := derive(root.b[:], salt, labelRoot)
	defer clear(wrapping[:])
	wrapped, err := sealUnder(wrapping, fileKey[:], head)
	if err != nil {
		return nil, err
	}
	head = append(head, wrapped...)
	payload, err := sealUnder(fileKey, plain, head)
	if err != nil {
		return nil, err
	}
	return append(head, payload...), nil
}

// decode opens what encode sealed. ErrWrongRoot when the wrapped file key does
// not open, ErrDamaged when the file is not a keyring or its payload is altered.
func decode(file []byte, root RootKey) (*content, error) {
	if !bytes.HasPrefix(file, []byte(fileMagic)) || len(file) < headerLen+SealOverhead {
		return nil, fmt.Errorf("%w: it is not a whole keyring file of version 1", ErrDamaged)
	}
	salted := file[:len(fileMagic)+keyLen]
	wrapping := derive(root.b[:], salted[len(fileMagic):], labelRoot)
	defer clear(wrapping[:])
	raw, err := openUnder(wrapping, file[len(salted):headerLen], salted)
	if err != nil {
		return nil, ErrWrongRoot
	}
	var fileKey [keyLen]byte
	copy(fileKey[:], raw)
	clear(raw)
	defer clear(fileKey[:])
	plain, err := openUnder(fileKey, file[headerLen:], file[:headerLen])
	if err != nil {
		return nil, fmt.Errorf("%w: its payload does not open", ErrDamaged)
	}
	defer clear(plain)
	return parse(plain)
}

// parse reads the payload. It was authenticated, so that a failure here means a
// fault of the writer.
func parse(plain []byte) (*content, error) {
	c := &content{live: map[scope.Ref][keyLen]byte{}, destroyed: map[scope.Ref]struct{}{}}
	r := reader{rest: plain}
	copy(c.system[:], r.take(keyLen))
	for range r.uint32() {
		ref := r.ref()
		var key [keyLen]byte
		copy(key[:], r.take(keyLen))
		if r.bad {
			break
		}
		c.live[ref] = key
	}
	for range r.uint32() {
		ref := r.ref()
		if r.bad {
			break
		}
		c.destroyed[ref] = struct{}{}
	}
	if r.bad || len(r.rest) != 0 {
		return nil, fmt.Errorf("%w: its payload has the wrong length", ErrDamaged)
	}
	return c, nil
}

// reader takes fields off the front of a payload; bad sticks once it ran out.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || len(r.rest) < n {
		r.bad = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint32() uint32 {
	b := r.take(4)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func (r *reader) text() string {
	n := r.take(1)
	if n == nil {
		return ""
	}
	return string(r.take(int(n[0])))
}

func (r *reader) ref() scope.Ref {
	ref := scope.Ref{Tenant: scope.TenantID(r.text()), Scope: scope.ScopeID(r.text())}
	if !r.bad && ref.Validate() != nil {
		r.bad = true
	}
	return ref
}

func appendRef(b []byte, ref scope.Ref) []byte {
	b = append(append(b, byte(len(ref.Tenant))), ref.Tenant...)
	return append(append(b, byte(len(ref.Scope))), ref.Scope...)
}

func compareRefs(a, b scope.Ref) int {
	if c := strings.Compare(string(a.Tenant), string(b.Tenant)); c != 0 {
		return c
	}
	return strings.Compare(string(a.Scope), string(b.Scope))
}

func sealUnder(key [keyLen]byte, plain, aad []byte) ([]byte, error) {
	c, err := subtle.NewXChaCha20Poly1305(key[:])
	if err != nil {
		return nil, fmt.Errorf("seal the keyring: %w", err)
	}
	return c.Encrypt(plain, aad)
}

func openUnder(key [keyLen]byte, sealed, aad []byte) ([]byte, error) {
	c, err := subtle.NewXChaCha20Poly1305(key[:])
	if err != nil {
		return nil, fmt.Errorf("open the keyring: %w", err)
	}
	return c.Decrypt(sealed, aad)
}

// oldName and newName stand beside the keyring file while it is replaced.
func oldName(path string) string { return path + ".old" }
func newName(path string) string { return path + ".new" }

// readFile reads the keyring file; fs.ErrNotExist when there is none.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(b) > maxFileBytes {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrDamaged, maxFileBytes)
	}
	return b, err
}

// replaceFile puts new content in the place of the file, durably: after a crash
// at any point there is the whole old file or the whole new one. The old file is
// kept under a second name until the new one is durable, then overwritten and
// unlinked; finishReplace does that after a crash.
func replaceFile(path string, content []byte) error {
	if err := finishReplace(path); err != nil {
		return err
	}
	if err := createDurably(newName(path), content); err != nil {
		return err
	}
	hasOld := true
	if err := os.Link(path, oldName(path)); errors.Is(err, fs.ErrNotExist) {
		hasOld = false
	} else if err != nil {
		return fmt.Errorf("keep the replaced keyring file until it is overwritten: %w", err)
	}
	if err := os.Rename(newName(path), path); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	if hasOld {
		return finishReplace(path)
	}
	return nil
}

// finishReplace overwrites and unlinks what an interrupted replacement left.
func finishReplace(path string) error {
	removed := false
	for _, name := range []string{newName(path), oldName(path)} {
		was, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		now, err := os.Stat(path)
		if err != nil && !(errors.Is(err, fs.ErrNotExist) && name == newName(path)) {
			return err // never remove the only copy that is left
		}
		// A crash between link and rename leaves two names of the live file:
		// then only the second name goes.
		if err != nil || !os.SameFile(was, now) {
			if err := overwrite(name, was.Size()); err != nil {
				return fmt.Errorf("overwrite the replaced keyring file: %w", err)
			}
		}
		if err := os.Remove(name); err != nil {
			return err
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return syncDir(filepath.Dir(path))
}

// overwrite puts durable zeros over the bytes of a file.
func overwrite(name string, size int64) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	zeros := make([]byte, 64<<10)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}
