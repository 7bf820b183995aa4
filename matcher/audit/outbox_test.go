package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/menshen-io/menshen/index/scope"
)

// box is an outbox in memory, which outlives the log, as the records do.
type box struct {
	mu      sync.Mutex
	number  uint64
	parcels map[uint64][][]byte
	settled map[uint64]bool
}

// crash shows again what was settled, as the records do when a server dies before it
// has removed them.
func (b *box) crash() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.settled)
}

func (b *box) put(drafts ...Draft) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.parcels == nil {
		b.parcels, b.settled = map[uint64][][]byte{}, map[uint64]bool{}
	}
	b.number++
	for _, d := range drafts {
		b.parcels[b.number] = append(b.parcels[b.number], d)
	}
}

func (b *box) EachPost(fn func(uint64, [][]byte)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n := uint64(1); n <= b.number; n++ {
		if posts, ok := b.parcels[n]; ok && !b.settled[n] {
			fn(n, posts)
		}
	}
}

func (b *box) Settle(numbers []uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range numbers {
		b.settled[n] = true
	}
}

func (b *box) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.parcels) - len(b.settled)
}

// enrolled is the draft of an enrolment into the tenant's hall-a that makes an epoch.
func (h *house) enrolled(tenant scope.TenantID, epoch int) Draft {
	h.t.Helper()
	e := act(tenant, epoch)
	e.Scope, e.Subject, e.Action = "hall-a", "v-1", "Enroll"
	d, err := h.Draft(e)
	h.ok(err)
	if d == nil {
		h.t.Fatal("there is no draft")
	}
	d.At(uint64(epoch))
	return d
}

// acts gives the request ids of a tenant's acts; gaps are passed over.
func (h *house) acts(tenant scope.TenantID) (ids []string) {
	h.t.Helper()
	for _, r := range h.read(ActsOf(tenant)) {
		if r.Kind == KindAct {
			ids = append(ids, strings.TrimPrefix(r.Act.RequestID, "r-"))
		}
	}
	return ids
}

func (h *house) wantActs(tenant scope.TenantID, want ...string) {
	h.t.Helper()
	if got := h.acts(tenant); !slices.Equal(got, want) {
		h.t.Fatalf("the acts of %s are %q, want %q", tenant, got, want)
	}
}

func (h *house) attach(b *box) { h.t.Helper(); h.ok(h.Attach(h.t.Context(), b)) }

func TestOutboxIsReadAtOnce(t *testing.T) {
	h, b := newHouse(t), &box{}
	if d, err := h.Draft(act("fair", 1)); d != nil || err != nil {
		t.Fatalf("without an outbox: %v, %v", d, err)
	}
	h.attach(b)
	for what, look := range map[string]func() uint64{
		"Read": func() uint64 { return uint64(len(h.read(ActsOf("fair")))) },
		"List": func() uint64 {
			got, _, err := h.List(t.Context(), Query{Chain: ActsOf("fair")}, 100)
			h.ok(err)
			return uint64(len(got))
		},
		"End": func() uint64 { return h.End(ActsOf("fair")) },
		"SignHead": func() uint64 {
			s, err := h.SignHead(ActsOf("fair"))
			h.ok(err)
			return s.Position
		},
		"Checkpoint": func() uint64 {
			all, err := h.Checkpoint(t.Context())
			h.ok(err)
			for _, s := range all {
				if s.Chain == ActsOf("fair") {
					return s.Position
				}
			}
			return 0
		},
		"Follow": func() (n uint64) {
			end := b.number // one act a parcel
			for r, err := range h.Follow(t.Context(), Query{Chain: ActsOf("fair")}) {
				h.ok(err)
				if n = r.Position; n == end {
					return n
				}
			}
			return 0
		},
	} {
		b.put(h.enrolled("fair", int(b.number)+1))
		if got := look(); got != b.number || b.len() != 0 {
			t.Errorf("%s shows %d acts of %d; %d parcels wait", what, got, b.number, b.len())
		}
	}
	r := h.read(ActsOf("fair"))[0]
	if r.Act.Epoch != 1 || r.Act.Subject != h.opt.Pseudonyms.Of(hallA, "v-1", h.now) || !r.Time.Equal(h.now) || r.Scope != "hall-a" || r.Act.Late {
		t.Errorf("%+v, %+v", r, r.Act)
	}
	h.ok(h.Close())
	if _, err := Verify(h.opt.Dir, h.keys); err != nil {
		t.Error(err)
	}
}

