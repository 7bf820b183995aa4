package search

import (
	"context"
	"runtime"
	"time"

	"github.com/menshen-io/menshen/index"
	"github.com/menshen-io/menshen/index/code"
	"github.com/menshen-io/menshen/index/kernel"
)

func codeThreshold(t float64) code.Threshold { return code.Threshold(t) }

// Setting is what every result says about how it was measured.
type Setting struct {
	Gallery       int     `json:"gallery"` // templates; of each scope where there are several
	Dim           int     `json:"dim"`
	Top           int     `json:"top"`
	Threshold     float64 `json:"threshold"`
	Data          Kind    `json:"data"`
	Description   string  `json:"data_description"`
	Seed          uint64  `json:"seed"`
	RoundCount    int     `json:"rounds"`
	SecondsEach   float64 `json:"seconds_each"` // of a measurement in a round, at least
	Kernel        string  `json:"kernel"`
	CPU           string  `json:"cpu"` // left to the caller
	Workers       int     `json:"workers"`
	LoadBefore    float64 `json:"load_average_before"` // of the machine, over a minute
	Mismatches    int64   `json:"mismatches"`          // answers that differ from the reference scan
	CheckedProbes int     `json:"checked_probes"`      // compared with the reference scan
	CheckedCount  int64   `json:"checked_answers"`
}

func (o *Options) setting(source *Source) Setting {
	return Setting{
		Gallery: o.Gallery, Dim: o.Dim, Top: Top, Threshold: o.Threshold,
		Data: o.Data, Description: source.Describe(), Seed: o.Seed,
		RoundCount: o.Rounds, SecondsEach: o.Time.Seconds(),
		Kernel: kernel.Implementation(), Workers: workers(), LoadBefore: loadAverage(),
	}
}

// ScanResult is what Scan found. What was not measured is nil.
type ScanResult struct {
	Setting
	Probes      int `json:"probes"`
	MatedProbes int `json:"mated_probes"`

	BaselineSingleMS  *float64 `json:"baseline_single_ms"`
	SingleMS          float64  `json:"single_ms"`
	SingleSpeedup     *float64 `json:"single_speedup"`
	BaselineBatchQPS  *float64 `json:"baseline_batch_qps"`
	BatchQPS          float64  `json:"batch_qps"`
	BatchSpeedup      *float64 `json:"batch_speedup"`
	ConcurrentQPS     float64  `json:"concurrent_qps"`
	BytesPerTemplate  *float64 `json:"bytes_per_template"`
	BandwidthFraction float64  `json:"bandwidth_fraction"`
	MACFraction       float64  `json:"mac_fraction"`

	SingleP50MS       float64 `json:"single_p50_ms"`
	SingleP99MS       float64 `json:"single_p99_ms"`
	SingleSearches    int     `json:"single_searches"`
	Callers           int     `json:"concurrent_callers"`
	ConcurrentP50MS   float64 `json:"concurrent_p50_ms"`
	ConcurrentP99MS   float64 `json:"concurrent_p99_ms"`
	ConcurrentOfBatch float64 `json:"concurrent_of_batch"`
	AllocsSingle      float64 `json:"allocs_per_search"`
	AllocsBatch       float64 `json:"allocs_per_batch_probe"`

	BaselineKernel     string `json:"baseline_kernel,omitempty"`
	BaselineBlock      string `json:"baseline_block,omitempty"`
	BaselineScaledFrom *int   `json:"baseline_scaled_from"` // rows measured, where not all fit

	BandwidthGBs   float64 `json:"memory_bandwidth_gb_s"`
	GMACs          float64 `json:"int8_peak_gmac_s"`
	MACMethod      string  `json:"int8_peak_method"`
	ResidentBytes  *int64  `json:"resident_growth_bytes"` // by the gallery
	ResidentPeak   *int64  `json:"resident_peak_bytes"`   // of the process until the gallery was built
	FMR            float64 `json:"fmr"`                   // of the checked probes' comparisons at the threshold
	MatedFound     float64 `json:"mated_found"`           // share of the checked mated probes whose mate is a candidate
	RoundFigures   []Round `json:"round_figures"`
	BuildPerSecond float64 `json:"build_templates_per_s"` // made, encoded and applied; mostly made

	SingleWork Work   `json:"single_work"` // of a search alone, the mean over the probes
	BatchWork  Work   `json:"batch_work"`  // of a probe of many
	CPUProfile []byte `json:"-"`           // where Options.Profile asked for it
}

