package main

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// rootSecrets are the root key of a file, as it is and as the file spells it.
func rootSecrets(t *testing.T, path string) [][]byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(strings.TrimSpace(string(text)), ":")
	spelled := parts[len(parts)-1]
	key, err := base64.StdEncoding.DecodeString(spelled)
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{key, []byte(spelled)}
}

// openByHand reads a keyring file with the root key as its format says
// (index/keyring/file.go), without the keyring's code, and returns the secrets
// of a scope.
func openByHand(t *testing.T, path, rootPath string, ref scope.Ref) map[string][]byte {
	t.Helper()
	rootKey := rootSecrets(t, rootPath)[0]
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
			"file key of the keyring": fileKey, "scope key": key, "wrapped scope key": sealed, "key of records": derive(key, nil, "menshen/v1/records"),
			"rotation seed": derive(key, nil, "menshen/v1/rotation"), "decoy seed": derive(key, nil, "menshen/v1/decoy"),
		}
	}
	t.Fatalf("%s has no key", ref)
	return nil
}

// codesOf computes the codes of faces under a rotation, and takes the rotation apart.
func codesOf(t *testing.T, seed []byte, dim int32, faces map[string]*menshenv1.Probe) (found, moves chunks) {
	t.Helper()
	rotation, err := code.NewRotation(code.RotationSeed(seed), int(dim))
	if err != nil {
		t.Fatal(err)
	}
	found, moves = chunks{}, chunks{}
	var drawn []byte
	for _, m := range reflect.ValueOf(rotation).Elem().FieldByName("moves").Seq2() {
		drawn = binary.NativeEndian.AppendUint16(drawn, uint16(m.Uint()))
	}
	moves.add("rotation", drawn)
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
	return found, moves
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
