package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/scope"
	"github.com/menshen-io/menshen/matcher/signing"
)

// victim is the chain that tests spoil.
var victim = ActsOf("fair")

// written makes a closed log with n records in each chain, and the checkpoints
// of it that were kept elsewhere.
func written(t testing.TB, n int) (h *house, kept [][]byte) {
	h = newHouse(t)
	h.fill(n)
	signed, err := h.Checkpoint(t.Context())
	h.ok(err)
	for _, s := range signed {
		kept = append(kept, s.Document)
	}
	h.ok(h.Close())
	_, err = Verify(h.opt.Dir, h.keys, kept...)
	h.ok(err)
	return h, kept
}

// frames cuts a segment file into its header and its frames.
func frames(t testing.TB, file []byte) (head []byte, records [][]byte) {
	n := len(segmentMagic) + 1 + int(file[len(segmentMagic)]) + 8 + 32 + 8 + 4
	head, rest := file[:n], file[n:]
	for len(rest) > 0 {
		size := frameHead + int(binary.BigEndian.Uint32(rest)) + 32
		records, rest = append(records, rest[:size]), rest[size:]
	}
	return head, records
}

// TestEveryChangeIsFound changes one thing at a time, checks the chain and tries
// to open the log.
func TestEveryChangeIsFound(t *testing.T) {
	h, _ := written(t, 3)
	for _, chain := range []string{victim, DecisionsOf(hallA)} {
		path := onlySegment(t, h.opt.Dir, chain)
		dir := filepath.Dir(path)
		good, err := os.ReadFile(path)
		h.ok(err)
		head, records := frames(t, good)
		join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
		spoilt := map[string][]byte{}
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << (i % 8)
			spoilt[fmt.Sprint("flip in byte ", i)] = bad
			spoilt[fmt.Sprint("without byte ", i)] = join(good[:i], good[i+1:])
			spoilt[fmt.Sprint("cut at byte ", i)] = good[:i]
		}
		for i, r := range records {
			before, after := join(records[:i]...), join(records[i+1:]...)
			spoilt[fmt.Sprint("without record ", i)] = join(head, before, after)
			spoilt[fmt.Sprint("twice record ", i)] = join(head, before, r, r, after)
			for j := i + 1; j < len(records); j++ {
				moved := slices.Clone(records)
				moved[i], moved[j] = moved[j], moved[i]
				spoilt[fmt.Sprintf("records %d and %d swapped", i, j)] = join(head, join(moved...))
			}
		}
		for name, bad := range spoilt {
			h.ok(os.WriteFile(path, bad, 0o600))
			if r, err := VerifyChain(dir, chain, h.keys); !errors.Is(err, ErrDamaged) || len(r.Findings) == 0 {
				t.Fatalf("%s: %s: not found: %v", chain, name, err)
			}
			if c, _, err := openChain(chain, dir, h.keys); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s: %s: opened up to %v, %v", chain, name, c, err)
			}
		}
		h.ok(os.WriteFile(path, good, 0o600))
	}
	path := filepath.Join(chainDir(h.opt.Dir, victim), checkpointFile)
	good, err := os.ReadFile(path)
	h.ok(err)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		h.ok(os.WriteFile(path, bad, 0o600))
		if r, err := VerifyChain(filepath.Dir(path), victim, h.keys); !errors.Is(err, ErrDamaged) || r.Findings[0].Kind != BadSigned {
			t.Fatalf("byte %d of the checkpoint: %v", i, err)
		}
		if _, _, err := openChain(victim, filepath.Dir(path), h.keys); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d of the checkpoint: opened: %v", i, err)
		}
	}
	h.ok(os.WriteFile(path, good, 0o600))
	_, err = Verify(h.opt.Dir, h.keys)
	h.ok(err)
}

