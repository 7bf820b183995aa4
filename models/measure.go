package models

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// How a model is measured. Other programs, and other guests of the same host,
// come and go within a tenth of a second and only ever slow a form down: so the
// forms are tried in turns, and of each its best turn counts. (Measured once
// each, one after the other, on a busy host, YuNet 640 was found to be fastest
// with one run at a time, and MobileFaceNet not to gain from more threads.) A
// turn takes its time or its runs, whichever is longer, so that a large model
// is measured too, if only by few runs.
const (
	turns       = 3
	latencyTime = 25 * time.Millisecond
	latencyRuns = 2
	rateTime    = 40 * time.Millisecond
	// measureTime is how long all may take before the turns that are left are
	// left out.
	measureTime = 500 * time.Millisecond
	// disturbedTime is how long it goes on where the machine was disturbed:
	// where the callers under load together got through less than undisturbed
	// times what one of them alone would make of it. MobileFaceNet reaches 0.9
	// and YuNet 640 0.57 on an idle machine; with other programs on the cores
	// MobileFaceNet was seen at 0.4, and threads to help were not there.
	disturbedTime = 800 * time.Millisecond
	undisturbed   = 0.5
	// latencyMargin, batchMargin and rateMargin are by how much another form must beat the
	// usual one. Two measurements of one form on a shared machine still differ
	// by a tenth. YuNet 640, whose planes do not fit the caches, gives 266 to 283
	// images/s with 4 callers x 1 thread and 327 to 341 with 1 x 4; but the
	// latter wants all four cores at the same moment, which a busy service
	// does not have, so under load it has to win by more.
	latencyMargin = 1.1
	batchMargin   = 1.1
	rateMargin    = 1.5
	// maxBatch bounds the images of one run.
	maxBatch = 64
)

// batches are the sizes that are tried for a model with an open batch, on a CPU
// and elsewhere. MobileFaceNet on 4 cores of a 2.5 GHz Xeon, 4 callers: 636
// faces/s with batch 1, 525 to 575 with 4 to 16.
var batchesOnCPU, batchesElsewhere = []int{8}, []int{8, 32}

// measuring finds out how a model runs best.
type measuring struct {
	rt       *Runtime
	res      *Resolved
	opt      RunnerOptions
	threads  int // that one run may have
	pool     *tensorPool
	sessions map[int]*Session // by threads
}

// choose returns the kept choice, or measures.
func (m *measuring) choose(ctx context.Context) (Choice, error) {
	if err := ctx.Err(); err != nil {
		return Choice{}, err
	}
	if m.opt.IntraOp != 0 && (m.opt.Provider.onCPU() || m.opt.Batch != 0 || m.res.Manifest.Batch != BatchDynamic) {
		return m.forced(Choice{Callers: m.opt.Budget.Size(), IntraOp: 1, IdleIntraOp: 1, Batch: 1, Source: "set"}), nil
	}
	key := m.key()
	if !m.opt.Remeasure {
		choice, err := key.load(m.opt.Measurements)
		if err == nil {
			return m.forced(choice), nil
		}
		if !errors.Is(err, errNoMeasurement) {
			m.opt.Logger.Warn("a kept measurement is not used; the model is measured again", "model", m.res.Manifest.Name, "reason", err)
		}
	}
	choice, err := m.measure(ctx)
	if err != nil {
		return Choice{}, err
	}
	if choice.Source == "assumed" {
		m.opt.Logger.Warn("other programs took the CPUs while the model was measured; what is usual is assumed, and the next start measures again", "model", m.res.Manifest.Name)
	} else if err := key.save(m.opt.Measurements, choice); err != nil {
		m.opt.Logger.Warn("the measurement could not be kept; the model will be measured again at the next start", "model", m.res.Manifest.Name, "reason", err)
	}
	return m.forced(choice), nil
}

// forced puts what the options say in place of what was measured.
func (m *measuring) forced(c Choice) Choice {
	if n := m.opt.IntraOp; n != 0 && m.opt.Provider.onCPU() {
		c.IdleIntraOp, c.Latency = n, 0
		c.IntraOp, c.Callers = 1, m.opt.Budget.Size()
	}
	if m.opt.Batch != 0 {
		c.Batch, c.Rate = m.opt.Batch, 0
	}
	return c
}

