package matcher

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/menshen-io/menshen/index/keyring"
	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/receipt"
)

// journal is room on the disk that is taken in advance, for revocations that
// the store cannot write because the disk is full or an earlier write failed. It is
// a file of slots outside the database, written in place and synced, so that
// neither its size nor its blocks change. A slot is the length of what follows
// (4 bytes, big-endian; 0: free) and a revocation as JSON, sealed under the
// system key with the slot's number as associated data; one that does not open is
// passed over: it was torn, and its call was not answered.
//
// Safe for concurrent use.
type journal struct {
	path string
	keys *keyring.SystemKeys

	mu   sync.Mutex
	f    *os.File
	used map[scope.Ref]int // the slot of each revocation
	held map[scope.Ref]revocationRecord
}

const (
	slotBytes = 1024 // a sealed revocation has under 500
	slots     = 256
)

var errJournalFull = errors.New("the journal of revocations is full")

type journalEntry struct {
	Ref        scope.Ref        `json:"ref"`
	Revocation revocationRecord `json:"revocation"`
}

// openJournal opens the file, or makes it with all its room.
func openJournal(path string, keys *keyring.SystemKeys) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_DSYNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the journal of revocations: %w", err)
	}
	j := &journal{path: path, keys: keys, f: f, used: map[scope.Ref]int{}, held: map[scope.Ref]revocationRecord{}}
	b := make([]byte, slots*slotBytes)
	if info, serr := f.Stat(); serr != nil || info.Size() < int64(len(b)) {
		_, err = f.WriteAt(b, 0) // zeros take blocks, a hole would not
	} else if _, err = f.ReadAt(b, 0); err == nil {
		for n := range slots {
			j.read(n, b[n*slotBytes:(n+1)*slotBytes])
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the journal of revocations: %w", err), f.Close())
	}
	return j, nil
}

func slotName(n int) []byte { return fmt.Appendf(nil, "revocation in slot %d", n) }

func (j *journal) read(n int, b []byte) {
	size := binary.BigEndian.Uint32(b)
	if size == 0 || size > slotBytes-4 {
		return
	}
	plain, err := j.keys.Open(b[4:4+size], slotName(n))
	var e journalEntry
	if err != nil || json.Unmarshal(plain, &e) != nil {
		return
	}
	j.used[e.Ref], j.held[e.Ref] = n, e.Revocation
}

// write makes a revocation durable.
func (j *journal) write(ref scope.Ref, r revocationRecord) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.used[ref]; ok {
		return nil
	}
	taken := map[int]bool{}
	for _, n := range j.used {
		taken[n] = true
	}
	for n := range slots {
		if taken[n] {
			continue
		}
		sealed, err := j.keys.Seal(encode(journalEntry{ref, r}), slotName(n))
		if err != nil {
			return err
		}
		b := append(binary.BigEndian.AppendUint32(nil, uint32(len(sealed))), sealed...)
		if len(b) > slotBytes {
			return fmt.Errorf("%w: a revocation of %d bytes", errJournalFull, len(b))
		}
		if _, err := j.f.WriteAt(b, int64(n)*slotBytes); err != nil {
			return err
		}
		j.used[ref], j.held[ref] = n, r
		return nil
	}
	return errJournalFull
}

// of returns the revocation that the journal holds of a scope.
func (j *journal) of(ref scope.Ref) (revocationRecord, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, ok := j.held[ref]
	return r, ok
}

// free gives a slot back, once the store holds the revocation. A slot that
// cannot be overwritten is found again at the next start, and freed then.
func (j *journal) free(ref scope.Ref) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, ok := j.used[ref]
	if !ok {
		return nil
	}
	if _, err := j.f.WriteAt(make([]byte, slotBytes), int64(n)*slotBytes); err != nil {
		return err
	}
	delete(j.used, ref)
	delete(j.held, ref)
	return nil
}

// Beside the journal stand, a file for each scope, the statements of erasures
// whose notes go with the scope's key before the store can take them over: sealed
// under the system key, with the scope's name as associated data.
func (j *journal) statementsOf(ref scope.Ref) string {
	return j.path + "." + string(ref.Tenant) + "." + string(ref.Scope)
}

// state keeps the statements of a scope, durably, in the place of those that it kept.
func (j *journal) state(ref scope.Ref, statements []receipt.Receipt) error {
	sealed, err := j.keys.Seal(encode(statements), []byte(j.statementsName(ref)))
	if err != nil {
		return err
	}
	path := j.statementsOf(ref)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(sealed)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	return j.syncFolder()
}

func (j *journal) statementsName(ref scope.Ref) string { return "statements of " + ref.String() }

// stated returns what state keeps of a scope.
func (j *journal) stated(ref scope.Ref) (statements []receipt.Receipt, err error) {
	sealed, err := os.ReadFile(j.statementsOf(ref))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	plain, err := j.keys.Open(sealed, []byte(j.statementsName(ref)))
	if err != nil {
		return nil, err
	}
	return decodeRecord[[]receipt.Receipt](plain)
}

// unstate forgets the statements of a scope, once the store has them.
func (j *journal) unstate(ref scope.Ref) error {
	if err := os.Remove(j.statementsOf(ref)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return j.syncFolder()
}

func (j *journal) syncFolder() error {
	d, err := os.Open(filepath.Dir(j.path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (j *journal) close() error { return j.f.Close() }
