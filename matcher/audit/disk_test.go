package audit

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk is a disk that can fill up in the middle of a write.
type disk struct {
	mu   sync.Mutex
	room int // bytes; negative: endless
	fail error
}

func (d *disk) write(f *os.File, b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room >= 0 && len(b) > d.room {
		n, err := f.Write(b[:d.room])
		if err == nil {
			err = d.fail
		}
		return n, err
	}
	return f.Write(b)
}

func (d *disk) set(room int) { d.mu.Lock(); d.room = room; d.mu.Unlock() }

func TestFullDisk(t *testing.T) {
	h := newHouse(t)
	d := &disk{room: -1, fail: unix.ENOSPC}
	h.opt.write = d.write
	h.reopen()
	for room := range 300 { // through every byte of a record
		h.fill(1)
		d.set(room)
		if err := h.Append(t.Context(), act("fair", room)); err != nil && !errors.Is(err, ErrNoSpace) {
			t.Fatalf("%d bytes left: %v", room, err)
		} else if err == nil && room < 200 {
			t.Fatalf("a record was written into %d bytes", room)
		}
		if room < 200 {
			lazy, must := decision(hallA, 1), decision(hallA, 1)
			must.Required = true
			h.ok(h.Record(must)) // the log does not know yet
			if err := h.flush(); !errors.Is(err, ErrNoSpace) {
				t.Fatalf("%d bytes left: %v", room, err)
			}
			if err := h.Record(must); !errors.Is(err, ErrNoSpace) {
				t.Fatalf("a required decision on a full disk: %v", err)
			}
			h.ok(h.Record(lazy)) // waits in the queue
		}
		d.set(-1)
		h.ok(h.flush())
		if room%100 == 0 {
			h.reopen()
		}
	}
	if n := len(h.read(DecisionsOf(hallA))); n != 300+2*200 {
		t.Errorf("%d decisions, want all %d", n, 300+2*200)
	}
	h.ok(h.Close())
	report, err := Verify(h.opt.Dir, h.keys)
	h.ok(err)
	for _, c := range report.Chains {
		if len(c.Gaps) != 0 {
			t.Errorf("%s has gaps: %+v", c.Chain, c.Gaps)
		}
	}
}

// TestEmptySegments leaves segments without a record, by a disk that fills up
// just after midnight, and goes on the next day or, with the clock set back, the day before.
func TestEmptySegments(t *testing.T) {
	for _, days := range []int{0, 1, -1} {
		h := newHouse(t)
		d := &disk{room: -1, fail: unix.ENOSPC}
		h.opt.write = d.write
		h.reopen()
		h.fill(2)
		h.now = h.now.AddDate(0, 0, 1)
		d.set(3)
		if err := h.Append(t.Context(), act("fair", 7)); !errors.Is(err, ErrNoSpace) {
			t.Fatal(err)
		}
		d.set(-1)
		if days > 0 {
			h.reopen()
		}
		h.now = h.now.AddDate(0, 0, days)
		h.fill(2)
		h.reopen()
		if got := h.read(ActsOf("fair")); len(got) != 4 || got[3].Position != 4 {
			t.Errorf("%d days: %+v", days, got)
		}
		h.ok(h.Close())
		_, err := Verify(h.opt.Dir, h.keys)
		h.ok(err)
	}
}

// smallDisk names a folder on a small disk that TestSmallDisk may fill; a tmpfs of 1 MiB, say.
const smallDisk = "MENSHEN_AUDIT_SMALL_DISK"

// TestSmallDisk fills a real disk 20 times. What was acknowledged stays, nothing
// half written is left, and the log goes on once there is room.
func TestSmallDisk(t *testing.T) {
	folder := os.Getenv(smallDisk)
	if folder == "" {
		t.Skipf("set %s to a folder on a small disk", smallDisk)
	}
	h := newHouse(t)
	h.ok(h.Close())
	h.opt.Dir = filepath.Join(folder, "audit")
	h.open()
	ballast := filepath.Join(folder, "ballast")
	acknowledged, refused := 0, 0
	for cycle := range 20 {
		f, err := os.Create(ballast)
		h.ok(err)
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		f.Close()
		for full := 0; full < 20; {
			switch err := h.Append(t.Context(), act("fair", cycle)); {
			case err == nil:
				acknowledged++
			case errors.Is(err, ErrNoSpace):
				full++
				h.now = h.now.Add(3 * time.Hour) // new segments have no room either
			default:
				t.Fatal(err)
			}
		}
		if _, err := h.Checkpoint(t.Context()); err != nil {
			refused++
		}
		h.ok(os.Remove(ballast))
		h.ok(h.Append(t.Context(), act("fair", cycle)))
		acknowledged++
	}
	if got := len(h.read(ActsOf("fair"))); got != acknowledged || refused == 0 {
		t.Errorf("%d acts, %d acknowledged; %d checkpoints found no room", got, acknowledged, refused)
	}
	h.reopen()
	h.ok(h.Close())
	_, err := Verify(h.opt.Dir, h.keys)
	h.ok(err)
}

func TestLostDecisionsAreWrittenDown(t *testing.T) {
	h := newHouse(t)
	d := &disk{room: -1, fail: unix.EIO}
	h.opt.write = d.write
	h.reopen()
	h.fill(1)
	h.flushing.Lock() // a writer that stands still
	var full error
	n := 0
	for ; full == nil; n++ {
		full = h.Record(decision(hallA, 1))
	}
	must := decision(hallA, 1)
	must.Required = true
	if err := h.Record(must); !errors.Is(full, ErrBusy) || !errors.Is(err, ErrBusy) || n != queuedDecisions+1 {
		t.Fatalf("after %d: %v, %v", n, full, err)
	}
	h.flushing.Unlock()
	h.ok(h.flush())
	d.set(5)
	h.ok(h.Record(decision(hallA, 2)))
	if err := h.flush(); err == nil {
		t.Fatal("written to a broken disk")
	}
	d.set(-1)
	h.ok(h.flush())
	h.ok(h.Close())
	report, err := Verify(h.opt.Dir, h.keys)
	h.ok(err)
	var gaps []Gap
	for _, c := range report.Chains {
		for _, g := range c.Gaps {
			gaps = append(gaps, *g.Gap)
		}
	}
	// The act of the writer goroutine may have met the same write first.
	if want := []Gap{{Cause: GapQueue, Lost: 1}, {Cause: GapWrite, Lost: 1}}; !reflect.DeepEqual(gaps, want) {
		t.Errorf("%+v, want %+v", gaps, want)
	}
}
