package search

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
)

// The baseline finds what comparing in float64 finds, whatever its blocks.
func TestBaseline(t *testing.T) {
	const n, dim, count = 1500, 96, 37
	ctx := context.Background()
	e, err := newEnrolment(NewSource(Spectrum, dim, 9), 0, 0, n)
	if err != nil {
		t.Fatal(err)
	}
	probes, err := e.probes(count)
	if err != nil {
		t.Fatal(err)
	}
	var values [][]float32
	for _, p := range probes {
		values = append(values, p.values)
	}
	const threshold = 0.2
	b, err := newBaseline(ctx, e, n, threshold, func() {})
	if err != nil {
		t.Fatal(err)
	}
	want := make([][]float64, count)
	for p := range values {
		for i := range n {
			if score := dot64(values[p], b.row(i)); score >= threshold {
				want[p] = append(want[p], score)
			}
		}
		slices.Sort(want[p])
		slices.Reverse(want[p])
		want[p] = want[p][:min(Top, len(want[p]))]
	}
	verify := func(name string, p int, got []ranked) {
		t.Helper()
		if len(got) != len(want[p]) {
			t.Errorf("%s, probe %d: %d rows, want %d", name, p, len(got), len(want[p]))
			return
		}
		for i, c := range got {
			if math.Abs(float64(c.score)-want[p][i]) > 1e-5 || math.Abs(dot64(values[p], b.row(c.row))-want[p][i]) > 1e-5 {
				t.Errorf("%s, probe %d, place %d: row %d with %v, want %v", name, p, i, c.row, c.score, want[p][i])
			}
		}
	}
	for _, block := range append(blocks, Block{1, 1}, Block{7, 5}, Block{5000, 5000}) {
		b.Block = block
		got, err := b.Search(ctx, values)
		if err != nil {
			t.Fatal(err)
		}
		for p := range values {
			verify(block.String(), p, got[p])
		}
	}
	for p := range values {
		got, err := b.Search(ctx, values[p:p+1])
		if err != nil {
			t.Fatal(err)
		}
		verify("single", p, got[0])
	}
	if err := b.Tune(ctx, values); err != nil || !slices.Contains(blocks, b.Block) {
		t.Errorf("tuned to %v, %v", b.Block, err)
	}

	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.Search(done, values); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// Of equal scores the lower row goes first, and the bar is that of the last.
func TestRanking(t *testing.T) {
	var r ranking
	r.reset(2, 0.5)
	for _, c := range []ranked{{9, 0.7}, {3, 0.7}, {5, 0.7}, {1, 0.6}} {
		r.offer(c, 2)
	}
	if want := []ranked{{3, 0.7}, {5, 0.7}}; !slices.Equal(r.list, want) || r.bar != 0.7 {
		t.Errorf("got %v with the bar at %v, want %v", r.list, r.bar, want)
	}
}
