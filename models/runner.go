package models

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"
)

// RunnerOptions tunes a Runner. The zero value measures the model.
type RunnerOptions struct {
	// Budget is shared by all runners of a process. nil: one of its own, with
	// a token per core.
	Budget *Budget
	// Provider runs the model. Empty: ProviderCPU.
	Provider Provider
	// IntraOp is the number of threads of a run that has the machine to
	// itself. 0: measured. 1: one, as under load, which spares the memory of
	// a second copy of the model. On a CPU nothing is measured where this is
	// set.
	IntraOp int
	// Spin says what the threads of a run that has the machine to itself do after
	// it.
	Spin Spin
	// Batch is the number of images that wait for one another to share a run;
	// the model must have an open batch. 0: measured. 1: none.
	Batch int
	// Measurements is the folder that keeps what was measured, for the next
	// start. Empty: nothing is kept.
	Measurements string
	// Remeasure measures even where a measurement is kept, and replaces it.
	Remeasure bool
	// Logger hears of measurements that cannot be used or kept. nil: nobody.
	Logger *slog.Logger
}

// Choice is how a Runner runs its model.
type Choice struct {
	// Callers is the number of runs that go on at once under load, each with
	// IntraOp threads and Batch images.
	Callers int
	IntraOp int
	Batch   int
	// IdleIntraOp is the number of threads of a run that has the machine to
	// itself.
	IdleIntraOp int
	// Rate is what was measured under load, in images a second, and Latency
	// what one image took on the idle machine; 0 where nothing was measured.
	Rate    float64
	Latency time.Duration
	// Source says where the choice comes from: "measured" now, "kept" from an
	// earlier start, "set" by the options, or "assumed" because other programs
	// disturbed the measurement.
	Source string
}

func (c Choice) String() string {
	s := fmt.Sprintf("%d x %d threads x batch %d under load, %d threads when idle (%s)", c.Callers, c.IntraOp, c.Batch, c.IdleIntraOp, c.Source)
	if c.Rate > 0 {
		s += fmt.Sprintf(", %.0f images/s, %.1f ms", c.Rate, c.Latency.Seconds()*1e3)
	}
	return s
}

// LogValue is the choice in a log line.
func (c Choice) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.Int("callers", c.Callers), slog.Int("intra_op", c.IntraOp), slog.Int("batch", c.Batch),
		slog.Int("idle_intra_op", c.IdleIntraOp), slog.String("source", c.Source),
	}
	if c.Rate > 0 {
		attrs = append(attrs, slog.Int("images_per_s", int(c.Rate)), slog.Duration("idle_latency", c.Latency.Round(10*time.Microsecond)))
	}
	return slog.GroupValue(attrs...)
}

// Runner is one loaded model in the forms in which it runs best on this
// machine. Under load each run takes one thread and one token of the budget: on
// a CPU that gives the most faces per second. A run that finds the machine idle
// takes the cores together, if the model was measured to be faster so, and
// gives the lowest latency. Models with an open batch run several images at
// once where that was measured to win, which is on GPUs.
//
// MobileFaceNet on 4 cores (EPYC Zen 5, shared machine), raw: 4 callers x 1
// thread 1100 to 1340 faces/s, 2 x 2 620 to 750, 1 x 4 540 to 1050; one run 2.6
// to 3.3 ms with 1 thread, 0.9 to 1.8 ms with 4.
//
// Run may be called from any number of goroutines.
type Runner struct {
	load, idle form // idle is load where more threads win nothing
	budget     *Budget
	pool       *tensorPool
	batcher    *batcher // nil where images are not batched
	choice     Choice
	gate       gate
}

// form is the model loaded for a number of threads a run.
type form struct {
	sess   *Session
	tokens int // of the budget, that a run takes
}

