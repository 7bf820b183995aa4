package index

import (
	"fmt"
	"testing"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// applied is a gallery of an index that a benchmark changes. Templates are
// numbered in the order of their coming; subject i has template i alone.
type applied struct {
	b          *testing.B
	x          *Index
	g          *Gallery
	codes      []code.Code
	ids        []scope.SubjectID
	first, end int // the templates that are in the gallery
}

func newApplied(b *testing.B, dim, rows int) *applied {
	a := &applied{b: b, x: New(), codes: testCodes(b, dim, 256), ids: make([]scope.SubjectID, 4*rows+4000)}
	b.Cleanup(a.x.Close)
	for i := range a.ids {
		a.ids[i] = scope.SubjectID(fmt.Sprintf("visitor-%07d", i))
	}
	a.refill(rows)
	return a
}

// refill begins anew with so many templates.
func (a *applied) refill(rows int) {
	if a.g != nil {
		a.x.Drop(a.g.ref)
	}
	g, err := a.x.Create(fairA, len(a.codes[0].Q))
	if err != nil {
		a.b.Fatal(err)
	}
	a.g, a.first, a.end = g, 0, 0
	for a.end < rows {
		mustApply(a.b, g, Change{Inserts: a.inserts(nil, min(1000, rows-a.end))})
	}
}

// inserts takes the next n templates.
func (a *applied) inserts(out []Insert, n int) []Insert {
	for range n {
		out = append(out, Insert{Subject: a.ids[a.end%len(a.ids)], Template: 1, Code: a.codes[a.end%len(a.codes)]})
		a.end++
	}
	return out
}

// removes takes the n oldest templates.
func (a *applied) removes(out []Remove, n int) []Remove {
	for range n {
		out = append(out, Remove{Subject: a.ids[a.first%len(a.ids)]})
		a.first++
	}
	return out
}

// BenchmarkApply changes a gallery of an index, in ns a template that comes or
// goes: op=churn removes the oldest and inserts a new one in one change, which
// are two. A gallery that has doubled, or lost half, is made anew outside the
// time.
func BenchmarkApply(b *testing.B) {
	for _, size := range []struct{ dim, rows int }{{512, 100}, {512, 50_000}, {128, 50_000}} {
		for _, op := range []struct {
			name             string
			inserts, removes int
		}{
			{"insert", 1, 0}, {"insert", 1000, 0}, {"remove", 0, 1}, {"remove", 0, 1000}, {"churn", 1, 1}, {"churn", 1000, 1000},
		} {
			if max(op.inserts, op.removes) > size.rows {
				continue
			}
			count := max(op.inserts, op.removes)
			b.Run(fmt.Sprintf("rows=%d/dim=%d/op=%s/count=%d", size.rows, size.dim, op.name, count), func(b *testing.B) {
				a := newApplied(b, size.dim, size.rows)
				change := []Change{{}}
				c := &change[0]
				b.ReportAllocs()
				for b.Loop() {
					if n := a.end - a.first; n > 2*size.rows || n <= size.rows/2 {
						b.StopTimer()
						a.refill(size.rows)
						b.StartTimer()
					}
					c.Removes = a.removes(c.Removes[:0], op.removes)
					c.Inserts = a.inserts(c.Inserts[:0], op.inserts)
					if err := a.g.Apply(change...); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*(op.inserts+op.removes)), "ns/template")
			})
		}
	}
}