// An act that is written directly stands behind what was done before it, and closing
// writes what waits.
func TestOutboxKeepsTheOrder(t *testing.T) {
	h, b := newHouse(t), &box{}
	h.attach(b)
	b.put(h.enrolled("fair", 1), h.enrolled("the-gym", 1), h.enrolled("fair", 2))
	h.ok(h.Append(t.Context(), act("fair", 3)))
	if r, err := Verify(h.opt.Dir, h.keys); err != nil || !r.Unclosed {
		t.Errorf("while it is open: %+v, %v", r, err)
	}
	b.put(h.enrolled("fair", 4))
	h.ok(h.Insist(t.Context(), act("fair", 5)))
	b.put(h.enrolled("fair", 6))
	h.ok(h.Close())
	if r, err := Verify(h.opt.Dir, h.keys); err != nil || r.Unclosed {
		t.Errorf("after it was closed: %+v, %v", r, err)
	}
	h.open()
	h.wantActs("fair", "1", "2", "3", "4", "5", "6")
	h.wantActs("the-gym", "1")
}

// A crash after the log's sync and before the removal from the outbox shows the same
// parcels again; each act is in the log once, however often that happens.
func TestOutboxIsWrittenOnce(t *testing.T) {
	h, b := newHouse(t), &box{}
	h.attach(b)
	b.put(h.enrolled("fair", 1), h.enrolled("the-gym", 1))
	b.put(h.enrolled("fair", 2))
	for range 3 {
		h.reopen()
		b.crash()
		h.attach(b)
		h.wantActs("fair", "1", "2")
		h.wantActs("the-gym", "1")
	}
	h.reopen()
	b.crash()
	b.put(h.enrolledBefore("fair", 3)) // in the records, and not in the log
	h.attach(b)
	h.wantActs("fair", "1", "2", "3")
	if b.len() != 0 {
		t.Errorf("%d parcels wait", b.len())
	}
}

// enrolledBefore is a draft of a server that had the outbox attached.
func (h *house) enrolledBefore(tenant scope.TenantID, epoch int) Draft {
	h.t.Helper()
	var o Outbox = &box{}
	h.outbox.from.Store(&o)
	defer h.outbox.from.Store(nil)
	return h.enrolled(tenant, epoch)
}

// TestTornOutbox cuts the last batch at every byte, as a crash may, while the outbox
// still holds all of it.
func TestTornOutbox(t *testing.T) {
	h, b := newHouse(t), &box{}
	h.attach(b)
	h.ok(h.Append(t.Context(), act("fair", 0)))
	path := onlySegment(t, h.opt.Dir, ActsOf("fair"))
	before, err := os.Stat(path)
	h.ok(err)
	b.put(h.enrolled("fair", 1), h.enrolled("fair", 2))
	b.put(h.enrolled("fair", 3))
	h.Collect()
	after, err := os.Stat(path)
	h.ok(err)
	whole := copyTree(t, h.opt.Dir) // its last checkpoint is older
	step := int64(5)
	if testing.Short() || raceEnabled {
		step = 23
	}
	h.ok(h.Close())
	for size := before.Size(); size <= after.Size(); size += step {
		h.opt.Dir = copyTree(t, whole)
		h.ok(os.Truncate(onlySegment(t, h.opt.Dir, ActsOf("fair")), size))
		h.open()
		b.crash()
		h.attach(b)
		h.wantActs("fair", "0", "1", "2", "3")
		h.ok(h.Close())
		if _, err := Verify(h.opt.Dir, h.keys); err != nil {
			t.Fatalf("cut to %d bytes: %v", size, err)
		}
		h.ok(os.RemoveAll(filepath.Dir(h.opt.Dir)))
	}
}