// TestFindingsSayWhat wants the kind and the place of single changes.
func TestFindingsSayWhat(t *testing.T) {
	h, kept := written(t, 6)
	edit := func(change func(head []byte, records [][]byte) []byte) func(string) {
		return func(dir string) {
			path := onlySegment(t, dir, victim)
			good, err := os.ReadFile(path)
			h.ok(err)
			head, records := frames(t, bytes.Clone(good))
			h.ok(os.WriteFile(path, change(head, records), 0o600))
		}
	}
	join := func(head []byte, records ...[]byte) []byte { return slices.Concat(head, slices.Concat(records...)) }
	for name, c := range map[string]struct {
		spoil    func(dir string)
		kind     FindingKind
		position uint64
	}{
		"edit": {edit(func(head []byte, r [][]byte) []byte {
			r[2] = bytes.Replace(r[2], []byte("UpdateScope"), []byte("RevokeScope"), 1)
			return join(head, r...)
		}), Altered, 3},
		"removal":   {edit(func(head []byte, r [][]byte) []byte { return join(head, slices.Delete(r, 2, 3)...) }), Moved, 3},
		"reorder":   {edit(func(head []byte, r [][]byte) []byte { r[2], r[3] = r[3], r[2]; return join(head, r...) }), Moved, 3},
		"insertion": {edit(func(head []byte, r [][]byte) []byte { return join(head, slices.Insert(r, 2, r[0])...) }), Moved, 3},
		"cut":       {edit(func(head []byte, r [][]byte) []byte { return join(head, r[:4]...) }), Missing, 5},
		"cut inside": {edit(func(head []byte, r [][]byte) []byte {
			return join(head, r[0], r[1][:20])
		}), Incomplete, 2},
		"length":            {edit(func(head []byte, r [][]byte) []byte { r[1][0] ^= 1; return join(head, r...) }), Unreadable, 2},
		"header":            {edit(func(head []byte, r [][]byte) []byte { head[20] ^= 1; return join(head, r...) }), Unreadable, 1},
		"empty":             {edit(func([]byte, [][]byte) []byte { return nil }), Unreadable, 1},
		"rewrite":           {func(dir string) { rewrite(t, dir, victim) }, Rewritten, 6},
		"another's segment": {func(dir string) { h.ok(os.Rename(onlySegment(t, dir, ActsOf("the-gym")), onlySegment(t, dir, victim))) }, Foreign, 1},
		"a stray file": {func(dir string) {
			h.ok(os.WriteFile(filepath.Join(chainDir(dir, victim), "notes.txt"), nil, 0o600))
		}, Foreign, 0},
		"another's checkpoint": {func(dir string) {
			h.ok(os.Rename(filepath.Join(chainDir(dir, ActsOf("the-gym")), checkpointFile), filepath.Join(chainDir(dir, victim), checkpointFile)))
		}, BadSigned, 0},
		"no segment":  {func(dir string) { h.ok(os.Remove(onlySegment(t, dir, victim))) }, Missing, 1},
		"no chain":    {func(dir string) { h.ok(os.RemoveAll(chainDir(dir, victim))) }, Missing, 6},
		"no tenant":   {func(dir string) { h.ok(os.RemoveAll(filepath.Join(dir, "tenants", "fair"))) }, Missing, 6},
		"no platform": {func(dir string) { h.ok(os.RemoveAll(filepath.Join(dir, platformChain))) }, Missing, 7},
		"no tenants":  {func(dir string) { h.ok(os.RemoveAll(filepath.Join(dir, "tenants"))) }, Missing, 6},
		"another's name": {func(dir string) {
			h.ok(os.Rename(filepath.Join(dir, "tenants", "fair"), filepath.Join(dir, "tenants", "fare")))
		}, BadSigned, 0},
	} {
		dir := copyTree(t, h.opt.Dir)
		c.spoil(dir)
		report, err := Verify(dir, h.keys, kept...)
		found := slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Kind == c.kind && f.Position == c.position })
		if !errors.Is(err, ErrDamaged) || !found {
			t.Errorf("%s: want %s at %d, got %v", name, c.kind, c.position, report.Findings)
		}
	}
	// A checkpoint of somebody else's key proves nothing.
	if report, err := Verify(h.opt.Dir, signing.NewPublicKeys(signing.NewKey().Public())); !errors.Is(err, ErrDamaged) || !slices.Contains(kinds(report), BadSigned) {
		t.Errorf("another key: %v", report.Findings)
	}
}

