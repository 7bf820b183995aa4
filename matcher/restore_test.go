package matcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/backup"
	"github.com/menshen-io/menshen/matcher/idempotency"
	"github.com/menshen-io/menshen/matcher/receipt"
)

// backUp returns a backup of the world, opened.
func (w *world) backUp() []byte {
	w.t.Helper()
	id, err := age.GenerateX25519Identity()
	must(w.t, err)
	file := filepath.Join(w.t.TempDir(), "identity")
	must(w.t, os.WriteFile(file, []byte(id.String()), 0o600))
	var out, plain bytes.Buffer
	_, err = w.Matcher.Backup(context.Background(), &out, []string{id.Recipient().String()})
	must(w.t, err)
	in, err := backup.Decrypt(&out, file)
	must(w.t, err)
	_, err = plain.ReadFrom(in)
	must(w.t, err)
	return plain.Bytes()
}

// lose closes the server and removes its records; the keyring stays open.
func (w *world) loseRecords() {
	w.t.Helper()
	must(w.t, w.Matcher.Close())
	must(w.t, w.store.Close())
	must(w.t, os.RemoveAll(filepath.Join(w.dir, "data", "records")))
}

func (w *world) restore(b []byte, change ...func(*RestoreOptions)) (Restoration, error) {
	opt := RestoreOptions{
		Store:    store.Options{Dir: filepath.Join(w.dir, "data"), Keyring: w.keyring, FreeBytes: func(string) (uint64, error) { return roomy, nil }},
		Receipts: filepath.Join(w.dir, "receipts"), Clock: w.now,
	}
	for _, f := range change {
		f(&opt)
	}
	return Restore(context.Background(), opt, bytes.NewReader(b))
}

// reopen opens the server again after a restore.
func (w *world) reopen() {
	w.t.Helper()
	must(w.t, w.keyring.Close())
	w.open()
}

// completed waits until the ledger holds so many receipts.
func (w *world) completed(n uint64) {
	w.t.Helper()
	for end := time.Now().Add(2 * time.Minute); w.receipts.ledger.Mark().Number < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%d receipts are in the ledger, want %d", w.receipts.ledger.Mark().Number, n)
		}
	}
}

func visitor(i int) scope.SubjectID { return scope.SubjectID(fmt.Sprint("visitor-", i)) }

func TestRestoreRevivesNothing(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	hallB := scope.Ref{Tenant: "fair", Scope: "hall-b"}
	locker := scope.Ref{Tenant: "fair", Scope: "locker"}
	for _, ref := range []scope.Ref{hallA, hallB} {
		w.create(ref)
	}
	single := w.settings()
	single.SingleUse = true
	_, err := w.CreateScope(ctx, grant(locker), single, request())
	must(t, err)
	for i := range 6 {
		w.enroll(hallA, visitor(i), vectorOf(uint16(i), 0))
		w.enroll(hallB, visitor(i), vectorOf(uint16(i), 0))
		w.enroll(locker, visitor(i), vectorOf(uint16(i), 0))
	}
	saved := w.backUp()

	erase := func(id string) {
		t.Helper()
		_, err := w.DeleteSubject(ctx, grant(hallA), scope.SubjectID(id), idempotency.Request{})
		must(t, err)
	}
	erase("visitor-1")
	_, err = w.WithdrawConsent(ctx, grant(hallA), "visitor-2", idempotency.Request{})
	must(t, err)
	w.enroll(hallA, "late", vectorOf(40, 0))
	_, err = w.RevokeScope(ctx, grant(hallB), request())
	must(t, err)
	w.completed(3)
	w.loseRecords()

	done, err := w.restore(saved)
	must(t, err)
	if len(done.Suspended) != 2 || len(done.Revoked) != 1 || done.Dropped != 1 || done.Subjects != 2+6 || len(done.Lost) != 0 {
		t.Errorf("restored %+v", done)
	}
	w.reopen()
	for ref, want := range map[scope.Ref]scope.State{hallA: scope.Suspended, hallB: scope.Revoked, locker: scope.Suspended} {
		if s, err := w.Scope(ctx, grant(ref)); err != nil || s.State != want {
			t.Errorf("%s is %v after the restore, want %v: %v", ref, s.State, want, err)
		}
	}
	if _, err := w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "visitor-0", Probe: vectorOf(0, 1)}); !errors.Is(err, ErrScopeSuspended) {
		t.Errorf("a restored scope answers before it is resumed: %v", err)
	}
	_, err = w.ResumeScope(ctx, grant(hallA), request())
	must(t, err)
	for i, want := range []Outcome{Match, NoMatch, NoMatch, Match, Match, Match} {
		if d := w.verify(hallA, visitor(i), vectorOf(uint16(i), 1)); d.Outcome != want {
			t.Errorf("visitor-%d: %v, want %v", i, d.Outcome, want)
		}
	}
	// Epochs, which receipts are named by, were moved on.
	e, err := w.DeleteSubject(ctx, grant(hallA), "visitor-3", idempotency.Request{})
	if err != nil || e.Epoch < epochsApart {
		t.Errorf("erased at epoch %d: %v", e.Epoch, err)
	}
	w.completed(4)
}

// Time that passed counts, and so does what nobody can know.
func TestRestoreOfTheExpired(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	w.enroll(hallA, "visitor-0", vectorOf(0, 0))
	saved := w.backUp()
	w.loseRecords()
	w.pass(80 * time.Hour)
	done, err := w.restore(saved)
	must(t, err)
	if done.Subjects != 1 || done.Templates != 1 {
		t.Errorf("restored %+v", done)
	}
	w.reopen()
}

