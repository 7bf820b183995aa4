package index

import (
	"fmt"
	"slices"
	"time"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/scope"
)

// Insert adds one template of a subject.
type Insert struct {
	Subject  scope.SubjectID
	Template scope.TemplateID // from 1
	Code     code.Code        // copied; the caller's slice is not kept
	// NotAfter is when the subject stops matching, that instant included; zero
	// is never. It belongs to the subject: the latest Insert sets it for all of
	// the subject's templates.
	NotAfter time.Time
}

// Remove takes one template away, or the whole subject.
type Remove struct {
	Subject  scope.SubjectID
	Template scope.TemplateID // 0 is the whole subject
}

// Change is one mutation of a gallery. Its removes are done before its
// inserts, so that one Change can replace a template or a subject. A Remove of
// what is not there does nothing.
type Change struct {
	Epoch   scope.Epoch // of the scope after the mutation
	Inserts []Insert
	Removes []Remove
}

const (
	// slackShare bounds the spare rows of a shard that still grows to
	// 1/slackShare of the gallery: a scope of 100 templates has 6 spare ones, at
	// most. A row is copied about slackShare times until its shard is full.
	slackShare = 16
	// minSlack is the least number of rows to grow by.
	minSlack = 4
	// compactShare: a shard with more than 1/compactShare of its rows dead is
	// rewritten. At 4, three rows are copied for one removed, and scans skip
	// one row in four at worst.
	compactShare = 4
)

// edit builds the snapshot after some changes. Until publish nothing of it can
// be seen: rows are written beyond those that snapshots show, tombstones and
// subjects are copied before they are changed.
type edit struct {
	g       *Gallery
	epoch   scope.Epoch
	shards  []shardView
	base    []shardView // as published; what an abandoned edit returns to
	copied  map[int]bool
	tail    int // the slot that rows are appended to, -1 for none
	live    int
	pending int // rows that are still to come, for sizing shards
	drafts  map[scope.SubjectID]*draft
	wipes   []rowRange
	retired []*shard
}

// draft is a subject as it will be.
type draft struct {
	subject  *subject
	notAfter int64
	rows     []rowRef
}

func (g *Gallery) newEdit(changes []Change) *edit {
	current := g.current.Load()
	e := &edit{
		g:      g,
		epoch:  current.epoch,
		shards: slices.Clone(current.shards),
		base:   current.shards,
		copied: make(map[int]bool),
		tail:   g.tail,
		live:   current.live,
		drafts: make(map[scope.SubjectID]*draft),
	}
	for _, c := range changes {
		e.pending += len(c.Inserts)
	}
	return e
}

// apply does one change. After an error the edit must be abandoned.
func (e *edit) apply(c Change) error {
	if c.Epoch < e.epoch {
		return fmt.Errorf("%w: a change of epoch %d after epoch %d", ErrEpoch, c.Epoch, e.epoch)
	}
	e.epoch = c.Epoch
	for _, r := range c.Removes {
		e.remove(r)
	}
	for i := range c.Inserts {
		if err := e.insert(&c.Inserts[i]); err != nil {
			return fmt.Errorf("insert %d of %d: %w", i+1, len(c.Inserts), err)
		}
	}
	return nil
}

func (e *edit) remove(r Remove) {
	d := e.draft(r.Subject)
	if d == nil {
		return
	}
	kept := d.rows[:0]
	for _, ref := range d.rows {
		if r.Template != 0 && r.Template != ref.template {
			kept = append(kept, ref)
			continue
		}
		e.kill(ref)
	}
	d.rows = kept
}

func (e *edit) insert(in *Insert) error {
	if err := in.Subject.Validate(); err != nil {
		return err
	}
	if in.Template == 0 {
		return fmt.Errorf("%w: template 0; templates are numbered from 1", scope.ErrBadID)
	}
	if err := in.Code.Validate(e.g.dim); err != nil {
		return err
	}
	d := e.draft(in.Subject)
	if d == nil {
		d = &draft{subject: &subject{id: in.Subject}}
		e.drafts[in.Subject] = d
	}
	for _, ref := range d.rows {
		if ref.template == in.Template {
			return fmt.Errorf("%w: template %d of subject %s; remove it first", ErrDuplicate, in.Template, in.Subject)
		}
	}
	until := expiry(in.NotAfter)
	if len(d.rows) > 0 && until != d.notAfter {
		// Rows do not change, so the subject's others are written anew.
		for i, ref := range d.rows {
			e.pending++
			from := e.shards[ref.slot].shard
			d.rows[i] = e.addRow(from.code(int(ref.row)), until, d.subject, ref.template)
			e.kill(ref)
		}
	}
	d.notAfter = until
	d.rows = append(d.rows, e.addRow(in.Code, until, d.subject, in.Template))
	return nil
}

// draft returns the subject as it will be, for changing; nil when it is not in
// the gallery and not in the edit.
func (e *edit) draft(id scope.SubjectID) *draft {
	if d := e.drafts[id]; d != nil {
		return d
	}
	s := e.g.subjects[id] // only the writer changes the table, and this is it
	if s == nil {
		return nil
	}
	d := &draft{subject: s, notAfter: s.notAfter, rows: slices.Clone(s.rows)}
	e.drafts[id] = d
	return d
}

