package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
)

// backUp returns a backup of the site.
func (s *site) backUp() []byte {
	s.t.Helper()
	var out bytes.Buffer
	if _, err := s.Backup(context.Background(), &out, Origin{Server: "test", Generation: s.keys.Generation()}); err != nil {
		s.t.Fatal(err)
	}
	return out.Bytes()
}

// everything restores all that opens.
func everything(s *site) RestoreOptions {
	opt := RestoreOptions{
		Options: s.opt,
		Admit:   func(Origin) error { return nil },
		Sift:    func(_ Head, r Record) ([]byte, error) { return r.Value, nil },
		Finish:  func() ([]Record, error) { return nil, nil },
		Epoch:   func(_ scope.Ref, h Head) scope.Epoch { return h.Epoch + 10 },
	}
	opt.Keyring = s.keys
	return opt
}

// lose closes the store and removes its records, as a broken disk would.
func (s *site) lose() {
	s.t.Helper()
	if err := s.Store.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.Store = nil
	if err := os.RemoveAll(filepath.Join(s.dir, "data", "records")); err != nil {
		s.t.Fatal(err)
	}
}

// reopenStore opens the store under the keyring that is open.
func (s *site) reopenStore() error {
	s.opt.Keyring = s.keys
	st, err := Open(context.Background(), s.opt)
	if err == nil {
		s.Store = st
	}
	return err
}

func (s *site) restore(b []byte) (Restored, error) {
	return Restore(context.Background(), everything(s), bytes.NewReader(b))
}

// many puts 9,000 records, some 4 MiB, into a scope: more than one batch.
func (s *site) many(ref scope.Ref) {
	s.t.Helper()
	for range 30 {
		h, _ := s.Head(ref)
		var puts []Record
		for i := range scope.Epoch(100) {
			puts = append(puts, enrolment(ref, 100*h.Epoch+i).Puts...)
		}
		s.commit(s.next(ref, puts...))
	}
}

func TestBackupAndRestore(t *testing.T) {
	s := newSite(t, Options{})
	for i := range 40 {
		s.commit(s.next(hallA, enrolment(hallA, scope.Epoch(i+1)).Puts...))
		s.commit(s.next(hallB, enrolment(hallB, scope.Epoch(i+1)).Puts...))
	}
	s.commit(Mutation{Puts: []Record{rec(Key{Kind: KindTenant, Ref: scope.Ref{Tenant: "fair"}}, "the fair")}})
	wantA, headA := s.load(hallA)
	backup := s.backUp()

	found, err := VerifyBackup(bytes.NewReader(backup))
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Spaces) != 3 || found.Records != 2*120+2 || len(found.Tenants) != 1 || found.Spaces[1].Head != headA {
		t.Errorf("the backup holds %+v", found)
	}

	// What came later is not in it, and goes with the records.
	s.commit(s.next(hallA, rec(subject(hallA, "late"), "late")))
	s.lose()
	if err := s.reopenStore(); !errors.Is(err, ErrDamaged) {
		t.Fatalf("without its records the store opens: %v", err)
	}
	os.RemoveAll(filepath.Join(s.dir, "data", "records"))
	done, err := s.restore(backup)
	if err != nil {
		t.Fatal(err)
	}
	if done.Scopes != 2 || done.Records != 241 || done.Dropped != 0 || len(done.Damaged) != 0 {
		t.Errorf("restored %+v", done)
	}
	if err := s.reopenStore(); err != nil {
		t.Fatal(err)
	}
	got, head := s.load(hallA)
	if fmt.Sprint(got) != fmt.Sprint(wantA) || head.Digest != headA.Digest || head.Epoch != headA.Epoch+10 {
		t.Errorf("hall A differs: %+v, was %+v", head, headA)
	}
	s.commit(s.next(hallA, rec(subject(hallA, "new"), "new")))
	s.reopen()
	if _, err := s.restore(backup); !errors.Is(err, ErrLocked) {
		t.Errorf("restored into an open store: %v", err)
	}
	if err := s.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.restore(backup); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("restored over records: %v", err)
	}
	if err := s.reopenStore(); err != nil {
		t.Fatal(err)
	}
}

