package matcher

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
	"github.com/menshen-io/menshen/matcher/receipt"
)

// purgeAll lets the purge run until nothing waits.
func (w *world) purgeAll() {
	w.t.Helper()
	for range 10 {
		if n, err := w.purge(context.Background()); err != nil {
			w.t.Fatal(err)
		} else if n == 0 {
			return
		}
	}
	w.t.Fatal("the purge does not come to an end")
}

// get returns a receipt by its id.
func (w *world) get(ref scope.Ref, id string) Receipt {
	w.t.Helper()
	r, err := w.Receipt(context.Background(), grant(ref), id)
	must(w.t, err)
	return r
}

// Each way to erase ends with a receipt of its kind and cause, the same for who
// repeats the call, before and after the bytes are gone.
func TestReceiptsOfErasures(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	for i := range 3 {
		w.enroll(hallA, subjectID(i), vectorOf(uint16(i), 0), vectorOf(uint16(i), 1))
	}
	for name, c := range map[string]struct {
		erase     func(idempotency.Request) (Erasure, error)
		kind      receipt.Kind
		cause     receipt.Cause
		subject   scope.SubjectID
		template  scope.TemplateID
		subjects  uint64
		templates uint64
		records   uint64
	}{
		"delete": {func(r idempotency.Request) (Erasure, error) {
			return w.DeleteSubject(ctx, grant(hallA), subjectID(0), r)
		}, receipt.Subject, receipt.Revoked, subjectID(0), 0, 1, 2, 3},
		"withdraw": {func(r idempotency.Request) (Erasure, error) {
			return w.WithdrawConsent(ctx, grant(hallA), subjectID(1), r)
		}, receipt.Subject, receipt.Withdrawn, subjectID(1), 0, 1, 2, 3},
		"template": {func(r idempotency.Request) (Erasure, error) {
			return w.DeleteTemplate(ctx, grant(hallA), subjectID(2), 2, r)
		}, receipt.Template, receipt.Revoked, subjectID(2), 2, 0, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := idempotency.Request{ID: name}
			first, err := c.erase(r)
			must(t, err)
			if p := w.get(hallA, first.Receipt); p.State == ReceiptPending && (p.Kind != c.kind || p.Cause != c.cause) {
				t.Errorf("while it is pending: %+v", p)
			}
			w.purgeAll()
			again, err := c.erase(r)
			must(t, err)
			if again.Receipt != first.Receipt || again.Templates != first.Templates {
				t.Errorf("repeated: %+v, first %+v", again, first)
			}
			got := w.parse(w.get(hallA, first.Receipt))
			want := receipt.Destroyed{Subjects: c.subjects, Templates: c.templates, Records: c.records, Bytes: got.Destroyed.Bytes, Digest: got.Destroyed.Digest}
			if got.Kind != c.kind || got.Cause != c.cause || got.Subject != c.subject || got.Template != c.template || got.Destroyed != want ||
				got.Destroyed.Bytes < 100 || got.Epoch != first.Epoch || got.Scan == nil || got.Scan.Files == 0 || got.RequestedBy.Credential != "test" {
				t.Errorf("%+v", got)
			}
		})
	}
	w.restart()
	expect(t, w.verify(hallA, subjectID(2), vectorOf(2, 0)), Match, subjectID(2))
	if _, err := w.Receipt(ctx, grant(scope.Ref{Tenant: "fair", Scope: "hall-b"}), "hall-a-5"); !errors.Is(err, receipt.ErrNoReceipt) {
		t.Errorf("a receipt by the grant of another scope: %v", err)
	}
}

