package index

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/kernel"
	"github.com/menshen-io/menshen/index/scope"
)

// TestGrantComesFirst: without the right grant nothing is learned, not even
// whether the query was good or the gallery is still there.
func TestGrantComesFirst(t *testing.T) {
	c := testCodes(t, 64, 1)[0]
	g := checked(t, fairA, 64)
	mustApply(t, g, put(1, "a", 1, c))
	good := Query{Code: c, K: 1, Threshold: 0.5, Now: epochStart}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for round := range 2 {
		for name, tc := range map[string]struct{ identify, verify scope.Grant }{
			"zero":          {},
			"other scope":   {grantFor(fairB), grantFor(fairB)},
			"other tenant":  {grantFor(scope.Ref{Tenant: "mall", Scope: "fair-a"}), grantFor(scope.Ref{Tenant: "mall", Scope: "fair-a"})},
			"the other use": {scope.Mint(fairA, scope.UseVerify, "c"), scope.Mint(fairA, scope.UseIdentify, "c")},
			"enroll":        {scope.Mint(fairA, scope.UseEnroll|scope.UseRead, "c"), scope.Mint(fairA, scope.UseManage, "c")},
		} {
			for _, q := range []Query{good, {}} {
				for _, ctx := range []context.Context{t.Context(), done} {
					r, err := g.Identify(ctx, tc.identify, q)
					if !errors.Is(err, scope.ErrNotGranted) || !reflect.DeepEqual(r, Result{}) {
						t.Errorf("%s: Identify: %+v, %v", name, r, err)
					}
					best, found, epoch, err := g.Verify(ctx, tc.verify, "a", q)
					if !errors.Is(err, scope.ErrNotGranted) || found || best.Score != NoScore || epoch != 0 {
						t.Errorf("%s: Verify: %+v, %v, %d, %v", name, best, found, epoch, err)
					}
				}
			}
		}
		if round == 0 {
			g.Drop()
		}
	}
}

func TestQueryIsChecked(t *testing.T) {
	c, long := testCodes(t, 64, 1)[0], testCodes(t, 128, 1)[0]
	g := checked(t, fairA, 64)
	mustApply(t, g, put(1, "a", 1, c))
	for _, tc := range []struct {
		name string
		q    Query
		want error
		both bool // Verify refuses it too
	}{
		{"K 0", Query{Code: c, Now: epochStart}, ErrK, false},
		{"K below 0", Query{Code: c, K: -1, Now: epochStart}, ErrK, false},
		{"K too large", Query{Code: c, K: MaxK + 1, Now: epochStart}, ErrK, false},
		{"no time", Query{Code: c, K: 1}, ErrQuery, true},
		{"no threshold", Query{Code: c, K: 1, Threshold: code.Threshold(math.NaN()), Now: epochStart}, ErrQuery, true},
		{"no code", Query{K: 1, Now: epochStart}, code.ErrDimension, true},
		{"code of another model", Query{Code: long, K: 1, Now: epochStart}, code.ErrDimension, true},
		{"code with another norm", Query{Code: code.Code{Q: c.Q, Norm2: 1}, K: 1, Now: epochStart}, code.ErrCode, true},
	} {
		if r, err := g.Identify(t.Context(), grantFor(fairA), tc.q); !errors.Is(err, tc.want) || !reflect.DeepEqual(r, Result{}) {
			t.Errorf("%s: Identify: %+v, %v", tc.name, r, err)
		}
		_, found, _, err := g.Verify(t.Context(), grantFor(fairA), "a", tc.q)
		if tc.both && (!errors.Is(err, tc.want) || found) || !tc.both && (err != nil || !found) {
			t.Errorf("%s: Verify: %v, %v", tc.name, found, err)
		}
	}
}

