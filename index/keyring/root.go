package keyring

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The root file is one line of text:
//
//	menshen-root-key-v1:KEY                      generation 0
//	menshen-root-key-v2:GENERATION:KEY
//	menshen-root-key-v2:GENERATION:sealed:KEY    KEY is sealed by a Keeper
//
// KEY is base64, GENERATION decimal.
const (
	rootMagicV1 = "menshen-root-key-v1:"
	rootMagicV2 = "menshen-root-key-v2:"
	rootSealed  = "sealed:"
	// maxRootFile holds what key management services make of 32 bytes, a few
	// hundred bytes, many times over.
	maxRootFile = 16 << 10
	// maxSteps bounds how many generations Open goes forward. Each is one scope
	// destroyed since the root file was copied, and takes a microsecond.
	maxSteps = 1 << 20
)

// Keeper seals the root key, so that the root file alone opens nothing: a key
// management service, say. Both calls may take as long as ctx allows.
type Keeper interface {
	Encrypt(ctx context.Context, plain []byte) ([]byte, error)
	Decrypt(ctx context.Context, sealed []byte) ([]byte, error)
}

// keeperTimeout bounds one call of a Keeper.
const keeperTimeout = 30 * time.Second

// Root is the root key and the file that it stands in. Each time that a scope's
// key is destroyed it moves on to the next generation, which is computed from
// the present one and not the other way round, and the file is replaced. So the
// root of today opens no copy of the keyring that was made before; and a copy
// of the root file that was made earlier opens every later keyring, but guards
// the earlier ones too: keep it as the secret that it is.
//
// A Root belongs to one Keyring at a time. It prints as a constant text.
type Root struct {
	path   string // "" for one in memory
	keeper Keeper // nil: the key stands in the file as it is

	mu      sync.Mutex
	step    steps // of the file's replacement
	present generation
	// staged is the next generation once it stands beside the root file, until
	// it takes its place.
	staged *generation
}

// generation is a root key and how often it has moved on.
type generation struct {
	number uint64
	key    rootKey
}

// next is the generation after g. The one before cannot be computed from it.
func (g generation) next() generation {
	return generation{g.number + 1, rootKey{derive(g.key.b[:], nil, labelRatchet)}}
}

// NewRoot draws a root key that stands in memory only, for tests and for
// keyrings that need not outlive the process.
func NewRoot() *Root { return &Root{present: generation{1, newRootKey()}} }

// CreateRoot draws a root key and writes it to a new file of mode 0600,
// durably, sealed by the keeper unless that is nil. A file that exists is never
// overwritten: ErrRootKeyExists. Other errors: ErrKeeper, that of the file system.
func CreateRoot(path string, keeper Keeper) (*Root, error) {
	r := &Root{path: path, keeper: keeper}
	var err error
	discreetly(deep, func() { err = r.create() })
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("%w: %s; load it, or name another file", ErrRootKeyExists, path)
		}
		return nil, fmt.Errorf("create the root key file: %w", err)
	}
	return r, nil
}

// LoadRoot reads the file that CreateRoot wrote, with the same keeper. A file
// that its group or others may read or write is refused with ErrRootKeyMode, a
// file that is something else with ErrRootKeyFormat, one that the keeper does
// not open with ErrKeeper, a place where the server could not replace it with
// ErrRootKeyFixed. The error never quotes the file.
func LoadRoot(path string, keeper Keeper) (*Root, error) {
	r := &Root{path: path, keeper: keeper}
	var err error
	discreetly(deep, func() { r.present, err = r.load(path) })
	if err != nil {
		return nil, err
	}
	if err := unix.Access(filepath.Dir(path), unix.W_OK); err != nil {
		return nil, fmt.Errorf("%w: %s: %w; give it a folder that the server may write to: the key is replaced each time that a scope is destroyed",
			ErrRootKeyFixed, path, err)
	}
	return r, nil
}

// create draws the key and writes the file.
func (r *Root) create() error {
	r.present = generation{1, newRootKey()}
	line, err := r.render(r.present)
	if err != nil {
		return err
	}
	defer clear(line)
	return createDurably(r.path, line, steps{})
}

