package main

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// TestAutopsy enrols templates whose codes it can compute, as somebody could who
// holds the root key, uses them, revokes their scope, and then searches every
// byte of the data directory and of the server's memory. No code is ever on disk;
// after the revocation no sealed record and no key of the scope is on disk, no code
// is in the memory of the server that goes on, and a copy of the data directory from
// before opens with nothing that is left.
//
// Copies of the scope's keys that deriving from them leaves, in the buffers of HMAC
// and on stacks, are out of reach: they stay in memory until the garbage collector
// has that memory used again. The test logs what it finds of them. Nor does it look
// for embeddings, or for what the kernels make of many probes at once.
func TestAutopsy(t *testing.T) {
	v := newVictim(t, runtimeLibrary(t))
	t.Cleanup(v.disconnect)
	data, root := filepath.Join(v.dir, "data"), filepath.Join(v.dir, "keys", "root.key")
	if err := os.MkdirAll(filepath.Dir(root), 0o700); err != nil {
		t.Fatal(err)
	}
	v.extra = []string{"--root-key-file", root}
	v.start()
	v.setUp()
	faces := v.mark("early", 40)
	v.use(faces)
	v.stop()
	v.start() // codes come from the disk now, and of those who are new from calls
	maps.Copy(faces, v.mark("late", 40))
	v.use(faces)

	// Before: whoever holds the root key can open the scope.
	before := filepath.Join(v.dir, "before")
	copyTree(t, data, before)
	copyFile(t, root, filepath.Join(before, "root.key"))
	ref := scope.Ref{Tenant: "t", Scope: "s"}
	secrets := openByHand(t, filepath.Join(before, "keyring"), filepath.Join(before, "root.key"), ref)
	codes := codesOf(t, secrets["rotation seed"], v.model.Dimension, faces)
	sealed := sealedRecords(t, data, ref)
	if n := codes.inFiles(t, v.dir); n > 0 {
		t.Errorf("%d pieces of plaintext codes are on the disk while the scope lives", n)
	}
	if n := sealed.inFiles(t, v.dir); n == 0 {
		t.Error("the search finds no sealed record while the scope lives: it shows nothing")
	}
	keys := chunks{}
	for name, secret := range secrets {
		keys.add(name, secret)
	}
	if found := codes.inMemory(t, v.cmd.Process.Pid); found != nil && len(found) == 0 {
		t.Error("the search finds no code in the memory of a server that matches: it shows nothing")
	}

	_, err := menshenv1.NewScopeServiceClient(v.conns[menshenv1.Role_ROLE_TENANT_OPERATOR]).RevokeScope(t.Context(), &menshenv1.RevokeScopeRequest{Name: v.scope})
	if err != nil {
		t.Fatal(err)
	}

	// After: the memory of the server that goes on, then the files. What a vector
	// register held when the system interrupted a search may be found; half of a
	// code may not.
	for id, n := range codes.inMemory(t, v.cmd.Process.Pid) {
		if n >= int(v.model.Dimension)/chunkLen/2 {
			t.Errorf("%d pieces of the code of %s are in the server's memory after the revocation", n, id)
		}
	}
	for name, n := range keys.inMemory(t, v.cmd.Process.Pid) {
		t.Logf("%d pieces of the %s are left in the server's memory", n, name)
	}
	for _, stopped := range []bool{false, true} {
		if stopped {
			v.stop()
		}
		for what, c := range map[string]chunks{"plaintext codes": codes, "sealed records": sealed, "keys": keys} {
			for _, dir := range []string{data, filepath.Dir(root)} {
				if n := c.inFiles(t, dir); n > 0 {
					t.Errorf("%d pieces of %s are in %s after the revocation (server stopped: %t)", n, what, filepath.Base(dir), stopped)
				}
			}
		}
	}
	cannotOpen(t, before, data, root, ref)
}

// mark enrols people with one template each and returns the faces enrolled.
func (v *victim) mark(when string, n int) map[string]*menshenv1.Probe {
	v.t.Helper()
	faces := map[string]*menshenv1.Probe{}
	for i := range n {
		id := fmt.Sprintf("%s-%d", when, i)
		faces[id] = v.face(v.dice)
		_, err := menshenv1.NewEnrollmentServiceClient(v.conns[menshenv1.Role_ROLE_ENROLLER]).Enroll(v.t.Context(), &menshenv1.EnrollRequest{
			Parent: v.scope, SubjectId: id, Probes: []*menshenv1.Probe{faces[id]},
			Consent: &menshenv1.Consent{Reference: "c", NoticeVersion: "1", GiveTime: timestamppb.Now()}})
		if err != nil {
			v.t.Fatal(err)
		}
	}
	return faces
}

