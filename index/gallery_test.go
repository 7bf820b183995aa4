package index

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

var (
	fairA = scope.Ref{Tenant: "hall", Scope: "fair-a"}
	fairB = scope.Ref{Tenant: "hall", Scope: "fair-b"}
)

// testCodes gives n codes of random directions in one scope.
func testCodes(t testing.TB, dim, n int) []code.Code {
	r := rand.New(rand.NewPCG(31, uint64(dim)))
	rot := rotation(t, 1, dim)
	out := make([]code.Code, n)
	for i := range out {
		out[i] = encode(t, rot, gaussian(r, dim))
	}
	return out
}

func mustApply(t testing.TB, g *Gallery, changes ...Change) {
	t.Helper()
	if err := g.Apply(changes...); err != nil {
		t.Fatal(err)
	}
}

// put is a Change that inserts template n of a subject.
func put(epoch scope.Epoch, id scope.SubjectID, n scope.TemplateID, c code.Code) Change {
	return Change{Epoch: epoch, Inserts: []Insert{{Subject: id, Template: n, Code: c}}}
}

func mustIdentify(t testing.TB, g *Gallery, q Query) Result {
	t.Helper()
	r, err := g.Identify(t.Context(), grantFor(g.ref), q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestApplyRefuses(t *testing.T) {
	const dim = 64
	c := testCodes(t, dim, 3)
	long := testCodes(t, 128, 1)[0]
	badNorm := code.Code{Q: slices.Clone(c[0].Q), Norm2: c[0].Norm2 + 1}
	for _, tc := range []struct {
		name   string
		change Change
		want   error
	}{
		{"epoch before the last", put(4, "new", 1, c[1]), ErrEpoch},
		{"a template twice", put(6, "old", 1, c[1]), ErrDuplicate},
		{"a template twice in one change", Change{Epoch: 6, Inserts: []Insert{{Subject: "new", Template: 1, Code: c[1]}, {Subject: "new", Template: 1, Code: c[2]}}}, ErrDuplicate},
		{"no subject", put(6, "", 1, c[1]), scope.ErrBadID},
		{"bad subject", put(6, "A B", 1, c[1]), scope.ErrBadID},
		{"template 0", put(6, "new", 0, c[1]), scope.ErrBadID},
		{"no code", put(6, "new", 1, code.Code{}), code.ErrDimension},
		{"a code of another model", put(6, "new", 1, long), code.ErrDimension},
		{"a code with another norm", put(6, "new", 1, badNorm), code.ErrCode},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := checked(t, fairA, dim)
			mustApply(t, g, put(5, "old", 1, c[0]))
			before := mustIdentify(t, g, Query{Code: c[0], K: 10, Threshold: -1, Now: epochStart})
			// A good change and a good insert come first: none may stay.
			bad := tc.change
			bad.Removes = []Remove{{Subject: "gone"}}
			good := Change{Epoch: 5, Inserts: []Insert{{Subject: "good", Template: 7, Code: c[2]}}, Removes: []Remove{{Subject: "nobody"}}}
			if err := g.Apply(good, bad); !errors.Is(err, tc.want) {
				t.Fatalf("error %v, want %v", err, tc.want)
			}
			after := mustIdentify(t, g, Query{Code: c[0], K: 10, Threshold: -1, Now: epochStart})
			if !reflect.DeepEqual(before, after) || g.Live("good", epochStart) || g.Live("new", epochStart) || g.Subjects() != 1 {
				t.Errorf("a refused call left its marks: %+v, was %+v", after, before)
			}
			mustApply(t, g, put(6, "new", 1, c[1])) // and it goes on
		})
	}
	g := NewGallery(fairA, 3)
	if err := g.Apply(put(1, "a", 1, code.Code{Q: []int8{1, 2, 127}, Norm2: 5 + 127*127})); !errors.Is(err, code.ErrDimension) {
		t.Errorf("a gallery of dimension 3 takes codes: %v", err)
	}
}

