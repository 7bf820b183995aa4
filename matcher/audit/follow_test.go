package audit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/menshen-io/menshen/index/scope"
)

// TestLateActs: what must go on is kept while the disk is full, and written in its
// order, marked, once there is room.
func TestLateActs(t *testing.T) {
	h := newHouse(t)
	d := &disk{room: -1, fail: unix.ENOSPC}
	h.opt.write = d.write
	h.reopen()
	h.ok(h.Append(t.Context(), act("fair", 0)))
	d.set(0)
	for i := 1; i <= 2; i++ {
		if err := h.Insist(t.Context(), act("fair", i)); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("%v, want %v", err, ErrNoSpace)
		}
	}
	h.writeLate() // still no room
	h.now = h.now.Add(time.Hour)
	d.set(-1)
	h.ok(h.Append(t.Context(), act("fair", 3)))
	h.writeLate()
	got := ""
	for _, r := range h.read(ActsOf("fair")) {
		got += fmt.Sprintf("%s late=%v at %s; ", r.Act.RequestID, r.Act.Late, r.Time.Format("15:04"))
	}
	if want := "r-0 late=false at 12:00; r-3 late=false at 13:00; r-1 late=true at 12:00; r-2 late=true at 12:00; "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if err := h.Insist(t.Context(), Event{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an event of nothing: %v", err)
	}
	h.ok(h.Close())
	if _, err := Verify(h.opt.Dir, h.keys); err != nil {
		t.Error(err)
	}
}

// TestKeepsRoom: below the room that is kept no decision is written and acts are
// refused beforehand; those that must be written use it.
func TestKeepsRoom(t *testing.T) {
	h := newHouse(t)
	h.ok(h.Writable("fair"))
	h.ok(h.Recordable(hallA))
	h.opt.MinFree = func() uint64 { return 1 << 62 }
	h.reopen()
	if err := h.Writable("fair"); !errors.Is(err, ErrNoSpace) {
		t.Errorf("%v, want %v", err, ErrNoSpace)
	}
	h.ok(h.Insist(t.Context(), act("fair", 1)))
	must := decision(hallA, 1)
	must.Required = true
	h.ok(h.Record(must))
	if err := h.flush(); !errors.Is(err, ErrNoSpace) {
		t.Errorf("%v, want %v", err, ErrNoSpace)
	}
	if err := h.Recordable(hallA); !errors.Is(err, ErrNoSpace) {
		t.Errorf("%v, want %v", err, ErrNoSpace)
	}
	h.ok(h.Recordable(scope.Ref{Tenant: "the-gym", Scope: "north"})) // another scope was not tried yet
}

// TestFollow reads a chain that grows by records, days and pruned segments.
func TestFollow(t *testing.T) {
	h := newHouse(t)
	h.ok(h.Append(t.Context(), act("fair", 0)))
	h.ok(h.Append(t.Context(), act("fair", 1)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	next := 1
	for r, err := range h.Follow(ctx, Query{Chain: ActsOf("fair"), After: 1}) {
		h.ok(err)
		if r.Position != uint64(next+1) || r.Act.RequestID != fmt.Sprintf("r-%d", next) {
			t.Fatalf("record %d is %+v, want act %d", r.Position, r.Act, next)
		}
		if next++; next == 8 {
			break
		}
		if next%3 == 0 {
			h.now = h.now.Add(24 * time.Hour) // a new segment
		}
		h.ok(h.Append(t.Context(), act("fair", next)))
		if h.End(ActsOf("fair")) != uint64(next+1) {
			t.Fatalf("the chain ends at %d", h.End(ActsOf("fair")))
		}
	}
}

// The first act comes after Follow began, and Follow tells why it ended.
func TestFollowFromNothing(t *testing.T) {
	h := newHouse(t)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() {
		for h.End(ActsOf("fair")) == 0 {
			if h.Append(ctx, act("fair", 1)) != nil {
				return
			}
		}
	}()
	seen := 0
	for _, err := range h.Follow(ctx, Query{Chain: ActsOf("fair")}) {
		if err != nil {
			if !errors.Is(err, why) {
				t.Errorf("it ended with %v", err)
			}
			break
		}
		seen++
		cancel(why)
	}
	if seen == 0 {
		t.Error("nothing was seen")
	}
}

// Follow tells why it ended also where it was ended between two records that are there.
func TestFollowEndedWhileItReads(t *testing.T) {
	h := newHouse(t)
	for n := range 3 {
		h.ok(h.Append(t.Context(), act("fair", n)))
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	seen := 0
	for _, err := range h.Follow(ctx, Query{Chain: ActsOf("fair")}) {
		if seen++; seen == 1 {
			h.ok(err)
			cancel(why)
		} else if !errors.Is(err, why) {
			t.Fatalf("after the end it gave %v", err)
		}
	}
	if seen != 2 {
		t.Errorf("it gave %d times", seen)
	}
}

// TestSignHead: a checkpoint on request vouches for what is there, a chain without
// records included.
func TestSignHead(t *testing.T) {
	h := newHouse(t)
	var docs [][]byte
	sign := func(chain string, position uint64) {
		t.Helper()
		s, err := h.SignHead(chain)
		h.ok(err)
		if s.Position != position {
			t.Errorf("%s: signed at %d, want %d", chain, s.Position, position)
		}
		docs = append(docs, s.Document)
	}
	sign(ActsOf("fair"), 0)
	h.ok(h.Append(t.Context(), act("fair", 1)))
	h.ok(h.Record(decision(hallA, 1)))
	sign(ActsOf("fair"), 1)
	sign(DecisionsOf(hallA), 1)
	if _, err := h.SignHead("tenants/../platform"); err == nil {
		t.Error("signed for a chain that cannot be")
	}
	h.ok(h.Close())
	report, err := Verify(h.opt.Dir, h.keys, docs...)
	if err != nil || len(report.Chains) != 3 {
		t.Errorf("%v, %+v", err, report)
	}
}

// TestListLooksAtSoMany: a page of a query that wants few records ends early and
// says where to go on.
func TestListLooksAtSoMany(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 50,000 records")
	}
	h := newHouse(t)
	for i := range maxScan + 10 {
		d := decision(hallA, 1)
		d.Time = h.now
		if i > maxScan {
			d.Time = h.now.Add(time.Hour)
		}
		for h.Record(d) != nil {
			h.ok(h.flush())
		}
	}
	h.ok(h.flush())
	q := Query{Chain: DecisionsOf(hallA), From: h.now.Add(time.Minute)}
	got, next, err := h.List(t.Context(), q, 5)
	if err != nil || len(got) != 0 || next != maxScan {
		t.Fatalf("%d records, next %d, %v", len(got), next, err)
	}
	q.After = next
	if got, next, err = h.List(t.Context(), q, 5); err != nil || len(got) != 5 || next != got[4].Position {
		t.Fatalf("%d records, next %d, %v", len(got), next, err)
	}
	q.After = next
	if got, next, err = h.List(t.Context(), q, 5); err != nil || len(got) != 4 || next != 0 {
		t.Fatalf("%d records, next %d, %v", len(got), next, err)
	}
}
