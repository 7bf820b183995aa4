package index

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// SmallGallery is the largest gallery, in templates, that the calling goroutine
// scans by itself. Medians of one run on a machine that others used: 4,000
// templates of 512 values took their caller 31 us; 8,000 took four workers 45 us,
// where the caller alone would have taken about 60, and one task of a shard is
// the least that they are handed.
const SmallGallery = 4096

// scanner searches galleries with a fixed number of workers.
//
// Searches of one gallery that meet share a pass over it: a task takes some
// shards and compares them with all probes of the pass, and what was loaded once
// serves all. A search that comes while a pass is at work joins it where it
// stands, if it still shows the newest snapshot; the pass goes round until each
// of its searches has had every shard. Otherwise it waits, until the last shard
// of the pass is handed out: then all that wait begin the next one. So a scanner
// without work begins at once with what there is, and the more searches there
// are the less each of them costs.
//
// Galleries take turns, a task each, and a task is bounded (maxBatch): a gallery
// with a million templates and a thousand callers makes one with ten thousand
// wait for a task, not for a pass.
//
// Not chosen, by reasoning and without a measurement: passes that nobody may
// join, where the first of 64 callers goes alone and the 63 others after it,
// again and again; and a list of candidates for each worker, merged at the end,
// which prunes less than one list with a lock, whose bar rules out rows for all
// workers and which changes about k*ln(n/k) times in n rows, 60 times for the
// best 5 of a million, so that the lock is not felt.
type scanner struct {
	workers   int // 0: callers scan by themselves
	searches  sync.Pool
	scratches sync.Pool
	edits     sync.Pool // of Apply
	serial    atomic.Uint64

	// mu guards everything below and the lanes of the galleries. It is taken
	// last; nothing is wiped and nobody is waited for under it.
	mu      sync.Mutex
	work    sync.Cond // lanes has become longer, or closed was set
	lanes   []*lane   // those with a pass
	turn    int       // the next lane
	started bool
	closed  bool
}

// crew is what an index and its galleries share. The workers hold the scanner
// alone, so that they end when nobody is left to ask for a search.
type crew struct {
	*scanner
	compactor compactor
}

func newCrew(workers int) *crew {
	c := &crew{scanner: newScanner(workers)}
	c.compactor.idle.L = &c.compactor.mu
	c.compactor.closed = workers == 0 // a gallery that stands alone has nobody
	if workers > 0 {
		runtime.AddCleanup(c, (*scanner).close, c.scanner)
	}
	return c
}

// lane is the searches of one gallery.
type lane struct {
	gallery *Gallery
	waiting []*search

	// The pass at work; active is empty when there is none. Its searches hold
	// leases of the snapshot.
	snap   *snapshot
	cursor int // the next shard to hand out
	active []*search
}

// group is the searches that one caller waits for.
type group struct {
	left int
	done chan struct{} // has one place, so that it is never waited for
}

func newScanner(workers int) *scanner {
	x := &scanner{workers: workers}
	x.work.L = &x.mu
	x.searches.New = func() any { return &search{own: group{done: make(chan struct{}, 1)}} }
	x.scratches.New = func() any { return newScratch() }
	return x
}

// newSearch gives a search for a query; done takes it back.
func (x *scanner) newSearch(q *Query) *search {
	s := x.searches.Get().(*search)
	s.start(q, x.serial.Add(1))
	return s
}

func (x *scanner) done(s *search) {
	s.leave()
	s.prepared.Wipe()
	s.probe, s.group, s.err = nil, nil, nil
	s.top.clear()
	x.searches.Put(s)
}

