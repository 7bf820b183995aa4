package index

import (
	"errors"
	"fmt"

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
	c := checker{g: g, snap: g.current.Load()}
	c.shards()
	c.table()
	return errors.Join(c.faults...)
}

type checker struct {
	g      *Gallery
	snap   *snapshot
	faults []error
}

func (c *checker) fault(format string, args ...any) {
	if len(c.faults) < 20 { // the first ones tell
		c.faults = append(c.faults, fmt.Errorf("%w: %s: %s", ErrInconsistent, c.g.ref, fmt.Sprintf(format, args...)))
	}
}

func (c *checker) shards() {
	live := 0
	for slot := range c.snap.shards {
		v := &c.snap.shards[slot]
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
		live += v.rows - v.deaths
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
	if live != c.snap.live {
		c.fault("%d live rows, %d counted", live, c.snap.live)
	}
	if tail := c.g.tail; tail >= len(c.snap.shards) || tail >= 0 && c.snap.shards[tail].shard == nil {
		c.fault("the tail, slot %d, has no shard", tail)
	}
}

// row checks a live row and that the table knows it.
func (c *checker) row(v *shardView, slot, row int) {
	if err := v.code(row).Validate(c.g.dim); err != nil {
		c.fault("slot %d row %d: %v", slot, row, err)
	}
	s := v.subjects[row]
	if s == nil || c.g.subjects[s.id] != s {
		c.fault("slot %d row %d: its subject is not in the table", slot, row)
		return
	}
	if s.notAfter != v.notAfter[row] {
		c.fault("slot %d row %d: another expiry than its subject %s", slot, row, s.id)
	}
	want := rowRef{template: v.templates[row], slot: uint32(slot), row: uint32(row)}
	for _, ref := range s.rows {
		if ref == want {
			return
		}
	}
	c.fault("slot %d row %d: unknown to its subject %s", slot, row, s.id)
}

// table checks that each subject's rows are there, once.
func (c *checker) table() {
	rows := 0
	for id, s := range c.g.subjects {
		if id != s.id {
			c.fault("subject %s stands under the name %s", s.id, id)
		}
		if len(s.rows) == 0 {
			c.fault("subject %s has no templates", id)
		}
		seen := make(map[scope.TemplateID]bool, len(s.rows))
		for _, ref := range s.rows {
			rows++
			if seen[ref.template] {
				c.fault("subject %s has template %d twice", id, ref.template)
			}
			seen[ref.template] = true
			if int(ref.slot) >= len(c.snap.shards) || !c.snap.shards[ref.slot].alive(int(ref.row)) {
				c.fault("subject %s template %d: slot %d row %d is not alive", id, ref.template, ref.slot, ref.row)
			}
		}
	}
	if rows != c.snap.live {
		c.fault("%d templates in the table, %d live rows", rows, c.snap.live)
	}
}
