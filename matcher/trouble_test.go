package matcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/admission"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// ringFull lets the keyring's disk be full but for its reserve.
func (w *world) ringFull() {
	w.ring = func() error {
		if _, err := os.Stat(filepath.Join(w.dir, "keyring.reserve")); err == nil {
			return syscall.ENOSPC
		}
		return nil
	}
}

// Where the reserve is used up too, an erasure is refused as a whole: the person
// matches until it is repeated with room. Revoking needs none.
func TestErasingWithoutSpace(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "anna", vectorOf(1, 0))
	w.full(1 << 20)
	for name, end := range map[string]func() error{
		"delete":   func() error { return second(w.DeleteSubject(ctx, grant(hallA), "anna", request())) },
		"withdraw": func() error { return second(w.WithdrawConsent(ctx, grant(hallA), "anna", request())) },
	} {
		if err := end(); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("%s: %v", name, err)
		}
		if d := w.verify(hallA, "anna", vectorOf(1, 1)); d.Outcome != Match {
			t.Errorf("after a refused %s: %v", name, d.Outcome)
		}
	}
	w.full(roomy)
	must(t, second(w.DeleteSubject(ctx, grant(hallA), "anna", request())))
	if d := w.verify(hallA, "anna", vectorOf(1, 1)); d.Outcome != NoMatch {
		t.Errorf("erased with room: %v", d.Outcome)
	}
	w.full(1 << 20)
	must(t, second(w.RevokeScope(ctx, grant(hallA), request())))
}

// On a full disk a revocation is carried out but for the bytes, for which its receipt
// waits: it is durable, and its key destroyed. Repeating it says the same until there is
// room, and then the receipt is complete, under the name that was told.
func TestRevocationWithoutSpace(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "anna", vectorOf(1, 0))
	w.enroll(hallA, "ben", vectorOf(2, 0))
	gone, err := w.DeleteSubject(ctx, grant(hallA), "ben", request()) // whose receipt waits
	must(t, err)
	r := idempotency.Request{ID: "end"}
	w.full(1 << 20)
	w.ringFull()
	var id string
	revoke := func(state ReceiptState) Revocation {
		t.Helper()
		done, err := w.RevokeScope(ctx, grant(hallA), r)
		must(t, err)
		if id == "" {
			id = done.Receipt.ID
		}
		if done.Subjects != 1 || done.Receipt.State != state || done.Receipt.ID != id || done.Scope.State != scope.Revoked {
			t.Fatalf("the revocation says %+v", done)
		}
		return done
	}
	for range 2 {
		revoke(ReceiptPending)
		if _, err := w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "anna", Probe: vectorOf(1, 1)}); !errors.Is(err, ErrScopeRevoked) {
			t.Fatalf("verify behind the fence: %v", err)
		}
		if s, err := w.Scope(ctx, grant(hallA)); err != nil || s.State != scope.Revoked {
			t.Fatalf("the scope is told as %v, %v", s.State, err)
		}
		if _, err := w.keyring.Keys(hallA); !errors.Is(err, keyring.ErrDestroyed) {
			t.Fatalf("the key: %v", err)
		}
	}
	_, err = w.sweep(ctx)
	must(t, err)
	for range 2 {
		w.restart()
		if _, err := w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "anna", Probe: vectorOf(1, 1)}); !errors.Is(err, ErrScopeRevoked) {
			t.Fatalf("after a restart on a full disk: %v", err)
		}
		if _, err := w.keyring.Keys(hallA); !errors.Is(err, keyring.ErrDestroyed) {
			t.Fatalf("the key after a restart: %v", err)
		}
	}
	if p, err := w.Receipt(ctx, grant(hallA), id); err != nil || p.State != ReceiptPending {
		t.Errorf("the receipt on a full disk: %+v, %v", p, err)
	}
	revoke(ReceiptPending)
	w.ring = nil
	w.full(roomy)
	if stated := w.parse(revoke(ReceiptComplete).Receipt); stated.RequestedBy.Credential != "test" || stated.Destroyed.Subjects != 1 {
		t.Errorf("the receipt states %+v", stated)
	}
	if revoked, err := w.isRevoked(hallA); err != nil || !revoked {
		t.Errorf("the permanent record: %v, %v", revoked, err)
	}
	if _, ok := w.journal.of(hallA); ok {
		t.Error("the journal's slot is still taken")
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "journal.*")); err != nil || len(left) > 0 {
		t.Errorf("beside the journal are left %v, %v", left, err)
	}
	if p, err := w.Receipt(ctx, grant(hallA), gone.Receipt); err != nil || p.State != ReceiptComplete {
		t.Errorf("the receipt of a deletion before: %+v, %v", p, err)
	}
	w.restart()
	if s, err := w.Scope(ctx, grant(hallA)); err != nil || s.State != scope.Revoked {
		t.Errorf("after the restart: %v, %v", s.State, err)
	}
}

