package history

import (
	"testing"
	"time"
)

func TestFlag(t *testing.T) {
	base := time.Now()
	at := func(n int) time.Time { return base.Add(time.Duration(n) * time.Second) }
	good := Flag{matches: 1, lastMatch: at(3), lastLeft: at(4), firstGone: at(4), told: at(5), erase: [2]time.Time{at(2), at(6)}}
	for name, c := range map[string]struct {
		change func(*Flag)
		good   bool
	}{
		"overlapping":                  {func(*Flag) {}, true},
		"left before the caller knew":  {func(f *Flag) { f.lastLeft, f.told = at(5), at(6) }, true},
		"left after the answer":        {func(f *Flag) { f.lastLeft = at(6) }, false},
		"nobody saw it leave":          {func(f *Flag) { f.lastLeft = time.Time{} }, false},
		"nobody saw the answer leave":  {func(f *Flag) { f.told = time.Time{} }, false},
		"begun after the answer":       {func(f *Flag) { f.lastMatch, f.firstGone = at(7), at(8) }, false},
		"begun after another knew":     {func(f *Flag) { f.lastMatch = at(5) }, false},
		"gone before the erasure":      {func(f *Flag) { f.lastMatch, f.firstGone = at(0), at(1) }, false},
		"nothing erased":               {func(f *Flag) { f.erase = [2]time.Time{} }, false},
		"nobody was told of its going": {func(f *Flag) { f.firstGone = time.Time{} }, true},
	} {
		f := Flag{matches: good.matches, lastMatch: good.lastMatch, lastLeft: good.lastLeft, firstGone: good.firstGone, told: good.told, erase: good.erase}
		c.change(&f)
		if err := f.Check(); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
	var f Flag
	began := time.Now()
	f.Left()
	f.Read(began, true)
	f.Told()
	f.Erased(time.Now())
	f.Read(time.Now(), false)
	if err := f.Check(); err != nil {
		t.Error(err)
	}
	if all, matches := f.Reads(); all != 2 || matches != 1 {
		t.Errorf("%d reads, %d matches", all, matches)
	}
	for !time.Now().After(f.told) { // until the clock has gone on, however coarse it is
	}
	f.Left()
	if f.Check() == nil {
		t.Error("a match that left after the end passed")
	}
	f.Read(time.Now(), true)
	if f.Check() == nil {
		t.Error("a match after the end passed")
	}
}
