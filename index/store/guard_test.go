package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"golang.org/x/sys/unix"
)

func TestSecondServer(t *testing.T) {
	s := newSite(t, Options{})
	other, err := keyring.Open(filepath.Join(t.TempDir(), "keyring"), keyring.NewRoot(), keyring.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_, err = Open(context.Background(), Options{Dir: s.opt.Dir, Keyring: other})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), s.opt.Dir) {
		t.Fatalf("a second Open: %v", err)
	}
	s.fill(hallA, 1) // the first goes on
	s.close()
	if _, err := Open(context.Background(), Options{Dir: s.opt.Dir, Keyring: other}); !errors.Is(err, ErrKeyring) {
		t.Errorf("a foreign keyring: %v", err)
	}
	s.open()
	if got, _ := s.load(hallA); len(got) != 3 {
		t.Errorf("%d records", len(got))
	}
}

// TestDirectories opens directories that can not be a store. The owner of all,
// root, may write anywhere: the test takes the rights from its thread.
func TestDirectories(t *testing.T) {
	keys, err := keyring.Open(filepath.Join(t.TempDir(), "keyring"), keyring.NewRoot(), keyring.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	base, err := os.MkdirTemp("", "store")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	os.Chmod(base, 0o755)
	sealedOff := filepath.Join(base, "sealed-off")
	file := filepath.Join(base, "file")
	foreign := filepath.Join(base, "foreign")
	os.Mkdir(sealedOff, 0o555)
	os.WriteFile(file, nil, 0o644)
	db, err := badger.Open(badger.DefaultOptions(filepath.Join(foreign, "records")).WithLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	db.Update(func(txn *badger.Txn) error { return txn.Set([]byte("hello"), nil) })
	db.Close()
	try := func(dir string) error {
		result := make(chan error)
		go func() {
			if os.Getuid() == 0 && dir == sealedOff {
				runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
				unix.Setfsuid(65534)
				if uid, _ := unix.SetfsuidRetUid(-1); uid != 65534 {
					result <- unix.EPERM
					return
				}
			}
			s, err := Open(context.Background(), Options{Dir: dir, Keyring: keys})
			if s != nil {
				s.Close()
			}
			result <- err
		}()
		return <-result
	}
	if err := try(sealedOff); errors.Is(err, unix.EPERM) {
		t.Log("NOT RUN: a read-only directory; this root cannot lay down its rights")
	} else if !errors.Is(err, ErrReadOnlyDir) || !strings.Contains(err.Error(), sealedOff) {
		t.Errorf("a read-only directory: %v", err)
	}
	if err := try(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file: %v", err)
	}
	if err := try(foreign); !errors.Is(err, ErrFormat) {
		t.Errorf("another database: %v", err)
	}
	if _, err := Open(context.Background(), Options{}); err == nil {
		t.Error("no directory and no keyring")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, Options{Dir: filepath.Join(base, "x"), Keyring: keys}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestMovedRecord moves sealed values to other places, as somebody with access
// to the files might, and wants none of them to open there.
func TestMovedRecord(t *testing.T) {
	s := newSite(t, Options{})
	s.commit(s.next(hallA, rec(subject(hallA, "u1"), "one"), rec(template(hallA, "u1", 1), "code"), rec(template(hallA, "u2", 1), "other")))
	s.commit(s.next(hallB, rec(template(hallB, "u1", 1), "there")))
	revoked := Key{Kind: KindRevocation, Ref: hallA}
	s.commit(Mutation{Puts: []Record{rec(revoked, "x"), rec(Key{Kind: KindScope, Ref: hallA}, "y")}})
	encoded := func(k Key) []byte {
		b, err := k.encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, move := range [][2]Key{
		{template(hallA, "u1", 1), template(hallA, "u2", 1)},
		{template(hallA, "u1", 1), template(hallA, "u1", 2)},
		{template(hallA, "u1", 1), subject(hallA, "u1")},
		{template(hallA, "u1", 1), template(hallB, "u1", 1)},
		{Key{Kind: KindScope, Ref: hallA}, revoked},
		{Key{Kind: KindScope, Ref: hallA}, {Kind: KindScope, Ref: hallB}},
	} {
		from, to := encoded(move[0]), encoded(move[1])
		value, err := s.raw(from)
		if err != nil {
			t.Fatal(err)
		}
		old, oldErr := s.raw(to)
		put := func(v []byte) {
			err := s.db.Update(func(txn *badger.Txn) error {
				if v == nil {
					return txn.Delete(to)
				}
				return txn.Set(to, v)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		put(value)
		if got, err := s.Get(move[1]); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s at %s: %q, %v", move[0], move[1], got, err)
		}
		if err := s.Check(); !errors.Is(err, ErrDamaged) {
			t.Errorf("Check with %s at %s: %v", move[0], move[1], err)
		}
		if oldErr != nil {
			old = nil
		}
		put(old)
	}
}

// TestLostRecord takes records away behind the store's back.
func TestLostRecord(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 10)
	s.commit(Mutation{Puts: []Record{rec(Key{Kind: KindRevocation, Ref: hallB}, "gone")}})
	without := func(key []byte, check func()) {
		t.Helper()
		value, err := s.raw(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.db.Update(func(txn *badger.Txn) error { return txn.Delete(key) }); err != nil {
			t.Fatal(err)
		}
		check()
		if err := s.db.Update(func(txn *badger.Txn) error { return txn.Set(key, value) }); err != nil {
			t.Fatal(err)
		}
	}
	record, _ := template(hallA, "u3", 1).encode()
	without(record, func() {
		_, err := s.Load(hallA, func(Record) error { return nil })
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "holds 29 records and should hold 30") || !strings.Contains(err.Error(), hallA.String()) {
			t.Errorf("Load without a record: %v", err)
		}
	})
	refusesToOpen := func(what string) func() {
		return func() {
			s.close()
			if err := s.tryOpen(); !errors.Is(err, ErrDamaged) {
				t.Errorf("opened without %s: %v", what, err)
			}
			db, err := badger.Open(badger.DefaultOptions(filepath.Join(s.opt.Dir, "records")).WithLogger(nil))
			if err != nil {
				t.Fatal(err)
			}
			s.Store = &Store{db: db, dir: s.dir}
		}
	}
	for what, key := range map[string][]byte{
		"a revocation":    mustEncode(t, Key{Kind: KindRevocation, Ref: hallB}),
		"a head":          headKey(hallA),
		"the system head": headKey(scope.Ref{}),
		"the tip":         keyTip,
	} {
		without(key, refusesToOpen(what))
		s.db.Close()
		s.open()
	}
}

func mustEncode(t *testing.T, k Key) []byte {
	t.Helper()
	b, err := k.encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRollback puts an older state of the database beside the witness.
func TestRollback(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 10)
	records := filepath.Join(s.dir, "data", "records")
	s.close()
	old := takeImage(t, records)
	s.open()
	s.fill(hallA, 20)
	s.close()
	newer := takeImage(t, records)
	put := func(img image) {
		os.RemoveAll(records)
		img.restore(t, records)
	}
	put(old)
	if err := s.tryOpen(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "the last 1 of 3 acknowledged transactions are missing") {
		t.Errorf("an older database: %v", err)
	}
	put(image{})
	if err := s.tryOpen(); !errors.Is(err, ErrDamaged) {
		t.Errorf("no database: %v", err)
	}
	put(newer)
	witness := filepath.Join(s.dir, "data", "witness")
	whole, err := os.ReadFile(witness)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(witness)
	if err := s.tryOpen(); !errors.Is(err, ErrDamaged) {
		t.Errorf("no witness: %v", err)
	}
	write := func(b []byte) {
		if err := os.WriteFile(witness, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(make([]byte, len(whole)))
	if err := s.tryOpen(); !errors.Is(err, ErrDamaged) {
		t.Errorf("an empty witness: %v", err)
	}
	torn := bytes.Clone(whole) // the next transaction's slot, half written
	clear(torn[20:slotLen])
	write(torn)
	s.open()
	s.fill(hallB, 1)
	s.reopen()
}

// TestFailedWrite lets the witness fail and wants everything after it refused
// until the store is opened again, when what was durable is there.
func TestFailedWrite(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 1)
	s.witness.f.Close()
	err := s.Commit(context.Background(), s.next(hallA, rec(subject(hallA, "lost?"), "x")))
	if !errors.Is(err, ErrFailed) {
		t.Fatalf("a failed write: %v", err)
	}
	for range 2 {
		if err := s.Commit(context.Background(), s.next(hallA, rec(subject(hallA, "later"), "x"))); !errors.Is(err, ErrFailed) {
			t.Fatalf("after a failed write: %v", err)
		}
	}
	if _, err := s.EraseScope(context.Background(), hallB, nil); !errors.Is(err, ErrFailed) {
		t.Fatalf("erasing after a failed write: %v", err)
	}
	if !s.Stats().Failed {
		t.Error("Stats does not tell")
	}
	if _, err := s.Get(subject(hallA, "u1")); err != nil {
		t.Errorf("reading after a failed write: %v", err)
	}
	s.Store.Close() // reports the closed witness
	s.keys.Close()
	s.open()
	if _, err := s.Get(subject(hallA, "later")); !errors.Is(err, ErrNotFound) {
		t.Errorf("a refused write is there: %v", err)
	}
	s.commit(s.next(hallA, rec(subject(hallA, "after"), "x")))
}

// TestPlaintextNowhere looks for marked values in all files, in those of a
// running store and of a closed one, in clear, hexadecimal and upper case.
func TestPlaintextNowhere(t *testing.T) {
	var log bytes.Buffer
	s := newSite(t, Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	mark := "MARKED-PLAINTEXT-0123456789"
	for i := range 50 {
		id := fmt.Sprint("u", i)
		s.commit(s.next(hallA, rec(subject(hallA, id), mark), rec(template(hallA, id, 1), strings.Repeat(mark, 20))))
	}
	s.commit(Mutation{Puts: []Record{rec(Key{Kind: KindTenant, Ref: scope.Ref{Tenant: "fair"}}, mark), rec(Key{Kind: KindCredential, ID: "c"}, mark)}})
	marks := [][]byte{[]byte(mark), []byte(hex.EncodeToString([]byte(mark)))}
	for range 2 {
		if n := s.grep(marks); n != 0 {
			t.Errorf("%d files hold a value in clear", n)
		}
		if s.grep([][]byte{[]byte("fair\x00hall-a")}) == 0 {
			t.Error("not even the keys were found: the test shows nothing")
		}
		s.reopen()
	}
	if strings.Contains(log.String(), mark) {
		t.Error("the log holds a value in clear")
	}
}

// TestInterruptedCreation leaves what a crash leaves between the two files of a
// new store.
func TestInterruptedCreation(t *testing.T) {
	s := newSite(t, Options{})
	s.close()
	if err := os.RemoveAll(filepath.Join(s.dir, "data", "records")); err != nil {
		t.Fatal(err)
	}
	w, err := createWitness(filepath.Join(s.dir, "data", "witness"))
	if err != nil {
		t.Fatal(err)
	}
	w.close()
	s.open()
	s.fill(hallA, 1)
	s.reopen()
}

// A crash between the making of a log and its first byte, or between the emptying
// and the removal of an old one, leaves an empty file: the store opens.
func TestEmptyLogs(t *testing.T) {
	s := newSite(t, Options{})
	s.fill(hallA, 10)
	want, _ := s.load(hallA)
	s.close()
	for _, name := range []string{"00001.mem", "00099.mem", "000099.vlog"} {
		path := filepath.Join(s.dir, "data", "records", name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.open()
	if got, _ := s.load(hallA); !maps.Equal(got, want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}