// run scans for the searches, which see a snapshot that was current at some time
// after its beginning. They hold their leases until done.
func (x *scanner) run(ctx context.Context, g *Gallery, all ...*search) error {
	if len(all) == 0 {
		return g.interrupted(ctx)
	}
	alone := x.workers == 0 || g.current.Load().live <= g.small
	if !alone {
		if err := g.interrupted(ctx); err != nil {
			return err // the workers have others to search for
		}
	}
	var err error
	if alone || !x.submit(g, all) {
		err = x.walk(ctx, g, all)
	} else {
		err = x.wait(ctx, g, all)
	}
	for _, s := range all {
		if err == nil {
			err = s.err
		}
	}
	if err != nil {
		return err
	}
	// Asked last, so that what was dropped meanwhile gives no result.
	return g.interrupted(ctx)
}

// walk scans in the goroutine of the caller.
func (x *scanner) walk(ctx context.Context, g *Gallery, all []*search) error {
	snap, err := g.acquire()
	if err != nil {
		return err
	}
	for i, s := range all {
		if i > 0 {
			snap.hold()
		}
		s.prepare(g.filter)
		s.enter(snap, g.small)
	}
	w := x.scratches.Get().(*scratch)
	defer func() {
		w.clear()
		w.forget()
		x.scratches.Put(w)
	}()
	for from := 0; from < len(all); from += maxBatch {
		for i, v := range snap.shards {
			if err := g.interrupted(ctx); err != nil {
				return fmt.Errorf("before shard %d of %d: %w", i+1, len(snap.shards), err)
			}
			w.shard(v, g.filter, all[from:min(from+maxBatch, len(all))])
		}
	}
	return nil
}

// submit hands the searches to the workers; false says that they have ended.
func (x *scanner) submit(g *Gallery, all []*search) bool {
	first := all[0]
	first.own.left = len(all)
	for _, s := range all {
		s.group = &first.own
		s.prepare(g.filter)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return false
	}
	if !x.started {
		x.started = true
		for range x.workers {
			go x.worker()
		}
	}
	l := &g.lane
	for i, s := range all {
		if !x.join(l, s) {
			l.waiting = append(l.waiting, all[i:]...)
			break
		}
	}
	if len(l.active) == 0 {
		x.begin(l)
	}
	return true
}

// join takes a search into the pass at work, if that shows what it must see.
func (x *scanner) join(l *lane, s *search) bool {
	if len(l.active) == 0 || len(l.waiting) > 0 || len(l.active) >= maxBatch || l.gallery.current.Load() != l.snap {
		return false
	}
	l.snap.hold()
	l.take(s)
	return true
}

func (l *lane) take(s *search) {
	s.enter(l.snap, l.gallery.small)
	s.left = len(l.snap.shards)
	l.active = append(l.active, s)
}

// begin begins a pass with the searches that wait, if there are any.
func (x *scanner) begin(l *lane) {
	for len(l.waiting) > 0 && len(l.active) == 0 {
		n := min(len(l.waiting), maxBatch)
		snap, err := l.gallery.acquire()
		l.snap, l.cursor = snap, 0
		for i, s := range l.waiting[:n] {
			if err != nil {
				s.err = err
				s.finish()
				continue
			}
			if i > 0 {
				snap.hold()
			}
			if l.take(s); s.left == 0 { // of an empty gallery
				s.finish()
			}
		}
		if err != nil || len(snap.shards) == 0 {
			l.end()
		}
		rest := copy(l.waiting, l.waiting[n:])
		clear(l.waiting[rest:])
		l.waiting = l.waiting[:rest]
	}
	if len(l.active) > 0 {
		x.lanes = append(x.lanes, l)
		x.work.Broadcast()
	}
}

// end lets go of a pass that is over.
func (l *lane) end() {
	clear(l.active)
	l.active, l.snap = l.active[:0], nil
}

// finish says that nothing is left to do for a search.
func (s *search) finish() {
	if s.group.left--; s.group.left == 0 {
		s.group.done <- struct{}{}
	}
}

// wait waits until the searches are over, or ctx is: then it takes them out, and
// waits for the tasks that are at work for them.
func (x *scanner) wait(ctx context.Context, g *Gallery, all []*search) error {
	done := all[0].own.done
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	x.mu.Lock()
	for _, s := range slices.Backward(all) { // as remove looks: 65,536 take 1.2 s otherwise
		x.abandon(&g.lane, s)
	}
	x.mu.Unlock()
	<-done
	return ctx.Err()
}

