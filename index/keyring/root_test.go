package keyring

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/menshen-io/menshen/index/scope"
)

func TestRootFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.key")
	made, err := CreateRoot(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if loaded, err := LoadRoot(path, nil); err != nil || loaded.present != made.present {
		t.Fatalf("loaded another key: %v", err)
	}
	if _, err := CreateRoot(path, nil); !errors.Is(err, ErrRootKeyExists) {
		t.Errorf("overwrites: %v", err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o644, 0o660} {
		os.Chmod(path, mode)
		if _, err := LoadRoot(path, nil); !errors.Is(err, ErrRootKeyMode) || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if _, err := LoadRoot(path+".none", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	const magic = rootMagicV2 + "1:"
	body := strings.TrimSuffix(strings.TrimPrefix(string(good), magic), "\n")
	for name, text := range map[string]string{
		"empty":           "",
		"other file":      "-----BEGIN PRIVATE KEY-----\n",
		"no magic":        body + "\n",
		"short":           magic + body[:20] + "\n",
		"long":            magic + body + body + "\n",
		"not base64":      magic + strings.Repeat("!", len(body)) + "\n",
		"two lines":       string(good) + string(good),
		"zeros":           magic + strings.Repeat("A", 43) + "=\n",
		"large":           magic + strings.Repeat("A", 1<<16),
		"33 bytes":        magic + strings.Repeat("QUJD", 11) + "\n",
		"version three":   strings.Replace(string(good), "v2", "v3", 1),
		"inner blanks":    magic + body[:10] + " " + body[10:] + "\n",
		"no generation":   rootMagicV2 + body + "\n",
		"bad generation":  rootMagicV2 + "-1:" + body + "\n",
		"huge generation": rootMagicV2 + "99999999999999999999:" + body + "\n",
	} {
		at := filepath.Join(t.TempDir(), "root.key")
		write(t, at, []byte(text))
		_, err := LoadRoot(at, nil)
		if !errors.Is(err, ErrRootKeyFormat) {
			t.Errorf("%s: %v", name, err)
		} else if len(text) > len(magic)+8 && strings.Contains(err.Error(), body[:8]) {
			t.Errorf("%s: the error quotes the key", name)
		}
	}
	if _, err := LoadRoot(t.TempDir(), nil); !errors.Is(err, ErrRootKeyFormat) {
		t.Errorf("a folder: %v", err)
	}
}

func TestRootIsNeverPrinted(t *testing.T) {
	// Of a key drawn at random a few digits may stand in any text.
	k := NewRoot()
	for i := range k.present.key.b {
		k.present.key.b[i] = byte(0xa1 + 7*i)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", k, "ptr", &k)
	js, err := json.Marshal(map[string]any{"key": k})
	if err != nil {
		t.Fatal(err)
	}
	type config struct{ Root *Root }
	secret := k.present.key
	for _, text := range []string{log.String(), string(js), fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s %q %x %X %d", k, k, k, k, k, k, k, k),
		fmt.Sprintf("%+v %#v %x", config{k}, config{k}, config{k}), fmt.Sprintf("%v %x %#v", secret, secret, secret)} {
		for _, part := range []string{fmt.Sprintf("%x", secret.b[:4]), fmt.Sprintf("%X", secret.b[:4]), fmt.Sprintf("%d %d %d", secret.b[0], secret.b[1], secret.b[2]),
			fmt.Sprintf("0x%x, 0x%x, 0x%x", secret.b[0], secret.b[1], secret.b[2])} {
			if strings.Contains(text, part) {
				t.Errorf("printed: %s", text)
			}
		}
	}
}

// onDisk is a keyring with a root file, as a server has it.
type onDisk struct {
	t          *testing.T
	ring, root string
	keeper     Keeper
}

func newOnDisk(t *testing.T, keeper Keeper) (*onDisk, *Keyring) {
	dir := t.TempDir()
	d := &onDisk{t, filepath.Join(dir, "data", "keyring"), filepath.Join(dir, "root.key"), keeper}
	root, err := CreateRoot(d.root, keeper)
	if err != nil {
		t.Fatal(err)
	}
	return d, reopen(t, d.ring, root, Options{Create: true})
}

func (d *onDisk) open() (*Keyring, error) {
	root, err := LoadRoot(d.root, d.keeper)
	if err != nil {
		return nil, err
	}
	return Open(d.ring, root, Options{})
}

func (d *onDisk) mustOpen() *Keyring {
	d.t.Helper()
	k, err := d.open()
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { k.Close() })
	return k
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, b)
}

// TestOldCopiesDoNotOpen: after a scope was destroyed, the root of today opens no
// earlier keyring; an earlier root opens the keyring of today.
func TestOldCopiesDoNotOpen(t *testing.T) {
	d, k := newOnDisk(t, nil)
	mustCreate(t, k, hallA, hallB)
	sealed, err := mustKeys(t, k, hallB).Seal([]byte("stays"), nil)
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, d.ring, d.ring+".copy")
	copyFile(t, d.root, d.root+".copy")
	if err := k.Destroy(hallA); err != nil {
		t.Fatal(err)
	}
	if err := k.Destroy(scope.Ref{Tenant: "fair", Scope: "never-made"}); err != nil {
		t.Fatal(err)
	}
	k.Close()

	copyFile(t, d.ring, d.ring+".today")
	copyFile(t, d.ring+".copy", d.ring)
	if _, err := d.open(); !errors.Is(err, ErrOldCopy) {
		t.Fatalf("the copy made before: %v", err)
	}
	// Nor with the number of the generation altered.
	file, _ := os.ReadFile(d.ring)
	file[len(fileMagic)+7] = 3
	write(t, d.ring, file)
	if _, err := d.open(); !errors.Is(err, ErrWrongRoot) {
		t.Fatalf("the copy made before, renumbered: %v", err)
	}

	copyFile(t, d.ring+".today", d.ring)
	copyFile(t, d.root+".copy", d.root)
	k = d.mustOpen()
	if plain, err := mustKeys(t, k, hallB).Open(sealed, nil); err != nil || string(plain) != "stays" {
		t.Fatalf("with the earlier root: %q, %v", plain, err)
	}
	if _, err := k.Keys(hallA); !errors.Is(err, ErrDestroyed) {
		t.Fatal(err)
	}
	k.Close()
	copyFile(t, d.ring+".copy", d.ring)
	if _, err := d.open(); !errors.Is(err, ErrOldCopy) {
		t.Fatalf("opening moved the earlier root on, yet it opens the copy: %v", err)
	}
}

// TestRotateCutsCopiesOff: a rotated root is not computed from the one before.
func TestRotateCutsCopiesOff(t *testing.T) {
	d, k := newOnDisk(t, nil)
	mustCreate(t, k, hallA)
	copyFile(t, d.root, d.root+".copy")
	if err := k.Rotate(); err != nil {
		t.Fatal(err)
	}
	k.Close()
	for _, name := range []string{newName(d.root), oldName(d.root)} {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
	rotated, err := os.ReadFile(d.root)
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, d.root+".copy", d.root)
	if _, err := d.open(); !errors.Is(err, ErrWrongRoot) {
		t.Fatalf("the root copied before opens the keyring: %v", err)
	}
	write(t, d.root, rotated)
	mustKeys(t, d.mustOpen(), hallA)
}

// TestCrashBetweenTheFiles leaves the root file and the keyring as a crash at each
// step of Destroy and of Rotate would, and wants a keyring that opens, with
// nothing left beside the files.
func TestCrashBetweenTheFiles(t *testing.T) {
	for name, forward := range map[string]func(k *Keyring) error{
		"destroy": func(k *Keyring) error { return k.Destroy(hallA) },
		"rotate":  func(k *Keyring) error { return k.Rotate() },
	} {
		for _, step := range []string{"half a staged root", "staged root", "keyring replaced", "root linked"} {
			t.Run(name+"/"+step, func(t *testing.T) {
				d, k := newOnDisk(t, nil)
				mustCreate(t, k, hallA, hallB)
				oldRing, _ := os.ReadFile(d.ring)
				oldRoot, _ := os.ReadFile(d.root)
				if err := forward(k); err != nil {
					t.Fatal(err)
				}
				k.Close()
				newRing, _ := os.ReadFile(d.ring)
				newRoot, _ := os.ReadFile(d.root)

				write(t, d.root, oldRoot)
				write(t, newName(d.root), newRoot)
				ring, done := oldRing, false
				switch step {
				case "half a staged root":
					write(t, newName(d.root), newRoot[:len(newRoot)/2])
				case "keyring replaced":
					ring, done = newRing, true
				case "root linked":
					ring, done = newRing, true
					if err := os.Link(d.root, oldName(d.root)); err != nil {
						t.Fatal(err)
					}
				}
				write(t, d.ring, ring)
				k = d.mustOpen()
				mustKeys(t, k, hallB)
				if _, err := k.Keys(hallA); name == "destroy" && errors.Is(err, ErrDestroyed) != done {
					t.Fatalf("hall A: %v", err)
				}
				for _, left := range []string{newName(d.root), oldName(d.root), newName(d.ring), oldName(d.ring)} {
					if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("%s is left: %v", filepath.Base(left), err)
					}
				}
				if err := k.Destroy(hallA); err != nil {
					t.Fatal(err)
				}
				k.Close()
				mustKeys(t, d.mustOpen(), hallB)
			})
		}
	}
}

