package receipt

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/signing"
)

// LedgerType names the meaning and version of a ledger's line.
const LedgerType = "menshen.ledger-entry.v1"

// Errors of the ledger.
var (
	// ErrLedger: the ledger is not as it was written.
	ErrLedger = errors.New("the ledger of receipts is damaged")
	// ErrTorn: the ledger ends within a line, or with an empty file.
	ErrTorn = fmt.Errorf("%w: its last line is incomplete", ErrLedger)
	// ErrNoReceipt: the ledger holds no such receipt.
	ErrNoReceipt = errors.New("no such receipt")
)

// Entry is one line of the ledger. What it says in clear names nobody; the
// receipt of a subject or a template, which does, stands in it sealed under the
// key of its scope, and so becomes unreadable with the scope. Sum lets who kept the
// document show later that it is the one that was handed out.
type Entry struct {
	// Number counts the entries from 1, over all tenants.
	Number uint64 `json:"n"`
	// Previous is the SHA-256 of the line before, in hexadecimal; 64 zeros for
	// the first.
	Previous string         `json:"previous"`
	ID       string         `json:"id"` // the receipt's
	Kind     Kind           `json:"kind"`
	Tenant   scope.TenantID `json:"tenant"`
	Scope    scope.ScopeID  `json:"scope"`
	Cause    Cause          `json:"cause"`
	// Epoch of the erasure in its scope: what was erased had been enrolled at an
	// earlier one.
	Epoch     scope.Epoch `json:"epoch"`
	Completed time.Time   `json:"completed"`
	// Document is the signed receipt, of kind SCOPE and SUBJECTS; Sealed that of
	// the other kinds, empty where the scope's key was gone when it was written.
	Document json.RawMessage `json:"document,omitempty"`
	Sealed   []byte          `json:"sealed,omitempty"`
	// Sum is the SHA-256 of the document as it is handed out, in hexadecimal.
	Sum string `json:"sum"`
}

// Mark is the end of a ledger at one moment, to be kept elsewhere: a ledger
// that is shorter was truncated.
type Mark struct {
	Number uint64 `json:"n"`
	Sum    string `json:"sum"` // SHA-256 of its last line, in hexadecimal
}

// Compact gives a signed document on one line, as the ledger keeps it, and Spell
// the form in which it was signed and is handed out.
func Compact(doc []byte) (json.RawMessage, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLedger, err)
	}
	return b.Bytes(), nil
}

// Spell reverses Compact.
func Spell(line []byte) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, line, "", "  "); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLedger, err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// SumOf is the SHA-256 of a document in hexadecimal.
func SumOf(doc []byte) string {
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:])
}

// A ledger is a folder of files of signed lines. Each file is named by the
// number of its first entry, in 20 digits, and a new one is begun when the last has
// segmentBytes: so no file is ever changed but at its end, and the last one alone.
const (
	segmentBytes = 16 << 20
	nameDigits   = 20
	suffix       = ".jsonl"
)

// Ledger is the append-only file of receipts. Every line is signed and holds
// the hash of the line before, so that the signature of the last one vouches for
// all. Open notices every changed, missing or exchanged line, and with a Mark a
// missing end. About 200 bytes an entry are kept in memory, the rest is read
// when asked for. Safe for concurrent use.
type Ledger struct {
	dir string

	mu    sync.RWMutex
	f     *os.File // the last file, open for appending; nil before the first entry
	first uint64   // the number in its name
	size  int64
	mark  Mark
	bad   error // why nothing is appended any more
	at    []place
	names map[string]int // tenant/id -> index into at
}

// place is where an entry stands.
type place struct {
	tenant scope.TenantID
	scope  scope.ScopeID
	file   uint64 // the number in its name
	offset int64
	length int
}

// OpenLedger reads the ledger in dir, which is made where it is missing. least
// is the end that it had at least: where it is shorter or another, ErrLedger.
// An incomplete last line above that, which a crash leaves, is cut off. keys are those
// that may have signed. Other errors are those of the file system.
func OpenLedger(dir string, keys signing.PublicKeys, least Mark) (*Ledger, error) {
	return open(dir, keys, least, false)
}

// OpenWhole is OpenLedger for who has no records that tell what the last line
// said: a copy that was cut looks as after a crash. An incomplete last line stays,
// and is ErrTorn.
func OpenWhole(dir string, keys signing.PublicKeys, least Mark) (*Ledger, error) {
	return open(dir, keys, least, true)
}

func open(dir string, keys signing.PublicKeys, least Mark, whole bool) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the receipts: %w", err)
	}
	l := &Ledger{dir: dir, names: map[string]int{}, mark: Mark{Sum: noLine}}
	if err := l.read(keys, least, whole); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the ledger in %s: %w", dir, err)
	}
	return l, nil
}

