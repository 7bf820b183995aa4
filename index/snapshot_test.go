package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// lastRow finds the one live row of a subject with one template.
func lastRow(t *testing.T, g *Gallery, id scope.SubjectID) (*shard, int) {
	t.Helper()
	g.lock.RLock()
	defer g.lock.RUnlock()
	snap := g.current.Load()
	rows := g.rowsOf(nil, snap, id)
	if len(rows) != 1 {
		t.Fatalf("subject %s has not one row", id)
	}
	return snap.shards[rows[0].slot()].shard, rows[0].row()
}

// TestRemovedCodesAreWiped: at once when nobody searches, and otherwise when
// the last search that began before the removal has left, not a moment earlier.
func TestRemovedCodesAreWiped(t *testing.T) {
	c := testCodes(t, 64, 20)
	fill := func(t *testing.T) *Gallery {
		g := checked(t, fairA, 64)
		for i := range c {
			mustApply(t, g, put(1, scope.SubjectID(fmt.Sprint("s-", i)), 1, c[i]))
		}
		return g
	}
	remove := func(ids ...scope.SubjectID) Change {
		out := Change{Epoch: 2}
		for _, id := range ids {
			out.Removes = append(out.Removes, Remove{Subject: id})
		}
		return out
	}

	t.Run("nobody searches", func(t *testing.T) {
		g := fill(t)
		sh, row := lastRow(t, g, "s-3")
		mustApply(t, g, remove("s-3"))
		if !sh.wiped(row, row+1) {
			t.Error("the code is still there")
		}
	})
	t.Run("searches in flight", func(t *testing.T) {
		g := fill(t)
		sh, row := lastRow(t, g, "s-3")
		var leases []*snapshot
		for i := range 3 { // three snapshots that show it, leased twice each
			mustApply(t, g, put(1, scope.SubjectID(fmt.Sprint("more-", i)), 1, c[i]))
			sh, row = lastRow(t, g, "s-3") // where the tail has grown
			for range 2 {
				s, err := g.acquire()
				if err != nil {
					t.Fatal(err)
				}
				leases = append(leases, s)
			}
		}
		mustApply(t, g, remove("s-3"))
		mustApply(t, g, put(3, "later", 1, c[0]))
		later, err := g.acquire()
		if err != nil {
			t.Fatal(err)
		}
		rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano()))).Shuffle(len(leases), func(i, j int) { leases[i], leases[j] = leases[j], leases[i] })
		for i, s := range leases {
			if sh.wiped(row, row+1) {
				t.Fatalf("wiped while %d searches could see it", len(leases)-i)
			}
			if err := g.Check(); err != nil {
				t.Fatal(err)
			}
			s.release()
		}
		if !sh.wiped(row, row+1) {
			t.Error("not wiped when the last of them left")
		}
		later.release()
	})
	t.Run("compaction and growth", func(t *testing.T) {
		g := fill(t)
		seen := make(map[*shard]bool)
		note := func() {
			for _, v := range g.current.Load().shards {
				if v.shard != nil {
					seen[v.shard] = true
				}
			}
		}
		note()
		held, err := g.acquire()
		if err != nil {
			t.Fatal(err)
		}
		first := held.shards[0]
		for i := range 15 {
			mustApply(t, g, remove(scope.SubjectID(fmt.Sprint("s-", i))))
			note()
		}
		for i := range 50 {
			mustApply(t, g, put(3, scope.SubjectID(fmt.Sprint("n-", i)), 1, c[i%20]))
			note()
		}
		for row := range first.rows {
			if first.alive(row) && first.code(row).Validate(64) != nil {
				t.Fatalf("row %d changed under a lease", row)
			}
		}
		held.release()
		for _, v := range g.current.Load().shards {
			delete(seen, v.shard)
		}
		if len(seen) < 3 {
			t.Errorf("only %d shards were replaced: this test shows too little", len(seen))
		}
		for sh := range seen {
			if !sh.wiped(0, sh.capacity()) {
				t.Error("a replaced shard keeps its codes")
			}
		}
	})
}

// gate is a context that stops a search between shards until it is opened.
type gate struct {
	context.Context
	asked atomic.Int32
	at    int32 // which asking stops
	here  chan struct{}
	open  chan struct{}
	err   error
}

func newGate(ctx context.Context, at int32, err error) *gate {
	return &gate{Context: ctx, at: at, here: make(chan struct{}), open: make(chan struct{}), err: err}
}

func (c *gate) Err() error {
	if c.asked.Add(1) != c.at {
		return nil
	}
	close(c.here)
	<-c.open
	return c.err
}