// rewrite replaces a chain by one that says something else and whose hashes hold
// and, if asked, takes the checkpoint beside it away.
func rewrite(t testing.TB, dir, chain string) {
	t.Helper()
	path := onlySegment(t, dir, chain)
	s, err := openSegment(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	out, prev := s.head.encode(), s.head.link()
	for {
		f, err := s.next()
		if err != nil {
			break
		}
		payload := bytes.Replace(f.payload, []byte("r-1"), []byte("r-9"), 1)
		payload = bytes.Replace(payload, []byte("d-1"), []byte("d-9"), 1)
		out, prev = appendFrame(out, prev, payload)
	}
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRewriting lets the attacker go further step by step: each step is found by
// what is left, down to the checkpoints that were kept elsewhere.
func TestRewriting(t *testing.T) {
	h, kept := written(t, 6)
	dir := copyTree(t, h.opt.Dir)
	find := func(step string, chain string, want FindingKind, given ...[]byte) {
		t.Helper()
		report, err := Verify(dir, h.keys, given...)
		if !errors.Is(err, ErrDamaged) || !slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Kind == want && f.Chain == chain }) {
			t.Errorf("%s: want %s, got %v, %v", step, want, report.Findings, err)
		}
	}
	rewrite(t, dir, victim)
	find("rewritten", victim, Rewritten)
	h.ok(os.Remove(filepath.Join(chainDir(dir, victim), checkpointFile)))
	find("and its checkpoint removed", victim, Rewritten) // the platform's chain knows
	h.ok(os.RemoveAll(filepath.Join(dir, platformChain)))
	if report, err := Verify(dir, h.keys); err != nil || report.Chains[0].Signed != 0 {
		t.Errorf("nothing is left that could know, but %+v, %v", report.Findings, err)
	}
	find("and the platform's chain removed", victim, Rewritten, kept...)
	find("and the platform's chain removed", platformChain, Missing, kept...)

	// An older state of the whole folder holds in itself.
	dir = copyTree(t, h.opt.Dir)
	h.open()
	h.fill(2)
	signed, err := h.Checkpoint(t.Context())
	h.ok(err)
	h.ok(h.Close())
	if _, err := Verify(dir, h.keys, kept...); err != nil {
		t.Errorf("the older state: %v", err)
	}
	for _, s := range signed {
		find("rolled back", s.Chain, Missing, s.Document)
	}
}

func TestSegmentsCannotGoMissing(t *testing.T) {
	h := newHouse(t)
	for range 4 {
		h.fill(2)
		h.now = h.now.Add(24 * time.Hour)
	}
	h.ok(h.Close())
	files, err := segmentFiles(chainDir(h.opt.Dir, victim))
	if err != nil || len(files) != 4 {
		t.Fatalf("%v, %v", files, err)
	}
	for i, first := range files {
		dir := copyTree(t, h.opt.Dir)
		h.ok(os.Remove(filepath.Join(chainDir(dir, victim), segmentName(first))))
		want := uint64(2*i + 1)
		report, err := Verify(dir, h.keys)
		if !errors.Is(err, ErrDamaged) || report.Findings[0].Kind != Missing || report.Findings[0].Position != want {
			t.Errorf("without segment %d: %v", i, report.Findings)
		}
		if i+1 < len(files) { // its bytes under the next one's name
			h.ok(os.Rename(filepath.Join(chainDir(dir, victim), segmentName(files[i+1])), filepath.Join(chainDir(dir, victim), segmentName(first))))
			if report, err := Verify(dir, h.keys); !errors.Is(err, ErrDamaged) || report.Findings[0].Kind != Moved {
				t.Errorf("segment %d renamed: %v", i+1, report.Findings)
			}
		}
	}
}

// TestRandomBits flips 10,000 random bits, one at a time, in a log of some size;
// each is found.
func TestRandomBits(t *testing.T) {
	flips := 10_000
	if testing.Short() || raceEnabled {
		flips = 500
	}
	h := newHouse(t)
	for i := range 40 {
		h.ok(h.Append(t.Context(), act("fair", i)))
		h.ok(h.Record(decision(hallA, i)))
	}
	h.ok(h.Close())
	rng := rand.New(rand.NewPCG(1, 2))
	for _, chain := range []string{victim, DecisionsOf(hallA)} {
		path := onlySegment(t, h.opt.Dir, chain)
		dir := filepath.Dir(path)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		h.ok(err)
		defer f.Close()
		info, err := f.Stat()
		h.ok(err)
		for range flips / 2 {
			at, bit := rng.Int64N(info.Size()), rng.IntN(8)
			flip := func() {
				var b [1]byte
				_, err := f.ReadAt(b[:], at)
				h.ok(err)
				b[0] ^= 1 << bit
				_, err = f.WriteAt(b[:], at)
				h.ok(err)
			}
			flip()
			if _, err := VerifyChain(dir, chain, h.keys); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s: bit %d of byte %d: %v", chain, bit, at, err)
			}
			flip()
		}
		_, err = VerifyChain(dir, chain, h.keys)
		h.ok(err)
	}
}

