package index

import (
	"math"
	"slices"

	"github.com/menshen-io/menshen/index/kernel"
)

const (
	// maxBatch is how many probes a task serves at most. 256 probes against 4096
	// rows of 512 values take 1.2 ms at the kernel's rate: the longest task.
	maxBatch = 256
	// tileProbes go to the kernel at once, with tileBytes of rows. 256 probes of
	// 512 values reached 0.62, 0.70, 0.76 and 0.81 of the multiply-add limit with
	// 16, 32, 64 and 128 KB.
	tileProbes = kernel.MaxReach
	tileBytes  = 128 << 10
	// tileStep rows and their multiples leave no row over in the kernels, which
	// take 6, 8 or 12 at a time.
	tileStep = 24
	// setProbes is how many probes make a set; fewer are faster in a tile.
	setProbes = 16
)

// scratch is what a scan writes to; for one goroutine.
type scratch struct {
	dots []int32          // as many as a tile may have
	some [blockRows]int32 // of a block
	let  []int32          // rows of a shard that the prefilter let through
	bars []float32        // of a batch, see reachBar
	// angles are those of the levels, to be at hand.
	angles [256]angle
	rest   []*search

	// The probes of the batch with these serials, tileProbes in a set, and what
	// is left over.
	serials []uint64
	sets    []kernel.ProbeSet
	probes  []int8
	of      *Gallery // whose they are

	// The task of a worker.
	gallery *Gallery
	batch   []*search
	views   []*shardView
}

func newScratch() *scratch {
	w := &scratch{dots: make([]int32, tileProbes*blockRows)}
	for level := range w.angles {
		w.angles[level] = angleOf(uint8(level))
	}
	return w
}

// task scans the views for the batch.
func (w *scratch) task() {
	if w.of != w.gallery {
		w.forget()
		w.of = w.gallery
	}
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
	clear(w.rest)
	w.gallery, w.batch, w.views, w.rest = nil, w.batch[:0], w.views[:0], w.rest[:0]
}

// forget overwrites the probes that were kept for the next task.
func (w *scratch) forget() {
	w.of = nil
	if len(w.serials) == 0 {
		return
	}
	w.serials = w.serials[:0]
	clear(w.probes[:cap(w.probes)])
	w.probes = w.probes[:0]
	for i := range w.sets[:cap(w.sets)] {
		w.sets[:cap(w.sets)][i].Wipe()
	}
	w.sets = w.sets[:0]
}

// shard scans a shard for all searches of a batch. All of them see the same
// view.
func (w *scratch) shard(v *shardView, f *filter, batch []*search) {
	if v.shard == nil {
		return
	}
	if v.packed == nil || len(batch) > f.batch {
		w.compare(batch, v)
		return
	}
	rest := w.rest[:0]
	for _, s := range batch {
		if s.filters() {
			s.glance(w, f, v)
		} else {
			rest = append(rest, s)
		}
	}
	w.rest = rest
	w.compare(rest, v)
}

// compare compares all rows with all of the probes.
func (w *scratch) compare(batch []*search, v *shardView) {
	for _, s := range batch {
		s.compared.Add(int64(v.rows))
	}
	switch len(batch) {
	case 0:
	case 1:
		w.rows(batch[0], v)
	default:
		w.tiles(batch, v)
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
	w.prepare(batch, v.dim)
	w.bars = w.bars[:0]
	for _, s := range batch {
		w.bars = append(w.bars, reachBar(s.theBar()))
	}
	limit := min(max(tileBytes/v.dim/tileStep*tileStep, tileStep), len(w.dots)/setProbes)
	for start, end := v.piece(0, limit); start < end; start, end = v.piece(end, limit) {
		for i := range w.sets {
			w.set(batch, i, v, start, end)
		}
		if few := len(w.probes) / v.dim; few > 0 {
			dots := w.dots[:few*(end-start)]
			kernel.DotTile(dots, w.probes, v.codes[start*v.dim:end*v.dim], v.dim)
			for i, s := range batch[len(batch)-few:] {
				s.sift(v, start, dots[i*(end-start):(i+1)*(end-start)])
			}
		}
	}
}

// prepare brings the probes of a batch into the order that the kernel wants.
// That takes 1 ns a value, an eighth of the time of a shard, so it is kept for
// the next task, which often is for the same batch. setProbes or more make a
// set, fewer are taken as they are.
func (w *scratch) prepare(batch []*search, dim int) {
	same := len(w.serials) == len(batch)
	for i := 0; same && i < len(batch); i++ {
		same = w.serials[i] == batch[i].serial
	}
	if same {
		return
	}
	gallery := w.of
	w.forget() // of a larger batch more stands there than is overwritten below
	w.of = gallery
	w.probes = slices.Grow(w.probes, min(tileProbes, len(batch))*dim) // growing later would leave copies
	sets := 0
	for from := 0; from < len(batch); from += tileProbes {
		w.probes = w.probes[:0]
		for _, s := range batch[from:min(from+tileProbes, len(batch))] {
			w.probes = append(w.probes, s.probe...)
			w.serials = append(w.serials, s.serial)
		}
		if len(w.probes) < setProbes*dim {
			break
		}
		if sets == cap(w.sets) {
			w.sets = append(w.sets[:sets], kernel.ProbeSet{})
		}
		w.sets = w.sets[:sets+1]
		w.sets[sets].Prepare(w.probes, dim)
		w.probes = w.probes[:0]
		sets++
	}
	w.sets = w.sets[:sets]
}

// set compares the probes of a set with rows start..end-1 and looks closer at
// those that may reach their bar.
func (w *scratch) set(batch []*search, number int, v *shardView, start, end int) {
	set, at := &w.sets[number], number*tileProbes
	n := set.Len()
	batch, bars := batch[at:at+n], w.bars[at:at+n]
	for start < end {
		from, rows := set.Reach(w.dots, v.codes[start*v.dim:end*v.dim], v.norms[start:end], bars)
		start += from
		for r := range rows {
			row := start + r
			if v.dead.has(row) {
				continue
			}
			norm2 := v.norms[row]
			root := float32(math.Sqrt(float64(norm2)))
			for p, dot := range w.dots[r*n : (r+1)*n] {
				if s := batch[p]; float32(dot) >= bars[p]*root && reaches(s.theBar(), dot, norm2) {
					s.offer(v, row, dot)
					bars[p] = reachBar(s.theBar())
				}
			}
		}
		start += rows
	}
}

// reachBar is what kernel.ProbeSet.Reach compares with, below the bar by twice
// its slack, which is far above the rounding of float32.
func reachBar(bar float64) float32 {
	if !(bar > 0) {
		return float32(math.Inf(-1))
	}
	return float32(math.Sqrt(bar) * (1 - 2*kernel.ReachSlack))
}
