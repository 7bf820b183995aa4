package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// searched is a gallery in an index with as many workers, small enough to be
// quick and large enough to be handed to them.
func searched(t testing.TB, dim, rows, shardRows, workers int) (*Index, *Gallery, []code.Code) {
	t.Helper()
	x := New(Options{Workers: workers})
	t.Cleanup(x.Close)
	g, err := x.Create(fairA, dim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Check(); err != nil {
			t.Errorf("at the end of the test: %v", err)
		}
	})
	g.shardRows, g.filterRows, g.small = shardRows, shardRows, 0
	codes := testCodes(t, dim, 300)
	batch := Change{Epoch: 1}
	for i := range rows {
		in := Insert{Subject: subjectID(i), Template: 1, Code: codes[i%len(codes)]} // each stands there several times: ties
		if i%7 == 3 {
			in.NotAfter = epochStart
		}
		batch.Inserts = append(batch.Inserts, in)
	}
	mustApply(t, g, batch)
	return x, g, codes
}

func subjectID(i int) scope.SubjectID { return scope.SubjectID(fmt.Sprintf("s-%05d", i)) }

// sequential answers by comparing everything, one row after the other.
func sequential(t testing.TB, g *Gallery, q Query) Result {
	t.Helper()
	snap, err := g.acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.release()
	m := newModel()
	m.epoch = snap.epoch
	for _, v := range snap.shards {
		for row := range v.rows {
			if v.alive(row) {
				id := v.name(row)
				s := m.subjects[id]
				if s == nil {
					s = &modelSubject{templates: make(map[scope.TemplateID]code.Code)}
					m.subjects[id] = s
				}
				if until := v.notAfter[row]; until != never {
					s.notAfter = time.Unix(0, until)
				}
				s.templates[v.templates[row]] = v.code(row)
			}
		}
	}
	return m.identifyIn(g, q)
}