// TestTornTail cuts the last record at each of its bytes, as a crash would.
func TestTornTail(t *testing.T) {
	h := newHouse(t)
	h.fill(3)
	h.ok(h.Close())
	h.open()
	h.ok(h.Append(t.Context(), act("fair", 99))) // after the checkpoint
	dir := copyTree(t, h.opt.Dir)                // as kill -9 leaves it
	h.ok(h.Close())
	path := onlySegment(t, dir, victim)
	good, err := os.ReadFile(path)
	h.ok(err)
	_, records := frames(t, good)
	last := len(records[len(records)-1])
	for cut := 1; cut < last; cut++ {
		h.ok(os.WriteFile(path, good[:len(good)-cut], 0o600))
		if report, err := Verify(dir, h.keys); !errors.Is(err, ErrDamaged) || report.Findings[0].Kind != Incomplete || report.Findings[0].Position != 4 {
			t.Fatalf("%d bytes cut: %v", cut, report.Findings)
		}
		c, n, err := openChain(victim, filepath.Dir(path), h.keys)
		if err != nil || n != int64(last-cut) || c.end.Position != 3 {
			t.Fatalf("%d bytes cut: %d bytes repaired, %v", cut, n, err)
		}
		if _, err := VerifyChain(filepath.Dir(path), victim, h.keys); err != nil {
			t.Fatalf("%d bytes cut, after the repair: %v", cut, err)
		}
	}
	h.ok(os.WriteFile(path, good[:len(good)-5], 0o600))
	h.opt.Dir = dir
	h.open()
	got := h.read(victim)
	if len(got) != 4 || got[3].Kind != KindGap || got[3].Gap.Cause != GapTail || got[3].Gap.Lost != uint64(last-5) {
		t.Errorf("the repair was not written down: %+v", got)
	}
}

func TestDamageIsAcceptedOnlyOnRequest(t *testing.T) {
	h, kept := written(t, 4)
	path := onlySegment(t, h.opt.Dir, victim)
	bad, err := os.ReadFile(path)
	h.ok(err)
	bad[len(bad)/2] ^= 1
	h.ok(os.WriteFile(path, bad, 0o600))
	for range 2 {
		if _, err := Open(h.opt); !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	}
	if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, bad) {
		t.Fatal("the refused log was changed")
	}
	h.opt.AcceptDamage = true
	h.open()
	h.fill(1)
	h.ok(h.Close())
	h.opt.AcceptDamage = false
	h.open()
	got := h.read(victim)
	if len(got) != 2 || got[0].Gap == nil || got[0].Gap.Cause != GapDamage || got[1].Act == nil {
		t.Errorf("%+v", got)
	}
	if got := h.read(ActsOf("the-gym")); len(got) != 5 {
		t.Errorf("the other tenant has %d records", len(got))
	}
	h.ok(h.Close())
	report, err := Verify(h.opt.Dir, h.keys, kept...)
	if !errors.Is(err, ErrDamaged) || !slices.Contains(kinds(report), SetAside) || !slices.Contains(kinds(report), Missing) {
		t.Errorf("after accepting: %v", report.Findings)
	}
}

func FuzzSegment(f *testing.F) {
	h, _ := written(f, 3)
	good, err := os.ReadFile(onlySegment(f, h.opt.Dir, victim))
	h.ok(err)
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(good[:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, segmentName(1)), b, 0o600); err != nil {
			t.Fatal(err)
		}
		report, verr := VerifyChain(dir, victim, h.keys)
		c, cut, err := openChain(victim, dir, h.keys)
		switch {
		case err != nil && verr == nil:
			t.Fatalf("does not open, yet verifies: %v", err)
		case err == nil && cut == 0 && verr != nil && !slices.Equal(kinds(report), []FindingKind{Altered}):
			t.Fatalf("opens, yet does not verify: %v", verr)
		case err == nil && c.end.Position > 3:
			t.Fatalf("%d records of 3", c.end.Position)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	r := Record{Position: 1, Time: time.Unix(0, 0).UTC(), Kind: KindAct, Scope: scope.ScopeID("hall-a"), Act: &Act{Credential: "c"}}
	b, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRecord(b); err == nil {
			if again, err := r.encode(); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%q is read as %q", b, again)
			}
		}
	})
}

func TestFindingString(t *testing.T) {
	for want, f := range map[string]Finding{
		"acts: ALTERED at record 3 (0001.log, byte 0): changed": {Kind: Altered, Chain: "acts", Position: 3, File: "0001.log", Detail: "changed"},
		"acts: MISSING at record 3: not there":                  {Kind: Missing, Chain: "acts", Position: 3, Detail: "not there"},
	} {
		if got := f.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
