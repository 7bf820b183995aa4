package matcher

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	badger "github.com/dgraph-io/badger/v4"

	"github.com/menshen-io/menshen/index/scope"
)

// lose closes the world and deletes the records whose keys hold the text, in the
// database itself, which only the store knows: this is what damage looks like.
func (w *world) lose(text string) {
	w.t.Helper()
	w.close()
	lost := 0
	w.database(func(txn *badger.Txn, key, _ []byte) error {
		if !bytes.Contains(key, []byte(text)) {
			return nil
		}
		lost++
		return txn.Delete(key)
	})
	if lost != 1 {
		w.t.Fatalf("%d records hold %q in their keys, want 1", lost, text)
	}
}

func (w *world) database(visit func(txn *badger.Txn, key, value []byte) error) {
	w.t.Helper()
	db, err := badger.Open(badger.DefaultOptions(filepath.Join(w.dir, "data", "records")).WithLogger(nil))
	must(w.t, err)
	defer db.Close()
	must(w.t, db.Update(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			value, err := it.Item().ValueCopy(nil)
			if err == nil {
				err = visit(txn, it.Item().KeyCopy(nil), value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

// offline is what the repair command does between two runs of the server.
func (w *world) offline(do func(e *Examination)) {
	w.t.Helper()
	w.close()
	w.openStorage()
	e, err := Examine(w.store, hallA)
	must(w.t, err)
	do(e)
	must(w.t, w.store.Close())
	must(w.t, w.keyring.Close())
	w.open()
}

// damagedWorld has three subjects in hall A, of which one lost a template.
func damagedWorld(t *testing.T) *world {
	w := newWorld(t)
	w.create(hallA)
	for i := range 3 {
		w.enroll(hallA, subjectID(i), vectorOf(uint16(i), 0), vectorOf(uint16(i), 1))
	}
	w.lose("visitor-1\x00\x00\x00\x00\x02")
	w.open()
	_, err := w.Verify(context.Background(), grant(hallA), VerifyQuery{Subject: subjectID(0), Probe: vectorOf(0, 1)})
	if !errors.Is(err, ErrScopeDamaged) || !strings.Contains(err.Error(), "menshen scopes repair tenants/fair/scopes/hall-a") {
		t.Fatalf("a damaged scope: %v", err)
	}
	return w
}

func TestKeepWhatIsWhole(t *testing.T) {
	w := damagedWorld(t)
	ctx := context.Background()
	w.offline(func(e *Examination) {
		if e.Damage == nil || e.Subjects != 2 || e.Templates != 4 || e.Vanished != 0 || len(e.Losses) != 1 ||
			e.Losses[0].Subject != subjectID(1) || e.Losses[0].Reason != "templates missing: 2" {
			t.Errorf("the examination: %+v", e)
		}
		must(t, e.Keep(ctx, w.store))
	})
	expect(t, w.verify(hallA, subjectID(0), vectorOf(0, 1)), Match, subjectID(0))
	expect(t, w.verify(hallA, subjectID(1), vectorOf(1, 1)), NoMatch, "")
	expect(t, w.identify(hallA, vectorOf(1, 1)), NoMatch, "")
	w.enroll(hallA, subjectID(1), vectorOf(1, 0))
	expect(t, w.verify(hallA, subjectID(1), vectorOf(1, 1)), Match, subjectID(1))
	w.offline(func(e *Examination) {
		if e.Damage != nil || e.Subjects != 3 {
			t.Errorf("after the repair: %v, %d subjects", e.Damage, e.Subjects)
		}
	})
}

func TestEraseTheDamaged(t *testing.T) {
	w := damagedWorld(t)
	ctx := context.Background()
	w.offline(func(e *Examination) { must(t, e.Erase(ctx, w.store, w.keyring)) })
	done, err := w.RevokeScope(ctx, grant(hallA), request())
	must(t, err)
	if done.Scope.State != scope.Revoked || done.Subjects != 3 || done.Templates != 5 {
		t.Errorf("%v, %d subjects, %d templates", done.Scope.State, done.Subjects, done.Templates)
	}
	if h, ok := w.store.Head(hallA); ok {
		t.Errorf("records are left: %+v", h)
	}
	if _, err := Examine(w.store, hallA); !errors.Is(err, ErrScopeRevoked) {
		t.Errorf("examining it again: %v", err)
	}
	if _, err := Examine(w.store, scope.Ref{Tenant: "fair", Scope: "nowhere"}); !errors.Is(err, ErrNoScope) {
		t.Errorf("examining what is not there: %v", err)
	}
}

// TestRevokeTheDamaged: a damaged scope can be revoked, and the answer says what
// could be counted.
func TestRevokeTheDamaged(t *testing.T) {
	w := damagedWorld(t)
	done, err := w.RevokeScope(context.Background(), grant(hallA), request())
	must(t, err)
	if done.Scope.State != scope.Revoked || done.Subjects != 3 || done.Templates != 5 {
		t.Errorf("%v, %d subjects, %d templates", done.Scope.State, done.Subjects, done.Templates)
	}
	w.restart()
	if _, err := w.Verify(context.Background(), grant(hallA), VerifyQuery{Subject: subjectID(0), Probe: vectorOf(0, 1)}); !errors.Is(err, ErrScopeRevoked) {
		t.Errorf("after the revocation: %v", err)
	}
}

// TestVanished loses a whole subject, of which nothing is left to tell.
func TestVanished(t *testing.T) {
	w := newWorld(t)
	w.create(hallA)
	w.enroll(hallA, subjectID(0), vectorOf(0, 0))
	w.enroll(hallA, subjectID(1), vectorOf(1, 0))
	w.lose("visitor-1\x00\x00\x00\x00\x01")
	w.openStorage()
	must(t, w.store.Close())
	must(t, w.keyring.Close())
	lost := 0
	w.database(func(txn *badger.Txn, key, _ []byte) error {
		if bytes.Contains(key, []byte("visitor-1")) {
			lost++
			return txn.Delete(key)
		}
		return nil
	})
	if lost != 1 {
		t.Fatalf("%d records lost, want the subject's", lost)
	}
	w.open()
	w.offline(func(e *Examination) {
		if e.Damage == nil || e.Vanished != 2 || len(e.Losses) != 0 || e.Subjects != 1 {
			t.Errorf("the examination: %+v", e)
		}
		must(t, e.Keep(context.Background(), w.store))
	})
	expect(t, w.verify(hallA, subjectID(0), vectorOf(0, 1)), Match, subjectID(0))
}

// TestErasedDoesNotComeBack puts an erased subject's records back, as an old
// copy of a file would, and wants keeping refused.
func TestErasedDoesNotComeBack(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(hallA)
	w.enroll(hallA, subjectID(0), vectorOf(0, 0))
	w.enroll(hallA, subjectID(1), vectorOf(1, 0))
	w.close()
	old := map[string][]byte{}
	w.database(func(_ *badger.Txn, key, value []byte) error {
		if bytes.Contains(key, []byte("visitor-1")) {
			old[string(key)] = value
		}
		return nil
	})
	w.open()
	_, err := w.DeleteSubject(ctx, grant(hallA), subjectID(1), request())
	must(t, err)
	w.close()
	put := false
	w.database(func(txn *badger.Txn, _, _ []byte) error {
		if put {
			return nil
		}
		put = true
		for key, value := range old {
			if err := txn.Set([]byte(key), value); err != nil {
				return err
			}
		}
		return nil
	})
	w.open()
	w.offline(func(e *Examination) {
		if err := e.Keep(ctx, w.store); !errors.Is(err, ErrNotKeepable) {
			t.Errorf("keeping what was erased: %v", err)
		}
	})
	if _, err := w.Verify(ctx, grant(hallA), VerifyQuery{Subject: subjectID(1), Probe: vectorOf(1, 1)}); !errors.Is(err, ErrScopeDamaged) {
		t.Errorf("after a refused repair: %v", err)
	}
	w.offline(func(e *Examination) { must(t, e.Erase(ctx, w.store, w.keyring)) })
	if s := w.store.Stats(); s.Failed {
		t.Error("the store has stopped")
	}
}
