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
)

// edit builds the snapshot after some changes. Until publish nothing of it can
// be seen: rows are written beyond those that snapshots show, views are copied
// before they are changed, and the table is changed by publish.
type edit struct {
	g        *Gallery
	epoch    scope.Epoch
	shards   []*shardView
	base     []*shardView // as published; what an abandoned edit returns to
	serial   uint64       // marks the views that are the edit's own
	own      []int        // their slots
	tail     int          // the slot that rows are appended to, -1 for none
	live     int
	dead     int
	killed   int // by the edit
	subjects int
	sparse   []int  // slots to be emptied, see compact
	pending  int    // rows that are still to come, for sizing shards
	fresh    table  // the rows that the edit has added
	todo     []step // what becomes of the table
	steps    int    // inserts and removes in all; one alone looks nothing up behind itself
	rows     []rowRef
	wipes    []rowRange
	retired  []*shard
}

// step is one change of the table.
type step struct {
	hash uint32
	ref  rowRef
	add  bool // or remove
}

// emptySlot is the view of a slot without a shard.
var emptySlot shardView

// newEdit begins an edit in the memory of an old one. The writer's lock is held.
func (g *Gallery) newEdit(changes []Change) *edit {
	current := g.current.Load()
	g.edits++
	e, _ := g.scanner().edits.Get().(*edit)
	if e == nil {
		e = new(edit)
	}
	*e = edit{
		g:        g,
		epoch:    current.epoch,
		shards:   slices.Clone(current.shards),
		base:     current.shards,
		serial:   g.edits,
		own:      e.own[:0],
		tail:     g.tail,
		live:     current.live,
		dead:     current.dead,
		subjects: g.subjects,
		sparse:   slices.Clone(g.sparse),
		fresh:    table{seed: g.table.seed},
		todo:     e.todo[:0],
		rows:     e.rows[:0],
	}
	for _, c := range changes {
		e.pending += len(c.Inserts)
		e.steps += len(c.Inserts) + len(c.Removes)
	}
	return e
}

// end gives the memory of an edit that is over to others, if it is little: a
// thousand scopes that fill up one template at a time would else leave their
// edits between what they keep, and pages that Go cannot give back.
func (e *edit) end() {
	const most = 256
	if cap(e.own) > most || cap(e.todo) > most || cap(e.rows) > most {
		return
	}
	x := e.g.scanner()
	*e = edit{own: e.own[:0], todo: e.todo[:0], rows: e.rows[:0]}
	x.edits.Put(e)
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
	hash, rows := e.rowsOf(r.Subject)
	left := len(rows)
	for _, ref := range rows {
		if r.Template == 0 || r.Template == e.shards[ref.slot()].templates[ref.row()] {
			e.kill(hash, ref)
			left--
		}
	}
	if len(rows) > 0 && left == 0 {
		e.subjects--
	}
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
	hash, rows := e.rowsOf(in.Subject)
	for _, ref := range rows {
		if e.shards[ref.slot()].templates[ref.row()] == in.Template {
			return fmt.Errorf("%w: template %d of subject %s; remove it first", ErrDuplicate, in.Template, in.Subject)
		}
	}
	if len(rows) == 0 {
		e.subjects++
	}
	until := expiry(in.NotAfter)
	for _, ref := range rows {
		// Rows do not change, so the subject's others are written anew.
		if v, row := e.shards[ref.slot()], ref.row(); v.notAfter[row] != until {
			e.pending++
			again := v.entry(row)
			again.notAfter = until
			e.addRow(hash, &again)
			e.kill(hash, ref)
		}
	}
	e.addRow(hash, &entry{code: in.Code, notAfter: until, subject: in.Subject, template: in.Template})
	return nil
}

// rowsOf gives the rows of a subject as they will be, and the hash of its id.
// The slice is good until the next call.
func (e *edit) rowsOf(id scope.SubjectID) (hash uint32, rows []rowRef) {
	hash = e.fresh.hash(id)
	e.rows = e.rows[:0]
	for _, t := range [2]*table{&e.g.table, &e.fresh} { // only the writer changes the first, and this is it
		found := t.find(hash)
		for ref, ok := found.next(); ok; ref, ok = found.next() {
			if v := e.shards[ref.slot()]; v.alive(ref.row()) && v.name(ref.row()) == id {
				e.rows = append(e.rows, ref)
			}
		}
	}
	return hash, e.rows
}