// Where the key cannot be destroyed the revocation says so, and is durable.
func TestRevocationWhoseKeyStays(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "anna", vectorOf(1, 0))
	w.full(1 << 20)
	w.ring = func() error { return syscall.ENOSPC }
	for range 2 {
		if _, err := w.RevokeScope(ctx, grant(hallA), request()); !errors.Is(err, ErrErasureUnfinished) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the keyring cannot be written: %v", err)
		}
		if _, err := w.sweep(ctx); !errors.Is(err, ErrErasureUnfinished) {
			t.Errorf("the maintenance: %v", err)
		}
		w.restart()
		if _, err := w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "anna", Probe: vectorOf(1, 1)}); !errors.Is(err, ErrScopeRevoked) {
			t.Fatalf("after a restart: %v", err)
		}
	}
	w.ring = nil
	_, err := w.sweep(ctx)
	must(t, err)
	if _, err := w.keyring.Keys(hallA); !errors.Is(err, keyring.ErrDestroyed) {
		t.Errorf("the key once the keyring can be written: %v", err)
	}
	w.full(roomy)
}

// The maintenance finishes a revocation that nobody repeats.
func TestMaintenanceFinishesRevocation(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "anna", vectorOf(1, 0))
	w.full(1 << 20)
	done, err := w.RevokeScope(ctx, grant(hallA), request())
	must(t, err)
	w.full(roomy)
	_, err = w.sweep(ctx)
	must(t, err)
	if p, err := w.Receipt(ctx, grant(hallA), done.Receipt.ID); err != nil || p.State != ReceiptComplete {
		t.Errorf("the receipt: %+v, %v", p, err)
	}
	w.restart()
	if s, err := w.Scope(ctx, grant(hallA)); err != nil || s.State != scope.Revoked {
		t.Errorf("after the restart: %v, %v", s.State, err)
	}
}

// Erasing, withdrawing and suspending work on a disk that is too full to enrol.
func TestErasureOnAFullDisk(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	for i := range 3 {
		w.enroll(hallA, subjectID(i), vectorOf(uint16(i), 0))
	}
	w.full(100 << 20)
	_, err := w.Enroll(ctx, grant(hallA), Enrollment{Consent: w.consent(), Probes: []Probe{vectorOf(9, 0)}})
	if !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("enrolling: %v, want ErrNoSpace", err)
	}
	expect(t, w.verify(hallA, subjectID(0), vectorOf(0, 1)), Match, subjectID(0))
	for name, err := range map[string]error{
		"withdraw": second(w.WithdrawConsent(ctx, grant(hallA), subjectID(0), idempotency.Request{ID: "w"})),
		"delete":   second(w.DeleteSubject(ctx, grant(hallA), subjectID(1), request())),
		"suspend":  second(w.SuspendScope(ctx, grant(hallA), request())),
		"resume":   second(w.ResumeScope(ctx, grant(hallA), request())),
		"revoke":   second(w.RevokeScope(ctx, grant(hallA), request())),
	} {
		if err != nil && !errors.Is(err, ErrScopeRevoked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.full(roomy)
}

// One erasure that cannot be finished does not keep the others from being
// served, and the maintenance finishes it.
func TestStartWithUnfinishedErasure(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	hallB := scope.Ref{Tenant: "fair", Scope: "hall-b"}
	w.create(hallA)
	w.create(hallB)
	w.enroll(hallA, "anna", vectorOf(1, 0))
	w.enroll(hallB, "anna", vectorOf(1, 0))
	sc, err := w.entry(hallA)
	must(t, err)
	must(t, w.revoke(ctx, sc, service(w.now()), nil))
	w.full(20 << 20)
	w.restart()
	expect(t, w.verify(hallB, "anna", vectorOf(1, 1)), Match, "anna")
	if _, err := w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "anna", Probe: vectorOf(1, 1)}); !errors.Is(err, ErrScopeRevoked) {
		t.Errorf("the revoked scope: %v", err)
	}
	if done, err := w.RevokeScope(ctx, grant(hallA), request()); err != nil || done.Receipt.State != ReceiptPending {
		t.Errorf("repeating on a full disk: %+v, %v, want a receipt that is pending", done.Receipt, err)
	}
	if _, err := w.keyring.Keys(hallA); !errors.Is(err, keyring.ErrDestroyed) {
		t.Errorf("the key on a full disk: %v", err)
	}
	w.full(roomy)
	_, err = w.sweep(ctx)
	must(t, err)
	if _, err := w.keyring.Keys(hallA); !errors.Is(err, keyring.ErrNoKey) {
		t.Errorf("the key after the sweep: %v", err)
	}
	if sc, err = w.entry(hallA); err != nil || !sc.info.Load().erasure.Done {
		t.Errorf("the erasure is not done: %v", err)
	}
}

