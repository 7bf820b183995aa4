package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/menshen-io/menshen/matcher/signing"
)

// FindingKind says what is wrong.
type FindingKind string

// The kinds.
const (
	Altered    FindingKind = "ALTERED"    // a record is not what was written
	Moved      FindingKind = "MOVED"      // a record stands at another's place: removed, inserted or reordered
	Unreadable FindingKind = "UNREADABLE" // no record can be made of the bytes
	Incomplete FindingKind = "INCOMPLETE" // the last record ends too early: a crash, or a cut
	Missing    FindingKind = "MISSING"    // records, a segment, a chain or a statement are not there
	Rewritten  FindingKind = "REWRITTEN"  // the chain holds, but is not the one that was signed
	Foreign    FindingKind = "FOREIGN"    // a file that does not belong here
	BadSigned  FindingKind = "SIGNATURE"  // a checkpoint does not verify
	SetAside   FindingKind = "SET_ASIDE"  // a damaged chain was replaced by a new one
)

// Finding is one thing that Verify found.
type Finding struct {
	Kind     FindingKind `json:"kind"`
	Chain    string      `json:"chain"`
	Position uint64      `json:"position,omitempty"` // of the first record concerned
	File     string      `json:"file,omitempty"`
	Offset   int64       `json:"offset,omitempty"` // in bytes
	Detail   string      `json:"detail"`
}

func (f Finding) String() string {
	where := ""
	if f.File != "" {
		where = fmt.Sprintf(" (%s, byte %d)", f.File, f.Offset)
	}
	return fmt.Sprintf("%s: %s at record %d%s: %s", f.Chain, f.Kind, f.Position, where, f.Detail)
}

// ChainReport says what a chain holds.
type ChainReport struct {
	Head
	// Pruned is the last position that was dropped when its time was over.
	Pruned uint64 `json:"pruned,omitempty"`
	// Signed is the last position that a checkpoint vouches for. Somebody who
	// can write the files can change what comes after it unnoticed.
	Signed uint64 `json:"signed"`
	// Oldest and Newest are times of records.
	Oldest time.Time `json:"oldest,omitzero"`
	Newest time.Time `json:"newest,omitzero"`
	// Gaps are the log's own statements that something is missing.
	Gaps []Record `json:"gaps,omitempty"`
}

// Report is what Verify found. It is good when there are no findings.
type Report struct {
	Chains   []ChainReport `json:"chains"`
	Findings []Finding     `json:"findings"`
	// Unclosed: the log is open, or was not closed in order. Acts of its last second
	// may then stand in the records of the server alone, until it starts again.
	Unclosed bool `json:"unclosed,omitempty"`
	// Unchecked are given checkpoints of parts that were pruned since.
	Unchecked []Head `json:"unchecked,omitempty"`
}

// maxFindings bounds a report; a log that was shuffled is no clearer for more.
const maxFindings = 1000

// Verify checks a whole log offline: every hash, every link, the checkpoints
// beside the chains, the ends of chains that the platform's chain holds, and the
// given checkpoints, which are signed documents that were kept elsewhere. A
// server must not be writing to dir. The error wraps ErrDamaged when there are
// findings, and is that of the disk when it could not be read; the report says
// what was found until then.
func Verify(dir string, keys signing.PublicKeys, checkpoints ...[]byte) (Report, error) {
	v := newVerifier(keys, checkpoints)
	chains, aside, err := chainFolders(dir)
	if err != nil {
		return v.report, fmt.Errorf("list the audit log: %w", err)
	}
	if info, err := os.Stat(filepath.Join(dir, lockFile)); err == nil {
		v.report.Unclosed = info.Size() > 0
	}
	for _, folder := range aside {
		v.find(SetAside, folder, 0, "", 0, "this chain was found damaged, set aside and begun anew")
	}
	// The platform's first: it says what the others must hold.
	slices.SortFunc(chains, func(a, b string) int {
		if (a == platformChain) != (b == platformChain) {
			return map[bool]int{true: -1, false: 1}[a == platformChain]
		}
		return map[bool]int{true: -1, false: 1}[a < b]
	})
	for _, name := range chains {
		if err := v.chain(name, filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			return v.report, fmt.Errorf("read the audit log %s: %w", name, err)
		}
		delete(v.expected, name)
	}
	v.absent()
	return v.result()
}

