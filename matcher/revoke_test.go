package matcher

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/idempotency"
	"github.com/menshen-io/menshen/matcher/receipt"
)

func TestRevoke(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	hallB := scope.Ref{Tenant: "fair", Scope: "hall-b"}
	w.create(hallA)
	w.create(hallB)
	for i := range 10 {
		w.enroll(hallA, subjectID(i), cropOf(uint16(i), 0))
		w.enroll(hallB, subjectID(i), cropOf(uint16(i), 0))
	}
	r := idempotency.Request{ID: "end"}
	for round := range 3 {
		done, err := w.RevokeScope(ctx, grant(hallA), r)
		must(t, err)
		if done.Subjects != 10 || done.Templates != 10 || done.Scope.State != scope.Revoked || done.Scope.RevokeTime.IsZero() {
			t.Fatalf("round %d: %+v", round, done)
		}
		stated := w.parse(done.Receipt)
		if stated.Kind != receipt.Scope || stated.Destroyed.Templates != 10 || stated.Destroyed.Records < 20 || stated.Scan.Files == 0 ||
			stated.RequestedBy.Credential != "test" || done.Receipt.Number != 1 {
			t.Fatalf("round %d: the receipt states %+v", round, stated)
		}
		for name, err := range map[string]error{
			"verify":   second(w.Verify(ctx, grant(hallA), VerifyQuery{Subject: "visitor-1", Probe: cropOf(1, 1)})),
			"identify": second(w.Identify(ctx, grant(hallA), IdentifyQuery{Probe: cropOf(1, 1)})),
			"enroll":   second(w.Enroll(ctx, grant(hallA), Enrollment{Consent: w.consent(), Probes: []Probe{cropOf(1, 1)}})),
			"subjects": second(w.Subjects(ctx, grant(hallA), "", 10)),
			"delete":   second(w.DeleteSubject(ctx, grant(hallA), "visitor-1", request())),
			"resume":   second(w.ResumeScope(ctx, grant(hallA), request())),
		} {
			if !errors.Is(err, ErrScopeRevoked) {
				t.Errorf("%s: %v, want ErrScopeRevoked", name, err)
			}
		}
		if _, err := w.CreateScope(ctx, grant(hallA), w.settings(), request()); !errors.Is(err, ErrScopeExists) {
			t.Errorf("using the id again: %v, want ErrScopeExists", err)
		}
		if _, err := w.keyring.Keys(hallA); !errors.Is(err, keyring.ErrNoKey) {
			t.Errorf("the key: %v, want ErrNoKey", err)
		}
		expect(t, w.identify(hallB, cropOf(1, 1)), Match, "visitor-1")
		w.restart()
	}
}

// A crash after each step of a revocation is finished by the next start.
func TestInterruptedRevocation(t *testing.T) {
	for name, upTo := range map[string]func(w *world, sc *scopeEntry){
		"durable":       func(w *world, sc *scopeEntry) {},
		"key destroyed": func(w *world, sc *scopeEntry) { must(w.t, w.keyring.Destroy(sc.ref)) },
		"erased": func(w *world, sc *scopeEntry) {
			must(w.t, w.keyring.Destroy(sc.ref))
			_, err := w.store.EraseScope(context.Background(), sc.ref, nil)
			must(w.t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.create(hallA)
			w.enroll(hallA, "anna", cropOf(1, 0))
			sc, err := w.entry(hallA)
			must(t, err)
			must(t, w.revoke(context.Background(), sc, service(w.now()), nil))
			upTo(w, sc)
			w.restart()
			if _, err := w.Identify(context.Background(), grant(hallA), IdentifyQuery{Probe: cropOf(1, 1)}); !errors.Is(err, ErrScopeRevoked) {
				t.Fatalf("identify after the restart: %v", err)
			}
			done, err := w.RevokeScope(context.Background(), grant(hallA), request())
			must(t, err)
			if stated := w.parse(done.Receipt); stated.Destroyed.Subjects != 1 || stated.Epoch != 3 {
				t.Errorf("the receipt states %+v", stated)
			}
			if done.Subjects != 1 || done.Templates != 1 {
				t.Errorf("the revocation says %d subjects and %d templates, want 1 and 1", done.Subjects, done.Templates)
			}
			if _, err := w.keyring.Keys(hallA); !errors.Is(err, keyring.ErrNoKey) {
				t.Errorf("the key is still there: %v", err)
			}
		})
	}
}