// A ledger that is gone, shorter or altered: refused, and what is refused is not
// served.
func TestRestoreNeedsTheLedger(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	hallB := scope.Ref{Tenant: "fair", Scope: "hall-b"}
	w.create(hallA)
	w.create(hallB)
	w.enroll(hallA, "visitor-0", vectorOf(0, 0))
	w.enroll(hallA, "visitor-1", vectorOf(1, 0))
	before := w.backUp()
	_, err := w.DeleteSubject(ctx, grant(hallA), "visitor-0", idempotency.Request{})
	must(t, err)
	w.completed(1)
	after := w.backUp()
	_, err = w.RevokeScope(ctx, grant(hallB), request())
	must(t, err)
	w.completed(2)
	w.loseRecords()

	folder := filepath.Join(w.dir, "receipts")
	names, err := os.ReadDir(folder)
	must(t, err)
	file := filepath.Join(folder, names[0].Name())
	whole, err := os.ReadFile(file)
	must(t, err)
	first := whole[:bytes.IndexByte(whole, '\n')+1]
	altered := bytes.Replace(whole, []byte("hall-a"), []byte("hall-c"), 1)
	for name, tc := range map[string]struct {
		backup, ledger []byte
		want           error
	}{
		"empty, older than the backup":  {after, nil, receipt.ErrLedger},
		"altered":                       {before, altered, receipt.ErrLedger},
		"without the revoked scope's":   {before, first, ErrOldLedger},
		"cut within the backup's entry": {after, first[:len(first)-9], receipt.ErrLedger},
	} {
		must(t, os.WriteFile(file, tc.ledger, 0o600))
		if _, err := w.restore(tc.backup); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := store.Open(ctx, store.Options{Dir: filepath.Join(w.dir, "data"), Keyring: w.keyring}); !errors.Is(err, store.ErrRestoring) {
			t.Errorf("%s: a refused restore is served: %v", name, err)
		}
	}
	must(t, os.Rename(folder, folder+".away"))
	if _, err := w.restore(before); !errors.Is(err, ErrOldLedger) {
		t.Errorf("missing: %v", err)
	}
	must(t, os.Rename(folder+".away", folder))
	must(t, os.WriteFile(file, first, 0o600))
	if _, err := w.restore(before, func(o *RestoreOptions) { o.MissingReceipts = true }); err != nil {
		t.Errorf("an interrupted revocation, accepted: %v", err)
	}
	must(t, os.WriteFile(file, whole, 0o600))
	w.reopen()
	if s, err := w.Scope(ctx, grant(hallB)); err != nil || s.State != scope.Revoked {
		t.Errorf("hall B is %v: %v", s.State, err)
	}
}

// A ledger that ends within a line is refused, since the line may have said who was
// erased, and stays as it is; who accepts it is told by the flag who comes back.
func TestRestoreOfATornLedger(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	for i := range 3 {
		w.enroll(hallA, visitor(i), vectorOf(uint16(i), 0))
	}
	saved := w.backUp()
	for i := range 2 {
		_, err := w.DeleteSubject(context.Background(), grant(hallA), visitor(i), request())
		must(t, err)
		w.completed(uint64(i + 1))
	}
	w.loseRecords()
	names, err := filepath.Glob(filepath.Join(w.dir, "receipts", "*"))
	must(t, err)
	whole, err := os.ReadFile(names[0])
	must(t, err)
	line := bytes.IndexByte(whole, '\n') + 1
	for _, size := range []int{0, 9, line - 1, line + 1, len(whole) - 100, len(whole) - 1} {
		must(t, os.WriteFile(names[0], whole[:size], 0o600))
		if _, err := w.restore(saved); !errors.Is(err, ErrOldLedger) || !errors.Is(err, receipt.ErrTorn) {
			t.Errorf("cut to %d of %d bytes: %v", size, len(whole), err)
		}
		if info, err := os.Stat(names[0]); err != nil || info.Size() != int64(size) {
			t.Errorf("the refused ledger is not as it was: %v", err)
		}
	}
	done, err := w.restore(saved, func(o *RestoreOptions) { o.TornReceipts = true })
	if err != nil || done.Receipts != 1 || done.Subjects != 1 {
		t.Errorf("accepted: %+v, %v", done, err)
	}
	w.reopen()
}

// What a decrypted backup does not hold: codes, keys, and what people said.
func TestBackupAutopsy(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	w.enroll(hallA, "visitor-0", vectorOf(0, 0))
	saved := w.backUp()
	if !bytes.Contains(saved, []byte("visitor-0")) {
		t.Fatal("the subject's key is not in the backup: the search shows nothing")
	}
	var searched [][]byte
	_, err := w.store.Load(hallA, func(r store.Record) error {
		for at := 0; at+16 <= len(r.Value); at += 16 {
			searched = append(searched, r.Value[at:at+16])
		}
		return nil
	})
	must(t, err)
	keys, err := w.keyring.Keys(hallA)
	must(t, err)
	var rotation [32]byte
	must(t, keys.WithRotationSeed(func(seed *[32]byte) error { rotation = *seed; return nil }))
	signing, err := w.keyring.Signing()
	must(t, err)
	ring, err := os.ReadFile(filepath.Join(w.dir, "keyring"))
	must(t, err)
	searched = append(searched, rotation[:], signing.Seed[:], []byte("separate consent"), []byte("staffed lane"))
	for at := 64; at+32 <= len(ring); at += 32 {
		searched = append(searched, ring[at:at+32])
	}
	for _, s := range searched {
		if bytes.Contains(saved, s) {
			t.Fatalf("the backup holds %d bytes that it should not", len(s))
		}
	}
	t.Logf("%d pieces searched for", len(searched))
}
