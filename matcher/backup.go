package matcher

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/backup"
)

// BackupSummary tells what a backup holds.
type BackupSummary struct {
	Origin  store.Origin
	Scopes  int
	Records uint64
	// Damaged scopes lack records in the store itself.
	Damaged int
}

// Backup writes a snapshot of the sealed records to w, encrypted to the
// recipients; calls and changes go on meanwhile. It takes no grant: what it writes
// nobody can read without the keys, which are not in it. An error leaves w with
// what does not open as a backup. Errors: ErrBackupRunning, backup.ErrRecipient,
// receipt.ErrLedger (without its end a backup could not be restored), those of
// store.Backup.
func (m *Matcher) Backup(ctx context.Context, w io.Writer, recipients []string) (BackupSummary, error) {
	if !m.backingUp.CompareAndSwap(false, true) {
		return BackupSummary{}, fmt.Errorf("%w; wait for it to end", ErrBackupRunning)
	}
	defer m.backingUp.Store(false)
	sealed, err := backup.Encrypt(w, recipients)
	if err != nil {
		return BackupSummary{}, err
	}
	began := time.Now()
	book, err := m.book()
	if err != nil {
		return BackupSummary{}, err
	}
	mark := book.Mark() // before the snapshot: what is in the ledger by then is gone from the records
	out := BackupSummary{Origin: store.Origin{
		Time: m.now().UTC(), Server: m.version, Generation: m.keyring.Generation(), LedgerNumber: mark.Number, LedgerSum: mark.Sum,
	}}
	m.failpoint("matcher/backup/begun")
	spaces, err := m.store.Backup(ctx, sealed, out.Origin)
	m.failpoint("matcher/backup/written")
	if err == nil && m.audit != nil {
		// A restore leaves out the acts that wait in the snapshot: the log has them
		// before anybody has a backup that can be opened.
		m.audit.Collect()
	}
	if err == nil {
		err = sealed.Close()
	}
	m.failpoint("matcher/backup/sealed")
	if err != nil {
		return BackupSummary{}, err
	}
	for _, sp := range spaces[1:] {
		out.Scopes++
		out.Records += sp.Records
		if sp.Damaged() {
			out.Damaged++
			m.log.Error("a scope went into the backup as damaged as it is on disk", "scope", sp.Ref.String())
		}
	}
	out.Records += spaces[0].Records
	m.log.Info("backup made", "scopes", out.Scopes, "records", out.Records, "took", time.Since(began).Round(time.Millisecond))
	return out, nil
}

// BackupSize is roughly how long a backup would be, in bytes: that of the records
// and of the encryption, which adds 16 bytes to 64 KiB.
func (m *Matcher) BackupSize(ctx context.Context) (uint64, error) {
	n, err := m.store.BackupSize(ctx)
	return n + n>>12, err
}
