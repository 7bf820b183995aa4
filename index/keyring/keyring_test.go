package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/menshen-io/menshen/index/scope"
)

var (
	hallA = scope.Ref{Tenant: "fair", Scope: "hall-a"}
	hallB = scope.Ref{Tenant: "fair", Scope: "hall-b"}
)

func create(t testing.TB) (*Keyring, string, *Root) {
	t.Helper()
	path, root := filepath.Join(t.TempDir(), "keyring"), NewRoot()
	return reopen(t, path, root, Options{Create: true}), path, root
}

func reopen(t testing.TB, path string, root *Root, opt Options) *Keyring {
	t.Helper()
	k, err := Open(path, root, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func mustCreate(t testing.TB, k *Keyring, refs ...scope.Ref) {
	t.Helper()
	for _, ref := range refs {
		if err := k.Create(ref); err != nil {
			t.Fatal(err)
		}
	}
}

func mustKeys(t testing.TB, k *Keyring, ref scope.Ref) *ScopeKeys {
	t.Helper()
	keys, err := k.Keys(ref)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestKeysSurviveReopening(t *testing.T) {
	k, path, root := create(t)
	mustCreate(t, k, hallA, hallB)
	sealed, err := mustKeys(t, k, hallA).Seal([]byte("a code"), []byte("where"))
	if err != nil {
		t.Fatal(err)
	}
	system, err := k.System().Seal([]byte("a tenant"), nil)
	if err != nil {
		t.Fatal(err)
	}
	rotation, err := seedOf(mustKeys(t, k, hallA).WithRotationSeed)
	if err != nil {
		t.Fatal(err)
	}
	k.Close()

	k = reopen(t, path, root, Options{})
	keys := mustKeys(t, k, hallA)
	if plain, err := keys.Open(sealed, []byte("where")); err != nil || string(plain) != "a code" {
		t.Fatalf("reopened: %q, %v", plain, err)
	}
	if plain, err := k.System().Open(system, nil); err != nil || string(plain) != "a tenant" {
		t.Fatalf("reopened: %q, %v", plain, err)
	}
	if again, _ := seedOf(keys.WithRotationSeed); again != rotation {
		t.Fatal("the rotation seed changed")
	}
	if got := fmt.Sprint(k.List()); got != fmt.Sprint([]scope.Ref{hallA, hallB}) {
		t.Fatalf("List: %s", got)
	}
}

func TestSealedBytesOpenOnlyInTheirPlace(t *testing.T) {
	k, _, _ := create(t)
	mustCreate(t, k, hallA, hallB)
	a, b := mustKeys(t, k, hallA), mustKeys(t, k, hallB)
	sealed, err := a.Seal([]byte("a code"), []byte("where"))
	if err != nil {
		t.Fatal(err)
	}
	if len(sealed) != len("a code")+SealOverhead {
		t.Fatalf("sealed to %d bytes", len(sealed))
	}
	again, _ := a.Seal([]byte("a code"), []byte("where"))
	if bytes.Equal(sealed, again) {
		t.Fatal("the same plaintext sealed to the same bytes twice")
	}
	for name, open := range map[string]func() ([]byte, error){
		"other scope":  func() ([]byte, error) { return b.Open(sealed, []byte("where")) },
		"system":       func() ([]byte, error) { return k.System().Open(sealed, []byte("where")) },
		"other aad":    func() ([]byte, error) { return a.Open(sealed, []byte("elsewhere")) },
		"cut":          func() ([]byte, error) { return a.Open(sealed[:len(sealed)-1], []byte("where")) },
		"empty":        func() ([]byte, error) { return a.Open(nil, []byte("where")) },
		"flipped nonc": func() ([]byte, error) { return a.Open(flip(sealed, 3), []byte("where")) },
		"flipped tag":  func() ([]byte, error) { return a.Open(flip(sealed, len(sealed)-1), []byte("where")) },
	} {
		if plain, err := open(); !errors.Is(err, ErrSealed) || plain != nil {
			t.Errorf("%s: %q, %v", name, plain, err)
		}
	}
}

// seedOf copies a seed out, as nobody but a test may.
func seedOf(with func(func(*[32]byte) error) error) (seed [32]byte, err error) {
	err = with(func(s *[32]byte) error { seed = *s; return nil })
	return seed, err
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func TestSeedsDifferByUseAndScope(t *testing.T) {
	k, _, _ := create(t)
	mustCreate(t, k, hallA, hallB)
	seen := map[[32]byte]string{{}: "zero"}
	for _, ref := range k.List() {
		keys := mustKeys(t, k, ref)
		for name, seed := range map[string]func(func(*[32]byte) error) error{"rotation": keys.WithRotationSeed, "decoy": keys.WithDecoySeed} {
			s, err := seedOf(seed)
			if err != nil {
				t.Fatal(err)
			}
			if other, ok := seen[s]; ok {
				t.Errorf("%s of %s equals %s", name, ref, other)
			}
			seen[s] = name + " of " + ref.String()
		}
	}
}

func TestDestroy(t *testing.T) {
	k, path, root := create(t)
	mustCreate(t, k, hallA, hallB)
	held := mustKeys(t, k, hallA)
	sealed, err := held.Seal([]byte("a code"), nil)
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path) // the inode that is replaced
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	room := held.sealer.keys
	for range 2 { // idempotent
		if err := k.Destroy(hallA); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := readAll(old); err != nil || len(bytes.Trim(b, "\x00")) != 0 {
		t.Fatalf("the replaced file still holds %d bytes that are not zero (%v)", len(bytes.Trim(b, "\x00")), err)
	}
	if *room != (slot{}) || held.sealer.keys != nil {
		t.Fatal("the key is still in memory")
	}
	check := func(k *Keyring) {
		t.Helper()
		if _, err := k.Keys(hallA); !errors.Is(err, ErrDestroyed) || !errors.Is(err, ErrNoKey) {
			t.Fatalf("Keys: %v", err)
		}
		if err := k.Create(hallA); !errors.Is(err, ErrDestroyed) {
			t.Fatalf("Create: %v", err)
		}
		mustKeys(t, k, hallB)
	}
	check(k)
	if _, err := held.Open(sealed, nil); !errors.Is(err, ErrDestroyed) {
		t.Fatalf("a held handle opens: %v", err)
	}
	if _, err := held.Seal(nil, nil); !errors.Is(err, ErrDestroyed) {
		t.Fatalf("a held handle seals: %v", err)
	}
	if s, err := seedOf(held.WithRotationSeed); !errors.Is(err, ErrDestroyed) || s != [32]byte{} {
		t.Fatalf("a held handle gives its seed: %v", err)
	}
	k.Close()
	check(reopen(t, path, root, Options{}))
}

func readAll(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, info.Size())
	_, err = f.ReadAt(b, 0)
	return b, err
}

func TestOpenRefuses(t *testing.T) {
	k, path, root := create(t)
	mustCreate(t, k, hallA)
	if _, err := Open(path, root, Options{}); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second Open: %v", err)
	}
	k.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(name string, file []byte, root *Root, want error) {
		t.Helper()
		at := filepath.Join(t.TempDir(), "keyring")
		if file != nil {
			if err := os.WriteFile(at, file, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		k, err := Open(at, root, Options{})
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if k != nil {
			t.Errorf("%s: a keyring beside the error", name)
		}
	}
	try("missing", nil, root, ErrMissing)
	try("wrong root", good, NewRoot(), ErrWrongRoot)
	try("zero root", good, &Root{}, ErrWrongRoot)
	try("empty", []byte{}, root, ErrDamaged)
	try("another file", []byte(strings.Repeat("hello", 100)), root, ErrDamaged)
	try("longer", append(bytes.Clone(good), 0), root, ErrDamaged)
	for cut := 1; cut < len(good); cut += 7 {
		try(fmt.Sprint("cut to ", cut), good[:cut], root, ErrDamaged)
	}
	for i := 0; i < len(good); i++ {
		at := filepath.Join(t.TempDir(), "keyring")
		os.WriteFile(at, flip(good, i), 0o600)
		if _, err := Open(at, root, Options{}); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrWrongRoot) && !errors.Is(err, ErrOldCopy) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
}

// TestInterruptedReplacement leaves the folder as a crash at each step of a
// rewrite would, and wants the keyring whole and the leftovers gone.
func TestInterruptedReplacement(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, path string){
		"after writing the new file": func(t *testing.T, path string) {
			write(t, newName(path), []byte("half"))
		},
		"after linking the old file": func(t *testing.T, path string) {
			write(t, newName(path), []byte("whole"))
			if err := os.Link(path, oldName(path)); err != nil {
				t.Fatal(err)
			}
		},
		"after the rename": func(t *testing.T, path string) { write(t, oldName(path), []byte("the file before")) },
	} {
		t.Run(name, func(t *testing.T) {
			k, path, root := create(t)
			mustCreate(t, k, hallA)
			k.Close()
			leave(t, path)
			k = reopen(t, path, root, Options{})
			mustKeys(t, k, hallA)
			for _, left := range []string{newName(path), oldName(path)} {
				if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is still there: %v", left, err)
				}
			}
			mustCreate(t, k, hallB)
			k.Close()
			mustKeys(t, reopen(t, path, root, Options{}), hallB)
		})
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFailedWriteIsReported takes the folder away under the keyring: Create must
// not leave a key that is not durable, Destroy must say that it is not done.
func TestFailedWriteIsReported(t *testing.T) {
	k, path, root := create(t)
	mustCreate(t, k, hallA)
	dir := filepath.Dir(path)
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := k.Create(hallB); err == nil {
		t.Fatal("Create succeeded without a file")
	}
	if _, err := k.Keys(hallB); !errors.Is(err, ErrNoKey) {
		t.Fatalf("a key that is not durable is handed out: %v", err)
	}
	if err := k.Destroy(hallA); err == nil {
		t.Fatal("Destroy succeeded without a file")
	}
	if _, err := k.Keys(hallA); !errors.Is(err, ErrNoKey) {
		t.Fatalf("a key that was told to go is handed out: %v", err)
	}
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	if err := k.Destroy(hallA); err != nil {
		t.Fatal(err)
	}
	k.Close()
	if _, err := reopen(t, path, root, Options{}).Keys(hallA); !errors.Is(err, ErrDestroyed) {
		t.Fatalf("after the second Destroy: %v", err)
	}
}

func TestBadAndTakenIDs(t *testing.T) {
	k, _, _ := create(t)
	mustCreate(t, k, hallA)
	if err := k.Create(hallA); !errors.Is(err, ErrExists) {
		t.Errorf("twice: %v", err)
	}
	if err := k.Create(scope.Ref{Tenant: "Fair", Scope: "a"}); !errors.Is(err, scope.ErrBadID) {
		t.Errorf("bad id: %v", err)
	}
	if err := k.Destroy(scope.Ref{}); !errors.Is(err, scope.ErrBadID) {
		t.Errorf("zero ref: %v", err)
	}
	if _, err := k.Keys(hallB); !errors.Is(err, ErrNoKey) || errors.Is(err, ErrDestroyed) {
		t.Errorf("never made: %v", err)
	}
}

func TestClose(t *testing.T) {
	_, k := newOnDisk(t, nil)
	mustCreate(t, k, hallA)
	held := mustKeys(t, k, hallA)
	for range 2 {
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if held.sealer.keys != nil || k.system.sealer.keys != nil || !k.root.present.key.zero() {
		t.Error("keys are still in memory")
	}
	_, sealErr := held.Seal(nil, nil)
	_, systemErr := k.System().Seal(nil, nil)
	_, keysErr := k.Keys(hallA)
	for name, err := range map[string]error{"held": sealErr, "system": systemErr, "Keys": keysErr,
		"Create": k.Create(hallB), "Destroy": k.Destroy(hallA)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	k, path, root := create(t)
	const scopes = 8
	var wg sync.WaitGroup
	for i := range scopes {
		wg.Go(func() {
			ref := scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprint("s", i))}
			if err := k.Create(ref); err != nil {
				t.Error(err)
				return
			}
			keys, err := k.Keys(ref)
			if err != nil {
				t.Error(err)
				return
			}
			sealed, err := keys.Seal([]byte("x"), nil)
			if err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				if err := k.Destroy(ref); err != nil {
					t.Error(err)
				}
			} else if _, err := keys.Open(sealed, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	k.Close()
	if n := len(reopen(t, path, root, Options{}).List()); n != scopes/2 {
		t.Fatalf("%d scopes left, want %d", n, scopes/2)
	}
}

func TestKeysStandNowhereInClear(t *testing.T) {
	k, path, root := create(t)
	mustCreate(t, k, hallA)
	key := mustKeys(t, k, hallA).sealer.keys.key
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string][]byte{"scope key": key[:], "system key": k.system.sealer.keys.key[:],
		"root key": root.present.key.b[:], "scope's name": []byte("hall-a")} {
		if bytes.Contains(file, secret) {
			t.Errorf("the file holds the %s in clear", name)
		}
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
}

func FuzzDecode(f *testing.F) {
	tenant := [32]byte{2}
	wrapped, err := wrapScope(tenant, hallA, &[32]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	c := &content{
		signing: newSigning(&signingContent{}), tenants: map[scope.TenantID][32]byte{hallA.Tenant: tenant}, pseudonyms: []byte{5},
		wrapped: map[scope.Ref][]byte{hallA: wrapped}, destroyed: map[scope.Ref]struct{}{hallB: {}},
	}
	root := generation{1, rootKey{b: [32]byte{1}}}
	file, err := c.encode(root)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Add([]byte(fileMagic))
	f.Add([]byte(fileMagicV1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decode(b, root.key); err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrWrongRoot) {
			t.Fatal(err)
		}
		for version := range 3 {
			if c, err := parse(b, version); err == nil && c == nil {
				t.Fatal("neither content nor error")
			}
		}
	})
}

func mustSealer(tb testing.TB, k *Keyring, key ...byte) *sealer {
	var whole [keyLen]byte
	copy(whole[:], key)
	s, err := newSealer(&k.safe, &whole)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func BenchmarkSeal(b *testing.B) {
	k, _, _ := create(b)
	mustCreate(b, k, hallA)
	keys := mustKeys(b, k, hallA)
	plain := make([]byte, 560)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if _, err := keys.Seal(plain, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate adds a scope to a keyring of 10,000 and destroys it again:
// two rewrites of a file of about half a megabyte.
func BenchmarkCreate(b *testing.B) {
	k, _, _ := create(b)
	for i := range 10000 {
		k.state.live[scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprint("s", i))}] = &ScopeKeys{sealer: mustSealer(b, k, byte(i), byte(i>>8)), wrapped: make([]byte, keyWrapLen)}
	}
	n := 0
	for b.Loop() {
		n++
		ref := scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprint("more", n))}
		if err := k.Create(ref); err != nil {
			b.Fatal(err)
		}
		if err := k.Destroy(ref); err != nil {
			b.Fatal(err)
		}
	}
}