// TestRefusedCodesAreWiped: what an abandoned edit wrote is overwritten.
func TestRefusedCodesAreWiped(t *testing.T) {
	const dim = 64
	c := testCodes(t, dim, 40)
	for _, seed := range []int{0, 1, 4, 7} { // rows before, so that the tail has room, is full, or is not there
		g := checked(t, fairA, dim)
		g.shardRows = 16
		for i := range seed {
			mustApply(t, g, put(1, scope.SubjectID(fmt.Sprint("old-", i)), 1, c[i]))
		}
		change := Change{Epoch: 2, Removes: []Remove{{Subject: "old-0"}}}
		for i := range 30 {
			change.Inserts = append(change.Inserts, Insert{Subject: scope.SubjectID(fmt.Sprint("new-", i)), Template: 1, Code: c[i]})
		}
		change.Inserts = append(change.Inserts, Insert{Subject: "new-3", Template: 1, Code: c[0]})
		e := g.newEdit([]Change{change})
		if err := e.apply(change); !errors.Is(err, ErrDuplicate) {
			t.Fatal(err)
		}
		touched := append([]*shard(nil), e.retired...)
		for _, v := range e.shards {
			touched = append(touched, v.shard)
		}
		e.abandon()
		shown := make(map[*shard]int)
		for _, v := range g.current.Load().shards {
			shown[v.shard] = v.rows
		}
		for i, sh := range touched {
			if !sh.wiped(shown[sh], sh.capacity()) {
				t.Errorf("%d rows before: shard %d of %d keeps refused codes", seed, i, len(touched))
			}
		}
		if err := g.Check(); err != nil {
			t.Error(err)
		}
	}
}

func TestApplyCopiesTheCode(t *testing.T) {
	c := testCodes(t, 64, 1)[0]
	own := code.Code{Q: slices.Clone(c.Q), Norm2: c.Norm2}
	g := checked(t, fairA, 64)
	mustApply(t, g, put(1, "a", 1, own))
	clear(own.Q)
	if r := mustIdentify(t, g, Query{Code: c, K: 1, Now: epochStart}); r.Best != 1 {
		t.Errorf("the gallery shares the caller's slice: best %v", r.Best)
	}
}

// TestReplace: removes come before inserts, so one change can replace.
func TestReplace(t *testing.T) {
	c := testCodes(t, 64, 3)
	g := checked(t, fairA, 64)
	mustApply(t, g, put(1, "a", 1, c[0]), put(2, "a", 2, c[1]))
	mustApply(t, g, Change{Epoch: 3, Removes: []Remove{{Subject: "a"}}, Inserts: []Insert{{Subject: "a", Template: 1, Code: c[2]}}})
	if got, _, ok := g.Subject("a"); !ok || !slices.Equal(got, []scope.TemplateID{1}) || g.Templates() != 1 {
		t.Errorf("templates %v, %d in all", got, g.Templates())
	}
	if r := mustIdentify(t, g, Query{Code: c[2], K: 5, Threshold: 0.9, Now: epochStart}); len(r.Candidates) != 1 || r.Scanned != 1 || r.Epoch != 3 {
		t.Errorf("%+v", r)
	}
	if r := mustIdentify(t, g, Query{Code: c[0], K: 5, Threshold: 0.9, Now: epochStart}); len(r.Candidates) != 0 {
		t.Errorf("the replaced template still matches: %+v", r)
	}
	mustApply(t, g) // nothing to do
	mustApply(t, g, Change{Epoch: 9})
	if g.Epoch() != 9 || g.Templates() != 1 {
		t.Errorf("epoch %d, %d templates", g.Epoch(), g.Templates())
	}
}

// TestExpiry walks the instants around a subject's end.
func TestExpiry(t *testing.T) {
	c := testCodes(t, 64, 2)
	end := epochStart.Add(time.Hour)
	far := time.Date(4000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name     string
		notAfter time.Time
		now      time.Time
		live     bool
	}{
		{"never", time.Time{}, far, true},
		{"before", end, end.Add(-1), true},
		{"at the instant", end, end, false},
		{"after", end, end.Add(1), false},
		{"in another zone", end.In(time.FixedZone("x", 8*3600)), end.Add(-1), true},
		{"beyond int64, before", far, end, true},
		{"beyond int64, after", far, far, false},
		{"long ago", time.Date(1200, 1, 1, 0, 0, 0, 0, time.UTC), end, false},
		{"of 1970", time.Unix(0, 0), end, false},
		{"asked of 1600", end, time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := checked(t, fairA, 64)
			mustApply(t, g, Change{Epoch: 1, Inserts: []Insert{{Subject: "a", Template: 1, Code: c[0], NotAfter: tc.notAfter}}})
			q := Query{Code: c[0], K: 1, Threshold: 0.9, Now: tc.now}
			r := mustIdentify(t, g, q)
			if live := len(r.Candidates) == 1; live != tc.live || (r.Best != NoScore) != tc.live {
				t.Errorf("Identify: %+v, want live %v", r, tc.live)
			}
			if _, found, _, err := g.Verify(t.Context(), grantFor(fairA), "a", q); err != nil || found != tc.live {
				t.Errorf("Verify: found %v, want %v; %v", found, tc.live, err)
			}
			if g.Live("a", tc.now) != tc.live || g.Contains("a", 1, tc.now) != tc.live {
				t.Errorf("Live %v, Contains %v, want %v", g.Live("a", tc.now), g.Contains("a", 1, tc.now), tc.live)
			}
			if gone := len(g.Expired(tc.now, 5)) == 1; gone == tc.live {
				t.Errorf("Expired lists it: %v", gone)
			}
			if g.Live("a", time.Time{}) {
				t.Error("without a time it counts as live")
			}
		})
	}
}