// TestDropMeetsASearch: a search halfway through when Drop comes gives no
// result, Drop waits for it, and then no code is left.
func TestDropMeetsASearch(t *testing.T) {
	const rows = 40
	c := testCodes(t, 64, rows)
	for _, at := range []int32{1, 2, 5, 6} { // before the first shard, between, and the very last question
		g := checked(t, fairA, 64)
		g.shardRows = 8 // five shards
		var batch Change
		for i := range c {
			batch.Inserts = append(batch.Inserts, Insert{Subject: scope.SubjectID(fmt.Sprint("s-", i)), Template: 1, Code: c[i]})
		}
		mustApply(t, g, batch)
		shards := g.current.Load().shards
		if len(shards) != 5 {
			t.Fatalf("%d shards", len(shards))
		}
		ctx := newGate(t.Context(), at, nil)
		type answer struct {
			r   Result
			err error
		}
		searched := make(chan answer)
		go func() {
			r, err := g.Identify(ctx, grantFor(fairA), Query{Code: c[0], K: 5, Now: epochStart})
			searched <- answer{r, err}
		}()
		<-ctx.here
		dropped := make(chan struct{})
		for range 2 { // a second caller waits too
			go func() {
				g.Drop()
				dropped <- struct{}{}
			}()
		}
		for !g.Dropped() {
			time.Sleep(time.Millisecond)
		}
		select {
		case <-dropped:
			t.Fatal("Drop returned while a search read the codes")
		case <-time.After(20 * time.Millisecond):
		}
		if shards[4].wiped(0, 8) {
			t.Fatal("codes were wiped under a search")
		}
		if _, err := g.Identify(t.Context(), grantFor(fairA), Query{Code: c[0], K: 5, Now: epochStart}); !errors.Is(err, ErrDropped) {
			t.Errorf("a search begun meanwhile: %v", err)
		}
		close(ctx.open)
		got := <-searched
		if !errors.Is(got.err, ErrDropped) || got.r.Candidates != nil {
			t.Errorf("stopped at %d: %+v, %v", at, got.r, got.err)
		}
		<-dropped
		<-dropped
		for i, v := range shards {
			if !v.wiped(0, v.capacity()) {
				t.Errorf("shard %d keeps codes after Drop", i)
			}
		}
	}
}

func TestDropped(t *testing.T) {
	c := testCodes(t, 64, 2)
	g := checked(t, fairA, 64)
	mustApply(t, g, put(4, "a", 1, c[0]))
	g.Drop()
	g.Drop()
	q := Query{Code: c[0], K: 1, Now: epochStart}
	if r, err := g.Identify(t.Context(), grantFor(fairA), q); !errors.Is(err, ErrDropped) || r.Candidates != nil {
		t.Errorf("Identify: %+v, %v", r, err)
	}
	if _, found, _, err := g.Verify(t.Context(), grantFor(fairA), "a", q); !errors.Is(err, ErrDropped) || found {
		t.Errorf("Verify: %v, %v", found, err)
	}
	if err := g.Apply(put(5, "b", 1, c[1])); !errors.Is(err, ErrDropped) {
		t.Errorf("Apply: %v", err)
	}
	if err := g.Apply(); !errors.Is(err, ErrDropped) {
		t.Errorf("Apply of nothing: %v", err)
	}
	if _, _, ok := g.Subject("a"); ok || g.Live("a", epochStart) || g.Contains("a", 1, epochStart) || g.Subjects() != 0 || g.Templates() != 0 || g.Stats() != (Stats{}) || len(g.Expired(epochStart, 9)) != 0 {
		t.Error("a dropped gallery still shows its subject")
	}
	if g.Epoch() != 4 || !g.Dropped() {
		t.Errorf("epoch %d, dropped %v", g.Epoch(), g.Dropped())
	}
	empty := NewGallery(fairB, 64)
	empty.Drop() // with no shard at all
}