// VerifyChain checks the folder of one chain, such as a tenant was handed, in the
// way of Verify.
func VerifyChain(dir, chain string, keys signing.PublicKeys, checkpoints ...[]byte) (Report, error) {
	v := newVerifier(keys, checkpoints)
	if !validChain(chain) {
		return v.report, fmt.Errorf("verify the audit log: there is no chain %q", chain)
	}
	maps.DeleteFunc(v.expected, func(name string, _ map[uint64][]expectation) bool { return name != chain })
	if err := v.chain(chain, dir); err != nil {
		return v.report, fmt.Errorf("read the audit log %s: %w", chain, err)
	}
	delete(v.expected, chain)
	return v.result()
}

// expectation is a hash that somebody vouched for.
type expectation struct {
	hash   Hash
	by     string
	signed bool
}

type verifier struct {
	keys     signing.PublicKeys
	report   Report
	expected map[string]map[uint64][]expectation // by chain and position
}

func newVerifier(keys signing.PublicKeys, checkpoints [][]byte) *verifier {
	v := &verifier{keys: keys, expected: map[string]map[uint64][]expectation{}}
	for i, doc := range checkpoints {
		by := fmt.Sprintf("given checkpoint %d", i+1)
		c, _, err := ParseCheckpoint(doc, keys)
		if err != nil {
			v.find(BadSigned, c.Chain, c.Position, by, 0, "%v", err)
			continue
		}
		v.expect(c.Head, by, true)
	}
	return v
}

func (v *verifier) expect(h Head, by string, signed bool) {
	if v.expected[h.Chain] == nil {
		v.expected[h.Chain] = map[uint64][]expectation{}
	}
	at := v.expected[h.Chain]
	if e := (expectation{h.Hash, by, signed}); !slices.Contains(at[h.Position], e) {
		at[h.Position] = append(at[h.Position], e)
	}
}

func (v *verifier) find(kind FindingKind, chain string, position uint64, file string, offset int64, format string, args ...any) {
	if len(v.report.Findings) < maxFindings {
		v.report.Findings = append(v.report.Findings, Finding{kind, chain, position, file, offset, fmt.Sprintf(format, args...)})
	}
}

// absent reports chains that somebody vouched for and that are not there.
func (v *verifier) absent() {
	for _, name := range slices.Sorted(maps.Keys(v.expected)) {
		for _, position := range slices.Sorted(maps.Keys(v.expected[name])) {
			if position > 0 {
				v.find(Missing, name, position, "", 0, "the chain is not there, but %s knows it", v.expected[name][position][0].by)
				break
			}
		}
	}
}

func (v *verifier) result() (Report, error) {
	if n := len(v.report.Findings); n > 0 {
		return v.report, fmt.Errorf("%w: %d findings, the first: %s", ErrDamaged, n, v.report.Findings[0])
	}
	return v.report, nil
}

// chainCheck is the state of checking one chain.
type chainCheck struct {
	*verifier
	report ChainReport
	file   string
	known  bool // the hash at the end so far is known
	shift  int64
}

// chain checks one chain. The error is the disk's.
func (v *verifier) chain(name, dir string) error {
	c := &chainCheck{verifier: v, known: true, report: ChainReport{Head: Head{Chain: name, Hash: genesis(name)}}}
	if newest, ok, err := readStatement(dir, checkpointFile, name, v.keys); err != nil {
		if isDisk(err) {
			return err
		}
		v.find(BadSigned, name, 0, checkpointFile, 0, "%v", err)
	} else if ok {
		v.expect(newest.Head, checkpointFile, true)
	}
	begin, pruned, err := readStatement(dir, prunedFile, name, v.keys)
	if isDisk(err) {
		return err
	} else if err != nil {
		v.find(BadSigned, name, 0, prunedFile, 0, "%v", err)
	}
	files, err := segmentFiles(dir)
	if isDisk(err) {
		return err
	} else if err != nil {
		v.find(Foreign, name, 0, "", 0, "%v", err)
	}
	// A crash may have left segments that the statement of pruning covers; they
	// are as good as gone.
	for pruned && len(files) > 0 && files[0] <= begin.Position {
		files = files[1:]
	}
	if pruned {
		c.report.Position, c.report.Hash, c.report.Pruned = begin.Position, begin.Hash, begin.Position
	}
	c.reached()
	for _, first := range files {
		if err := c.segment(filepath.Join(dir, segmentName(first)), first); err != nil {
			return err
		}
	}
	c.beyond()
	v.report.Chains = append(v.report.Chains, c.report)
	return nil
}

