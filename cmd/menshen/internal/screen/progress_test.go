package screen

import (
	"strings"
	"testing"
	"time"
)

func TestWithoutATerminalThereAreFewLines(t *testing.T) {
	var out strings.Builder
	p := NewProgress(&out, "job", "items")
	for i := range 1001 {
		p.Set(int64(i), 1000)
	}
	p.End()
	want := "job: 250 of 1000 items\njob: 500 of 1000 items\njob: 750 of 1000 items\njob: 1000 of 1000 items\n"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
	out.Reset()
	p = NewProgress(&out, "unknown", "bytes")
	p.Set(5, 0)
	p.End()
	live := NewLive(&out)
	live.last = time.Now().Add(time.Hour) // of a machine that stands still meanwhile too
	for range 100 {
		live.Show("too soon")
	}
	live.End()
	if out.Len() > 0 {
		t.Errorf("got %q", out.String())
	}
}

func TestCut(t *testing.T) {
	for _, tc := range []struct {
		text  string
		width int
		want  string
	}{{"abc", 80, "abc"}, {"abcd", 4, "abc"}, {"门神abc", 4, "门神a"}, {"abc", 0, ""}} {
		if got := cut(tc.text, tc.width); got != tc.want {
			t.Errorf("%q at %d: %q", tc.text, tc.width, got)
		}
	}
}