// measure tries the forms in turns. Where the machine is disturbed throughout
// it says nothing about the forms, and the usual ones are assumed.
func (m *measuring) measure(ctx context.Context) (Choice, error) {
	c := Choice{Callers: m.opt.Budget.Size(), IntraOp: 1, IdleIntraOp: 1, Batch: 1, Source: "measured"}
	var threads, batches []int
	if m.opt.Provider.onCPU() {
		for _, n := range []int{m.threads, m.threads / 2} {
			if n > 1 {
				threads = append(threads, n)
			}
		}
	}
	if m.res.Manifest.Batch == BatchDynamic {
		if batches = batchesElsewhere; m.opt.Provider.onCPU() {
			batches = batchesOnCPU
		}
	}
	latency, rate := map[int]time.Duration{}, map[int]float64{} // by threads, by batch
	disturbed := func() bool {
		alone := float64(min(c.Callers, m.threads)) / latency[1].Seconds()
		return len(threads) > 0 && rate[1] < undisturbed*alone
	}
	begin := time.Now()
	for turn := 0; ; turn++ {
		for _, n := range append([]int{1}, threads...) {
			s, err := m.session(n)
			if err != nil {
				return c, err
			}
			took, err := m.latency(ctx, s)
			if err != nil {
				return c, err
			}
			if best := latency[n]; best == 0 || took < best {
				latency[n] = took
			}
		}
		for _, n := range append([]int{1}, batches...) {
			r, err := m.rate(ctx, m.sessions[1], c.Callers, n)
			if err != nil {
				return c, err
			}
			rate[n] = max(rate[n], r)
		}
		spent := time.Since(begin)
		next := spent + spent/time.Duration(turn+1)
		if !disturbed() && (turn+1 >= turns || next > measureTime) || next > disturbedTime {
			break
		}
	}

	c.Latency, c.Rate = latency[1], rate[1]
	if disturbed() {
		c.Source, c.IdleIntraOp, c.Rate, c.Latency = "assumed", m.threads, 0, 0
		return c, nil
	}
	for _, n := range threads {
		if latency[n].Seconds()*latencyMargin < c.Latency.Seconds() {
			c.IdleIntraOp, c.Latency = n, latency[n]
		}
	}
	for _, n := range batches {
		if rate[n] > c.Rate*batchMargin {
			c.Batch, c.Rate = n, rate[n]
		}
	}
	if n := c.IdleIntraOp; n == m.threads && n > 1 && c.Batch == 1 && 1/c.Latency.Seconds() > c.Rate*rateMargin {
		c.Callers, c.IntraOp, c.Rate = 1, n, 1/c.Latency.Seconds()
	}
	return c, nil
}

// latency is the median time of one run when nothing else runs.
func (m *measuring) latency(ctx context.Context, s *Session) (time.Duration, error) {
	if err := m.once(ctx, s, 1); err != nil { // the first is slower
		return 0, err
	}
	var took []time.Duration
	for begin := time.Now(); time.Since(begin) < latencyTime || len(took) < latencyRuns; {
		at := time.Now()
		if err := m.once(ctx, s, 1); err != nil {
			return 0, err
		}
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	return max(took[(len(took)-1)/2], time.Nanosecond), nil
}

// rate is how many images a second so many callers get through.
func (m *measuring) rate(ctx context.Context, s *Session, callers, batch int) (float64, error) {
	if err := m.atOnce(callers, func() error { return m.once(ctx, s, batch) }); err != nil {
		return 0, err
	}
	var mu sync.Mutex
	runs := 0
	begin := time.Now()
	err := m.atOnce(callers, func() error {
		n := 0
		for ; n == 0 || time.Since(begin) < rateTime; n++ {
			if err := m.once(ctx, s, batch); err != nil {
				return err
			}
		}
		mu.Lock()
		runs += n
		mu.Unlock()
		return nil
	})
	return float64(runs*batch) / time.Since(begin).Seconds(), err
}

// warm runs the chosen forms as they will be run, so that their memory is there
// before the first face.
func (m *measuring) warm(ctx context.Context, c Choice) error {
	load, err := m.session(c.IntraOp)
	if err != nil {
		return err
	}
	if err := m.atOnce(c.Callers, func() error { return m.once(ctx, load, c.Batch) }); err != nil {
		return err
	}
	idle, err := m.session(c.IdleIntraOp)
	if err != nil {
		return err
	}
	return m.once(ctx, idle, 1)
}

// once runs n images of noughts.
func (m *measuring) once(ctx context.Context, s *Session, n int) error {
	in, outs, err := sampleShapes(&m.res.Manifest, int64(n))
	if err != nil {
		return err
	}
	return s.run(ctx, in, outs, func(in []float32) error { clear(in); return nil }, func([][]float32) error { return nil })
}

// atOnce calls f n times at once.
func (m *measuring) atOnce(n int, f func() error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// form is the model for runs of so many threads.
func (m *measuring) form(threads int) (form, error) {
	s, err := m.session(threads)
	return form{s, m.opt.Budget.tokens(threads)}, err
}

// session loads the model for runs of so many threads, once.
func (m *measuring) session(threads int) (*Session, error) {
	if s := m.sessions[threads]; s != nil {
		return s, nil
	}
	s, err := m.rt.newSession(m.res, SessionOptions{IntraOp: threads, Spin: m.opt.Spin, Provider: m.opt.Provider}, m.pool)
	if err == nil {
		m.sessions[threads] = s
	}
	return s, err
}

// closeBut closes the sessions that are not kept.
func (m *measuring) closeBut(keep ...*Session) {
	for _, s := range m.sessions {
		if !slices.Contains(keep, s) {
			s.free()
		}
	}
}

func (m *measuring) close() { m.closeBut() }