// No answer MATCH is given by a call that began after the revocation, the
// deletion or the withdrawal returned.
func TestNoMatchAfterTheEnd(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	w := newWorld(t)
	ctx := context.Background()
	for round := range rounds {
		ref := scope.Ref{Tenant: "fair", Scope: scope.ScopeID(subjectID(round))}
		w.create(ref)
		for i := range 4 {
			w.enroll(ref, subjectID(i), cropOf(uint16(i), 0))
		}
		var ended atomic.Bool
		var matches, late atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for n := 0; n < 200; n++ {
					over := ended.Load()
					d, err := w.Verify(ctx, grant(ref), VerifyQuery{Subject: "visitor-1", Probe: vectorOf(1, byte(n))})
					if err == nil && d.Outcome == Match {
						matches.Add(1)
						if over {
							late.Add(1)
						}
					} else if err != nil && !errors.Is(err, ErrScopeRevoked) {
						t.Errorf("verify: %v", err)
					}
				}
			})
		}
		var err error
		switch round % 3 {
		case 0:
			_, err = w.RevokeScope(ctx, grant(ref), request())
		case 1:
			_, err = w.DeleteSubject(ctx, grant(ref), "visitor-1", request())
		case 2:
			_, err = w.WithdrawConsent(ctx, grant(ref), "visitor-1", request())
		}
		ended.Store(true)
		must(t, err)
		wg.Wait()
		if late.Load() > 0 {
			t.Fatalf("round %d: %d matches by calls that began after the end", round, late.Load())
		}
	}
}

// Enrolments, deletions and searches of the same subjects from many goroutines
// leave memory and store in agreement.
func TestConcurrentChanges(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 30 {
				id := subjectID((g + i) % 5)
				person := uint16((g + i) % 5)
				switch i % 3 {
				case 0, 1:
					_, err := w.Enroll(ctx, grant(hallA), Enrollment{Subject: id, Consent: w.consent(), Probes: []Probe{vectorOf(person, byte(i))}})
					if err != nil && !errors.Is(err, ErrSubjectExists) {
						t.Errorf("enroll: %v", err)
					}
				case 2:
					_, err := w.DeleteSubject(ctx, grant(hallA), id, request())
					if err != nil && !errors.Is(err, ErrNoSubject) {
						t.Errorf("delete: %v", err)
					}
				}
				d := w.identify(hallA, vectorOf(person, 200))
				if d.Outcome == Match && d.Subject != id {
					t.Errorf("person %d matched as %s", person, d.Subject)
				}
			}
		})
	}
	wg.Wait()
	live := func() map[scope.SubjectID]bool {
		subjects, err := w.Subjects(ctx, grant(hallA), "", 100)
		must(t, err)
		out := map[scope.SubjectID]bool{}
		for _, s := range subjects {
			out[s.ID] = true
		}
		return out
	}
	check := func() {
		t.Helper()
		enrolled := live()
		for i := range 5 {
			want := NoMatch
			if enrolled[subjectID(i)] {
				want = Match
			}
			if d := w.verify(hallA, subjectID(i), vectorOf(uint16(i), 250)); d.Outcome != want {
				t.Errorf("%s: %v, want %v", subjectID(i), d.Outcome, want)
			}
		}
	}
	check()
	w.restart()
	check()
}

// parse verifies the document of a complete receipt.
func (w *world) parse(r Receipt) receipt.Receipt {
	w.t.Helper()
	_, keys, err := w.signer()
	must(w.t, err)
	if r.State != ReceiptComplete {
		w.t.Fatalf("the receipt is not complete: %+v", r)
	}
	stated, _, err := receipt.Parse(r.Document, keys)
	must(w.t, err)
	return stated
}

// A ledger that is damaged stops no gate and no revocation; it stops new
// scopes, and the receipts wait until it is restored.
func TestDamagedLedger(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	hallB, hallC := scope.Ref{Tenant: "fair", Scope: "hall-b"}, scope.Ref{Tenant: "fair", Scope: "hall-c"}
	for _, ref := range []scope.Ref{hallA, hallB, hallC} {
		w.create(ref)
		w.enroll(ref, "anna", vectorOf(1, 0))
	}
	_, err := w.RevokeScope(ctx, grant(hallA), request())
	must(t, err)
	w.close()
	file := filepath.Join(w.dir, "receipts", "00000000000000000001.jsonl")
	good, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, nil, 0o600))
	w.open()
	expect(t, w.verify(hallC, "anna", vectorOf(1, 1)), Match, "anna")
	if _, err := w.CreateScope(ctx, grant(scope.Ref{Tenant: "fair", Scope: "hall-d"}), w.settings(), request()); !errors.Is(err, receipt.ErrLedger) {
		t.Errorf("a new scope: %v", err)
	}
	done, err := w.RevokeScope(ctx, grant(hallB), request())
	must(t, err)
	if done.Receipt.State != ReceiptPending || done.Scope.State != scope.Revoked {
		t.Errorf("a revocation without a ledger: %+v", done)
	}
	if _, err := w.Receipt(ctx, grant(hallA), "hall-a-3"); !errors.Is(err, receipt.ErrLedger) {
		t.Errorf("a receipt: %v", err)
	}
	w.close()
	must(t, os.WriteFile(file, good, 0o600))
	w.open()
	for _, ref := range []scope.Ref{hallA, hallB} {
		r, err := w.Receipt(ctx, grant(ref), receiptID(ref, 3))
		must(t, err)
		w.parse(r)
	}
}