// use verifies and identifies everybody.
func (v *victim) use(faces map[string]*menshenv1.Probe) {
	v.t.Helper()
	gate := menshenv1.NewMatchServiceClient(v.conns[menshenv1.Role_ROLE_GATE])
	for id, face := range faces {
		if outcome := v.verify(id, face); outcome != menshenv1.Outcome_OUTCOME_MATCH {
			v.t.Fatalf("%s: %s", id, outcome)
		}
		resp, err := gate.Identify(v.t.Context(), &menshenv1.IdentifyRequest{Scope: v.scope, Probe: face})
		if err != nil || resp.Results[0].Decision.Outcome != menshenv1.Outcome_OUTCOME_MATCH {
			v.t.Fatalf("%s is not identified: %v, %v", id, resp, err)
		}
	}
}

// openByHand reads a keyring file with the root key as its format says
// (index/keyring/file.go), without the keyring's code, and returns the secrets
// of a scope.
func openByHand(t *testing.T, path, rootPath string, ref scope.Ref) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile(rootPath)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(strings.TrimSpace(string(text)), ":")
	rootKey, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	derive := func(secret, salt []byte, label string) []byte {
		key, err := hkdf.Key(sha256.New, secret, salt, label, 32)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	open := func(key, sealed, aad []byte) []byte {
		cipher, err := subtle.NewXChaCha20Poly1305(key)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := cipher.Decrypt(sealed, aad)
		if err != nil {
			t.Fatalf("the keyring does not open by hand: %v", err)
		}
		return plain
	}
	const magic = len("menshen-keyring-v2\n")
	const head, wrapped = magic + 8 + 32, 32 + keyring.SealOverhead
	fileKey := open(derive(rootKey, file[magic+8:head], "menshen/v1/keyring"), file[head:head+wrapped], file[:head])
	rest := open(fileKey, file[head+wrapped:], file[:head+wrapped])
	take := func(n int) (b []byte) {
		b, rest = rest[:n], rest[n:]
		return b
	}
	number := func() int { return int(binary.BigEndian.Uint32(take(4))) }
	name := func() string { return string(take(int(take(1)[0]))) }
	take(32 + 32 + 8)
	take(32 * number())
	take(number())
	tenants := map[string][]byte{}
	for range number() {
		id := name()
		tenants[id] = take(32)
	}
	for range number() {
		tenant, id := name(), name()
		sealed := take(32 + keyring.SealOverhead)
		if tenant != string(ref.Tenant) || id != string(ref.Scope) {
			continue
		}
		place := append(append([]byte{byte(len(tenant))}, tenant...), append([]byte{byte(len(id))}, id...)...)
		key := open(derive(tenants[tenant], nil, "menshen/v1/tenant"), sealed, place)
		return map[string][]byte{
			"scope key": key, "wrapped scope key": sealed, "key of records": derive(key, nil, "menshen/v1/records"),
			"rotation seed": derive(key, nil, "menshen/v1/rotation"), "decoy seed": derive(key, nil, "menshen/v1/decoy"),
		}
	}
	t.Fatalf("%s has no key", ref)
	return nil
}

// codesOf computes the codes of faces under a rotation.
func codesOf(t *testing.T, seed []byte, dim int32, faces map[string]*menshenv1.Probe) chunks {
	t.Helper()
	rotation, err := code.NewRotation(code.RotationSeed(seed), int(dim))
	if err != nil {
		t.Fatal(err)
	}
	found := chunks{}
	for id, face := range faces {
		vector := face.GetEmbedding().Vector
		embedding := make([]float32, dim)
		if _, err := binary.Decode(vector, binary.LittleEndian, embedding); err != nil {
			t.Fatal(err)
		}
		c, err := code.Encode(rotation, embedding)
		if err != nil {
			t.Fatal(err)
		}
		values := make([]byte, len(c.Q))
		for i, q := range c.Q {
			values[i] = byte(q)
		}
		found.add(id, values)
	}
	return found
}

// sealedRecords reads all values of a scope, of all versions, from a copy of the
// database.
func sealedRecords(t *testing.T, data string, ref scope.Ref) chunks {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "records")
	copyTree(t, filepath.Join(data, "records"), dir)
	db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	found, n := chunks{}, 0
	err = db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.AllVersions = true
		o.Prefix = []byte("\x04" + string(ref.Tenant) + "\x00" + string(ref.Scope) + "\x00")
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			n++
			found.add("a record", value[min(1, len(value)):])
		}
		return nil
	})
	if err != nil || n < 160 {
		t.Fatalf("%d records, %v; want subjects and templates", n, err)
	}
	return found
}