// Generation counts how often the root key has moved on.
func (r *Root) Generation() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.present.number
}

// Format hides the key from every verb of fmt.
func (r *Root) Format(s fmt.State, _ rune) { fmt.Fprint(s, redacted) }

// LogValue hides the key from slog.
func (r *Root) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON hides the key from encoders.
func (r *Root) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// load reads and parses one file.
func (r *Root) load(path string) (generation, error) {
	f, err := os.Open(path)
	if err != nil {
		return generation{}, fmt.Errorf("open the root key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return generation{}, fmt.Errorf("look at the root key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return generation{}, fmt.Errorf("%w: %s is not a regular file", ErrRootKeyFormat, path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return generation{}, fmt.Errorf("%w: %s has mode %04o; run: chmod 600 %s", ErrRootKeyMode, path, perm, path)
	}
	line, err := io.ReadAll(io.LimitReader(f, maxRootFile+1))
	defer clear(line)
	if err != nil || len(line) > maxRootFile {
		return generation{}, fmt.Errorf("%w: %s; name the file that was made for this server", ErrRootKeyFormat, path)
	}
	return r.parse(bytes.TrimRight(line, "\r\n"), path)
}

// parse reads the line of a root file.
func (r *Root) parse(line []byte, path string) (generation, error) {
	var g generation
	rest, old := bytes.CutPrefix(line, []byte(rootMagicV1))
	sealed := false
	if !old {
		var ok bool
		if rest, ok = bytes.CutPrefix(line, []byte(rootMagicV2)); !ok {
			return g, fmt.Errorf("%w: %s does not begin with %q; name the file that was made for this server", ErrRootKeyFormat, path, rootMagicV2)
		}
		number, after, _ := bytes.Cut(rest, []byte(":"))
		n, err := strconv.ParseUint(string(number), 10, 63)
		if err != nil {
			return g, fmt.Errorf("%w: %s names no generation; restore it from its copy", ErrRootKeyFormat, path)
		}
		g.number = n
		rest, sealed = bytes.CutPrefix(after, []byte(rootSealed))
	}
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(rest)))
	n, err := base64.StdEncoding.Strict().Decode(raw, rest)
	raw = raw[:n]
	defer func() { clear(raw) }()
	if err != nil {
		return g, fmt.Errorf("%w: %s is cut short or altered; restore it from its copy", ErrRootKeyFormat, path)
	}
	switch {
	case sealed && r.keeper == nil:
		return g, fmt.Errorf("%w: %s is sealed; name the key management service that sealed it", ErrKeeper, path)
	case !sealed && r.keeper != nil:
		return g, fmt.Errorf("%w: %s is not sealed by it; leave the service out, or make the root key anew under it", ErrKeeper, path)
	case sealed:
		ctx, cancel := context.WithTimeout(context.Background(), keeperTimeout)
		defer cancel()
		if raw, err = r.keeper.Decrypt(ctx, raw); err != nil {
			return g, fmt.Errorf("%w: it does not open %s: %w", ErrKeeper, path, err)
		}
	}
	if len(raw) != keyLen {
		return g, fmt.Errorf("%w: %s holds %d bytes instead of %d; restore it from its copy", ErrRootKeyFormat, path, len(raw), keyLen)
	}
	copy(g.key.b[:], raw)
	if g.key.zero() {
		return g, fmt.Errorf("%w: %s holds only zeros", ErrRootKeyFormat, path)
	}
	return g, nil
}

// render writes the line of a root file.
func (r *Root) render(g generation) ([]byte, error) {
	key, mark := g.key.b[:], ""
	if r.keeper != nil {
		ctx, cancel := context.WithTimeout(context.Background(), keeperTimeout)
		defer cancel()
		sealed, err := r.keeper.Encrypt(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("%w: it does not seal the root key: %w", ErrKeeper, err)
		}
		key, mark = sealed, rootSealed
	}
	head := fmt.Sprintf("%s%d:%s", rootMagicV2, g.number, mark)
	line := make([]byte, 0, len(head)+base64.StdEncoding.EncodedLen(len(key))+1) // growing it would leave a copy
	line = append(line, head...)
	return append(base64.StdEncoding.AppendEncode(line, key), '\n'), nil
}