// Round is what one round measured.
type Round struct {
	BaselineSingleMS float64 `json:"baseline_single_ms,omitempty"`
	SingleMS         float64 `json:"single_ms"`
	BaselineBatchQPS float64 `json:"baseline_batch_qps,omitempty"`
	BatchQPS         float64 `json:"batch_qps"`
	ConcurrentQPS    float64 `json:"concurrent_qps"`
}

func (r Round) rounded() Round {
	return Round{round3(r.BaselineSingleMS), round3(r.SingleMS), round3(r.BaselineBatchQPS), round3(r.BatchQPS), round3(r.ConcurrentQPS)}
}

// Scan measures searches of one gallery. The error wraps ErrOptions or ctx.Err();
// mismatches are no error but a figure.
func Scan(ctx context.Context, o Options) (*ScanResult, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	source := NewSource(o.Data, o.Dim, o.Seed)
	r := &ScanResult{Setting: o.setting(source), Probes: o.Probes, MatedProbes: (o.Probes + 1) / 2, Callers: o.Callers}
	e, growth, err := o.build(ctx, source, &r.BuildPerSecond)
	if err != nil {
		return nil, err
	}
	if growth != nil {
		per := round3(float64(*growth) / float64(o.Gallery))
		r.ResidentBytes, r.BytesPerTemplate = growth, &per
		if peak, ok := residentPeak(); ok {
			r.ResidentPeak = &peak
		}
	}
	check, err := o.reference(ctx, e, nil)
	if err != nil {
		return nil, err
	}
	reference := check.reference
	r.FMR, r.MatedFound = round3(reference.FMR()), round3(found(e.enrolment, reference))
	if err := e.verify(ctx, check); err != nil {
		return nil, err
	}

	limits, err := newLimits(ctx, o.Buffer)
	if err != nil {
		return nil, err
	}
	m := &scanRun{Options: &o, engine: e, check: check, limits: limits}
	if !o.SkipBaseline {
		if err := m.prepareBaseline(ctx, r); err != nil {
			return nil, err
		}
	}
	rounds, err := m.rounds(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.allocations(ctx, r); err != nil {
		return nil, err
	}
	if err := m.work(ctx, r); err != nil {
		return nil, err
	}
	if o.Profile {
		if r.CPUProfile, err = m.profile(ctx, o.Time); err != nil {
			return nil, err
		}
	}
	r.RoundFigures = rounds
	r.Mismatches, r.CheckedCount, r.CheckedProbes = check.wrong.Load(), check.checked.Load(), o.Check
	r.summarise(m)
	return r, nil
}

// build makes the gallery and measures the memory that it takes: before anything
// else is made, so that only what building left behind is counted with it.
func (o *Options) build(ctx context.Context, source *Source, perSecond *float64) (*engine, *int64, error) {
	if err := requireMemory(int64(o.Gallery)*int64(o.Dim+128), "the gallery"); err != nil {
		return nil, nil, err
	}
	enrolled, err := newEnrolment(source, 0, 0, o.Gallery)
	if err != nil {
		return nil, nil, err
	}
	e := &engine{enrolment: enrolled}
	before, known := resident()
	// In an index, as the server has it: its workers share the searches.
	if e.gallery, err = index.New().Create(enrolled.ref, o.Dim); err != nil {
		return nil, nil, err
	}
	began := time.Now()
	if err := enrolled.fill(ctx, e.gallery, o.phase("enrolling", enrolled.batches())); err != nil {
		return nil, nil, err
	}
	*perSecond = round3(float64(o.Gallery) / time.Since(began).Seconds())
	after, _ := resident()
	if e.probes, err = enrolled.probes(o.Probes); err != nil {
		return nil, nil, err
	}
	e.ask(o.Threshold)
	if growth := after - before; known {
		return e, &growth, nil
	}
	return e, nil, nil
}

// reference scans for the probes that are to be checked; numbers as in
// newReference.
func (o *Options) reference(ctx context.Context, e *engine, numbers []int) (*checker, error) {
	n := e.count
	if numbers != nil {
		n = len(numbers)
	}
	step := o.phase("reference scan", (n+encodeBlock-1)/encodeBlock)
	reference, err := newReference(ctx, e.enrolment, numbers, e.probes[:o.Check], codeThreshold(o.Threshold), step)
	if err != nil {
		return nil, err
	}
	return &checker{reference: reference}, nil
}

// found is the share of the reference's mated probes whose mate is a candidate.
func found(e *enrolment, r *Reference) float64 {
	mated, hits := 0, 0
	for i, p := range r.probes {
		if p.mate >= 0 {
			mated++
			if p.found(e, r.Answers[i].Candidates) {
				hits++
			}
		}
	}
	return float64(hits) / float64(max(mated, 1))
}

// scanRun is a Scan on its way through the rounds.
type scanRun struct {
	*Options
	engine   *engine
	check    *checker
	limits   *Limits
	baseline *Baseline
	scale    float64 // the gallery's size over the baseline's
	values   [][]float32

	single, concurrent latencies
}

// baselineRows is how many float vectors the baseline gets: all, or as many as
// fit.
func (o *Options) baselineRows() int {
	n := o.Gallery
	if o.BaselineRows > 0 {
		n = min(n, o.BaselineRows)
	} else if free, ok := available(); ok {
		n = min(n, max(int(free/2)/(4*o.Dim), 1))
	}
	return n
}

func (m *scanRun) prepareBaseline(ctx context.Context, r *ScanResult) error {
	n := m.baselineRows()
	if err := requireMemory(int64(n)*int64(4*m.Dim), "the baseline"); err != nil {
		return err
	}
	if n < m.Gallery {
		r.BaselineScaledFrom = &n
	}
	m.scale = float64(m.Gallery) / float64(n)
	for _, p := range m.engine.probes {
		m.values = append(m.values, p.values)
	}
	var err error
	m.baseline, err = newBaseline(ctx, m.engine.enrolment, n, m.Threshold, m.phase("baseline", (n+encodeBlock-1)/encodeBlock))
	if err != nil {
		return err
	}
	return m.baseline.Tune(ctx, m.values)
}

// measurements of a round.
const measurements = 6

// rounds does one round that does not count, and then those that do.
func (m *scanRun) rounds(ctx context.Context) ([]Round, error) {
	step := m.phase("measuring", (m.Rounds+1)*measurements)
	var rounds []Round
	for i := -1; i < m.Rounds; i++ {
		d := m.Time
		if i < 0 {
			d = min(d, 200*time.Millisecond)
		}
		if i == 0 { // what came before was the warming up
			m.single, m.concurrent = nil, nil
		}
		round, err := m.round(ctx, max(i, 0), d, step)
		if err != nil {
			return nil, err
		}
		if i >= 0 {
			rounds = append(rounds, round.rounded())
		}
	}
	return rounds, nil
}

// round measures everything once, the baseline and Menshen by turns.
func (m *scanRun) round(ctx context.Context, i int, d time.Duration, step func()) (r Round, err error) {
	from := i * 31 // so that rounds begin with different probes
	if m.baseline != nil {
		if r.BaselineSingleMS, err = m.baselineSingle(ctx, from, d); err != nil {
			return r, err
		}
	}
	step()
	single, err := m.engine.one(ctx, from, d, m.check)
	if err != nil {
		return r, err
	}
	r.SingleMS = single.quantile(0.5)
	m.single = append(m.single, single...)
	step()
	if m.baseline != nil {
		if r.BaselineBatchQPS, err = m.baselineBatch(ctx, d); err != nil {
			return r, err
		}
	}
	step()
	if r.BatchQPS, err = m.engine.together(ctx, d, m.check); err != nil {
		return r, err
	}
	step()
	var took latencies
	if r.ConcurrentQPS, took, err = m.engine.callers(ctx, m.Callers, d, m.check); err != nil {
		return r, err
	}
	m.concurrent = append(m.concurrent, took...)
	step()
	err = m.limits.measure(ctx)
	step()
	return r, err
}

func (m *scanRun) baselineSingle(ctx context.Context, from int, d time.Duration) (float64, error) {
	var took latencies
	began := time.Now()
	for i := from; ; i++ {
		p := i % len(m.values)
		start := time.Now()
		if _, err := m.baseline.Search(ctx, m.values[p:p+1]); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
		if time.Since(began) >= d {
			return took.quantile(0.5) * m.scale, nil
		}
	}
}

func (m *scanRun) baselineBatch(ctx context.Context, d time.Duration) (float64, error) {
	began := time.Now()
	searches := 0
	for searches == 0 || time.Since(began) < d {
		if _, err := m.baseline.Search(ctx, m.values); err != nil {
			return 0, err
		}
		searches++
	}
	return float64(searches*len(m.values)) / time.Since(began).Seconds() / m.scale, nil
}

// allocationSearches is how many searches the allocations are counted over.
const allocationSearches = 20

// allocated counts the heap objects of one search. What the runtime allocates
// meanwhile is counted with them, so a figure near zero is zero.
func allocated(searches int, search func(i int) error) (float64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range searches {
		if err := search(i); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	return round3(float64(after.Mallocs-before.Mallocs) / float64(searches)), nil
}

func (m *scanRun) allocations(ctx context.Context, r *ScanResult) (err error) {
	grant, queries, buf := m.engine.grant(), m.engine.queries, make([]index.Candidate, Top)
	r.AllocsSingle, err = allocated(allocationSearches, func(i int) error {
		_, err := m.engine.gallery.IdentifyInto(ctx, grant, queries[i%len(queries)], buf)
		return err
	})
	if err != nil {
		return err
	}
	batch, err := allocated(1, func(int) error {
		_, err := m.engine.gallery.IdentifyAll(ctx, grant, queries)
		return err
	})
	r.AllocsBatch = round3(batch / float64(len(queries)))
	return err
}

// summarise makes the figures of the whole run from those of the rounds.
func (r *ScanResult) summarise(m *scanRun) {
	n, dim := float64(r.Gallery), float64(r.Dim)
	single := medianOf(r.RoundFigures, func(x Round) float64 { return x.SingleMS })
	batch := medianOf(r.RoundFigures, func(x Round) float64 { return x.BatchQPS })
	concurrent := medianOf(r.RoundFigures, func(x Round) float64 { return x.ConcurrentQPS })
	if m.baseline != nil {
		baseSingle := medianOf(r.RoundFigures, func(x Round) float64 { return x.BaselineSingleMS })
		baseBatch := medianOf(r.RoundFigures, func(x Round) float64 { return x.BaselineBatchQPS })
		r.BaselineSingleMS, r.SingleSpeedup = rounded(baseSingle), rounded(baseSingle/single)
		r.BaselineBatchQPS, r.BatchSpeedup = rounded(baseBatch), rounded(batch/baseBatch)
		r.BaselineKernel, r.BaselineBlock = BaselineKernel(), m.baseline.Block.String()
	}
	r.SingleMS, r.BatchQPS, r.ConcurrentQPS = round3(single), round3(batch), round3(concurrent)
	r.ConcurrentOfBatch = round3(concurrent / batch)
	r.SingleP50MS, r.SingleP99MS, r.SingleSearches = round3(m.single.quantile(0.5)), round3(m.single.quantile(0.99)), len(m.single)
	r.ConcurrentP50MS, r.ConcurrentP99MS = round3(m.concurrent.quantile(0.5)), round3(m.concurrent.quantile(0.99))
	// A plain int8 scan reads dim bytes of code and 4 of norm for every template.
	r.BandwidthFraction = round3(n * (dim + 4) / (single / 1e3) / m.limits.Bandwidth)
	r.MACFraction = round3(n * dim * batch / m.limits.MACs)
	r.BandwidthGBs, r.GMACs, r.MACMethod = round3(m.limits.Bandwidth/1e9), round3(m.limits.MACs/1e9), m.limits.Method
}

func rounded(x float64) *float64 {
	x = round3(x)
	return &x
}
