package cost

import (
	"context"
	"errors"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/menshen-io/menshen/internal/fixtures"
)

// The functions that are left out are where they are looked for, and what comes
// out is Go.
func TestChangesFitTheSources(t *testing.T) {
	root := fixtures.ModuleRoot(t)
	for _, c := range Both.changes() {
		text, err := os.ReadFile(filepath.Join(root, c.file))
		if err != nil {
			t.Fatal(err)
		}
		out, err := replaceBody(text, c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.ParseFile(token.NewFileSet(), c.file, out, 0); err != nil {
			t.Errorf("%s: %v", c.function, err)
		}
		if !strings.Contains(string(out), c.body) || !strings.Contains(string(out), "func "+c.function+"AsItIs") {
			t.Errorf("%s is not replaced", c.function)
		}
	}
	if _, err := replaceBody([]byte("package p\n"), change{"p.go", "gone", "return"}); !errors.Is(err, ErrSource) {
		t.Errorf("a function that is not there: %v", err)
	}
}

func TestBuildOutsideTheTree(t *testing.T) {
	dir := t.TempDir()
	if err := Build(t.Context(), dir, Both, filepath.Join(dir, "menshen")); !errors.Is(err, ErrSource) {
		t.Errorf("%v, want ErrSource", err)
	}
}

func TestCostIsTheMedianOfRatios(t *testing.T) {
	rounds := []VerifyRound{{100, 90}, {200, 100}, {50, 49}, {10, 9}}
	if got := cost(rounds, func(v VerifyRound) (float64, float64) { return v.Required, v.Off }); got < 0.0999 || got > 0.1001 {
		t.Errorf("%g, want 0.1", got)
	}
	if got := Median(rounds, func(v VerifyRound) float64 { return v.Off }); got != 75 {
		t.Errorf("%g, want 75", got)
	}
}

// Over the rounds each side comes first and last.
func TestTurns(t *testing.T) {
	first, last := map[int]bool{}, map[int]bool{}
	for round := range 8 {
		var order []int
		var all []func() error
		for i := range 4 {
			all = append(all, func() error { order = append(order, i); return nil })
		}
		if err := turns(t.Context(), round, all...); err != nil {
			t.Fatal(err)
		}
		first[order[0]], last[order[3]] = true, true
		if sorted := slices.Sorted(slices.Values(order)); !slices.Equal(sorted, []int{0, 1, 2, 3}) {
			t.Fatalf("round %d: %v", round, order)
		}
	}
	if len(first) != 4 || len(last) != 4 {
		t.Errorf("first %v, last %v", first, last)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := turns(ctx, 0, func() error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Rounds: 1}, {Rounds: -1, Slice: time.Second}, {Rounds: 1, Slice: time.Hour}} {
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