// TestWorkersAgree: whatever the number of workers and probes, the dimension
// (which chooses the prefilter's bits) and the threshold (which chooses whether
// it is used), the result is that of the sequential scan to the last bit.
func TestWorkersAgree(t *testing.T) {
	for _, tc := range []struct{ dim, rows, shardRows, workers int }{
		{64, 3000, 64, 1}, {128, 3000, 256, 3}, {512, 1500, 256, 4}, {512, 1500, 700, 2}, {448, 1200, 400, 3}, {100, 2000, 300, 2},
	} {
		if raced {
			tc.rows /= 4
		}
		t.Run(fmt.Sprintf("dim=%d/workers=%d", tc.dim, tc.workers), func(t *testing.T) {
			_, g, codes := searched(t, tc.dim, tc.rows, tc.shardRows, tc.workers)
			for i := 0; i < tc.rows; i += 5 { // tombstones among the rows
				if i%3 == 0 {
					mustApply(t, g, Change{Epoch: 2, Removes: []Remove{{Subject: subjectID(i)}}})
				}
			}
			r := rand.New(rand.NewPCG(81, uint64(tc.dim)))
			var queries []Query
			var want []Result
			for i := range 90 {
				q := Query{Code: codes[r.IntN(len(codes))], K: 1 + r.IntN(9), Now: epochStart.Add(time.Duration(r.IntN(3)-1) * time.Second)}
				q.Threshold = []code.Threshold{0.99, 0.6, 0.4, 0.3, 0.1, -0.5}[i%6]
				q.WantBest = r.IntN(4) == 0
				queries = append(queries, q)
				want = append(want, sequential(t, g, q))
			}
			for i, q := range queries {
				if got := mustIdentify(t, g, q); !sameResult(got, want[i]) {
					t.Fatalf("query %d, threshold %v:\n got %+v\nwant %+v", i, q.Threshold, got, want[i])
				}
			}
			for _, n := range []int{1, 2, 3, 8, 9, 15, 16, 17, 63, 64, 65, 79, 90, 300} {
				batch := make([]Query, n)
				for i := range batch {
					batch[i] = queries[i%len(queries)]
				}
				got, err := g.IdentifyAll(t.Context(), grantFor(fairA), batch)
				if err != nil {
					t.Fatal(err)
				}
				for i := range got {
					if !sameResult(got[i], want[i%len(want)]) {
						t.Fatalf("query %d of %d, threshold %v:\n got %+v\nwant %+v", i, n, batch[i].Threshold, got[i], want[i%len(want)])
					}
				}
			}
			var wg sync.WaitGroup
			for c := range 20 {
				wg.Go(func() {
					for i := range queries {
						j := (i + 7*c) % len(queries)
						got, err := g.Identify(context.Background(), grantFor(fairA), queries[j])
						if err != nil || !sameResult(got, want[j]) {
							t.Errorf("caller %d, query %d: %v\n got %+v\nwant %+v", c, j, err, got, want[j])
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestIdentifyAllRefuses as Identify does, and all or none.
func TestIdentifyAllRefuses(t *testing.T) {
	x, g, codes := searched(t, 64, 500, 64, 2)
	good := Query{Code: codes[0], K: 1, Threshold: 0.5, Now: epochStart}
	bad := good
	bad.K = 0
	if r, err := x.IdentifyAll(t.Context(), grantFor(fairA), []Query{good, bad}); !errors.Is(err, ErrK) || r != nil {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := g.IdentifyAll(t.Context(), grantFor(fairB), []Query{{}}); !errors.Is(err, scope.ErrNotGranted) || r != nil {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := x.IdentifyAll(t.Context(), grantFor(fairB), nil); !errors.Is(err, ErrNoGallery) || r != nil {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := x.IdentifyAll(t.Context(), grantFor(fairA), nil); err != nil || len(r) != 0 {
		t.Errorf("%v, %v", r, err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, queries := range [][]Query{nil, {good}, {good, good}} {
		if r, err := g.IdentifyAll(done, grantFor(fairA), queries); !errors.Is(err, context.Canceled) || r != nil {
			t.Errorf("%v, %v", r, err)
		}
	}
	g.Drop()
	if r, err := g.IdentifyAll(t.Context(), grantFor(fairA), []Query{good, good}); !errors.Is(err, ErrDropped) || r != nil {
		t.Errorf("%v, %v", r, err)
	}
}

// TestCancelledProbesLeave: searches are cancelled at all moments among others
// of the same passes, which must not notice, and nothing is left of them.
func TestCancelledProbesLeave(t *testing.T) {
	_, g, codes := searched(t, 128, 6000, 64, 3)
	q := Query{Code: codes[5], K: 3, Threshold: -1, Now: epochStart, WantBest: true}
	want := sequential(t, g, q)
	rounds := 200
	if raced {
		rounds = 40
	}
	var cancelled, finished atomic.Int64
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(82, uint64(c)))
			for range rounds {
				ctx, cancel := context.WithCancel(context.Background())
				if c%2 == 0 {
					ctx, cancel = context.WithTimeout(context.Background(), time.Duration(r.IntN(2000))*time.Microsecond)
				}
				got, err := g.Identify(ctx, grantFor(fairA), q)
				cancel()
				switch {
				case err == nil && sameResult(got, want):
					finished.Add(1)
				case c%2 == 0 && errors.Is(err, context.DeadlineExceeded) && reflect.DeepEqual(got, Result{}):
					cancelled.Add(1)
				default:
					t.Errorf("caller %d: %+v, %v", c, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d searches were cancelled, %d finished", cancelled.Load(), finished.Load())
	if cancelled.Load() == 0 {
		t.Error("none was cancelled: this test shows nothing")
	}
	x := g.scanner()
	x.mu.Lock()
	defer x.mu.Unlock()
	if l := &g.lane; len(x.lanes) != 0 || len(l.active) != 0 || len(l.waiting) != 0 || l.snap != nil {
		t.Errorf("left behind: %d lanes, %d active, %d waiting", len(x.lanes), len(l.active), len(l.waiting))
	}
	if s := g.current.Load(); s.holds.Load() != 1 {
		t.Errorf("%d holds of the snapshot", s.holds.Load())
	}
}

// A search whose context is over begins nothing: no worker is started for it.
func TestLateSearchBeginsNothing(t *testing.T) {
	x, g, codes := searched(t, 64, 100, 32, 2)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := x.Identify(ctx, grantFor(g.Ref()), Query{Code: codes[0], K: 1, Now: epochStart}); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if x.crew.started {
		t.Error("workers were started")
	}
}

// TestGalleriesTakeTurns: a gallery with a crowd of callers does not keep
// another one waiting for more than a few of its tasks.
func TestGalleriesTakeTurns(t *testing.T) {
	x, big, codes := searched(t, 128, 4000, 32, 2)
	little, err := x.Create(fairB, 128)
	if err != nil {
		t.Fatal(err)
	}
	little.shardRows, little.small = 32, 0
	batch := Change{Epoch: 1}
	for i := range 64 { // two shards
		batch.Inserts = append(batch.Inserts, Insert{Subject: subjectID(i), Template: 1, Code: codes[i]})
	}
	mustApply(t, little, batch)

	// Under the lock of the scanner nothing moves but by hand.
	s := x.crew.scanner
	submit := func(g *Gallery, n int) (all []*search) {
		q := Query{Code: codes[1], K: 1, Threshold: 0.5, Now: epochStart}
		for range n {
			p := s.newSearch(&q)
			p.group = &p.own
			p.own.left = 1
			p.prepare(g.filter)
			if !s.join(&g.lane, p) {
				g.lane.waiting = append(g.lane.waiting, p)
			}
			all = append(all, p)
		}
		if len(g.lane.active) == 0 {
			s.begin(&g.lane)
		}
		return all
	}
	s.mu.Lock()
	crowd := submit(big, 1000)
	one := submit(little, 1)
	w := newScratch()
	var turns []*Gallery
	for one[0].left > 0 {
		if !s.next(w) {
			t.Fatal("no task is left, and the little gallery was not served")
		}
		turns = append(turns, w.gallery)
		if len(w.batch) > maxBatch || len(w.views) > taskShards || len(w.batch)*len(w.views) > max(maxBatch, len(w.batch)) {
			t.Errorf("a task of %d probes and %d shards", len(w.batch), len(w.views))
		}
		s.mu.Unlock()
		w.task()
		s.mu.Lock()
		for _, p := range w.batch {
			if p.busy--; p.busy == 0 && p.left == 0 {
				p.finish()
			}
		}
		w.clear()
	}
	if len(turns) > 5 {
		t.Errorf("the little gallery waited for %d tasks", len(turns))
	}
	// The workers do the rest.
	s.started = true
	for range s.workers {
		go s.worker()
	}
	s.mu.Unlock()
	q := Query{Code: codes[1], K: 1, Threshold: 0.5, Now: epochStart}
	for g, all := range map[*Gallery][]*search{big: crowd, little: one} {
		want := sequential(t, g, q)
		for _, p := range all {
			<-p.own.done
			if got := p.result(nil); !sameResult(got, want) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
			s.done(p)
		}
	}
}

// TestPassesAreShared: searches that come while a pass is at work join it, and
// after a change they wait for the next one.
func TestPassesAreShared(t *testing.T) {
	x, g, codes := searched(t, 64, 2000, 64, 1)
	s := x.crew.scanner
	q := Query{Code: codes[0], K: 1, Threshold: 0.5, Now: epochStart}
	add := func() *search {
		p := s.newSearch(&q)
		p.group = &p.own
		p.own.left = 1
		if !s.join(&g.lane, p) {
			g.lane.waiting = append(g.lane.waiting, p)
		}
		if len(g.lane.active) == 0 {
			s.begin(&g.lane)
		}
		return p
	}
	s.mu.Lock()
	s.started = true // by hand
	first := add()
	w := newScratch()
	s.next(w)
	first.busy--
	second := add()
	if first.snap != second.snap || len(g.lane.active) != 2 || len(g.lane.waiting) != 0 {
		t.Error("the second search did not join the pass")
	}
	mustApply(t, g, put(9, "new", 1, codes[0]))
	third := add()
	if third.snap != nil || len(g.lane.waiting) != 1 {
		t.Error("a search after a change joined a pass that does not show it")
	}
	fourth := add()
	if fourth.snap != nil || len(g.lane.waiting) != 2 {
		t.Error("a search overtook one that waits")
	}
	s.mu.Unlock()
	go s.worker()
	for _, p := range []*search{first, second, third, fourth} {
		<-p.own.done
	}
	if first.snap.epoch != 1 || third.snap.epoch != 9 || fourth.snap != third.snap {
		t.Error("the waiting searches did not see the change together")
	}
	for _, p := range []*search{first, second, third, fourth} {
		s.done(p)
	}
}

// TestClosedIndexSearches by its callers, and its workers end; an index that is
// forgotten ends its workers too.
func TestClosedIndexSearches(t *testing.T) {
	before := runtime.NumGoroutine()
	x, g, codes := searched(t, 64, 500, 64, 3)
	q := Query{Code: codes[0], K: 2, Threshold: 0.5, Now: epochStart}
	want := sequential(t, g, q)
	for range 2 {
		if got := mustIdentify(t, g, q); !sameResult(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		x.Close()
	}
	func() {
		y := New(Options{Workers: 3})
		h, err := y.Create(fairA, 64)
		if err != nil {
			t.Fatal(err)
		}
		h.small = 0
		mustApply(t, h, put(1, "a", 1, codes[0]))
		mustIdentify(t, h, q)
	}()
	for range 6000 {
		runtime.GC()
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// TestNoAllocations: a search into the caller's memory allocates nothing, inline
// or by workers, filtered or not.
func TestNoAllocations(t *testing.T) {
	if raced {
		t.Skip("under the race detector pools forget at random")
	}
	for _, dim := range []int{128, 512} {
		x, g, codes := searched(t, dim, 3000, 1024, 2)
		for _, small := range []int{0, SmallGallery} {
			g.small = small
			for _, threshold := range []code.Threshold{0.6, 0.1} {
				q := Query{Code: codes[0], K: 5, Threshold: threshold, Now: epochStart}
				buf, grant, ctx := make([]Candidate, 0, q.K), grantFor(fairA), t.Context()
				n := testing.AllocsPerRun(100, func() {
					r, err := x.IdentifyInto(ctx, grant, q, buf)
					if err != nil || len(r.Candidates) != 5 || &r.Candidates[0] != &buf[:1][0] {
						t.Fatal(r, err)
					}
				})
				if n > 0 {
					t.Errorf("dim %d, small %d, threshold %v: %v allocations", dim, small, threshold, n)
				}
			}
		}
	}
}
