package index

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/menshen-io/menshen/index/scope"
)

// ErrInconsistent: the gallery's parts contradict one another. That is a defect
// of the program; the process should not answer from this gallery.
var ErrInconsistent = errors.New("gallery is inconsistent")

// Check compares everything in the gallery with everything else: counts,
// tombstones, norms, the subject table, and that wiped rows are zero. It reads
// the whole gallery and keeps changes out meanwhile; searches go on. It returns
// all faults found, each wrapping ErrInconsistent.
func (g *Gallery) Check() error {
	g.writer.Lock()
	defer g.writer.Unlock()
	c := checker{g: g, snap: g.current.Load(), subjects: make(map[scope.SubjectID][]rowRef)}
	c.shards()
	c.table()
	return errors.Join(c.faults...)
}

type checker struct {
	g        *Gallery
	snap     *snapshot
	subjects map[scope.SubjectID][]rowRef
	faults   []error
}

func (c *checker) fault(format string, args ...any) {
	if len(c.faults) < 20 { // the first ones tell
		c.faults = append(c.faults, fmt.Errorf("%w: %s: %s", ErrInconsistent, c.g.ref, fmt.Sprintf(format, args...)))
	}
}

func (c *checker) shards() {
	live, dead := 0, 0
	for slot := range c.snap.shards {
		v := c.snap.shards[slot]
		if v.shard == nil {
			if v.rows != 0 || v.deaths != 0 || v.dead != nil {
				c.fault("empty slot %d has rows", slot)
			}
			continue
		}
		if v.rows > v.capacity() || v.deaths > v.rows {
			c.fault("slot %d: %d rows, %d dead, capacity %d", slot, v.rows, v.deaths, v.capacity())
			continue
		}
		if n := v.dead.count(); n != v.deaths || v.dead.next(v.rows, 64*len(v.dead), true) < 64*len(v.dead) {
			c.fault("slot %d: %d tombstones, %d counted", slot, n, v.deaths)
		}
		live, dead = live+v.rows-v.deaths, dead+v.deaths
		if v.deaths*compactShare > v.rows && !slices.Contains(c.g.sparse, slot) {
			c.fault("slot %d: %d of %d rows dead, and nobody is to empty it", slot, v.deaths, v.rows)
		}
		for row := range v.rows {
			if v.alive(row) {
				c.row(v, slot, row)
			} else if c.snap.settled.Load() && !v.wiped(row, row+1) {
				c.fault("slot %d row %d: removed but not wiped", slot, row)
			}
		}
		if !v.wiped(v.rows, v.capacity()) {
			c.fault("slot %d: data behind the last row", slot)
		}
	}
	if live != c.snap.live || dead != c.snap.dead {
		c.fault("%d live and %d dead rows, %d and %d counted", live, dead, c.snap.live, c.snap.dead)
	}
	if tail := c.g.tail; tail >= len(c.snap.shards) || tail >= 0 && c.snap.shards[tail].shard == nil {
		c.fault("the tail, slot %d, has no shard", tail)
	}
}

// row checks a live row and that the table knows it.
func (c *checker) row(v *shardView, slot, row int) {
	x := v.code(row)
	if err := x.Validate(c.g.dim); err != nil {
		c.fault("slot %d row %d: %v", slot, row, err)
	}
	block := row / blockRows
	if v.leastNorm[block].Load() > x.Norm2 {
		c.fault("slot %d row %d: its norm is less than the least", slot, row)
	}
	if f := c.g.filter; v.packed != nil {
		want := make([]byte, f.stride)
		if level := f.pack(want, x); level != v.levels[row] || int32(level) < v.leastLevel[block].Load() || !bytes.Equal(want, v.packed[row*f.stride:(row+1)*f.stride]) {
			c.fault("slot %d row %d: the prefilter's copy is not of this row", slot, row)
		}
	}
	id := v.name(row)
	if err := id.Validate(); err != nil {
		c.fault("slot %d row %d: %v", slot, row, err)
	}
	c.subjects[id] = append(c.subjects[id], refTo(slot, row))
}

// table checks that each live row is found under its subject, and nothing else.
func (c *checker) table() {
	for id, rows := range c.subjects {
		found := c.g.rowsOf(nil, c.snap, id)
		slices.Sort(found)
		slices.Sort(rows)
		if !slices.Equal(found, rows) {
			c.fault("subject %s: the table names the rows %v, the shards have %v", id, found, rows)
		}
		seen := make(map[scope.TemplateID]bool, len(rows))
		for _, ref := range rows {
			v, row := c.snap.shards[ref.slot()], ref.row()
			if n := v.templates[row]; seen[n] {
				c.fault("subject %s has template %d twice", id, n)
			}
			seen[v.templates[row]] = true
			if first := rows[0]; v.notAfter[row] != c.snap.shards[first.slot()].notAfter[first.row()] {
				c.fault("subject %s has two expiries", id)
			}
		}
	}
	if n := c.g.table.entries(); n != c.snap.live {
		c.fault("%d templates in the table, %d live rows", n, c.snap.live)
	}
	if n := len(c.subjects); n != c.g.subjects {
		c.fault("%d subjects, %d counted", n, c.g.subjects)
	}
}