// isDisk tells a failure to read from a file that is not what it should be.
func isDisk(err error) bool {
	var path *fs.PathError
	var call *os.SyscallError
	return errors.As(err, &path) || errors.As(err, &call)
}

func (c *chainCheck) found(kind FindingKind, offset int64, format string, args ...any) {
	c.find(kind, c.report.Chain, c.report.Position+1, c.file, offset, format, args...)
}

// reached compares the chain at its present position with what was vouched for.
func (c *chainCheck) reached() {
	at := c.expected[c.report.Chain]
	for _, e := range at[c.report.Position] {
		if e.hash != c.report.Hash && c.known {
			c.find(Rewritten, c.report.Chain, c.report.Position, c.file, 0, "%s vouches for another record here", e.by)
		} else if e.signed && c.known {
			c.report.Signed = c.report.Position
		}
	}
	delete(at, c.report.Position)
}

// beyond reports what was vouched for and not reached.
func (c *chainCheck) beyond() {
	at := c.expected[c.report.Chain]
	for _, position := range slices.Sorted(maps.Keys(at)) {
		switch e := at[position][0]; {
		case position > c.report.Position:
			c.file = ""
			c.found(Missing, 0, "the chain ends with record %d, but %s vouches for %d", c.report.Position, e.by, position)
			return
		case position <= c.report.Pruned:
			for _, e := range at[position] {
				c.verifier.report.Unchecked = append(c.verifier.report.Unchecked, Head{c.report.Chain, position, e.hash})
			}
		}
	}
}

// segment checks one file. The error is the disk's.
func (c *chainCheck) segment(path string, first uint64) error {
	c.file = filepath.Base(path)
	s, err := openSegment(path, -1)
	if errors.Is(err, errHeader) {
		c.found(Unreadable, 0, "%v", err)
		c.known = false
		return nil
	}
	if err != nil {
		return err
	}
	defer s.close()
	switch {
	case s.head.chain != c.report.Chain:
		c.found(Foreign, 0, "the file belongs to the chain %s", s.head.chain)
		return nil
	case s.head.first != first:
		c.found(Moved, 0, "the file begins with record %d", s.head.first)
		return nil
	case first != c.report.Position+1 && c.known:
		c.found(Missing, 0, "the file begins with record %d: what lies between is missing", first)
	case s.head.prev != c.report.Hash && c.known:
		c.found(Rewritten, 0, "the file does not follow from record %d", c.report.Position)
	}
	c.report.Position, c.report.Hash, c.known, c.shift = first-1, s.head.prev, true, 0
	for {
		f, err := s.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTorn):
			c.found(Incomplete, f.offset, "the last record is incomplete by a crash or a cut; the server cuts %d bytes off when it starts", s.size-f.offset)
			return nil
		case errors.Is(err, errFrame):
			c.found(Unreadable, f.offset, "%v; what follows in the file cannot be checked", err)
			c.known = false
			return nil
		case err != nil:
			return err
		}
		c.record(f)
	}
}

// record checks one record and goes on after it.
func (c *chainCheck) record(f frame) {
	r, err := decodeRecord(f.payload)
	at := c.report.Position + 1
	switch {
	case err == nil && int64(r.Position-at) != c.shift:
		c.shift = int64(r.Position - at)
		c.found(Moved, f.offset, "record %d stands here: records were removed, added or moved", r.Position)
	case !f.holds:
		c.found(Altered, f.offset, "the hash does not hold")
	case err != nil:
		c.found(Altered, f.offset, "the hash holds, but this is no record: %v", err)
	}
	c.report.Position, c.report.Hash = at, f.hash
	c.reached()
	if err != nil || !f.holds {
		return
	}
	if c.report.Oldest.IsZero() {
		c.report.Oldest = r.Time
	}
	c.report.Newest = r.Time
	if r.Kind == KindGap && len(c.report.Gaps) < maxFindings {
		c.report.Gaps = append(c.report.Gaps, r)
	}
	if c.report.Chain == platformChain {
		for _, h := range r.Heads {
			c.expect(h, fmt.Sprintf("record %d of the platform's chain", r.Position), false)
		}
	}
}