// watch sets who is told of each step of a replacement of the file.
func (r *Root) watch(step steps) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.step = step
}

// stage puts a generation beside the root file, durably, and returns it. Where
// one stands there already it is that one: a keyring may have been sealed under
// it by a step that did not report back.
func (r *Root) stage(g generation) (generation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.staged != nil {
		return *r.staged, nil
	}
	if r.path != "" {
		line, err := r.render(g)
		if err != nil {
			return g, err
		}
		defer clear(line)
		if err := finishReplace(r.path, r.step); err != nil {
			return g, fmt.Errorf("make place for the next root key: %w", err)
		}
		if err := createDurably(newName(r.path), line, r.step); err != nil {
			return g, fmt.Errorf("%w: write the next root key beside %s: %w; nothing was changed", ErrRootKeyFixed, r.path, err)
		}
	}
	r.staged = &g
	return g, nil
}

// commit puts the staged generation, if there is one, into the place of the
// root file and overwrites the file that was there. Call it once a keyring
// sealed under it is durable.
func (r *Root) commit() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.staged == nil {
		return nil
	}
	if r.path != "" {
		if err := promoteFile(r.path, r.step); err != nil {
			return fmt.Errorf("replace the root key file %s: %w", r.path, err)
		}
	}
	r.present = *r.staged
	r.drop()
	return nil
}

// drop forgets the staged generation; mu is held.
func (r *Root) drop() {
	if r.staged != nil {
		clear(r.staged.key.b[:])
		r.staged = nil
	}
}

// sealing is the generation that the next keyring file is sealed under.
func (r *Root) sealing() generation {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.staged != nil {
		return *r.staged
	}
	return r.present
}

// unlock finds the generation that opens a keyring of the given number with
// try, and settles what a crash left: a staged generation is taken up when the
// keyring is sealed under it, and given up when it is not. Errors: ErrOldCopy,
// ErrWrongRoot, those of try and of the file system.
func (r *Root) unlock(number uint64, try func(rootKey) error) error {
	r.mu.Lock()
	present := r.present
	staged, err := r.findStaged()
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if number == present.number {
		if err := try(present.key); !errors.Is(err, ErrWrongRoot) {
			if err == nil {
				err = r.giveUp()
			}
			return err
		}
	}
	if staged != nil && staged.number == number {
		if err := try(staged.key); !errors.Is(err, ErrWrongRoot) {
			if err == nil {
				err = r.commit()
			}
			return err
		}
	}
	if number < present.number {
		return fmt.Errorf("%w: it is of generation %d and the root key of generation %d", ErrOldCopy, number, present.number)
	}
	if number == present.number || number-present.number > maxSteps {
		return ErrWrongRoot
	}
	ahead := present
	for ahead.number < number {
		ahead = ahead.next()
	}
	if err := try(ahead.key); err != nil {
		return err
	}
	if err := r.giveUp(); err != nil { // of another line than the keyring
		return err
	}
	if _, err := r.stage(ahead); err != nil {
		return err
	}
	return r.commit()
}

// findStaged loads the generation that a crash left beside the root file; one
// that was cut short by the crash is nothing.
func (r *Root) findStaged() (*generation, error) {
	if r.staged != nil || r.path == "" {
		return r.staged, nil
	}
	g, err := r.load(newName(r.path))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrRootKeyFormat):
		return nil, nil
	case err != nil:
		return nil, err
	}
	r.staged = &g
	return r.staged, nil
}

// giveUp forgets a staged generation and overwrites its file.
func (r *Root) giveUp() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop()
	if r.path == "" {
		return nil
	}
	return finishReplace(r.path, r.step)
}

// wipe overwrites the key in memory.
func (r *Root) wipe() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.path == "" {
		return // it stands nowhere else
	}
	clear(r.present.key.b[:])
	r.drop()
}