// A scope that says it is revoked, without the permanent record, stays revoked.
func TestRevokedWithoutRecord(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	sc, err := w.entry(hallA)
	must(t, err)
	info := *sc.info.Load()
	info.state = scope.Revoked
	must(t, w.store.Commit(context.Background(), store.Mutation{Puts: []store.Record{{Key: scopeKey(hallA), Value: encode(sc.record(&info, 9))}}}))
	w.restart()
	if s, err := w.Scope(context.Background(), grant(hallA)); err != nil || s.State != scope.Revoked {
		t.Fatalf("state %v, %v", s.State, err)
	}
	if revoked, err := w.isRevoked(hallA); err != nil || !revoked {
		t.Errorf("the record was not written: %v, %v", revoked, err)
	}
}

// Somebody withdraws while a search is under way, and the id is given to
// somebody else before the answer leaves: the answer is about the new person.
func TestIdGivenToSomebodyElse(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "locker-7", vectorOf(1, 0))
	sc, err := w.entry(hallA)
	must(t, err)
	embedding, err := sc.decodeEmbedding(make([]float32, sc.dim), vectorOf(1, 1).Embedding)
	must(t, err)
	s := sighting{embedding: embedding}
	r, err := w.identifyOne(ctx, grant(hallA), sc, s, 1)
	must(t, err)
	expect(t, r.Decision, Match, "locker-7")
	must(t, w.Stands(r.Decision, nil))
	_, err = w.WithdrawConsent(ctx, grant(hallA), "locker-7", request())
	must(t, err)
	w.enroll(hallA, "locker-7", vectorOf(2, 0))
	if err := w.Stands(r.Decision, nil); !errors.Is(err, ErrOvertaken) {
		t.Errorf("a decision that waited: %v, want ErrOvertaken", err)
	}
	r, err = w.settle(ctx, grant(hallA), new(admission.Ticket), sc, s, r, 1)
	must(t, err)
	expect(t, r.Decision, NoMatch, "")
}

// When the best candidate is erased meanwhile, the second best is found.
func TestSecondBestAfterErasure(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "first", vectorOf(1, 1))
	w.enroll(hallA, "second", vectorOf(1, 2))
	sc, err := w.entry(hallA)
	must(t, err)
	embedding, err := sc.decodeEmbedding(make([]float32, sc.dim), vectorOf(1, 1).Embedding)
	must(t, err)
	s := sighting{embedding: embedding}
	r, err := w.identifyOne(ctx, grant(hallA), sc, s, 1)
	must(t, err)
	expect(t, r.Decision, Match, "first")
	_, err = w.DeleteSubject(ctx, grant(hallA), "first", request())
	must(t, err)
	r, err = w.settle(ctx, grant(hallA), new(admission.Ticket), sc, s, r, 1)
	must(t, err)
	expect(t, r.Decision, Match, "second")
}

