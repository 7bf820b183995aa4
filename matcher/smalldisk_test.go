package matcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/reserve"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
)

// smallDisk names a folder on a small disk that TestSmallDisk may fill: a tmpfs
// of 192 MiB, say.
const smallDisk = "MENSHEN_SMALL_DISK"

// TestSmallDisk fills a real disk 20 times: down to what is kept for erasing, wholly,
// as another program may, and so that the program takes what the server gives up
// too. Enrolling is refused, matching goes on, and every revocation is answered OK: it
// is durable, and its key destroyed; its receipt waits for room where there is none.
// People are erased on a full disk too. No restart is needed, and a server that is
// opened on the full disk agrees.
func TestSmallDisk(t *testing.T) {
	folder := os.Getenv(smallDisk)
	if folder == "" {
		t.Skipf("set %s to a folder on a small disk", smallDisk)
	}
	const kept = 64 << 20
	t.Cleanup(func() { os.RemoveAll(filepath.Join(folder, "menshen")) }) // once the world is closed
	w := newWorld(t)
	w.close()
	w.dir, w.realDisk = filepath.Join(folder, "menshen"), kept
	must(t, os.RemoveAll(w.dir))
	must(t, os.MkdirAll(w.dir, 0o700))
	var err error
	w.root, err = keyring.CreateRoot(filepath.Join(w.dir, "root"), nil)
	must(t, err)
	w.open()
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "stays", vectorOf(1, 0))
	ballast := filepath.Join(folder, "ballast")
	defer os.Remove(ballast)
	free := func() int64 {
		t.Helper()
		n, err := reserve.Free(folder)
		must(t, err)
		return n
	}
	// fill leaves so much free; what is there already stays.
	fill := func(leave int64) {
		t.Helper()
		f, err := os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		must(t, err)
		if n := free() - leave; n > 0 {
			_, err = f.Write(make([]byte, n))
			must(t, err)
		}
		must(t, f.Close())
		time.Sleep(300 * time.Millisecond) // until the store looks again
	}
	verify := func(ref scope.Ref) error {
		return second(w.Verify(ctx, grant(ref), VerifyQuery{Subject: subjectID(3), Probe: vectorOf(103, 1)}))
	}
	var pending, journaled, erased int
	for cycle := range 20 {
		tour := scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprint("tour-", cycle))}
		w.create(tour)
		for i := range 20 {
			w.enroll(tour, subjectID(i), vectorOf(uint16(100+i), 0))
		}
		_, err := w.purge(ctx) // so that nobody fills the disk while Badger rewrites
		must(t, err)
		w.keepReserve() // as the maintenance does every minute
		greedy := cycle%4 == 3
		switch {
		case cycle%4 == 0:
			fill(kept / 2)
		case greedy:
			fill(0)
			must(t, os.Truncate(filepath.Join(w.dir, "data", "reserve"), 0)) // to the other program
			fill(0)
		default:
			fill(0)
		}
		_, err = w.Enroll(ctx, grant(tour), Enrollment{Subject: "late", Consent: w.consent(), Probes: []Probe{vectorOf(9, 0)}})
		if !errors.Is(err, store.ErrNoSpace) {
			t.Fatalf("cycle %d: enrolling on a full disk: %v", cycle, err)
		}
		must(t, verify(tour))
		if !greedy {
			_, err := w.DeleteSubject(ctx, grant(tour), subjectID(1), request())
			must(t, err)
			_, err = w.WithdrawConsent(ctx, grant(tour), subjectID(2), request())
			must(t, err)
			erased += 2
		}
		done, err := w.RevokeScope(ctx, grant(tour), request())
		if err != nil {
			t.Fatalf("cycle %d: revoking with %d bytes free: %v", cycle, free(), err)
		}
		if done.Receipt.State == ReceiptPending {
			pending++
		}
		if _, ok := w.journal.of(tour); ok {
			journaled++
		}
		agree := func() {
			t.Helper()
			if err := verify(tour); !errors.Is(err, ErrScopeRevoked) {
				t.Fatalf("cycle %d: after the revocation: %v", cycle, err)
			}
			if _, err := w.keyring.Keys(tour); !errors.Is(err, keyring.ErrDestroyed) {
				t.Fatalf("cycle %d: the key: %v", cycle, err)
			}
			expect(t, w.verify(hallA, "stays", vectorOf(1, 1)), Match, "stays")
		}
		agree()
		// What stands on the full disk opens without the key, in a copy elsewhere: this
		// server has it locked.
		copied := filepath.Join(t.TempDir(), "keyring")
		b, err := os.ReadFile(filepath.Join(w.dir, "keyring"))
		must(t, err)
		must(t, os.WriteFile(copied, b, 0o600))
		w.onFile(copied, func(k *keyring.Keyring) {
			if _, err := k.Keys(tour); !errors.Is(err, keyring.ErrDestroyed) {
				t.Fatalf("cycle %d: the key in the file: %v", cycle, err)
			}
		})
		if cycle%8 == 3 {
			// On the full disk, with the root key as it stands there.
			w.close()
			w.root, err = keyring.LoadRoot(filepath.Join(w.dir, "root"), nil)
			must(t, err)
			w.open()
			agree()
		}
		must(t, os.Remove(ballast))
		time.Sleep(300 * time.Millisecond)
		_, err = w.sweep(ctx)
		must(t, err)
		p, err := w.Receipt(ctx, grant(tour), done.Receipt.ID)
		must(t, err)
		want := 20
		if !greedy {
			want = 18
		}
		if p.State != ReceiptComplete || done.Subjects != want {
			t.Errorf("cycle %d: %d subjects erased, want %d; with room again the receipt is %+v", cycle, done.Subjects, want, p)
		}
		agree()
	}
	t.Logf("20 revocations answered OK on a full disk: %d with a pending receipt, %d of them from the journal; %d people erased on it", pending, journaled, erased)
	w.close()
	w.root, err = keyring.LoadRoot(filepath.Join(w.dir, "root"), nil)
	must(t, err)
	w.open()
	expect(t, w.verify(hallA, "stays", vectorOf(1, 1)), Match, "stays")
	for cycle := range 20 {
		ref := scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprint("tour-", cycle))}
		if s, err := w.Scope(ctx, grant(ref)); err != nil || s.State != scope.Revoked {
			t.Errorf("%s after the restart: %v, %v", ref, s.State, err)
		}
	}
}

// onFile opens a copy of the keyring under the root key as it is now.
func (w *world) onFile(path string, look func(*keyring.Keyring)) {
	w.t.Helper()
	root, err := keyring.LoadRoot(filepath.Join(w.dir, "root"), nil)
	must(w.t, err)
	k, err := keyring.Open(path, root, keyring.Options{})
	must(w.t, err)
	look(k)
	must(w.t, k.Close())
}