// cannotOpen tries what is left on a copy from before.
func cannotOpen(t *testing.T, before, data, root string, ref scope.Ref) {
	t.Helper()
	load := func() *keyring.Root {
		r, err := keyring.LoadRoot(root, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if k, err := keyring.Open(filepath.Join(before, "keyring"), load(), keyring.Options{}); err == nil {
		k.Close()
		t.Error("the old keyring opens under today's root key")
	} else if !errors.Is(err, keyring.ErrOldCopy) {
		t.Errorf("the old keyring: %v, want ErrOldCopy", err)
	}
	k, err := keyring.Open(filepath.Join(data, "keyring"), load(), keyring.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	s, err := store.Open(context.Background(), store.Options{Dir: before, Keyring: k})
	if err != nil {
		t.Fatalf("the old records beside today's keyring: %v; want them open, but those of the scope", err)
	}
	defer s.Close()
	if records, err := s.List(store.Key{Kind: store.KindTemplate, Ref: ref, ID: "early-1"}, "", 10); !errors.Is(err, keyring.ErrDestroyed) {
		t.Errorf("old templates beside today's keyring: %d read, %v; want ErrDestroyed", len(records), err)
	}
	n := 0
	if _, err := s.Load(ref, func(store.Record) error { n++; return nil }); !errors.Is(err, keyring.ErrDestroyed) || n > 0 {
		t.Errorf("the old scope beside today's keyring: %d records, %v; want ErrDestroyed", n, err)
	}
}

// chunkLen is how much of a secret must be found together: enough not to be
// found by chance, and little enough that a half overwritten one is noticed.
const chunkLen = 16

// chunks are the pieces of secrets, by their first 8 bytes, with the names of
// those that they are of.
type chunks map[uint64][]chunk

type chunk struct {
	name  string
	bytes [chunkLen]byte
}

func (c chunks) add(name string, secret []byte) {
	for ; len(secret) >= chunkLen; secret = secret[chunkLen:] {
		w := binary.BigEndian.Uint64(secret)
		c[w] = append(c[w], chunk{name, [chunkLen]byte(secret)})
	}
}

// scan calls found for every piece that stands at any position of b.
func (c chunks) scan(filter []uint64, b []byte, found func(at int, ch chunk)) {
	var w uint64
	for i, x := range b {
		w = w<<8 | uint64(x)
		if h := w & (1<<20 - 1); filter[h>>6]&(1<<(h&63)) == 0 || i < 7 {
			continue
		}
		for _, ch := range c[w] {
			if at := i - 7; bytes.HasPrefix(b[at:], ch.bytes[:]) {
				found(at, ch)
			}
		}
	}
}

func (c chunks) filter() []uint64 {
	f := make([]uint64, 1<<14)
	for w := range c {
		h := w & (1<<20 - 1)
		f[h>>6] |= 1 << (h & 63)
	}
	return f
}

// inFiles counts pieces in all files below dir.
func (c chunks) inFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	filter := c.filter()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		c.scan(filter, b, func(int, chunk) { n++ })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// inMemory counts pieces in the writable memory of a process, by what they are
// of. It returns nil, and says so, where the memory cannot be read.
func (c chunks) inMemory(t *testing.T, pid int) map[string]int {
	t.Helper()
	regions, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Logf("the server's memory is not searched: %v", err)
		return nil
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Logf("the server's memory is not searched: %v", err)
		return nil
	}
	defer mem.Close()
	filter, found, size := c.filter(), map[string]int{}, 0
	buf := make([]byte, 4<<20)
	for line := range strings.Lines(string(regions)) {
		var from, to uint64
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); n != 3 || !strings.HasPrefix(mode, "rw") {
			continue
		}
		for from < to {
			n, err := mem.ReadAt(buf[:min(uint64(len(buf)), to-from)], int64(from))
			c.scan(filter, buf[:n], func(_ int, ch chunk) { found[ch.name]++ })
			size += n
			if n == 0 || err != nil {
				break // unmapped meanwhile, or not readable
			}
			if from+uint64(n) >= to {
				break
			}
			from += uint64(n - chunkLen + 1)
		}
	}
	if size < 1<<20 {
		t.Logf("the server's memory is not searched: %d bytes of it can be read", size)
		return nil
	}
	return found
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The search finds a piece at any position, once for each place, and nothing in
// noise.
func TestChunks(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<16)
	for i := range noise {
		noise[i] = byte(dice.Uint32())
	}
	secret := []byte("sixteen letters and sixteen more")
	c := chunks{}
	c.add("s", secret)
	count := func(b []byte) (n int) {
		c.scan(c.filter(), b, func(int, chunk) { n++ })
		return n
	}
	if n := count(noise); n != 0 {
		t.Errorf("%d in noise", n)
	}
	for _, at := range []int{0, 1, 4097, len(noise) - len(secret)} {
		b := bytes.Clone(noise)
		copy(b[at:], secret)
		if n := count(b); n != 2 {
			t.Errorf("%d of 2 pieces at %d", n, at)
		}
		b[at] ^= 1
		if n := count(b); n != 1 {
			t.Errorf("%d pieces of a half overwritten one at %d", n, at)
		}
	}
}