// abandon takes a search out of its lane.
func (x *scanner) abandon(l *lane, s *search) {
	s.abandoned.Store(true)
	switch {
	case remove(&l.waiting, s):
	case remove(&l.active, s):
		s.left = 0
		if len(l.active) == 0 {
			x.over(l)
		}
		if s.busy > 0 {
			return // who is at work will finish it
		}
	default:
		return // finished, or about to be
	}
	s.finish()
}

// remove takes s out of a list, whose order it keeps. It looks from the end.
func remove(list *[]*search, s *search) bool {
	for i, t := range slices.Backward(*list) {
		if t == s {
			n := copy((*list)[i:], (*list)[i+1:])
			(*list)[i+n] = nil
			*list = (*list)[:i+n]
			return true
		}
	}
	return false
}

// over takes a lane whose pass is handed out off the list, and puts it there
// again for those that wait.
func (x *scanner) over(l *lane) {
	for i, m := range x.lanes {
		if m == l {
			n := copy(x.lanes[i:], x.lanes[i+1:])
			x.lanes[i+n] = nil
			x.lanes = x.lanes[:i+n]
			if x.turn > i {
				x.turn--
			}
			break
		}
	}
	l.end()
	x.begin(l)
}

// next hands a task to a worker; false says that there is none.
func (x *scanner) next(w *scratch) bool {
	if len(x.lanes) == 0 {
		return false
	}
	if x.turn >= len(x.lanes) {
		x.turn = 0
	}
	l := x.lanes[x.turn]
	x.turn++
	shards := l.snap.shards
	// The fewer probes the more shards, so that a task is worth its hand-over;
	// but four tasks for each worker, so that none is late.
	n := min(taskShards, maxBatch/len(l.active), len(shards)/(4*x.workers))
	n = min(max(n, 1), len(shards)-l.cursor)
	for _, s := range l.active {
		n = min(n, s.left)
	}
	w.gallery = l.gallery
	w.views = append(w.views[:0], shards[l.cursor:l.cursor+n]...)
	w.batch = append(w.batch[:0], l.active...)
	if l.cursor += n; l.cursor == len(shards) {
		l.cursor = 0
	}
	staying := l.active[:0]
	for _, s := range l.active {
		s.busy++
		s.tasks++
		if s.left -= n; s.left > 0 {
			staying = append(staying, s)
		}
	}
	clear(l.active[len(staying):])
	if l.active = staying; len(staying) == 0 {
		x.over(l)
	}
	return true
}

// taskShards is how many shards a task of a few probes takes: 8 of 4096 rows of
// 512 values are 2 MB to glance at and 17 MB to compare, 0.1 to 1 ms by what one
// core of four reads from memory.
const taskShards = 8

// worker does tasks until the scanner is closed.
func (x *scanner) worker() {
	w := newScratch()
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		for !x.next(w) {
			if w.of != nil { // it would keep the gallery, too
				x.mu.Unlock()
				w.forget()
				x.mu.Lock()
				continue // there may be work by now
			}
			if x.closed {
				return
			}
			x.work.Wait()
		}
		x.mu.Unlock()
		w.task()
		x.mu.Lock()
		finished := false
		for _, s := range w.batch {
			if s.busy--; s.busy == 0 && s.left == 0 {
				s.finish()
				finished = true
			}
		}
		w.clear()
		if finished {
			// Whoever waited for it gets this processor now, and not only when Go
			// takes it from the worker, after 10 ms: the next search may join. 64
			// callers of 1 M x 512 had 60 and 65% of the rate of a batch of 256
			// without, 80 and 113% with it, in turns on a machine that others used.
			x.mu.Unlock()
			runtime.Gosched()
			x.mu.Lock()
		}
	}
}

// close lets the workers end when they have nothing left to do; later searches
// are made by their callers.
func (x *scanner) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	x.work.Broadcast()
}
