package index

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// number is the id of a subject in these tests, and numbered its insert.
func number(i int) scope.SubjectID { return scope.SubjectID(fmt.Sprintf("s-%06d", i)) }

func numbered(c []code.Code, from, end int) Change {
	var out Change
	for i := from; i < end; i++ {
		out.Inserts = append(out.Inserts, Insert{Subject: number(i), Template: 1, Code: c[i%len(c)]})
	}
	return out
}

// without removes the subjects for which gone says so.
func without(n int, gone func(i int) bool) Change {
	var out Change
	for i := range n {
		if gone(i) {
			out.Removes = append(out.Removes, Remove{Subject: number(i)})
		}
	}
	return out
}

// inIndex makes a gallery of an index with shards of 128 rows, and steps of 16.
func inIndex(t *testing.T, x *Index, ref scope.Ref, dim int) *Gallery {
	t.Helper()
	g := checked(t, ref, dim)
	g.shardRows, g.filterRows, g.stepRows = 128, 128, 16
	if err := x.Add(g); err != nil {
		t.Fatal(err)
	}
	return g
}

// stalled makes an index whose compactor is busy for ever, until the function
// that is returned lets it go.
func stalled(t *testing.T) (*Index, func()) {
	x := New(Options{Workers: 2})
	c := &x.crew.compactor
	c.mu.Lock()
	c.running = true
	c.mu.Unlock()
	return x, func() { go c.run() }
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// settle waits for the compactor and checks that it left nothing to do.
func settle(t *testing.T, x *Index, g *Gallery) {
	t.Helper()
	x.crew.compactor.wait()
	if err := g.Check(); err != nil {
		t.Fatal(err)
	}
	g.writer.Lock()
	defer g.writer.Unlock()
	if len(g.sparse) > 0 || g.queued {
		t.Fatalf("the compactor rests, and the slots %v are sparse (queued %v)", g.sparse, g.queued)
	}
}

// TestRowsAreReclaimed: Apply leaves many dead rows to the compactor, which
// changes no result, gives the memory back, and has all codes that moved
// overwritten: those that a search can see when it has left, and none before.
func TestRowsAreReclaimed(t *testing.T) {
	const dim, n = 512, 8000
	c := testCodes(t, dim, 100)
	before := heap()
	x, release := stalled(t)
	defer x.Close()
	g := inIndex(t, x, fairA, dim)
	mustApply(t, g, numbered(c, 0, n))
	full, all, names := heap()-before, g.Stats(), g.Stats().Names
	shards := g.current.Load().shards

	gone := func(i int) bool { return i%10 < 6 } // of every shard 77 of 128
	// In two calls, since the second finds more dead than Apply leaves alone.
	mustApply(t, g, without(n, func(i int) bool { return i%10 < 3 }))
	if s := g.Stats(); s.Rows != n || s.Live != n*7/10 || len(g.sparse) == 0 {
		t.Fatalf("Apply was to leave it to the compactor: %+v, %d slots sparse", s, len(g.sparse))
	}
	mustApply(t, g, without(n, func(i int) bool { return i%10 >= 3 && gone(i) }))

	q := Query{Code: c[7], K: MaxK, Threshold: 0.01, Now: epochStart}
	want := mustIdentify(t, g, q)
	held, err := g.acquire()
	if err != nil {
		t.Fatal(err)
	}
	release()
	settle(t, x, g)
	if got := mustIdentify(t, g, q); !sameResult(got, want) {
		t.Errorf("compaction changed a result:\n got %+v\nwant %+v", got, want)
	}
	if got := past(g, held, q); !sameResult(got, want) {
		t.Errorf("a search that began before sees another gallery:\n got %+v\nwant %+v", got, want)
	}
	for slot, v := range held.shards {
		for row := range v.rows {
			if v.alive(row) && v.code(row).Validate(dim) != nil {
				t.Fatalf("slot %d row %d was overwritten under a lease", slot, row)
			}
		}
	}
	moved := held.shards
	held.release()
	seen := make(map[*shard]bool)
	for _, v := range append(shards, moved...) {
		seen[v.shard] = true
	}
	for _, v := range g.current.Load().shards {
		delete(seen, v.shard) // what was moved to before the lease
	}
	delete(seen, nil)
	if len(seen) < len(shards) {
		t.Errorf("only %d shards were emptied", len(seen))
	}
	for sh := range seen {
		if !sh.wiped(0, sh.capacity()) {
			t.Fatal("a shard that was emptied keeps codes")
		}
	}
	clear(seen)
	shards, moved, held = nil, nil, nil
	few := g.Stats()
	if left := n * 4 / 10; few.Rows != left || few.Live != left || few.Bytes > all.Bytes*45/100 {
		t.Errorf("of %+v, compacted: %+v", all, few)
	}
	if after := heap() - before; after > full/2 {
		t.Errorf("the heap has %d bytes more than before, %d with all templates", after, full)
	}
	for i := range n {
		if g.Contains(number(i), 1, epochStart) == gone(i) {
			t.Fatalf("%s: removed %v", number(i), gone(i))
		}
	}

	// The last few leave no table behind either.
	mustApply(t, g, without(n, func(i int) bool { return i%100 != 9 }))
	settle(t, x, g)
	if s := g.Stats(); s.Live != n/100 || s.Names > names/10 {
		t.Errorf("of %d bytes of names, with one subject in a hundred: %+v", names, s)
	}
	if n := len(g.current.Load().shards); n > 8 {
		t.Errorf("%d slots for %d rows", n, g.Templates())
	}
	mustApply(t, g, without(n, func(int) bool { return true }))
	settle(t, x, g)
	if s := g.Stats(); s != (Stats{}) {
		t.Errorf("an emptied gallery keeps %+v", s)
	}
}

// TestSlowCompactor: when it does not come, those who remove rows keep the
// tombstones few.
func TestSlowCompactor(t *testing.T) {
	const dim, n = 64, 6000
	c := testCodes(t, dim, 100)
	x, release := stalled(t)
	g := inIndex(t, x, fairA, dim)
	mustApply(t, g, numbered(c, 0, n))
	most := 0
	for i := range n - 300 {
		mustApply(t, g, Change{Removes: []Remove{{Subject: number(i * 7 % n)}}}) // all over the shards
		snap := g.current.Load()
		if bound := snap.live/2 + 2*g.shardRows; snap.dead > bound {
			t.Fatalf("%d dead rows beside %d live ones", snap.dead, snap.live)
		}
		most = max(most, snap.dead)
		if i%500 == 0 {
			if err := g.Check(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if most < n/4 {
		t.Errorf("%d dead rows at most: Apply did not wait for the compactor", most)
	}
	release()
	settle(t, x, g)
	x.Close()
}

// TestCloseWhileCompacting: Close stops it where it is, and changes then reclaim
// rows themselves.
func TestCloseWhileCompacting(t *testing.T) {
	const dim, n = 64, 3000
	c := testCodes(t, dim, 100)
	for round := range 20 {
		x := New(Options{Workers: 2})
		g := inIndex(t, x, fairA, dim)
		mustApply(t, g, numbered(c, 0, n))
		mustApply(t, g, without(n, func(i int) bool { return i%2 == 0 }))
		time.Sleep(time.Duration(round) * 100 * time.Microsecond)
		x.Close()
		if c := &x.crew.compactor; c.running || c.queue != nil {
			t.Fatal("Close returned before the compactor ended")
		}
		if err := g.Check(); err != nil {
			t.Fatal(err)
		}
		mustApply(t, g, Change{Removes: []Remove{{Subject: number(1)}}})
		if s := g.Stats(); len(g.sparse) > 0 || s.Rows > s.Live*compactShare/(compactShare-1)+1 {
			t.Fatalf("nobody compacts any more: %+v, sparse %v", s, g.sparse)
		}
		x.Close() // again
	}
	noGoroutines(t)
}

// TestDropWhileCompacting: a gallery that is dropped halfway is left alone, and
// the others get their turn.
func TestDropWhileCompacting(t *testing.T) {
	const dim, n = 64, 2000
	c := testCodes(t, dim, 100)
	for round := range 20 {
		x := New(Options{Workers: 2})
		var all [3]*Gallery
		for i := range all {
			all[i] = inIndex(t, x, scope.Ref{Tenant: "hall", Scope: scope.ScopeID(fmt.Sprint("fair-", i))}, dim)
			mustApply(t, all[i], numbered(c, 0, n))
		}
		for _, g := range all {
			mustApply(t, g, without(n, func(i int) bool { return i%2 == 0 }))
		}
		time.Sleep(time.Duration(round) * 100 * time.Microsecond)
		g := all[1]
		snap, err := g.acquire()
		if err != nil {
			t.Fatal(err)
		}
		shards := snap.shards
		snap.release()
		if !x.Drop(g.ref) {
			t.Fatal("not there to drop")
		}
		for _, v := range shards {
			if v.shard != nil && !v.wiped(0, v.capacity()) {
				t.Fatal("codes are left after Drop")
			}
		}
		if err := g.Apply(put(9, "late", 1, c[0])); !errors.Is(err, ErrDropped) {
			t.Fatal(err)
		}
		if s := g.Stats(); s != (Stats{}) {
			t.Fatalf("a dropped gallery has %+v", s)
		}
		settle(t, x, all[0])
		settle(t, x, all[2])
		x.Close()
	}
	noGoroutines(t)
}

// TestSmallGalleriesCompactThemselves: ten thousand of them must not queue.
func TestSmallGalleriesCompactThemselves(t *testing.T) {
	const dim, n = 64, 200
	c := testCodes(t, dim, 100)
	x, release := stalled(t)
	g := NewGallery(fairA, dim)
	if err := x.Add(g); err != nil {
		t.Fatal(err)
	}
	mustApply(t, g, numbered(c, 0, n))
	for i := range n {
		mustApply(t, g, Change{Removes: []Remove{{Subject: number(i)}}})
		if s := g.Stats(); s.Rows > s.Live*compactShare/(compactShare-1)+1 || g.queued || g.sparse != nil {
			t.Fatalf("after %d removals: %+v", i+1, s)
		}
	}
	release()
	x.Close()
	noGoroutines(t)
}

// noGoroutines waits until no goroutine of an index is left: workers end by
// themselves after Close, when they have finished what they have begun, and those
// of an index that an earlier test forgot when it is collected.
func noGoroutines(t *testing.T) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	for range 6000 {
		runtime.GC()
		stacks = stacks[:runtime.Stack(stacks[:cap(stacks)], true)]
		if all := string(stacks); !strings.Contains(all, "index.(*scanner).worker") && !strings.Contains(all, "index.(*compactor).run") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("a minute after Close goroutines are left:\n%s", stacks)
}
