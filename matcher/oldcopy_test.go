package matcher

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/idempotency"
)

// filedWorld is a world whose root key stands in a file, so that its older
// copy can come back.
func filedWorld(t *testing.T) *world {
	dir := t.TempDir()
	root, err := keyring.CreateRoot(filepath.Join(dir, "root.key"), nil)
	must(t, err)
	return worldIn(t, dir, root)
}

// copied returns a copy of what names stands for in the folder of the stopped world.
func (w *world) copied(names ...string) (put func()) {
	w.t.Helper()
	to := w.t.TempDir()
	move := func(from, to string) {
		for _, name := range names {
			old, err := os.Stat(filepath.Join(from, name))
			must(w.t, err)
			must(w.t, os.RemoveAll(filepath.Join(to, name)))
			if old.IsDir() {
				must(w.t, os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name))))
				continue
			}
			b, err := os.ReadFile(filepath.Join(from, name))
			must(w.t, err)
			must(w.t, os.WriteFile(filepath.Join(to, name), b, 0o600))
		}
	}
	move(w.dir, to)
	w.loadRoot()
	return func() {
		w.t.Helper()
		move(to, w.dir)
		w.loadRoot()
	}
}

// loadRoot reads the root key again, which closing the keyring has wiped.
func (w *world) loadRoot() {
	w.t.Helper()
	var err error
	w.root, err = keyring.LoadRoot(filepath.Join(w.dir, "root.key"), nil)
	must(w.t, err)
}

// refused tries to open the matcher, which must fail, and returns its error.
func (w *world) refused() error {
	w.t.Helper()
	w.openStorage()
	defer w.closeStorage()
	m, err := New(context.Background(), Options{
		Store: w.store, Keyring: w.keyring, Index: index.New(), Perception: fakeModels{},
		Logger: slog.New(slog.DiscardHandler), Clock: w.now, Receipts: filepath.Join(w.dir, "receipts"), Journal: filepath.Join(w.dir, "journal"),
	})
	if err == nil {
		must(w.t, m.Close())
		w.t.Fatal("it opens, and who was erased matches again")
	}
	return err
}

// An older copy of the whole data directory is consistent in itself. Beside the
// newest ledger it is refused: the receipts say what it would bring back.
func TestOldCopyBesideNewReceipts(t *testing.T) {
	all := []string{"data", "keyring", "journal", "root.key"}
	for name, tc := range map[string]struct {
		end  func(*world) error
		want error
	}{
		"subject withdrawn": {func(w *world) error {
			_, err := w.WithdrawConsent(context.Background(), grant(hallA), "visitor-0", idempotency.Request{})
			return err
		}, ErrOldRecords},
		"scope revoked": {func(w *world) error {
			_, err := w.RevokeScope(context.Background(), grant(hallA), request())
			return err
		}, ErrOldKeyring},
	} {
		t.Run(name, func(t *testing.T) {
			w := filedWorld(t)
			w.create(hallA)
			w.enroll(hallA, "visitor-0", vectorOf(0, 0))
			w.close()
			before := w.copied(all...)
			w.open()
			must(t, tc.end(w))
			w.completed(1)
			w.close()
			after := w.copied(all...)

			before()
			if err := w.refused(); !errors.Is(err, tc.want) {
				t.Errorf("with the older copy: %v, want %v", err, tc.want)
			}
			after()
			w.open()
		})
	}
}

// A keyring and a root key from before a revocation open what the revocation
// ended. A restore with them is refused, since the receipt is there.
func TestRestoreWithOldKeys(t *testing.T) {
	w := filedWorld(t)
	hallB := scope.Ref{Tenant: "fair", Scope: "hall-b"}
	w.create(hallA)
	w.create(hallB)
	w.enroll(hallB, "visitor-0", vectorOf(0, 0))
	saved := w.backUp()
	w.close()
	old := w.copied("keyring", "root.key")
	w.open()
	_, err := w.RevokeScope(context.Background(), grant(hallB), request())
	must(t, err)
	w.completed(1)
	w.loseRecords()
	must(t, w.keyring.Close())
	today := w.copied("keyring", "root.key")

	ring := func() {
		w.keyring, err = keyring.Open(filepath.Join(w.dir, "keyring"), w.root, keyring.Options{})
		must(t, err)
	}
	old()
	ring()
	if _, err := w.restore(saved); !errors.Is(err, ErrOldKeyring) {
		t.Errorf("with the keys from before the revocation: %v", err)
	}
	if _, err := store.Open(context.Background(), store.Options{Dir: filepath.Join(w.dir, "data"), Keyring: w.keyring}); !errors.Is(err, store.ErrRestoring) {
		t.Errorf("a refused restore is served: %v", err)
	}
	must(t, w.keyring.Close())
	today()
	ring()
	if _, err := w.restore(saved); err != nil {
		t.Fatal(err)
	}
	must(t, w.keyring.Close())
	w.loadRoot()
	w.open()
	if s, err := w.Scope(context.Background(), grant(hallB)); err != nil || s.State != scope.Revoked {
		t.Errorf("hall B is %v: %v", s.State, err)
	}
}