// view gives the view of a slot for changing, with the tombstones if asked.
func (e *edit) view(slot int, dead bool) *shardView {
	v := e.shards[slot]
	if v.edit != e.serial {
		own := *v
		own.edit, own.ownDead = e.serial, false
		v = &own
		e.shards[slot] = v
		e.own = append(e.own, slot)
	}
	if dead && (!v.ownDead || len(v.dead)*64 < v.rows) {
		v.dead, v.ownDead = v.dead.copied(v.rows), true
	}
	return v
}

// kill marks a row dead and has it wiped when nobody can see it any more.
func (e *edit) kill(hash uint32, ref rowRef) {
	v, row := e.view(ref.slot(), true), ref.row()
	v.dead[row/64] |= 1 << (row % 64)
	v.deaths++
	e.live--
	e.dead++
	e.killed++
	e.wipes = append(e.wipes, rowRange{v.shard, row, row + 1})
	e.todo = append(e.todo, step{hash, ref, false})
}

// addRow writes a row behind the last one.
func (e *edit) addRow(hash uint32, row *entry) {
	if e.tail < 0 || e.shards[e.tail].rows == e.shards[e.tail].capacity() {
		e.extend()
	}
	e.pending--
	v := e.view(e.tail, false)
	ref := refTo(e.tail, v.rows)
	v.put(row, e.g.filter)
	e.live++
	if e.steps > 1 {
		e.fresh.add(hash, ref)
	}
	e.todo = append(e.todo, step{hash, ref, true})
}

// newShard makes a shard of that capacity, with a prefilter if it is large and
// the filter is sound.
func (e *edit) newShard(rows int) *shard {
	if rows >= e.g.filterRows && e.g.filter.sound {
		return newShard(e.g.dim, rows, e.g.filter)
	}
	return newShard(e.g.dim, rows, nil)
}

// extend makes room for at least one row: it replaces a tail that is not of
// full size by a larger copy, or opens a shard in an empty slot.
func (e *edit) extend() {
	room := max(e.pending, e.live/slackShare, minSlack)
	if e.tail >= 0 && e.shards[e.tail].capacity() < e.g.shardRows {
		old := e.view(e.tail, false)
		e.retired = append(e.retired, old.shard)
		from := *old
		old.shard = e.newShard(min(old.rows+room, e.g.shardRows))
		old.copyRows(&from, e.g.filter)
		return
	}
	fresh := &shardView{shard: e.newShard(min(room, e.g.shardRows)), edit: e.serial}
	e.tail = slices.IndexFunc(e.shards, func(v *shardView) bool { return v.shard == nil })
	if e.tail < 0 {
		e.tail = len(e.shards)
		e.shards = append(e.shards, nil)
	}
	e.shards[e.tail] = fresh
	e.own = append(e.own, e.tail)
}

// publish makes the edit the current snapshot. The writer's lock is held.
func (e *edit) publish() {
	g := e.g
	old := g.current.Load()
	for n := len(e.shards); n > 0 && e.shards[n-1].shard == nil; n-- {
		e.shards = e.shards[:n-1]
	}
	next := newSnapshot(e.epoch, e.shards, e.live, e.dead)
	old.next, old.wipes, old.retired = next, e.wipes, e.retired

	g.lock.Lock()
	for _, s := range e.todo {
		if s.add {
			g.table.add(s.hash, s.ref)
		} else {
			g.table.remove(s.hash, s.ref)
		}
	}
	if g.subjects = e.subjects; g.subjects == 0 {
		g.table.empty()
	}
	g.current.Store(next)
	g.lock.Unlock()

	if g.tail, g.sparse = e.tail, e.sparse; len(g.sparse) == 0 {
		g.sparse = nil
	}
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