// NewRunner loads a resolved model, finds out how it runs best and runs each
// form once, so that the first face is not slower than those after it.
// Measuring takes about half a second for a small model and about ten runs for
// a large one. Errors: ErrNotModel, ErrModelShape, ErrProvider, ErrRun,
// ErrClosed, ctx.Err().
func (rt *Runtime) NewRunner(ctx context.Context, res *Resolved, opt RunnerOptions) (_ *Runner, err error) {
	if opt.IntraOp < 0 || opt.IntraOp > maxIntraOp || opt.Batch < 0 || opt.Batch > maxBatch {
		return nil, fmt.Errorf("models: runner options: IntraOp %d (0..%d), Batch %d (0..%d)", opt.IntraOp, maxIntraOp, opt.Batch, maxBatch)
	}
	if opt.Budget == nil {
		if opt.Budget, err = NewBudget(0); err != nil {
			return nil, err
		}
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Batch > 1 && res.Manifest.Batch != BatchDynamic {
		return nil, fmt.Errorf("model %s: %w: it takes one image a run; leave batches out, or export it with an open batch", res.Manifest.Name, ErrModelShape)
	}
	m := &measuring{rt: rt, res: res, opt: opt, threads: min(opt.Budget.Cores(), runtime.GOMAXPROCS(0)),
		pool: newTensorPool(opt.Budget.Size() + 1), sessions: map[int]*Session{}}
	defer func() {
		if err != nil {
			m.close()
			m.pool.close()
		}
	}()
	choice, err := m.choose(ctx)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", res.Manifest.Name, err)
	}
	r := &Runner{budget: opt.Budget, pool: m.pool, choice: choice}
	if r.load, err = m.form(choice.IntraOp); err == nil {
		r.idle, err = m.form(choice.IdleIntraOp)
	}
	if err == nil {
		err = m.warm(ctx, choice)
	}
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", res.Manifest.Name, err)
	}
	m.closeBut(r.load.sess, r.idle.sess)
	if choice.Batch > 1 {
		r.batcher = &batcher{runner: r, size: choice.Batch}
	}
	return r, nil
}

// Input describes the model's input.
func (r *Runner) Input() TensorInfo { return r.load.sess.input }

// Outputs describes the model's outputs, as Session.Outputs.
func (r *Runner) Outputs() []TensorInfo { return r.load.sess.outputs }

// Choice tells how the model is run.
func (r *Runner) Choice() Choice { return r.choice }

// Run does one inference, as Session.Run does. It waits its turn for the
// budget, before fill is called: filling is work as well. Where images are
// batched and inShape begins with 1, the image may share its run with those of
// other callers; fill and read see its own part alone.
//
// When ctx ends, Run stops waiting or stops the inference between two of its
// operations and returns ctx.Err(); a shared run goes on for the others. Other
// errors: those of fill and read, ErrClosed, ErrRun.
func (r *Runner) Run(ctx context.Context, inShape []int64, outShapes [][]int64, fill func(input []float32) error, read func(outputs [][]float32) error) error {
	if !r.gate.enter() {
		return fmt.Errorf("%w: the model", ErrClosed)
	}
	defer r.gate.leave()
	if r.batcher != nil && len(inShape) > 0 && inShape[0] == 1 {
		return r.batcher.run(ctx, inShape, outShapes, fill, read)
	}
	f, err := r.acquire(ctx)
	if err != nil {
		return err
	}
	defer r.budget.release(f.tokens)
	return f.sess.run(ctx, inShape, outShapes, fill, read)
}

// acquire waits for the tokens of one form.
func (r *Runner) acquire(ctx context.Context) (*form, error) {
	alone, err := r.budget.acquire(ctx, r.load.tokens, r.idle.tokens)
	if err != nil {
		return nil, err
	}
	if alone {
		return &r.idle, nil
	}
	return &r.load, nil
}

// Close refuses new runs, waits for those under way and those that wait, and
// frees the model. Calling it again does nothing.
func (r *Runner) Close() {
	if !r.gate.shut() {
		return
	}
	if r.batcher != nil {
		r.batcher.under.Wait()
	}
	r.load.sess.free()
	if r.idle.sess != r.load.sess {
		r.idle.sess.free()
	}
	r.pool.close()
}

// sampleShapes returns the shapes of a run of n images of the model.
func sampleShapes(m *Manifest, n int64) (in []int64, outs [][]int64, err error) {
	w, h := int64(m.Input.Width), int64(m.Input.Height)
	switch m.Architecture {
	case ArchEmbedding:
		outs = [][]int64{{n, int64(m.Output.Dimension)}}
	case ArchYuNet:
		if w == 0 {
			w, h = openSide, openSide
		}
		for _, head := range yunetHeads {
			for _, s := range yunetStrides {
				outs = append(outs, []int64{n, (w / s) * (h / s), head.width})
			}
		}
	default:
		return nil, nil, errors.New("models: no sample for the architecture " + string(m.Architecture))
	}
	return []int64{n, 3, h, w}, outs, nil
}

// openSide is the side of the sample for a detector that takes any size.
const openSide = 640