// An erasure that a crash interrupted before its bytes were removed gets its
// receipt after the start; who was enrolled anew meanwhile stays.
func TestPurgeAfterRestart(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, "anna", vectorOf(1, 0))
	w.enroll(hallA, "ben", vectorOf(2, 0))
	w.purging.pass.Lock() // so that nothing is purged before the restart
	gone, err := w.DeleteSubject(ctx, grant(hallA), "anna", request())
	must(t, err)
	if r := w.get(hallA, gone.Receipt); r.State != ReceiptPending {
		t.Fatalf("before the purge: %+v", r)
	}
	w.enroll(hallA, "anna", vectorOf(3, 0))
	w.purging.pass.Unlock()
	w.restart()
	w.purgeAll()
	if stated := w.parse(w.get(hallA, gone.Receipt)); stated.Subject != "anna" || stated.Times.Fenced.IsZero() {
		t.Errorf("%+v", stated)
	}
	for range 2 {
		expect(t, w.verify(hallA, "anna", vectorOf(3, 1)), Match, "anna")
		expect(t, w.verify(hallA, "anna", vectorOf(1, 1)), NoMatch, "")
		expect(t, w.verify(hallA, "ben", vectorOf(2, 1)), Match, "ben")
		w.restart()
	}
}

// A scope is revoked while erasures in it wait for the purge: their receipts
// come with the scope's, and name nobody. What was complete before stays, and its
// document becomes unreadable with the key.
func TestRevokeWithPendingPurge(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	for i := range 3 {
		w.enroll(hallA, subjectID(i), vectorOf(uint16(i), 0))
	}
	complete, err := w.DeleteSubject(ctx, grant(hallA), subjectID(0), request())
	must(t, err)
	w.purgeAll()
	kept := w.get(hallA, complete.Receipt)
	w.purging.pass.Lock()
	waiting, err := w.WithdrawConsent(ctx, grant(hallA), subjectID(1), request())
	must(t, err)
	done, err := w.RevokeScope(ctx, grant(hallA), request())
	must(t, err)
	w.purging.pass.Unlock()
	w.purgeAll()
	for range 2 {
		r := w.get(hallA, waiting.Receipt)
		if stated := w.parse(r); stated.Kind != receipt.Subjects || stated.Cause != receipt.Withdrawn || stated.Subject != "" || stated.Destroyed.Subjects != 1 {
			t.Errorf("the one that waited: %+v", stated)
		}
		if stated := w.parse(w.get(hallA, done.Receipt.ID)); stated.Kind != receipt.Scope || stated.Destroyed.Subjects != 1 {
			t.Errorf("the scope's: %+v", stated)
		}
		if now := w.get(hallA, complete.Receipt); now.State != ReceiptComplete || len(now.Document) > 0 || now.Sum != kept.Sum || receipt.SumOf(kept.Document) != now.Sum {
			t.Errorf("one from before: %+v", now)
		}
		all, err := w.ScopeReceipts(ctx, grant(hallA), 0, 10)
		if err != nil || len(all) != 3 {
			t.Errorf("%d receipts, %v", len(all), err)
		}
		w.restart()
	}
}

// What is due is erased with one receipt for all, and a crash between the
// ledger and the store states nobody twice.
func TestReceiptOfASweep(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	for i := range 5 {
		w.enroll(hallA, subjectID(i), vectorOf(uint16(i), 0))
	}
	w.pass(100 * time.Hour)
	w.purging.pass.Lock()
	if n, err := w.sweep(ctx); n != 5 || err != nil {
		t.Fatalf("swept %d, %v", n, err)
	}
	batch := w.purging.some(purgeBatch)[hallA]
	first := merge(hallA, batch[:3], w.writtenUpTo)
	for i := range first {
		r := &first[i]
		r.Scan, r.Times.Erased, r.Times.Verified = &receipt.Scan{}, w.Matcher.now(), w.Matcher.now()
	}
	crashed := errors.New("crashed")
	if err := w.enter(first, func(store.Record) error { return crashed }); err != crashed {
		t.Fatal(err)
	}
	w.purging.pass.Unlock()
	w.restart()
	w.purgeAll()
	all, err := w.ScopeReceipts(ctx, grant(hallA), 0, 10)
	must(t, err)
	var subjects uint64
	for _, r := range all {
		stated := w.parse(r)
		if stated.Kind != receipt.Subjects || stated.Cause != receipt.Expired || stated.RequestedBy.Role != "SERVICE" {
			t.Errorf("%+v", stated)
		}
		subjects += stated.Destroyed.Subjects
	}
	if len(all) != 2 || subjects != 5 {
		t.Errorf("%d receipts state %d subjects, want 2 and 5", len(all), subjects)
	}
}