// TestExpiredDoesNotDisplace: a thousand expired look-alikes in front of one
// live candidate, which scores less.
func TestExpiredDoesNotDisplace(t *testing.T) {
	const dim = 64
	r := rand.New(rand.NewPCG(32, 1))
	rot := rotation(t, 1, dim)
	face := gaussian(r, dim)
	probe := encode(t, rot, face)
	other := slices.Clone(face)
	for i := range other[:16] {
		other[i] = -other[i]
	}
	g := checked(t, fairA, dim)
	g.shardRows = 100
	change := Change{Epoch: 1}
	for i := range 1000 {
		in := Insert{Subject: scope.SubjectID(fmt.Sprintf("v-%03d", i)), Template: 1, Code: probe, NotAfter: epochStart}
		if i == 500 {
			in.Code, in.NotAfter = encode(t, rot, other), epochStart.Add(1)
		}
		change.Inserts = append(change.Inserts, in)
	}
	mustApply(t, g, change)
	for _, k := range []int{1, 2, MaxK} {
		got := mustIdentify(t, g, Query{Code: probe, K: k, Threshold: 0, Now: epochStart})
		if len(got.Candidates) != 1 || got.Candidates[0].Subject != "v-500" || got.Best != got.Candidates[0].Score || got.Best > 0.9 {
			t.Errorf("k %d: %+v", k, got)
		}
	}
}

// TestExpiryBelongsToTheSubject: the latest insert sets it for all templates.
func TestExpiryBelongsToTheSubject(t *testing.T) {
	c := testCodes(t, 64, 2)
	g := checked(t, fairA, 64)
	end := epochStart.Add(time.Hour)
	mustApply(t, g, put(1, "a", 1, c[0]))
	mustApply(t, g, Change{Epoch: 2, Inserts: []Insert{{Subject: "a", Template: 2, Code: c[1], NotAfter: end}}})
	templates, notAfter, ok := g.Subject("a")
	if !ok || !notAfter.Equal(end) || !slices.Equal(templates, []scope.TemplateID{1, 2}) {
		t.Errorf("templates %v, expiry %v, %v", templates, notAfter, ok)
	}
	if r := mustIdentify(t, g, Query{Code: c[0], K: 1, Threshold: 0.9, Now: end}); len(r.Candidates) != 0 || r.Scanned != 2 {
		t.Errorf("the first template outlives its subject: %+v", r)
	}
	mustApply(t, g, put(3, "a", 3, c[1]))
	if r := mustIdentify(t, g, Query{Code: c[0], K: 1, Threshold: 0.9, Now: end}); len(r.Candidates) != 1 || r.Scanned != 3 {
		t.Errorf("after renewal: %+v", r)
	}
	if _, notAfter, _ := g.Subject("a"); !notAfter.IsZero() {
		t.Errorf("after renewal it ends at %v", notAfter)
	}
	if _, _, ok := g.Subject("b"); ok {
		t.Error("a subject that is not there was found")
	}
}

func TestExpiredIsBounded(t *testing.T) {
	c := testCodes(t, 64, 1)[0]
	g := checked(t, fairA, 64)
	for i := range 10 {
		mustApply(t, g, Change{Epoch: 1, Inserts: []Insert{{Subject: scope.SubjectID(fmt.Sprint("s-", i)), Template: 1, Code: c, NotAfter: epochStart}}})
	}
	for limit, want := range map[int]int{-1: 0, 0: 0, 3: 3, 10: 10, 99: 10} {
		if got := g.Expired(epochStart, limit); len(got) != want {
			t.Errorf("limit %d: %d subjects", limit, len(got))
		}
	}
}

