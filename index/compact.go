package index

import (
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// compactShare: a shard with more than 1/compactShare of its rows dead is
	// emptied. At 4, three rows are copied for one removed, and scans skip one
	// row in four at worst.
	compactShare = 4
	// stepRows is how many rows are moved at a time; changes wait for one such
	// step at most.
	stepRows = 256
	// restShare: after a step the compactor rests this many times as long as the
	// step took.
	restShare = 3
)

// compactor empties shards with many dead rows, for the galleries of one index,
// beside their changes and searches. Galleries take turns, a step each. It has
// one goroutine while there is something to do and none otherwise, however many
// galleries there are.
type compactor struct {
	mu      sync.Mutex // taken last
	idle    sync.Cond  // running has become false
	queue   []*Gallery
	running bool
	closed  bool
}

// ask puts a gallery into the queue; false says that nobody works there.
func (c *compactor) ask(g *Gallery) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.queue = append(c.queue, g)
	if !c.running {
		c.running = true
		go c.run()
	}
	return true
}

func (c *compactor) works() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed
}

func (c *compactor) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 && !c.closed {
		g := c.queue[0]
		c.queue = slices.Delete(c.queue, 0, 1)
		c.mu.Unlock()
		took, more := g.compactStep()
		time.Sleep(restShare * took)
		c.mu.Lock()
		if more {
			c.queue = append(c.queue, g)
		}
	}
	c.queue, c.running = nil, false
	c.idle.Broadcast()
}

// close ends the goroutine and waits until it has. Galleries then compact their
// shards themselves.
func (c *compactor) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wait()
}

// wait waits until there is nothing to do.
func (c *compactor) wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.running {
		c.idle.Wait()
	}
}

// askCompactor leaves the sparse shards to the compactor. The writer's lock is
// held.
func (g *Gallery) askCompactor() {
	if len(g.sparse) > 0 && !g.queued {
		g.queued = g.crew.Load().compactor.ask(g)
	}
}

// compactStep moves stepRows rows at most. It reports how long the gallery was
// locked, and whether there is more to move.
func (g *Gallery) compactStep() (took time.Duration, more bool) {
	g.writer.Lock()
	defer g.writer.Unlock()
	began := time.Now()
	if g.queued = len(g.sparse) > 0; g.queued {
		e := g.newEdit(nil)
		e.reclaim(g.stepRows)
		e.publish()
		e.end()
		g.queued = len(g.sparse) > 0
	}
	return time.Since(began), g.queued
}

// isSparse reports whether a slot holds a shard that is to be emptied.
func (e *edit) isSparse(slot int) bool {
	if slot >= len(e.shards) || e.shards[slot].shard == nil {
		return false
	}
	v := e.shards[slot]
	return v.deaths*compactShare > v.rows
}

// compact looks for shards that the edit has left sparse. What is one step's
// work it does at once, so that small galleries need nobody else; the rest waits
// for the compactor. If that does not keep up, and a third of all rows are dead,
// who kills rows moves as many as make up for them: so tombstones stay few,
// whatever comes, and no change pays for more than its own.
func (e *edit) compact() {
	var found []int
	for _, slot := range e.own {
		if e.isSparse(slot) && !slices.Contains(e.sparse, slot) && !slices.Contains(found, slot) {
			found = append(found, slot)
		}
	}
	slices.Sort(found) // for the same layout from the same changes
	e.sparse = append(e.sparse, found...)
	if len(e.sparse) == 0 {
		return
	}
	switch {
	case !e.g.crew.Load().compactor.works():
		e.reclaim(math.MaxInt)
	case e.dead > e.live/2:
		e.reclaim(e.killed * (compactShare - 1))
	}
	for _, slot := range found {
		if v := e.shards[slot]; e.isSparse(slot) && v.rows-v.deaths <= e.g.stepRows {
			e.move(slot, e.g.stepRows)
		}
	}
	e.sparse = slices.DeleteFunc(e.sparse, func(slot int) bool { return !e.isSparse(slot) })
}

// reclaim empties sparse shards until it has moved so many rows.
func (e *edit) reclaim(limit int) {
	// The tail first, so that nothing is moved into it and then again.
	if i := slices.Index(e.sparse, e.tail); i > 0 {
		e.sparse[0], e.sparse[i] = e.sparse[i], e.sparse[0]
	}
	for _, slot := range e.sparse { // so that the tail is made for all that is to come
		if e.isSparse(slot) {
			e.pending += e.shards[slot].rows - e.shards[slot].deaths
		}
	}
	for len(e.sparse) > 0 {
		slot := e.sparse[0]
		if e.isSparse(slot) {
			if limit <= 0 {
				return
			}
			if limit -= e.move(slot, limit); e.isSparse(slot) {
				return
			}
		}
		e.sparse = e.sparse[1:]
	}
}

// move takes up to limit live rows of a slot to the tail, and the shard away if
// none is left; it returns how many. No row is looked up by its subject after
// that: fresh does not know that these have moved.
func (e *edit) move(slot, limit int) (moved int) {
	if e.tail == slot {
		e.tail = -1
	}
	v := e.view(slot, true)
	e.pending = max(e.pending, v.rows-v.deaths)
	first := v.dead.next(0, v.rows, false)
	row := first
	for ; row < v.rows && moved < limit; row = v.dead.next(row+1, v.rows, false) {
		x := v.entry(row)
		hash := e.fresh.hash(x.subject)
		e.todo = append(e.todo, step{hash, refTo(slot, row), false})
		e.addRow(hash, &x)
		v.dead[row/64] |= 1 << (row % 64)
		moved++
	}
	v.deaths += moved
	e.dead += moved
	e.live -= moved // addRow has counted them again
	if v.deaths < v.rows {
		e.wipes = append(e.wipes, rowRange{v.shard, first, row})
		return moved
	}
	e.shards[slot] = &emptySlot
	e.dead -= v.rows
	e.retired = append(e.retired, v.shard)
	return moved
}
