package index

import "github.com/menshen-io/menshen/index/kernel"

const (
	// maxBatch is how many probes a task serves at most. 256 probes against 4096
	// rows of 512 values take 1.5 ms: the longest task.
	maxBatch = 256
	// tileProbes go to the kernel at once: with tileBytes of rows their sums, 32
	// KB at 512 values, stay in the first-level cache until they are looked at.
	tileProbes = 64
	tileBytes  = 64 << 10
	// glanceBatch is the largest batch that glances: with more probes, comparing
	// them in tiles costs each of them less than a glance.
	glanceBatch = 8
)

// scratch is what a scan writes to; for one goroutine.
type scratch struct {
	dots   []int32 // as many as a tile may have
	probes []int8  // of a batch, one after the other
	plain  []*search

	// The task of a worker.
	gallery *Gallery
	batch   []*search
	views   []*shardView
}

func newScratch() *scratch { return &scratch{dots: make([]int32, tileProbes*blockRows)} }

// task scans the views for the batch.
func (w *scratch) task() {
	for _, v := range w.views {
		if w.gallery.dropped.Load() || len(w.batch) == 1 && w.batch[0].abandoned.Load() {
			return // nobody wants the rest
		}
		w.shard(v, w.gallery.filter, w.batch)
	}
}

// clear lets go of what the scan was about.
func (w *scratch) clear() {
	clear(w.batch)
	clear(w.views)
	clear(w.plain)
	w.gallery, w.batch, w.views, w.plain = nil, w.batch[:0], w.views[:0], w.plain[:0]
}

// shard scans a shard for all searches of a batch. All of them see the same
// view.
func (w *scratch) shard(v *shardView, f *filter, batch []*search) {
	if v.shard == nil {
		return
	}
	plain := batch
	if v.packed != nil && len(batch) <= glanceBatch {
		plain = w.plain[:0]
		for _, s := range batch {
			if s.filters() {
				w.glances(s, f, v)
			} else {
				plain = append(plain, s)
			}
		}
		w.plain = plain
	}
	switch len(plain) {
	case 0:
	case 1:
		w.rows(plain[0], v)
	default:
		w.tiles(plain, v)
	}
}

// glances scans through the prefilter.
func (w *scratch) glances(s *search, f *filter, v *shardView) {
	for start, end := v.span(0, blockRows); start < end; start, end = v.span(end, blockRows) {
		dots := w.dots[:end-start]
		kernel.PackedRows(dots, &s.prepared, v.packed[start*f.stride:end*f.stride])
		s.glance(f, v, start, dots)
	}
}

// rows compares with all rows.
func (w *scratch) rows(s *search, v *shardView) {
	dim := v.dim
	for start, end := v.span(0, blockRows); start < end; start, end = v.span(end, blockRows) {
		dots := w.dots[:end-start]
		kernel.DotRows(dots, s.probe, v.codes[start*dim:end*dim])
		s.sift(v, start, dots)
	}
}

// tiles compares several probes with all rows, tileProbes with tileBytes of rows
// at a time.
func (w *scratch) tiles(batch []*search, v *shardView) {
	dim := v.dim
	w.probes = w.probes[:0]
	for _, s := range batch {
		w.probes = append(w.probes, s.probe...)
	}
	limit := min(max(tileBytes/dim&^15, 16), blockRows)
	for start, end := v.span(0, limit); start < end; start, end = v.span(end, limit) {
		n := end - start
		for from := 0; from < len(batch); from += tileProbes {
			some := batch[from:min(from+tileProbes, len(batch))]
			dots := w.dots[:len(some)*n]
			kernel.DotTile(dots, w.probes[from*dim:(from+len(some))*dim], v.codes[start*dim:end*dim], dim)
			for i, s := range some {
				s.sift(v, start, dots[i*n:(i+1)*n])
			}
		}
	}
	clear(w.probes)
}