// noLine is what the first entry gives as the hash of the line before it.
var noLine = hex.EncodeToString(make([]byte, sha256.Size))

func fileName(first uint64) string { return fmt.Sprintf("%0*d%s", nameDigits, first, suffix) }

// read takes the steps of OpenLedger, or of OpenWhole.
func (l *Ledger) read(keys signing.PublicKeys, least Mark, whole bool) error {
	names, err := l.files()
	if err != nil {
		return err
	}
	var last []byte
	for i, first := range names {
		path := filepath.Join(l.dir, fileName(first))
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if first != l.mark.Number+1 {
			return damaged("%s should begin with entry %d", fileName(first), l.mark.Number+1)
		}
		used, line, err := l.readFile(first, b, least)
		if line != nil {
			last = line
		}
		if used < len(b) {
			if err == nil {
				err = errors.New("its end is incomplete")
			}
			if i < len(names)-1 || l.mark.Number < least.Number || bytes.IndexByte(b[used:], '\n') >= 0 {
				return damaged("%s, after entry %d: %w", fileName(first), l.mark.Number, err)
			}
			if whole {
				return fmt.Errorf("%w: %s after entry %d", ErrTorn, fileName(first), l.mark.Number)
			}
			if err := cut(path, int64(used)); err != nil {
				return err
			}
		}
		l.first, l.size = first, int64(used)
	}
	if l.mark.Number < least.Number {
		return damaged("it ends with entry %d, and entry %d was written", l.mark.Number, least.Number)
	}
	if whole && len(names) > 0 && l.size == 0 {
		return fmt.Errorf("%w: %s is empty", ErrTorn, fileName(l.first))
	}
	if last != nil {
		if _, err := parseEntry(last, keys); err != nil {
			return damaged("the last entry, %d: %w", l.mark.Number, err)
		}
	}
	if len(names) > 0 {
		l.f, err = os.OpenFile(filepath.Join(l.dir, fileName(l.first)), os.O_WRONLY|os.O_APPEND, 0)
	}
	return err
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w; restore the folder from its newest copy", ErrLedger, fmt.Errorf(format, args...))
}

// files lists the numbers that the files begin with, in order.
func (l *Ledger) files() ([]uint64, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	var out []uint64
	for _, e := range entries {
		var first uint64
		if _, err := fmt.Sscanf(e.Name(), "%d"+suffix, &first); err != nil || e.Name() != fileName(first) {
			return nil, damaged("%s is no file of a ledger", e.Name())
		}
		out = append(out, first)
	}
	slices.Sort(out)
	return out, nil
}

// readFile reads the whole lines of a file, checks that each continues the one
// before, and notes where they stand. It returns how much of b that is.
func (l *Ledger) readFile(first uint64, b []byte, least Mark) (used int, last []byte, err error) {
	for used < len(b) {
		n := bytes.IndexByte(b[used:], '\n') + 1
		if n == 0 {
			return used, last, nil
		}
		line := b[used : used+n]
		e, err := entryOf(line)
		if err != nil {
			return used, last, err
		}
		if e.Number != l.mark.Number+1 || e.Previous != l.mark.Sum {
			return used, last, fmt.Errorf("entry %d does not follow entry %d", e.Number, l.mark.Number)
		}
		l.note(e, place{e.Tenant, e.Scope, first, int64(used), n}, SumOf(line))
		if l.mark.Number == least.Number && l.mark.Sum != least.Sum {
			return used, last, fmt.Errorf("entry %d is not the one that was written", e.Number)
		}
		used, last = used+n, line
	}
	return used, last, nil
}

// note makes an entry known.
func (l *Ledger) note(e Entry, at place, sum string) {
	l.names[string(e.Tenant)+"/"+e.ID] = len(l.at)
	l.at = append(l.at, at)
	l.mark = Mark{e.Number, sum}
}

// entryOf reads a line without verifying its signature.
func entryOf(line []byte) (Entry, error) {
	var d struct {
		Statement Entry `json:"statement"`
	}
	if err := json.Unmarshal(line, &d); err != nil {
		return Entry{}, err
	}
	return d.Statement, nil
}

// parseEntry reads and verifies a line.
func parseEntry(line []byte, keys signing.PublicKeys) (Entry, error) {
	doc, err := Spell(bytes.TrimSuffix(line, []byte("\n")))
	if err != nil {
		return Entry{}, err
	}
	var e Entry
	_, err = signing.Parse(doc, LedgerType, keys, &e)
	return e, err
}