// TestInterruptedSearchIsAnError wherever it is interrupted.
func TestInterruptedSearchIsAnError(t *testing.T) {
	c := testCodes(t, 64, 40)
	g := checked(t, fairA, 64)
	g.shardRows = 8
	for i := range c {
		mustApply(t, g, put(1, scope.SubjectID(fmt.Sprint("s-", i)), 1, c[i]))
	}
	shards := int32(len(g.current.Load().shards))
	if shards < 5 {
		t.Fatalf("%d shards", shards)
	}
	q := Query{Code: c[0], K: 3, Threshold: -1, Now: epochStart}
	for at := int32(1); at <= shards+1; at++ {
		ctx := newGate(t.Context(), at, context.DeadlineExceeded)
		close(ctx.open)
		if r, err := g.Identify(ctx, grantFor(fairA), q); !errors.Is(err, context.DeadlineExceeded) || !reflect.DeepEqual(r, Result{}) {
			t.Errorf("stopped at %d of %d: %+v, %v", at, shards, r, err)
		}
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Identify(done, grantFor(fairA), q); !errors.Is(err, context.Canceled) {
		t.Errorf("Identify: %v", err)
	}
	if _, found, _, err := g.Verify(done, grantFor(fairA), "s-0", q); !errors.Is(err, context.Canceled) || found {
		t.Errorf("Verify: %v, %v", found, err)
	}
	if s := g.current.Load(); s.holds.Load() != 1 {
		t.Errorf("an interrupted search kept its lease: %d holds", s.holds.Load())
	}
}

func TestEmptyGallery(t *testing.T) {
	c := testCodes(t, 64, 1)[0]
	g := checked(t, fairA, 64)
	q := Query{Code: c, K: 5, Threshold: -1, Now: epochStart}
	for range 2 {
		if r := mustIdentify(t, g, q); len(r.Candidates) != 0 || r.Best != NoScore || r.Scanned != 0 {
			t.Errorf("%+v", r)
		}
		if best, found, _, err := g.Verify(t.Context(), grantFor(fairA), "a", q); err != nil || found || best != (Candidate{Subject: "a", Score: NoScore}) {
			t.Errorf("%+v, %v, %v", best, found, err)
		}
		mustApply(t, g, put(2, "a", 1, c)) // and again when it has become empty
		mustApply(t, g, Change{Epoch: 2, Removes: []Remove{{Subject: "a"}}})
	}
	for _, s := range []code.Score{-1, 0, 1} {
		if NoScore >= s {
			t.Errorf("NoScore is not below %v", s)
		}
	}
}

// TestTies: equal scores stand in the order of ids, wherever the rows are, and
// the cut at K follows that order too.
func TestTies(t *testing.T) {
	c := testCodes(t, 64, 2)
	var ids []scope.SubjectID
	for i := range 200 {
		ids = append(ids, scope.SubjectID(fmt.Sprintf("v-%03d", i)))
	}
	for round := range 5 {
		g := checked(t, fairA, 64)
		g.shardRows = 16
		r := rand.New(rand.NewPCG(33, uint64(round)))
		for _, i := range r.Perm(len(ids)) {
			// Templates in falling order: the lowest number must win.
			mustApply(t, g, put(1, ids[i], 9, c[0]), put(1, ids[i], 4, c[0]), put(1, ids[i], 1, c[1]))
		}
		for _, k := range []int{1, 7, MaxK} {
			got := mustIdentify(t, g, Query{Code: c[0], K: k, Threshold: 1, Now: epochStart})
			if len(got.Candidates) != k {
				t.Fatalf("k %d: %d candidates", k, len(got.Candidates))
			}
			for i, cand := range got.Candidates {
				if want := (Candidate{Subject: ids[i], Template: 4, Score: 1}); cand != want {
					t.Fatalf("k %d, place %d: %+v, want %+v", k, i, cand, want)
				}
			}
		}
	}
}

// TestTopK feeds the list random rows and compares it with sorting everything.
func TestTopK(t *testing.T) {
	r := rand.New(rand.NewPCG(34, 1))
	for range 3000 {
		k, n := 1+r.IntN(6), r.IntN(40)
		var list topK
		list.init(k)
		best := make(map[scope.SubjectID]Candidate)
		for range n {
			c := Candidate{scope.SubjectID(rune('a' + r.IntN(12))), scope.TemplateID(1 + r.IntN(4)), code.Score(r.IntN(8)) / 8}
			list.offer(c)
			if b, ok := best[c.Subject]; !ok || c.before(b) {
				best[c.Subject] = c
			}
		}
		var want []Candidate
		for _, c := range best {
			want = append(want, c)
		}
		sort.Slice(want, func(i, j int) bool { return want[i].before(want[j]) })
		want = want[:min(k, len(want))]
		if !slices.Equal(list.list, want) {
			t.Fatalf("k %d: %+v, want %+v", k, list.list, want)
		}
	}
}

// TestBarAdmitsEqualScores: the cheap test in front of the list lets pass
// whatever scores at least as much as the last of the list.
func TestBarAdmitsEqualScores(t *testing.T) {
	r := rand.New(rand.NewPCG(35, 1))
	const most = 127 * 127 * code.MaxDim
	for round := range 200_000 {
		probe, n1, n2 := 1+r.Int32N(most), 1+r.Int32N(most), 1+r.Int32N(most)
		span := math.Sqrt(float64(probe) * float64(n1))
		dot1 := int32((2*r.Float64() - 1) * span)
		if round%100 == 0 {
			dot1 = 0
		}
		// A row of another norm whose score is as near to the first as can be.
		dot2 := int32(math.Round(float64(dot1) * math.Sqrt(float64(n2)/float64(n1))))
		last, next := code.Compare(dot1, probe, n1), code.Compare(dot2, probe, n2)
		list := topK{k: 1, list: []Candidate{{Score: last}}}
		admitted := reaches(list.bar(probe), dot2, n2)
		if admitted && dot2 < leastDot(list.bar(probe), n2) {
			t.Fatalf("a row of score %v passes the bar of %v, but not the cheap test", next, last)
		}
		if next >= last && !admitted {
			t.Fatalf("a row of score %v does not pass the bar of %v", next, last)
		}
		if admitted && float64(next) < float64(last)-1e-8 {
			t.Fatalf("a row of score %v passes the bar of %v", next, last)
		}
	}
}

// TestTombstones checks the runs of live rows bit by bit.
func TestTombstones(t *testing.T) {
	r := rand.New(rand.NewPCG(36, 1))
	for range 2000 {
		rows, limit := r.IntN(300), 1+r.IntN(70)
		v := shardView{rows: rows, dead: make(tombstones, r.IntN(6))}
		share := r.IntN(10)
		for row := range min(rows, 64*len(v.dead)) {
			if r.IntN(10) < share {
				v.dead[row/64] |= 1 << (row % 64)
				v.deaths++
			}
		}
		visited := make([]int, rows)
		for start, end := v.nextRun(0, limit); start < end; start, end = v.nextRun(end, limit) {
			if end-start > limit || end > rows {
				t.Fatalf("run %d..%d of %d rows, limit %d", start, end, rows, limit)
			}
			for row := start; row < end; row++ {
				visited[row]++
			}
		}
		for row, n := range visited {
			if want := !v.dead.has(row); n > 1 || (n == 1) != want || v.alive(row) != want {
				t.Fatalf("row %d of %d: visited %d times, alive %v", row, rows, n, want)
			}
		}
		if v.dead.count() != v.deaths {
			t.Fatalf("%d counted, %d set", v.dead.count(), v.deaths)
		}
	}
}

// TestSearchAllocations: what a search allocates does not grow with the rows.
func TestSearchAllocations(t *testing.T) {
	if raced {
		t.Skip("under the race detector pools forget at random")
	}
	c := testCodes(t, 64, 500)
	for _, rows := range []int{10, 20_000} {
		g := checked(t, fairA, 64)
		var batch Change
		for i := range rows {
			batch.Inserts = append(batch.Inserts, Insert{Subject: scope.SubjectID(fmt.Sprint("s-", i)), Template: 1, Code: c[i%500]})
		}
		mustApply(t, g, batch)
		q, grant := Query{Code: c[0], K: 5, Threshold: 0.5, Now: epochStart}, grantFor(fairA)
		if n := testing.AllocsPerRun(20, func() { mustIdentify(t, g, q) }); n > 1 { // the candidates
			t.Errorf("%d rows: Identify allocates %v times", rows, n)
		}
		if n := testing.AllocsPerRun(20, func() {
			if _, found, _, err := g.Verify(t.Context(), grant, "s-3", q); err != nil || !found {
				t.Fatal(found, err)
			}
		}); n > 0 {
			t.Errorf("%d rows: Verify allocates %v times", rows, n)
		}
	}
}

func TestVerifyManyTemplates(t *testing.T) {
	c := testCodes(t, 64, 30)
	g := checked(t, fairA, 64)
	g.shardRows = 8
	for i := range c {
		mustApply(t, g, put(1, "a", scope.TemplateID(i+1), c[i]), put(1, "b", scope.TemplateID(i+1), c[29-i]))
	}
	for i := range c {
		best, found, epoch, err := g.Verify(t.Context(), grantFor(fairA), "a", Query{Code: c[i], Now: epochStart})
		if want := (Candidate{"a", scope.TemplateID(i + 1), 1}); err != nil || !found || best != want || epoch != 1 {
			t.Errorf("%+v, %v, %d, %v; want %+v", best, found, epoch, err, want)
		}
	}
}

func TestIndex(t *testing.T) {
	c := testCodes(t, 64, 1)[0]
	x := New()
	for _, bad := range []struct {
		ref  scope.Ref
		dim  int
		want error
	}{{scope.Ref{}, 64, scope.ErrBadID}, {scope.Ref{Tenant: "hall"}, 64, scope.ErrBadID}, {fairA, 0, code.ErrDimension}, {fairA, -64, code.ErrDimension}, {fairA, 1 << 30, code.ErrDimension}} {
		if g, err := x.Create(bad.ref, bad.dim); !errors.Is(err, bad.want) || g != nil {
			t.Errorf("Create(%v, %d): %v, %v", bad.ref, bad.dim, g, err)
		}
	}
	a, err := x.Create(fairA, 64)
	if err != nil || a.Ref() != fairA || a.Dim() != 64 {
		t.Fatal(a, err)
	}
	if g, err := x.Create(fairA, 64); !errors.Is(err, ErrExists) || g != nil {
		t.Errorf("created twice: %v, %v", g, err)
	}
	b := NewGallery(fairB, 64)
	mustApply(t, b, put(1, "b", 1, c))
	if err := x.Add(b); err != nil {
		t.Fatal(err)
	}
	mustApply(t, a, put(7, "a", 1, c))
	gone := NewGallery(scope.Ref{Tenant: "hall", Scope: "gone"}, 64)
	gone.Drop()
	if err := x.Add(gone); !errors.Is(err, ErrDropped) {
		t.Errorf("a dropped gallery was added: %v", err)
	}

	q := Query{Code: c, K: 5, Threshold: 0.9, Now: epochStart}
	for ref, want := range map[scope.Ref]Candidate{fairA: {"a", 1, 1}, fairB: {"b", 1, 1}} {
		r, err := x.Identify(t.Context(), grantFor(ref), q)
		if err != nil || !slices.Equal(r.Candidates, []Candidate{want}) {
			t.Errorf("%v: %+v, %v", ref, r, err)
		}
		for _, id := range []scope.SubjectID{"a", "b"} {
			if _, found, _, err := x.Verify(t.Context(), grantFor(ref), id, q); err != nil || found != (id == want.Subject) {
				t.Errorf("%v: %s found %v, %v", ref, id, found, err)
			}
		}
	}
	none := grantFor(scope.Ref{Tenant: "hall", Scope: "none"})
	if _, err := x.Identify(t.Context(), none, q); !errors.Is(err, ErrNoGallery) {
		t.Errorf("no gallery: %v", err)
	}
	if _, found, _, err := x.Verify(t.Context(), none, "a", q); !errors.Is(err, ErrNoGallery) || found {
		t.Errorf("no gallery: %v", err)
	}
	if _, err := x.Identify(t.Context(), scope.Grant{}, q); !errors.Is(err, scope.ErrNotGranted) {
		t.Errorf("zero grant: %v", err)
	}
	if _, err := x.Identify(t.Context(), scope.Mint(fairA, scope.UseVerify, "c"), q); !errors.Is(err, scope.ErrNotGranted) {
		t.Errorf("grant to verify: %v", err)
	}
	if _, _, _, err := x.Verify(t.Context(), scope.Mint(fairA, scope.UseIdentify, "c"), "a", q); !errors.Is(err, scope.ErrNotGranted) {
		t.Errorf("grant to identify: %v", err)
	}
	var order []scope.Ref
	x.Each(func(g *Gallery) bool { order = append(order, g.Ref()); return true })
	if !slices.Equal(order, []scope.Ref{fairA, fairB}) {
		t.Errorf("Each goes %v", order)
	}
	x.Each(func(g *Gallery) bool {
		if g != a {
			t.Error("Each went on")
		}
		return false
	})
	if !x.Drop(fairA) || x.Drop(fairA) || !a.Dropped() || b.Dropped() {
		t.Error("Drop did something else")
	}
	if _, ok := x.Gallery(fairA); ok {
		t.Error("a dropped gallery is still there")
	}
	if _, err := x.Identify(t.Context(), grantFor(fairB), q); err != nil {
		t.Errorf("the neighbour suffered: %v", err)
	}
}

func BenchmarkIdentify(b *testing.B) {
	const rows, dim = 100_000, 512
	r := rand.New(rand.NewPCG(37, 1))
	rot := rotation(b, 1, dim)
	g := checked(b, fairA, dim)
	batch := Change{Epoch: 1}
	for i := range rows {
		batch.Inserts = append(batch.Inserts, Insert{Subject: scope.SubjectID(fmt.Sprint("s-", i)), Template: 1, Code: encode(b, rot, gaussian(r, dim))})
	}
	mustApply(b, g, batch)
	probe := encode(b, rot, gaussian(r, dim))
	for _, k := range []int{1, MaxK} {
		b.Run(fmt.Sprintf("rows=%d/dim=%d/k=%d/kernel=%s", rows, dim, k, kernel.Implementation()), func(b *testing.B) {
			q := Query{Code: probe, K: k, Threshold: 0.4, Now: epochStart}
			b.SetBytes(rows * dim)
			b.ReportAllocs()
			for b.Loop() {
				mustIdentify(b, g, q)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	c := testCodes(b, 512, 2)
	g := checked(b, fairA, 512)
	mustApply(b, g, put(1, "a", 1, c[0]))
	for _, id := range []scope.SubjectID{"a", "absent"} {
		b.Run("subject="+string(id), func(b *testing.B) {
			q, grant, ctx := Query{Code: c[1], Now: time.Now()}, grantFor(fairA), context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if _, _, _, err := g.Verify(ctx, grant, id, q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What is counted adds up: every row is glanced at or compared, by the caller or
// by workers, alone and together.
func TestWorkIsCounted(t *testing.T) {
	for _, dim := range []int{64, 512} {
		x, g, codes := searched(t, dim, 500, 64, 2)
		for _, workers := range []bool{true, false} {
			q := Query{Code: codes[0], K: 2, Threshold: 0.9, Now: epochStart}
			w := mustIdentify(t, g, q).Work
			if w.Compared-w.Passed+w.Glanced != 500 || w.Passed > w.Glanced || w.Shards != len(g.current.Load().shards) || (w.Tasks > 0) != workers {
				t.Errorf("dim %d, workers %v: %+v", dim, workers, w)
			}
			q.WantBest = true
			if w := mustIdentify(t, g, q).Work; w.Glanced != 0 || w.Passed != 0 || w.Compared != 500 {
				t.Errorf("dim %d, all compared: %+v", dim, w)
			}
			results, err := g.IdentifyAll(t.Context(), grantFor(fairA), slices.Repeat([]Query{q}, 40))
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				if r.Work.Compared != 500 {
					t.Errorf("dim %d, of many: %+v", dim, r.Work)
				}
			}
			x.Close()
		}
	}
}