// TestChangesAreSeenWhole moves one code between two subjects, in one change or
// in two changes of one Apply. Whatever moment a search meets, exactly one of
// the two has it. Growth, compaction and wiping go on all the time.
func TestChangesAreSeenWhole(t *testing.T) {
	const dim, rounds = 64, 3000
	c := testCodes(t, dim, 3)
	g := checked(t, fairA, dim)
	g.shardRows = 8
	for i := range 30 {
		mustApply(t, g, put(1, scope.SubjectID(fmt.Sprint("crowd-", i)), 1, c[1]))
	}
	names := [2]scope.SubjectID{"left", "right"}
	mustApply(t, g, put(1, names[0], 1, c[0]))

	var stop atomic.Bool
	var searches atomic.Int64
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			q := Query{Code: c[0], K: 1 + worker, Threshold: 0.999, Now: epochStart}
			last := scope.Epoch(0)
			for !stop.Load() {
				r, err := g.Identify(context.Background(), grantFor(fairA), q)
				if err != nil {
					t.Error(err)
					return
				}
				// The epoch tells who has it; every epoch moves it once.
				if len(r.Candidates) != 1 || r.Candidates[0].Score != 1 || r.Candidates[0].Subject != names[(r.Epoch-1)%2] || r.Epoch < last {
					t.Errorf("epoch %d after %d: %+v", r.Epoch, last, r.Candidates)
					return
				}
				last = r.Epoch
				if r.Scanned != 31 {
					t.Errorf("epoch %d: %d templates compared, want 31", r.Epoch, r.Scanned)
					return
				}
				for i, name := range names {
					best, found, epoch, err := g.Verify(context.Background(), grantFor(fairA), name, q)
					if err != nil {
						t.Error(err)
						return
					}
					if has := int(epoch-1)%2 == i; found != has || has && best.Score != 1 {
						t.Errorf("epoch %d: %s found %v at %v", epoch, name, found, best.Score)
						return
					}
				}
				searches.Add(1)
			}
		})
	}
	for i := range rounds {
		from, to := names[i%2], names[(i+1)%2]
		epoch := scope.Epoch(i + 2)
		var err error
		if i%3 == 0 {
			err = g.Apply(Change{Epoch: epoch, Removes: []Remove{{Subject: from}}}, put(epoch, to, 1, c[0]))
		} else {
			err = g.Apply(Change{Epoch: epoch, Removes: []Remove{{Subject: from}}, Inserts: []Insert{{Subject: to, Template: 1, Code: c[0]}}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d searches met %d changes", searches.Load(), rounds)
}

// TestDropUnderLoad: searches, verifications and changes from many goroutines
// meet Drop. What begins after Drop has returned fails with ErrDropped, and
// nothing that Drop left behind holds a code.
func TestDropUnderLoad(t *testing.T) {
	const dim = 64
	c := testCodes(t, dim, 60)
	for round := range 60 {
		g := checked(t, fairA, dim)
		g.shardRows = 16
		var batch Change
		for i := range c {
			batch.Inserts = append(batch.Inserts, Insert{Subject: scope.SubjectID(fmt.Sprint("s-", i)), Template: 1, Code: c[i]})
		}
		mustApply(t, g, batch)
		shards := g.current.Load().shards
		var gone atomic.Bool
		var wg sync.WaitGroup
		begin := make(chan struct{})
		run := func(f func() error) {
			wg.Go(func() {
				<-begin
				for {
					late := gone.Load()
					err := f()
					if err != nil && !errors.Is(err, ErrDropped) {
						t.Error(err)
					}
					if late && err == nil {
						t.Error("begun after Drop had returned, and no error")
					}
					if err != nil {
						return
					}
				}
			})
		}
		q := Query{Code: c[7], K: 2, Threshold: 0.99, Now: epochStart}
		for range 2 {
			run(func() error {
				r, err := g.Identify(context.Background(), grantFor(fairA), q)
				if err == nil && (len(r.Candidates) != 1 || r.Candidates[0].Subject != "s-7") {
					t.Errorf("a search lost its subject: %+v", r)
				}
				return err
			})
			run(func() error {
				best, found, _, err := g.Verify(context.Background(), grantFor(fairA), "s-7", q)
				if err == nil && (!found || best.Score != 1) {
					t.Errorf("a verification lost its subject: %+v", best)
				}
				return err
			})
		}
		n := 0
		run(func() error {
			n++
			id := scope.SubjectID(fmt.Sprint("new-", n%20))
			return g.Apply(Change{Removes: []Remove{{Subject: id}}, Inserts: []Insert{{Subject: id, Template: 1, Code: c[8+n%52]}}})
		})
		close(begin)
		time.Sleep(time.Duration(round) * 50 * time.Microsecond)
		g.Drop()
		gone.Store(true)
		for _, v := range shards {
			if !v.wiped(0, v.capacity()) {
				t.Error("codes are left after Drop")
			}
		}
		wg.Wait()
	}
}

// TestIndexUnderLoad creates and drops galleries while they are searched.
func TestIndexUnderLoad(t *testing.T) {
	c := testCodes(t, 64, 1)[0]
	x := New()
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 200 {
				ref := scope.Ref{Tenant: "hall", Scope: scope.ScopeID(fmt.Sprintf("s-%d-%d", worker, i))}
				g, err := x.Create(ref, 64)
				if err != nil {
					t.Error(err)
					return
				}
				if err := g.Apply(put(1, "a", 1, c)); err != nil {
					t.Error(err)
				}
				var inner sync.WaitGroup
				inner.Go(func() {
					for {
						r, err := x.Identify(context.Background(), grantFor(ref), Query{Code: c, K: 1, Threshold: code.Threshold(0.9), Now: epochStart})
						if errors.Is(err, ErrDropped) || errors.Is(err, ErrNoGallery) {
							return
						}
						if err != nil || len(r.Candidates) != 1 {
							t.Errorf("%+v, %v", r, err)
							return
						}
					}
				})
				x.Each(func(g *Gallery) bool { return g.Ref() != ref })
				if !x.Drop(ref) {
					t.Errorf("%s was not there to drop", ref)
				}
				inner.Wait()
			}
		})
	}
	wg.Wait()
	x.Each(func(g *Gallery) bool { t.Errorf("%s is left", g.Ref()); return true })
}