func TestErasuresRemembered(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	sc, err := w.entry(hallA)
	must(t, err)
	mark := sc.erasures.mark()
	for i := range len(sc.erasures.last) {
		if sc.erasures.touched(mark, "anna") {
			t.Fatalf("anna is touched after %d erasures of others", i)
		}
		w.enroll(hallA, subjectID(i), vectorOf(uint16(i), 0))
		_, err := w.DeleteSubject(context.Background(), grant(hallA), subjectID(i), request())
		must(t, err)
		if !sc.erasures.touched(mark, subjectID(i)) || sc.erasures.touched(sc.erasures.mark(), subjectID(i)) {
			t.Fatalf("erasure %d is not remembered as it should", i)
		}
	}
	w.enroll(hallA, "last", vectorOf(99, 0))
	_, err = w.DeleteSubject(context.Background(), grant(hallA), "last", request())
	must(t, err)
	if !sc.erasures.touched(mark, "anna") {
		t.Error("more erasures than are remembered, and anna is said to be untouched")
	}
}

// One request id, sent to two scopes at once with different content: one call
// is carried out, the other refused.
func TestRequestIDOnTwoScopes(t *testing.T) {
	w := newWorld(t)
	refs := []scope.Ref{hallA, {Tenant: "fair", Scope: "hall-b"}}
	for _, ref := range refs {
		w.create(ref)
	}
	for i := range 10 {
		errs := make(chan error, len(refs))
		for k, ref := range refs {
			r := idempotency.Request{ID: fmt.Sprint(i), Fingerprint: [32]byte{byte(k)}}
			go func() { errs <- second(w.SuspendScope(context.Background(), grant(ref), r)) }()
		}
		a, b := <-errs, <-errs
		if (a == nil) == (b == nil) || !errors.Is(errors.Join(a, b), idempotency.ErrReused) {
			t.Fatalf("round %d: %v and %v, want one success and one ErrReused", i, a, b)
		}
	}
}

// What is over is erased by the sweeper: the expired subject, and everybody of
// a scope that has ended; what is not over stays.
func TestSweep(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "anna", vectorOf(1, 0))
	_, err := w.Enroll(ctx, grant(hallA), Enrollment{Subject: "ben", Consent: w.consent(), Probes: []Probe{vectorOf(2, 0), vectorOf(2, 1)}, ExpireTime: w.now().Add(time.Hour)})
	must(t, err)
	for _, tc := range []struct {
		pass time.Duration
		want int
		left int
	}{{0, 0, 2}, {time.Hour - time.Second, 0, 2}, {time.Second, 1, 1}, {70 * time.Hour, 0, 1}, {time.Hour, 1, 0}, {time.Hour, 0, 0}} {
		w.pass(tc.pass)
		n, err := w.sweep(ctx)
		must(t, err)
		subjects, err := w.Subjects(ctx, grant(hallA), "", 10)
		must(t, err)
		if n != tc.want || len(subjects) != tc.left {
			t.Errorf("at %v: swept %d and left %d, want %d and %d", w.now(), n, len(subjects), tc.want, tc.left)
		}
	}
	s, err := w.Scope(ctx, grant(hallA))
	must(t, err)
	if s.Subjects != 0 || s.Templates != 0 {
		t.Errorf("the scope still holds %d subjects, %d templates", s.Subjects, s.Templates)
	}
}

// A scope that has ended can still be described anew, but not prolonged.
func TestUpdateAfterTheEnd(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	w.pass(100 * time.Hour)
	_, err := w.UpdateScope(context.Background(), grant(hallA), SettingsPatch{Settings: Settings{Alternative: "the side door"}, Fields: []string{"alternative"}}, request())
	must(t, err)
}

func TestExpiryBelowASecond(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	w.pass(700 * time.Millisecond)
	_, err := w.Enroll(context.Background(), grant(hallA), Enrollment{Subject: "ben", Consent: w.consent(), Probes: []Probe{vectorOf(1, 0)}, ExpireTime: w.now().Add(200 * time.Millisecond)})
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("an expiry that is over when it is rounded: %v, want ErrInvalid", err)
	}
}