// TestLayout: shards fill up, spare rows stay few, mass removal gives memory
// back, and the last row out leaves nothing.
func TestLayout(t *testing.T) {
	const dim, n = 64, 1000
	c := testCodes(t, dim, n)
	id := func(i int) scope.SubjectID { return scope.SubjectID(fmt.Sprintf("s-%04d", i)) }
	g := checked(t, fairA, dim)
	g.shardRows = 128
	for i := range n {
		mustApply(t, g, put(scope.Epoch(i+1), id(i), 1, c[i]))
		if spare := g.Stats().Bytes/(dim+shardOverhead) - (i + 1); spare > max(minSlack, i/slackShare) {
			t.Fatalf("%d spare rows after %d", spare, i+1)
		}
	}
	if got := len(g.current.Load().shards); got != 8 {
		t.Errorf("%d rows stand in %d shards of %d", n, got, g.shardRows)
	}
	full := g.Stats()
	if full.Rows != n || full.Live != n {
		t.Errorf("%+v", full)
	}
	for i := range n {
		if i%10 != 0 {
			mustApply(t, g, Change{Epoch: n, Removes: []Remove{{Subject: id(i)}}})
		}
	}
	few := g.Stats()
	if few.Live != n/10 || few.Rows > few.Live*compactShare/(compactShare-1)+len(g.current.Load().shards) || few.Bytes > full.Bytes/4 {
		t.Errorf("of %+v, after removing nine in ten: %+v", full, few)
	}
	for i := 0; i < n; i += 10 {
		if r := mustIdentify(t, g, Query{Code: c[i], K: 1, Threshold: 0.99, Now: epochStart}); len(r.Candidates) != 1 || r.Candidates[0].Subject != id(i) {
			t.Fatalf("%s is lost: %+v", id(i), r)
		}
	}
	for i := 0; i < n; i += 10 {
		mustApply(t, g, Change{Epoch: n, Removes: []Remove{{Subject: id(i), Template: 1}}})
	}
	if s := g.Stats(); s != (Stats{}) || g.Subjects() != 0 {
		t.Errorf("an emptied gallery keeps %+v", s)
	}
	// A batch is given shards of its size.
	batch := Change{Epoch: n}
	for i := range 300 {
		batch.Inserts = append(batch.Inserts, Insert{Subject: id(i), Template: 1, Code: c[i]})
	}
	mustApply(t, g, batch)
	if s := g.Stats(); s.Bytes != 300*(dim+shardOverhead) {
		t.Errorf("300 rows at once take %d bytes, %d are needed", s.Bytes, 300*(dim+shardOverhead))
	}
}

// TestSmallGalleriesAreSmall: a scope must cost little beside its templates,
// since a server holds ten thousand. It measures the heap over galleries that
// were filled one template at a time.
func TestSmallGalleriesAreSmall(t *testing.T) {
	const dim, templates, galleries = 512, 100, 100
	c := testCodes(t, dim, 1)[0]
	ids := make([]scope.SubjectID, templates)
	for i := range ids {
		ids[i] = scope.SubjectID(fmt.Sprintf("visitor-%03d", i))
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	fill := func(n int) int64 {
		before := heap()
		all := make([]*Gallery, galleries)
		for i := range all {
			all[i] = NewGallery(scope.Ref{Tenant: "hall", Scope: scope.ScopeID(fmt.Sprint("s-", i))}, dim)
			for j := range n {
				mustApply(t, all[i], put(scope.Epoch(j+1), ids[j], 1, c))
			}
		}
		after := heap()
		runtime.KeepAlive(all)
		return (after - before) / galleries
	}
	empty, filled := fill(0), fill(templates)
	t.Logf("an empty gallery takes %d bytes, one of %d templates %d beside the codes: %d a template", empty, templates, filled-templates*dim, (filled-templates*dim)/templates)
	if empty > 1024 {
		t.Errorf("an empty gallery takes %d bytes", empty)
	}
	if over := filled - templates*(dim+110); over > 1024 {
		t.Errorf("a gallery of %d templates takes %d bytes more than codes and 110 bytes a template", templates, over)
	}
}

// TestMemoryOfATemplate bounds all that a large gallery keeps of one: code,
// prefilter, columns, the subject's id and the table that finds it.
func TestMemoryOfATemplate(t *testing.T) {
	const dim, templates, each = 512, 40_000, 10_000
	c := testCodes(t, dim, 100)
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	inserts := make([]Insert, each)
	before := heap()
	g := checked(t, fairA, dim)
	for from := 0; from < templates; from += each {
		for i := range inserts {
			inserts[i] = Insert{Subject: scope.SubjectID(fmt.Sprintf("visitor-%05d", from+i)), Template: 1, Code: c[i%100], NotAfter: epochStart}
		}
		mustApply(t, g, Change{Epoch: 1, Inserts: inserts})
	}
	per := float64(heap()-before) / templates
	runtime.KeepAlive(inserts)
	t.Logf("%.1f bytes a template; %+v", per, g.Stats())
	if per > 650 {
		t.Errorf("%.1f bytes a template of %d values; 650 are allowed", per, dim)
	}
}