// A backup made under writes is one moment: of every mutation of a scope all or
// nothing, and nothing after its head's epoch.
func TestBackupUnderWrites(t *testing.T) {
	s := newSite(t, Options{})
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for _, ref := range []scope.Ref{hallA, hallB} {
		writers.Go(func() {
			for epoch := scope.Epoch(1); ; epoch++ {
				select {
				case <-stop:
					return
				default:
				}
				m := enrolment(ref, epoch)
				m.Deletes = []Key{subject(ref, fmt.Sprintf("u%d", epoch/2)), template(ref, fmt.Sprintf("u%d", epoch/2), 1), template(ref, fmt.Sprintf("u%d", epoch/2), 2)}
				if err := s.Commit(context.Background(), m); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		found, err := VerifyBackup(bytes.NewReader(s.backUp()))
		if err != nil {
			t.Fatal(err)
		}
		for _, sp := range found.Spaces {
			if sp.Damaged() || sp.Erased || sp.Records != sp.Head.Records {
				t.Fatalf("%s: %+v", sp.Ref, sp)
			}
		}
	}
	close(stop)
	writers.Wait()
}

// A scope that is erased while a slow client takes the backup is erased at once,
// and the backup goes on without it.
func TestErasureDuringBackup(t *testing.T) {
	s := newSite(t, Options{})
	s.many(hallB)
	s.commit(s.next(hallA, rec(subject(hallA, "a"), "a")))
	r, w := io.Pipe()
	result := make(chan error, 1)
	go func() {
		_, err := s.Backup(context.Background(), w, Origin{Generation: s.keys.Generation()})
		w.CloseWithError(err)
		result <- err
	}()
	first := make([]byte, 600<<10)
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err)
	}
	if err := s.keys.Destroy(hallB); err != nil {
		t.Fatal(err)
	}
	if _, err := s.EraseScope(context.Background(), hallB, nil); err != nil {
		t.Fatalf("erasing waits for the backup: %v", err)
	}
	rest, err := io.ReadAll(r)
	if err != nil || <-result != nil {
		t.Fatal(err)
	}
	backup := append(first, rest...)
	found, err := VerifyBackup(bytes.NewReader(backup))
	if err != nil {
		t.Fatal(err)
	}
	if b := found.Spaces[2]; !b.Erased || b.Damaged() || b.Records >= b.Head.Records {
		t.Errorf("hall B in the backup: %+v", b)
	}
	s.lose()
	if done, err := s.restore(backup); err != nil || done.Dropped != 1 || done.Scopes != 1 {
		t.Fatalf("restored %+v: %v", done, err)
	}
	if err := s.reopenStore(); err != nil {
		t.Fatal(err)
	}
}

// A record that the disk has lost is told, not hidden.
func TestBackupOfDamage(t *testing.T) {
	s := newSite(t, Options{})
	s.commit(s.next(hallA, rec(subject(hallA, "a"), "a"), rec(subject(hallA, "b"), "b")))
	key, err := subject(hallA, "b").encode()
	if err != nil {
		t.Fatal(err)
	}
	txn := s.db.NewTransaction(true)
	if err := errors.Join(txn.Delete(key), txn.Commit()); err != nil {
		t.Fatal(err)
	}
	backup := s.backUp()
	s.lose()
	done, err := s.restore(backup)
	if err != nil || len(done.Damaged) != 1 {
		t.Fatalf("restored %+v: %v", done, err)
	}
	if err := s.reopenStore(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(hallA, func(Record) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("the damaged scope loads: %v", err)
	}
	s.Store.Close()
	s.Store = nil // its check would fail, and should
	s.keys.Close()
}

// Every byte flipped (but for the seal, which only the server can check) and
// every cut: refused, and nothing is left of the attempt
// that could be served.
func TestAlteredBackup(t *testing.T) {
	s := newSite(t, Options{})
	s.commit(s.next(hallA, rec(subject(hallA, "a"), "a"), rec(template(hallA, "a", 1), "code")))
	backup := s.backUp()
	s.lose()
	for i := range backup {
		bad := bytes.Clone(backup)
		bad[i] ^= 1 << rand.IntN(8)
		if _, err := VerifyBackup(bytes.NewReader(bad)); i < len(backup)-(sha256.Size+keyring.SealOverhead) && !errors.Is(err, ErrBackup) && !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d flipped: verified, %v", i, err)
		}
		if _, err := VerifyBackup(bytes.NewReader(backup[:i])); !errors.Is(err, ErrBackup) {
			t.Fatalf("cut after %d bytes: verified, %v", i, err)
		}
	}
	for range 60 {
		i := rand.IntN(len(backup))
		bad := bytes.Clone(backup)
		bad[i] ^= 1 << rand.IntN(8)
		if _, err := s.restore(bad); err == nil {
			t.Fatalf("byte %d flipped: restored", i)
		}
		if err := s.reopenStore(); !errors.Is(err, ErrRestoring) {
			t.Fatalf("a failed restore is opened: %v", err)
		}
	}
	if _, err := s.restore(append(bytes.Clone(backup), 0)); !errors.Is(err, ErrBackup) {
		t.Errorf("with a byte more: %v", err)
	}
	if _, err := s.restore(backup); err != nil {
		t.Fatal(err)
	}
	if err := s.reopenStore(); err != nil {
		t.Fatal(err)
	}
}

func TestForeignBackup(t *testing.T) {
	s, other := newSite(t, Options{}), newSite(t, Options{})
	s.commit(s.next(hallA, rec(subject(hallA, "a"), "a")))
	backup := s.backUp()
	other.lose()
	if _, err := other.restore(backup); !errors.Is(err, ErrKeyring) {
		t.Errorf("another server's backup: %v", err)
	}
	os.RemoveAll(filepath.Join(other.dir, "data"))
	if err := other.reopenStore(); err == nil {
		other.Store.Close()
	}
	other.Store = nil
	other.keys.Close()

	// The server's own, with a keyring from before the backup.
	copied, err := os.ReadFile(filepath.Join(s.dir, "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.keys.Create(scope.Ref{Tenant: "fair", Scope: "hall-c"}); err != nil {
		t.Fatal(err)
	}
	hallC := scope.Ref{Tenant: "fair", Scope: "hall-c"}
	s.commit(s.next(hallC, rec(subject(hallC, "c"), "c")))
	backup = s.backUp()
	s.lose()
	s.keys.Close()
	if err := os.WriteFile(filepath.Join(s.dir, "keyring"), copied, 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := keyring.LoadRoot(filepath.Join(s.dir, "root.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.keys, err = keyring.Open(filepath.Join(s.dir, "keyring"), root, keyring.Options{}); err != nil {
		t.Fatal(err)
	}
	defer s.keys.Close()
	if _, err := s.restore(backup); !errors.Is(err, ErrKeyring) || !strings.Contains(err.Error(), "newest copy of the keyring") {
		t.Errorf("an older keyring: %v", err)
	}
}

func TestRestoreOnFullDisk(t *testing.T) {
	s := newSite(t, Options{})
	s.many(hallA)
	backup := s.backUp()
	s.lose()
	opt := everything(s)
	free := uint64(1 << 40)
	opt.FreeBytes = func(string) (uint64, error) { return free, nil }
	opt.Failpoint = func(step string) {
		if step == "store/restore/batch" && free > 0 {
			free = 0
			time.Sleep(freeSpaceAge + time.Millisecond) // so that it is asked for again
		}
	}
	if _, err := Restore(context.Background(), opt, bytes.NewReader(backup)); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if err := s.reopenStore(); !errors.Is(err, ErrRestoring) {
		t.Fatalf("a half restore opens: %v", err)
	}
	if _, err := s.restore(backup); err != nil {
		t.Fatal(err)
	}
	if err := s.reopenStore(); err != nil {
		t.Fatal(err)
	}
}

// A process that dies at any step leaves what is not served, and what restores
// when it is called again.
func TestKilledRestore(t *testing.T) {
	s := newSite(t, Options{})
	s.many(hallA)
	want, _ := s.load(hallA)
	backup := s.backUp()
	file := filepath.Join(s.dir, "backup")
	if err := os.WriteFile(file, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	kills := 0
	for _, step := range []string{"begun", "batch", "read", "checked", "built", "renamed witness", "renamed records"} {
		if s.Store != nil {
			s.lose()
		}
		s.keys.Close()
		cmd := child("restore", s.dir)
		cmd.Env = append(cmd.Env, "MENSHEN_STORE_TEST_STEP=store/restore/"+step)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("%s: the child was not killed: %v\n%s", step, err, out)
		}
		kills++
		root, err := keyring.LoadRoot(filepath.Join(s.dir, "root.key"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.keys, err = keyring.Open(filepath.Join(s.dir, "keyring"), root, keyring.Options{}); err != nil {
			t.Fatal(err)
		}
		if err := s.reopenStore(); !errors.Is(err, ErrRestoring) {
			t.Fatalf("%s: a half restore opens: %v", step, err)
		}
		if _, err := s.restore(backup); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if err := s.reopenStore(); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if got, _ := s.load(hallA); len(got) != len(want) {
			t.Fatalf("%s: %d records, want %d", step, len(got), len(want))
		}
	}
	t.Logf("%d kills", kills)
}

// BenchmarkBackupSize counts the backup of 300,000 records, three for each of
// 100,000 subjects. It is what everybody waits for who begins a backup.
func BenchmarkBackupSize(b *testing.B) {
	s := newSite(b, Options{MemTableBytes: 32 << 20})
	const subjects = 100_000
	s.fill(hallA, subjects)
	for b.Loop() {
		if n, err := s.BackupSize(context.Background()); err != nil || n < subjects {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N)/(3*subjects)*1e6, "ms/1M-records")
}