// cut shortens a file, durably.
func cut(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

// Mark is the present end.
func (l *Ledger) Mark() Mark {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mark
}

// Append signs the entries and writes them at the end, durably, all or (after a
// failure) none; it sets their Number and Previous. An entry whose receipt is there
// already is passed over: its first form stands. After a failed write
// nothing is appended until the ledger is opened again: what of it reached
// the disk is not known.
func (l *Ledger) Append(key *signing.Key, entries ...Entry) (Mark, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bad != nil {
		return l.mark, l.bad
	}
	var out []byte
	var places []place
	var sums []string
	mark := l.mark
	fresh := entries[:0]
	for _, e := range entries {
		if _, there := l.names[string(e.Tenant)+"/"+e.ID]; there {
			continue
		}
		e.Number, e.Previous = mark.Number+1, mark.Sum
		e.Completed = e.Completed.Round(0).UTC()
		doc, err := signing.Sign(key, LedgerType, e)
		if err != nil {
			return l.mark, err
		}
		line, err := Compact(doc)
		if err != nil {
			return l.mark, err
		}
		line = append(line, '\n')
		mark = Mark{e.Number, SumOf(line)}
		places = append(places, place{tenant: e.Tenant, scope: e.Scope, offset: int64(len(out)), length: len(line)})
		sums, fresh = append(sums, mark.Sum), append(fresh, e)
		out = append(out, line...)
	}
	if len(fresh) == 0 {
		return l.mark, nil
	}
	if err := l.write(out); err != nil {
		l.bad = fmt.Errorf("%w: a write failed: %w; restart the server", ErrLedger, err)
		return l.mark, l.bad
	}
	for i, e := range fresh {
		at := places[i]
		at.file, at.offset = l.first, l.size-int64(len(out))+at.offset
		l.note(e, at, sums[i])
	}
	return l.mark, nil
}

// write puts whole lines at the end of the last file, or of a new one.
func (l *Ledger) write(lines []byte) error {
	if l.f == nil || l.size >= segmentBytes {
		path := filepath.Join(l.dir, fileName(l.mark.Number+1))
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		if err := syncDir(l.dir); err != nil {
			return errors.Join(err, f.Close())
		}
		if l.f != nil {
			l.f.Close() // every write to it was synced
		}
		l.f, l.first, l.size = f, l.mark.Number+1, 0
	}
	if _, err := l.f.Write(lines); err != nil {
		return err
	}
	if err := l.f.Sync(); err != nil {
		return err
	}
	l.size += int64(len(lines))
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Get returns the entry of a tenant's receipt, verified. Errors: ErrNoReceipt,
// ErrLedger.
func (l *Ledger) Get(tenant scope.TenantID, id string, keys signing.PublicKeys) (Entry, error) {
	l.mu.RLock()
	i, ok := l.names[string(tenant)+"/"+id]
	var at place
	if ok {
		at = l.at[i]
	}
	l.mu.RUnlock()
	if !ok {
		return Entry{}, fmt.Errorf("%w: tenants/%s/receipts/%s", ErrNoReceipt, tenant, id)
	}
	return l.load(at, keys)
}

// Has reports whether a tenant's receipt is there.
func (l *Ledger) Has(tenant scope.TenantID, id string) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, ok := l.names[string(tenant)+"/"+id]
	return ok
}

// List returns up to limit entries of a tenant, and of one of its scopes unless
// that is empty, numbered above after, in order. Errors: ErrLedger.
func (l *Ledger) List(tenant scope.TenantID, in scope.ScopeID, after uint64, limit int, keys signing.PublicKeys) ([]Entry, error) {
	l.mu.RLock()
	all := l.at // only ever appended to
	l.mu.RUnlock()
	var out []Entry
	for i := after; i < uint64(len(all)) && len(out) < limit; i++ {
		at := all[i]
		if at.tenant != tenant || in != "" && at.scope != in {
			continue
		}
		e, err := l.load(at, keys)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// Each calls f with every entry numbered above after, verified, in order.
// Errors: ErrLedger, that of f.
func (l *Ledger) Each(after uint64, keys signing.PublicKeys, f func(Entry) error) error {
	l.mu.RLock()
	all := l.at // only ever appended to
	l.mu.RUnlock()
	for _, at := range all[min(after, uint64(len(all))):] {
		e, err := l.load(at, keys)
		if err == nil {
			err = f(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// load reads an entry from its file.
func (l *Ledger) load(at place, keys signing.PublicKeys) (Entry, error) {
	f, err := os.Open(filepath.Join(l.dir, fileName(at.file)))
	if errors.Is(err, fs.ErrNotExist) {
		return Entry{}, damaged("%s is missing", fileName(at.file))
	} else if err != nil {
		return Entry{}, err
	}
	defer f.Close()
	line := make([]byte, at.length)
	if _, err := f.ReadAt(line, at.offset); err != nil {
		return Entry{}, damaged("%s: %w", fileName(at.file), err)
	}
	e, err := parseEntry(line, keys)
	if err != nil {
		return Entry{}, damaged("%s: %w", fileName(at.file), err)
	}
	return e, nil
}

// Close closes the file. Nothing is appended afterwards.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad = fmt.Errorf("%w: it was closed", ErrLedger)
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
