package matcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
)

// smallDisk names a folder on a small disk that TestSmallDisk may fill: a tmpfs
// of 192 MiB, say.
const smallDisk = "MENSHEN_SMALL_DISK"

// TestSmallDisk fills a real disk 20 times, down to what is kept for erasing,
// and every fourth time wholly, as another program may. Enrolling is refused,
// matching goes on, and a revocation takes effect every time and is durable; with
// the reserve it is carried out at once, without it as soon as there is room. No
// restart is needed.
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
	w.open()
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "stays", vectorOf(1, 0))
	ballast := filepath.Join(folder, "ballast")
	defer os.Remove(ballast)
	free := func() int64 {
		var st unix.Statfs_t
		must(t, unix.Statfs(folder, &st))
		return int64(st.Bavail) * st.Bsize
	}
	full := 0
	for cycle := range 20 {
		tour := scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprint("tour-", cycle))}
		w.create(tour)
		for i := range 20 {
			w.enroll(tour, subjectID(i), vectorOf(uint16(100+i), 0))
		}
		leave := int64(kept / 2)
		if cycle%4 == 3 {
			leave = 0 // another program has taken the reserve too
		}
		must(t, os.WriteFile(ballast, make([]byte, max(0, free()-leave)), 0o600))
		time.Sleep(300 * time.Millisecond) // until the store looks again
		_, err := w.Enroll(ctx, grant(tour), Enrollment{Subject: "late", Consent: w.consent(), Probes: []Probe{vectorOf(9, 0)}})
		if !errors.Is(err, store.ErrNoSpace) {
			t.Fatalf("cycle %d: enrolling on a full disk: %v", cycle, err)
		}
		expect(t, w.verify(tour, subjectID(3), vectorOf(103, 1)), Match, subjectID(3))
		end := request()
		done, err := w.RevokeScope(ctx, grant(tour), end)
		if leave > 0 {
			must(t, err)
		} else if err != nil {
			// What was not destroyed yet stands durably in the journal's own room.
			full++
			j, jerr := openJournal(filepath.Join(w.dir, "journal"), w.keyring.System())
			must(t, jerr)
			if _, kept := j.of(tour); !kept || !errors.Is(err, ErrErasureUnfinished) {
				t.Fatalf("cycle %d: revoking on a disk without any room: %v; in the journal: %v", cycle, err, kept)
			}
			must(t, j.close())
		}
		if _, err := w.Verify(ctx, grant(tour), VerifyQuery{Subject: subjectID(3), Probe: vectorOf(103, 1)}); !errors.Is(err, ErrScopeRevoked) {
			t.Fatalf("cycle %d: after the revocation: %v", cycle, err)
		}
		expect(t, w.verify(hallA, "stays", vectorOf(1, 1)), Match, "stays")
		must(t, os.Remove(ballast))
		time.Sleep(300 * time.Millisecond)
		if err != nil {
			done, err = w.RevokeScope(ctx, grant(tour), end)
			must(t, err)
		}
		if done.Subjects != 20 {
			t.Errorf("cycle %d: %d subjects erased, want 20", cycle, done.Subjects)
		}
	}
	t.Logf("%d revocations on a disk without any room went to the journal", full)
	w.restart()
	expect(t, w.verify(hallA, "stays", vectorOf(1, 1)), Match, "stays")
	for cycle := range 20 {
		ref := scope.Ref{Tenant: "fair", Scope: scope.ScopeID(fmt.Sprint("tour-", cycle))}
		if s, err := w.Scope(ctx, grant(ref)); err != nil || s.State != scope.Revoked {
			t.Errorf("%s after the restart: %v, %v", ref, s.State, err)
		}
	}
}