// kill marks a row dead and has it wiped when nobody can see it any more.
func (e *edit) kill(ref rowRef) {
	slot, row := int(ref.slot), int(ref.row)
	v := &e.shards[slot]
	if !e.copied[slot] || row/64 >= len(v.dead) {
		v.dead = v.dead.copied(v.rows)
		e.copied[slot] = true
	}
	v.dead[row/64] |= 1 << (row % 64)
	v.deaths++
	e.live--
	e.wipes = append(e.wipes, rowRange{v.shard, row, row + 1})
}

// addRow writes a row behind the last one and says where.
func (e *edit) addRow(c code.Code, notAfter int64, sub *subject, template scope.TemplateID) rowRef {
	if e.tail < 0 || e.shards[e.tail].rows == e.shards[e.tail].capacity() {
		e.extend()
	}
	e.pending--
	v := &e.shards[e.tail]
	v.put(v.rows, c, notAfter, sub, template)
	ref := rowRef{template, uint32(e.tail), uint32(v.rows)}
	v.rows++
	e.live++
	return ref
}

// extend makes room for at least one row: it replaces a tail that is not of
// full size by a larger copy, or opens a shard in an empty slot.
func (e *edit) extend() {
	room := max(e.pending, e.live/slackShare, minSlack)
	if e.tail >= 0 && e.shards[e.tail].capacity() < e.g.shardRows {
		old := &e.shards[e.tail]
		grown := newShard(e.g.dim, min(old.rows+room, e.g.shardRows))
		// Dead rows stay behind: they are to be wiped, or being wiped now.
		for start, end := old.nextRun(0, old.rows); start < end; start, end = old.nextRun(end, old.rows) {
			copy(grown.codes[start*e.g.dim:end*e.g.dim], old.codes[start*e.g.dim:])
			copy(grown.norms[start:end], old.norms[start:])
			copy(grown.notAfter[start:end], old.notAfter[start:])
			copy(grown.templates[start:end], old.templates[start:])
			copy(grown.subjects[start:end], old.subjects[start:])
		}
		e.retired = append(e.retired, old.shard)
		old.shard = grown
		return
	}
	fresh := shardView{shard: newShard(e.g.dim, min(room, e.g.shardRows))}
	e.tail = slices.IndexFunc(e.shards, func(v shardView) bool { return v.shard == nil })
	if e.tail < 0 {
		e.tail = len(e.shards)
		e.shards = append(e.shards, shardView{})
	}
	e.shards[e.tail] = fresh
}

// compact rewrites the shards that have too many dead rows: their live rows go
// to the tail, their slots become empty.
func (e *edit) compact() {
	var sparse []int
	for slot := range e.copied {
		if v := &e.shards[slot]; v.shard != nil && v.deaths*compactShare > v.rows {
			sparse = append(sparse, slot)
		}
	}
	slices.Sort(sparse) // for the same layout from the same changes
	// The tail first, so that nothing is moved into it and then again.
	if i := slices.Index(sparse, e.tail); i > 0 {
		sparse[0], sparse[i] = sparse[i], sparse[0]
	}
	e.pending = 0
	for _, slot := range sparse {
		e.pending += e.shards[slot].rows - e.shards[slot].deaths
	}
	for _, slot := range sparse {
		e.empty(slot)
	}
}

// empty moves the live rows of a slot to the tail.
func (e *edit) empty(slot int) {
	v := e.shards[slot]
	e.shards[slot] = shardView{}
	if e.tail == slot {
		e.tail = -1
	}
	e.live -= v.rows - v.deaths // addRow counts them again
	for start, end := v.nextRun(0, v.rows); start < end; start, end = v.nextRun(end, v.rows) {
		for row := start; row < end; row++ {
			d := e.draft(v.subjects[row].id)
			for i, ref := range d.rows {
				if ref.template == v.templates[row] { // one live row has it
					d.rows[i] = e.addRow(v.code(row), v.notAfter[row], v.subjects[row], ref.template)
				}
			}
		}
	}
	e.retired = append(e.retired, v.shard)
}

// publish makes the edit the current snapshot. The writer's lock is held.
func (e *edit) publish() {
	g := e.g
	next := newSnapshot(e.epoch, e.shards, e.live)
	old := g.current.Load()
	old.next, old.wipes, old.retired = next, e.wipes, e.retired

	g.table.Lock()
	for id, d := range e.drafts {
		d.subject.notAfter, d.subject.rows = d.notAfter, d.rows
		if len(d.rows) == 0 {
			delete(g.subjects, id)
			continue
		}
		g.subjects[id] = d.subject
	}
	g.current.Store(next)
	g.table.Unlock()

	g.tail = e.tail
	old.release()
}

// abandon wipes what the edit has written. The writer's lock is held.
func (e *edit) abandon() {
	published := make(map[*shard]int, len(e.base))
	for _, v := range e.base {
		if v.shard != nil {
			published[v.shard] = v.rows
		}
	}
	for _, v := range e.shards {
		if v.shard != nil {
			v.wipe(published[v.shard], v.rows)
		}
	}
	for _, sh := range e.retired {
		sh.wipe(published[sh], sh.capacity())
	}
}
