package index

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/kernel"
)

// search is one probe on its way through a snapshot. Several workers may scan
// different shards for it at once: they share the list of candidates and with it
// the bar that rows must reach, so nothing is to be merged in the end. The list
// is that of comparing all rows in any order (see topK.offer), so the result
// does not depend on who scans what and when.
type search struct {
	serial    uint64
	probe     []int8 // of the caller, who waits
	norm2     int32
	norm      float64
	now       int64
	threshold float64
	full      bool // rows below the threshold count too
	snap      *snapshot

	// bar holds the bits of what rows must reach; it only rises.
	bar atomic.Uint64
	mu  sync.Mutex // guards top
	top topK

	// For the prefilter: the probe as it wants it, and what came of it. prepared
	// stays with the search when it is used again.
	prepared kernel.PreparedProbe
	ready    bool
	tried    atomic.Int64 // rows glanced at
	let      atomic.Int64 // rows that were let through
	compared atomic.Int64 // rows compared without a glance

	// Of the scanner, whose lock guards them.
	group     *group
	own       group
	left      int         // shards that are still to be handed out
	busy      int         // tasks that are at work for it
	tasks     int         // that there were
	abandoned atomic.Bool // nobody waits for a result any more
	err       error
}

// start makes the search that of a query. No other search of the scanner had
// that serial.
func (s *search) start(q *Query, serial uint64) {
	s.serial = serial
	s.probe, s.norm2, s.norm = q.Code.Q, q.Code.Norm2, math.Sqrt(float64(q.Code.Norm2))
	s.now, s.threshold, s.full = instant(q.Now), float64(q.Threshold), q.WantBest
	s.top.init(q.K)
	s.ready, s.err = false, nil
	s.left, s.busy, s.tasks = 0, 0, 0
	s.tried.Store(0)
	s.let.Store(0)
	s.compared.Store(0)
	s.abandoned.Store(false)
	s.setBar()
}

// prepare makes the search ready for the prefilter, if that can be of use.
func (s *search) prepare(f *filter) {
	if !s.full && f.pays(s.threshold) {
		// It fails for bits that are not one of the two kinds alone.
		s.ready = s.prepared.Prepare(s.probe, f.bits) == nil
	}
}

// enter makes the snapshot the one to be searched; the search takes its lease
// over. Of a snapshot of at most small templates all are compared.
func (s *search) enter(snap *snapshot, small int) {
	s.snap = snap
	if snap.live <= small && !s.full {
		s.full, s.ready = true, false
		s.setBar()
	}
}

// leave gives the lease back.
func (s *search) leave() {
	if s.snap != nil {
		s.snap.release()
		s.snap = nil
	}
}

// setBar sets the bar from the threshold and the last of a full list. mu is
// held, or nobody else has the search yet.
func (s *search) setBar() {
	bar := s.top.bar(s.norm2)
	if !s.full {
		bar = max(bar, barOf(s.threshold, s.norm2))
	}
	s.bar.Store(math.Float64bits(bar))
}

func (s *search) theBar() float64 { return math.Float64frombits(s.bar.Load()) }

// filters reports whether the prefilter is worth its while. A row that it lets
// through costs as much as one that is compared in its turn, where memory is the
// limit: 40 ns of a core, a glance 4. So it pays up to one row in letShare, and
// beyond nearly so. 400,000 templates of the spectrum, 512 values, ms with a
// share of 8, 4 and 2: at a threshold of 0.35 4.5, 1.0 and 1.0; at 0.30 about
// 4, 4.0 and 1.2; of 128 values at 0.30 0.83, 0.89 and 0.44.
func (s *search) filters() bool {
	if !s.ready {
		return false
	}
	tried := s.tried.Load()
	return tried < blockRows || s.let.Load()*letShare <= tried
}

const letShare = 2

// sift takes the dot products of the rows from start on, at least one, and looks
// closer at those that reach the bar.
func (s *search) sift(v *shardView, start int, dots []int32) {
	least := v.leastNorm[start/blockRows].Load()
	for block := start/blockRows + 1; block <= (start+len(dots)-1)/blockRows; block++ {
		least = min(least, v.leastNorm[block].Load())
	}
	bar := s.theBar()
	cut := leastDot(bar, least)
	for i := above(dots, 0, cut); i < len(dots); i = above(dots, i+1, cut) {
		row := start + i
		if v.dead.has(row) || !reaches(bar, dots[i], v.norms[row]) {
			continue
		}
		s.offer(v, row, dots[i])
		bar = s.theBar()
		cut = leastDot(bar, least)
	}
}

// glance looks at the coarse copies of a shard's rows and compares those that
// the prefilter cannot rule out. They lie apart, and each is a wait for memory:
// so all of the shard are found first, and then asked for ahead of the comparing.
func (s *search) glance(w *scratch, f *filter, v *shardView) {
	bar := s.theBar()
	edge := f.edge(s.scoreOf(bar), s.norm)
	let, rows, least := w.let[:0], 0, int32(math.MaxInt32)
	for start, end := v.span(0, blockRows); start < end; start, end = v.span(end, blockRows) {
		block := start / blockRows
		least = min(least, v.leastNorm[block].Load())
		dots, some := w.dots[:end-start], w.some[:end-start]
		kernel.PackedRows(dots, &s.prepared, v.packed[start*f.stride:end*f.stride])
		n := kernel.AtLeast(some, dots, edge.cut(angleOf(uint8(v.leastLevel[block].Load()))))
		for _, i := range some[:n] {
			if row := start + int(i); edge.passes(w.angles[v.levels[row]], dots[i]) && !v.dead.has(row) {
				let = append(let, int32(row))
			}
		}
		rows += len(dots)
	}
	w.let = let
	s.tried.Add(int64(rows))
	if len(let) == 0 {
		return
	}
	s.let.Add(int64(len(let)))
	dots := w.dots[:len(let)]
	kernel.DotList(dots, s.probe, v.codes, let)
	cut := leastDot(bar, least)
	for i, dot := range dots {
		if row := int(let[i]); dot >= cut && reaches(bar, dot, v.norms[row]) {
			s.offer(v, row, dot)
			bar = s.theBar()
		}
	}
}

// scoreOf is the score that a bar was made of, at least 0.
func (s *search) scoreOf(bar float64) float64 {
	return math.Sqrt(max(bar, 0) / float64(s.norm2))
}

// offer puts a row before the list. Expiry and subject are looked at only here.
func (s *search) offer(v *shardView, row int, dot int32) {
	score := code.Compare(dot, s.norm2, v.norms[row])
	if expired(v.notAfter[row], s.now) || !s.full && !(float64(score) >= s.threshold) {
		return
	}
	c := Candidate{Subject: v.name(row), Template: v.templates[row], Score: score}
	s.mu.Lock()
	if s.top.offer(c) {
		s.setBar()
	}
	s.mu.Unlock()
}

// result gives what was found, in the memory of buf. The list of a full search
// is cut at the threshold here and not before, so that Best is known.
func (s *search) result(buf []Candidate) Result {
	r := Result{Best: NoScore, Epoch: s.snap.epoch, Scanned: s.snap.live}
	passed := int(s.let.Load())
	r.Work = Work{Glanced: int(s.tried.Load()), Passed: passed, Compared: passed + int(s.compared.Load()), Shards: len(s.snap.shards), Tasks: s.tasks}
	list := s.top.list
	if len(list) > 0 {
		r.Best = list[0].Score
	}
	n := 0
	for n < len(list) && float64(list[n].Score) >= s.threshold {
		n++
	}
	r.Candidates = append(buf[:0], list[:n]...)
	return r
}
