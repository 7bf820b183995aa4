package history

import (
	"testing"
	"time"
)

func TestFlag(t *testing.T) {
	base := time.Now()
	at := func(n int) time.Time { return base.Add(time.Duration(n) * time.Second) }
	good := Flag{lastMatch: at(3), delivered: at(5), firstGone: at(4), erase: [2]time.Time{at(2), at(6)}}
	for name, c := range map[string]struct {
		change func(*Flag)
		good   bool
	}{
		"overlapping":                  {func(*Flag) {}, true},
		"handed out late":              {func(f *Flag) { f.delivered = at(9) }, true},
		"begun after the answer":       {func(f *Flag) { f.lastMatch, f.firstGone = at(7), at(8) }, false},
		"begun after another knew":     {func(f *Flag) { f.lastMatch = at(5) }, false},
		"gone before the erasure":      {func(f *Flag) { f.lastMatch, f.firstGone = at(0), at(1) }, false},
		"nothing erased":               {func(f *Flag) { f.erase = [2]time.Time{} }, false},
		"nobody was told of its going": {func(f *Flag) { f.firstGone = time.Time{} }, true},
	} {
		f := Flag{lastMatch: good.lastMatch, delivered: good.delivered, firstGone: good.firstGone, erase: good.erase}
		c.change(&f)
		if err := f.Check(); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if late := (&Flag{delivered: at(9), erase: good.erase}).Late(); late != 3*time.Second {
		t.Errorf("late by %v, want 3s", late)
	}
	var f Flag
	began := time.Now()
	f.Read(began, true)
	f.Erased(time.Now())
	f.Read(time.Now(), false)
	if err := f.Check(); err != nil {
		t.Error(err)
	}
	if all, matches := f.Reads(); all != 2 || matches != 1 || f.Late() > 0 {
		t.Errorf("%d reads, %d matches, late by %v", all, matches, f.Late())
	}
	f.Read(time.Now(), true)
	if f.Check() == nil {
		t.Error("a match after the end passed")
	}
}