// A chain that cannot be written keeps its acts in the outbox, refuses what would add
// to them, and holds no other tenant up.
func TestOutboxOfAChainThatCannotBeWritten(t *testing.T) {
	h, b := newHouse(t), &box{}
	h.ok(h.Close())
	var full sync.Map // chains
	h.opt.write = func(f *os.File, p []byte) (int, error) {
		if _, ok := full.Load(filepath.Base(filepath.Dir(filepath.Dir(f.Name())))); ok {
			return 0, unix.ENOSPC
		}
		return f.Write(p)
	}
	h.open()
	h.attach(b)
	h.ok(h.Append(t.Context(), act("fair", 0)))
	full.Store("fair", true)
	b.put(h.enrolled("fair", 1), h.enrolled("the-gym", 1))
	b.put(h.enrolled("the-gym", 2))
	b.put(h.enrolled("fair", 2))
	h.wantActs("the-gym", "1", "2")
	h.wantActs("the-gym", "1", "2") // a mixed parcel waits, and is not written twice
	h.wantActs("fair", "0")
	if b.len() != 2 {
		t.Errorf("%d parcels wait, want 2", b.len())
	}
	if err := h.Writable("fair"); !errors.Is(err, ErrNoSpace) {
		t.Errorf("more acts are taken: %v", err)
	}
	h.ok(h.Writable("the-gym"))
	full.Delete("fair")
	h.wantActs("fair", "0", "1", "2")
	h.wantActs("the-gym", "1", "2")
	h.ok(h.Writable("fair"))
	if b.len() != 0 {
		t.Errorf("%d parcels wait", b.len())
	}
	// What is left at the end is there at the next start, also that of a mixed parcel.
	full.Store("fair", true)
	b.put(h.enrolled("fair", 3), h.enrolled("the-gym", 3))
	h.wantActs("the-gym", "1", "2", "3")
	h.reopen()
	full.Delete("fair")
	h.attach(b)
	h.wantActs("fair", "0", "1", "2", "3")
	h.wantActs("the-gym", "1", "2", "3")
	// Too many that wait: further ones take the old way, which bounds them too.
	full.Store("fair", true)
	b.put(slices.Repeat([]Draft{h.enrolled("fair", 4)}, maxLate)...)
	h.Collect()
	e := act("fair", 5)
	e.Scope = "hall-a"
	if d, err := h.Draft(e); d != nil || err != nil {
		t.Errorf("a draft beyond the bound: %v, %v", d, err)
	}
}

// A chain that was set aside has lost its positions; what waits is written into the
// new one.
func TestOutboxAfterDamage(t *testing.T) {
	h, b := newHouse(t), &box{}
	h.attach(b)
	for i := range 5 {
		h.ok(h.Append(t.Context(), act("fair", i)))
	}
	h.outbox.from.Store(nil)
	b.put(h.enrolledBefore("fair", 7))
	h.ok(h.Close())
	path := onlySegment(t, h.opt.Dir, ActsOf("fair"))
	content, err := os.ReadFile(path)
	h.ok(err)
	content[len(content)-1] ^= 1
	h.ok(os.WriteFile(path, content, 0o600))
	h.opt.AcceptDamage = true
	h.open()
	h.attach(b)
	h.wantActs("fair", "7")
	h.opt.AcceptDamage = false
	h.reopen()
	b.crash()
	h.attach(b)
	h.wantActs("fair", "7")
}

func TestDrafts(t *testing.T) {
	h := newHouse(t)
	h.attach(&box{})
	id := rapid.StringMatching(`[a-z][a-z0-9]{0,20}`)
	text := rapid.StringMatching(`[!-~]{1,64}`)
	rapid.Check(t, func(rt *rapid.T) {
		e := Event{
			Tenant: scope.TenantID(id.Draw(rt, "tenant")), Scope: scope.ScopeID(id.Draw(rt, "scope")), Subject: scope.SubjectID(id.Draw(rt, "subject")),
			Credential: text.Draw(rt, "credential"), Role: text.Draw(rt, "role"), Action: text.Draw(rt, "action"), Outcome: text.Draw(rt, "outcome"),
			RequestID: text.Draw(rt, "request"), Time: h.now.Add(-1),
		}
		d, err := h.Draft(e)
		if err != nil || d == nil {
			rt.Fatal(d, err)
		}
		d.At(17)
		got, err := parseDraft(d)
		if err != nil {
			rt.Fatal(err)
		}
		want, err := e.record(h.now, h.opt.Pseudonyms)
		if err != nil {
			rt.Fatal(err)
		}
		want.Act.Epoch = 17
		if got.tenant != e.Tenant || fmt.Sprintf("%+v %+v", *want, *want.Act) != strings.Replace(fmt.Sprintf("%+v %+v", *got.record, *got.record.Act), fmt.Sprintf("%p", got.record.Act), fmt.Sprintf("%p", want.Act), 1) {
			rt.Fatalf("%+v %+v, want %+v %+v", got.record, got.record.Act, want, want.Act)
		}
		for n := range len(d) {
			if _, err := parseDraft(d[:n]); err == nil {
				rt.Fatalf("%d bytes of %d are a draft", n, len(d))
			}
		}
	})
	bad := act("fair", 1)
	bad.Scope, bad.Action = "hall-a", ""
	if _, err := h.Draft(bad); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v, want ErrInvalid", err)
	}
	b := &box{}
	b.put(Draft{99})
	h.reopen()
	if err := h.Attach(t.Context(), b); !errors.Is(err, errDraft) {
		t.Errorf("a draft of another version: %v", err)
	}
}

func FuzzDraft(f *testing.F) {
	f.Add([]byte{draftVersion})
	f.Fuzz(func(t *testing.T, b []byte) { parseDraft(b) })
}