// TestFixedRootFile takes the root file's folder away: the key must be dead, the
// failure told, and the next call must go on.
func TestFixedRootFile(t *testing.T) {
	d, k := newOnDisk(t, nil)
	mustCreate(t, k, hallA, hallB)
	dir := filepath.Join(t.TempDir(), "away")
	rootDir := filepath.Dir(d.root)
	ringDir := filepath.Dir(d.ring)
	keep := filepath.Join(t.TempDir(), "data")
	if err := os.Rename(ringDir, keep); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(rootDir, dir); err != nil {
		t.Fatal(err)
	}
	if err := k.Destroy(hallA); !errors.Is(err, ErrRootKeyFixed) {
		t.Fatalf("without the root file's folder: %v", err)
	}
	if _, err := k.Keys(hallA); !errors.Is(err, ErrNoKey) {
		t.Fatalf("the key is handed out: %v", err)
	}
	if err := os.Rename(dir, rootDir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(keep, ringDir); err != nil {
		t.Fatal(err)
	}
	if err := k.Destroy(hallA); err != nil {
		t.Fatal(err)
	}
	k.Close()
	k = d.mustOpen()
	if _, err := k.Keys(hallA); !errors.Is(err, ErrDestroyed) {
		t.Fatal(err)
	}
	mustKeys(t, k, hallB)
}

// lockbox is a Keeper with one key, as a key management service would be.
type lockbox struct {
	mask byte
	down bool
}

var errDown = errors.New("the service is down")

func (l *lockbox) Encrypt(_ context.Context, plain []byte) ([]byte, error) {
	if l.down {
		return nil, errDown
	}
	out := append([]byte{l.mask}, plain...)
	for i := range out[1:] {
		out[1+i] ^= l.mask
	}
	return out, nil
}

func (l *lockbox) Decrypt(ctx context.Context, sealed []byte) ([]byte, error) {
	if l.down {
		return nil, errDown
	}
	if len(sealed) == 0 || sealed[0] != l.mask {
		return nil, errors.New("sealed by another key")
	}
	plain, _ := l.Encrypt(ctx, sealed[1:])
	return plain[1:], nil
}

func TestKeeper(t *testing.T) {
	box := &lockbox{mask: 0x5a}
	d, k := newOnDisk(t, box)
	mustCreate(t, k, hallA, hallB)
	file, _ := os.ReadFile(d.root)
	if !strings.Contains(string(file), rootSealed) || strings.Contains(string(file), base64.StdEncoding.EncodeToString(k.root.present.key.b[:])) {
		t.Fatal("the root file is not sealed")
	}
	box.down = true
	if err := k.Destroy(hallA); !errors.Is(err, ErrKeeper) || !errors.Is(err, errDown) {
		t.Fatalf("with the service down: %v", err)
	}
	if _, err := k.Keys(hallA); !errors.Is(err, ErrNoKey) {
		t.Fatalf("the key is handed out: %v", err)
	}
	if err := k.Create(scope.Ref{Tenant: "fair", Scope: "hall-c"}); err != nil {
		t.Fatalf("a scope needs no new root: %v", err)
	}
	box.down = false
	if err := k.Destroy(hallA); err != nil {
		t.Fatal(err)
	}
	k.Close()
	mustKeys(t, d.mustOpen(), hallB)
	for name, other := range map[string]Keeper{"another key": &lockbox{mask: 1}, "down": &lockbox{mask: 0x5a, down: true}, "none": nil} {
		if _, err := LoadRoot(d.root, other); !errors.Is(err, ErrKeeper) {
			t.Errorf("%s: %v", name, err)
		}
	}
	plain, _ := newOnDisk(t, nil)
	if _, err := LoadRoot(plain.root, box); !errors.Is(err, ErrKeeper) {
		t.Errorf("a file that is not sealed: %v", err)
	}
}

// TestVersionOne opens files as the first version wrote them.
func TestVersionOne(t *testing.T) {
	dir := t.TempDir()
	d := &onDisk{t, filepath.Join(dir, "keyring"), filepath.Join(dir, "root.key"), nil}
	key := newRootKey()
	write(t, d.root, []byte(rootMagicV1+base64.StdEncoding.EncodeToString(key.b[:])+"\n"))
	write(t, d.ring, versionOne(t, key, map[scope.Ref][32]byte{hallA: {1}, hallB: {2}}))
	k := d.mustOpen()
	var room safe
	want, err := newSealer(&room, &[32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	if mustKeys(t, k, hallA).sealer.keys.key != want.keys.key {
		t.Fatal("another key")
	}
	signing, err := k.Signing()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Destroy(hallB); err != nil {
		t.Fatal(err)
	}
	k.Close()
	k = d.mustOpen()
	if again, _ := k.Signing(); again.Seed != signing.Seed {
		t.Fatal("the signing key changed")
	}
	mustKeys(t, k, hallA)
}

// versionOne writes a file of the first version.
func versionOne(t *testing.T, key rootKey, live map[scope.Ref][32]byte) []byte {
	plain := make([]byte, 32)
	plain = append(plain, 0, 0, 0, byte(len(live)))
	for _, ref := range []scope.Ref{hallA, hallB} {
		if k, ok := live[ref]; ok {
			plain = append(appendRef(plain, ref), k[:]...)
		}
	}
	plain = append(plain, 0, 0, 0, 0)
	salt := bytes.Repeat([]byte{9}, keyLen)
	head := append([]byte(fileMagicV1), salt...)
	fileKey := [32]byte{7}
	wrapping := derive(key.b[:], salt, labelRoot)
	wrapped, err := sealRecord(&wrapping, fileKey[:], head)
	if err != nil {
		t.Fatal(err)
	}
	head = append(head, wrapped...)
	payload, err := sealRecord(&fileKey, plain, head)
	if err != nil {
		t.Fatal(err)
	}
	return append(head, payload...)
}

func TestSigningKeys(t *testing.T) {
	k, path, root := create(t)
	first, err := k.Signing()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.RotateSigning(); err != nil {
		t.Fatal(err)
	}
	k.Close()
	if _, err := k.Signing(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	second, err := reopen(t, path, root, Options{}).Signing()
	if err != nil {
		t.Fatal(err)
	}
	if second.Seed == first.Seed || len(second.Retired) != 1 || second.Drawn.IsZero() {
		t.Fatalf("rotated: %d retired keys", len(second.Retired))
	}
}

func TestPseudonyms(t *testing.T) {
	d, k := newOnDisk(t, nil)
	mustCreate(t, k, hallA)
	if b, err := k.Pseudonyms(); b != nil || err != nil {
		t.Fatalf("a new keyring: %v, %v", b, err)
	}
	for _, b := range [][]byte{nil, make([]byte, maxPseudonyms+1)} {
		if err := k.SavePseudonyms(b); !errors.Is(err, ErrPseudonyms) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
	if err := k.SavePseudonyms([]byte("monday")); err != nil {
		t.Fatal(err)
	}
	copyFile(t, d.ring, d.ring+".monday")
	if err := k.SavePseudonyms([]byte("tuesday")); err != nil {
		t.Fatal(err)
	}
	k.Close()
	if _, err := k.Pseudonyms(); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	k = d.mustOpen()
	if b, _ := k.Pseudonyms(); string(b) != "tuesday" {
		t.Errorf("reopened: %q", b)
	}
	mustKeys(t, k, hallA)
	k.Close()
	copyFile(t, d.ring+".monday", d.ring)
	if _, err := d.open(); !errors.Is(err, ErrOldCopy) {
		t.Errorf("the copy from before opens: %v", err)
	}
}
