package search

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/viterin/vek/vek32"
)

// Baseline is a brute force over float32 vectors of norm 1, as fair as it can be
// made without assembly of our own: vek32.Dot (AVX2 with fused multiply-add), all
// cores, blocks of rows and of probes that stay in the caches, a list of the best
// for every worker and probe, and the same threshold and number of candidates as
// the gallery.
type Baseline struct {
	dim   int
	rows  []float32
	n     int
	k     int
	least float32
	lists [][]ranking // by worker, by probe
	// Block is the shape of the blocks that many probes are compared in.
	Block Block
}

// Block is so many rows by so many probes. The probes of a block are meant to
// stay in the first-level cache while a row meets them all, and its rows in the
// second-level cache while all probes pass.
type Block struct{ Rows, Probes int }

func (b Block) String() string { return fmt.Sprintf("%d rows x %d probes", b.Rows, b.Probes) }

// blocks are the shapes that Tune tries; which is the best differs between CPUs
// and dimensions. At 512-d the probes take 8 to 64 KB and the rows 128 to 512 KB.
// On an EPYC with 48 KB and 1 MB of caches a core did, in their order, 20.9, 23.6,
// 23.0, 23.2, 22.9 and 20.9 G multiply-adds a second at 512-d, and vek32.Dot on
// the same two vectors again and again 25: little is left to gain by blocking.
var blocks = []Block{{64, 4}, {128, 4}, {64, 8}, {128, 8}, {256, 8}, {128, 32}}

// baselineChunk is how many rows a worker takes at a time for one probe: 512 KB
// at 512-d.
const baselineChunk = 256

// newBaseline makes the vectors of the first n templates of an enrolment.
func newBaseline(ctx context.Context, e *enrolment, n int, threshold float64, step func()) (*Baseline, error) {
	b := &Baseline{dim: e.source.dim, rows: make([]float32, n*e.source.dim), n: n, k: Top, least: float32(threshold), Block: blocks[0]}
	b.lists = make([][]ranking, workers())
	generators := make([]*Generator, workers())
	for w := range generators {
		generators[w] = e.source.Generator()
	}
	err := parallel(ctx, n, encodeBlock, func(worker, start, end int) error {
		for i := start; i < end; i++ {
			generators[worker].Template(b.row(i), e.first+i)
		}
		step()
		return nil
	})
	return b, err
}

func (b *Baseline) row(i int) []float32 { return b.rows[i*b.dim : (i+1)*b.dim] }

// BaselineKernel names the instructions that vek uses here.
func BaselineKernel() string {
	info := vek32.Info()
	if !info.Acceleration {
		return "vek32.Dot, plain Go"
	}
	return "vek32.Dot, AVX2"
}

// ranked is a row and its cosine.
type ranked struct {
	row   int
	score float32
}

// ranking is the best rows of one worker for one probe.
type ranking struct {
	bar  float32 // what a row must reach
	list []ranked
}

func (r *ranking) reset(k int, least float32) {
	if r.list == nil {
		r.list = make([]ranked, 0, k+1)
	}
	r.list, r.bar = r.list[:0], least
}

// offer takes a row whose score reaches the bar; of equal scores the lower row
// goes first.
func (r *ranking) offer(c ranked, k int) {
	at, _ := slices.BinarySearchFunc(r.list, c, func(a, b ranked) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return a.row - b.row
	})
	r.list = slices.Insert(r.list, at, c)
	if len(r.list) > k {
		r.list = r.list[:k]
	}
	if len(r.list) == k {
		r.bar = max(r.bar, r.list[k-1].score)
	}
}

// Search compares the probes with all rows and returns the best rows of each.
func (b *Baseline) Search(ctx context.Context, probes [][]float32) ([][]ranked, error) {
	return b.search(ctx, probes, b.n, b.Block)
}

func (b *Baseline) search(ctx context.Context, probes [][]float32, n int, block Block) ([][]ranked, error) {
	for w := range b.lists {
		for len(b.lists[w]) < len(probes) {
			b.lists[w] = append(b.lists[w], ranking{})
		}
		for p := range probes {
			b.lists[w][p].reset(b.k, b.least)
		}
	}
	var err error
	if len(probes) == 1 {
		err = parallel(ctx, n, baselineChunk, func(worker, start, end int) error {
			list, probe := &b.lists[worker][0], probes[0]
			for i := start; i < end; i++ {
				if score := vek32.Dot(probe, b.row(i)); score >= list.bar {
					list.offer(ranked{i, score}, b.k)
				}
			}
			return nil
		})
	} else {
		err = parallel(ctx, n, block.Rows, func(worker, start, end int) error {
			lists := b.lists[worker]
			for from := 0; from < len(probes); from += block.Probes {
				to := min(from+block.Probes, len(probes))
				for i := start; i < end; i++ {
					row := b.row(i)
					for p := from; p < to; p++ {
						if score := vek32.Dot(probes[p], row); score >= lists[p].bar {
							lists[p].offer(ranked{i, score}, b.k)
						}
					}
				}
			}
			return nil
		})
	}
	if err != nil {
		return nil, err
	}
	out := make([][]ranked, len(probes))
	for p := range probes {
		var all ranking
		all.reset(b.k, b.least)
		for w := range b.lists {
			for _, c := range b.lists[w][p].list {
				if c.score >= all.bar {
					all.offer(c, b.k)
				}
			}
		}
		out[p] = all.list
	}
	return out, nil
}

// tuneWork is how many multiply-adds a shape is tried with.
const tuneWork = 4e9

// Tune chooses the fastest of the block shapes for the probes.
func (b *Baseline) Tune(ctx context.Context, probes [][]float32) error {
	if len(probes) == 1 {
		return nil
	}
	n := min(b.n, max(workers()*256, int(tuneWork)/(b.dim*len(probes))))
	best := time.Duration(0)
	for range 2 { // the better of two, so that a disturbance does not decide
		for _, block := range blocks {
			began := time.Now()
			if _, err := b.search(ctx, probes, n, block); err != nil {
				return err
			}
			if took := time.Since(began); best == 0 || took < best {
				best, b.Block = took, block
			}
		}
	}
	return nil
}
