package models

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"

	ort "github.com/yalue/onnxruntime_go"
)

// SessionOptions tunes one session.
type SessionOptions struct {
	// IntraOp is the number of threads of one run. 0: 1, which gives the most
	// faces per second when several runs go on at once (see Runner).
	IntraOp int
	// Concurrency is the number of runs that may be under way at once; more
	// wait their turn. Each holds an OS thread. 0: GOMAXPROCS.
	Concurrency int
	// Spin says what the threads of a run do while they have nothing to do.
	// With IntraOp 1 there are none.
	Spin Spin
	// Provider runs the model. Empty: ProviderCPU.
	Provider Provider
}

// Spin says how the helping threads of a run with IntraOp above 1 wait.
type Spin int

const (
	// SpinBriefly: they spin between the operations of a run and for 200 us after
	// it, then sleep.
	SpinBriefly Spin = iota
	// SpinLonger: for 600 us. Who asks again as soon as he is answered finds them
	// awake.
	SpinLonger
	// SpinNever: they sleep whenever there is nothing to do.
	SpinNever
	// SpinOn is what ONNX Runtime does when nothing is said: they spin for
	// many milliseconds after each run, and so take the cores from whoever
	// comes next. For comparisons only.
	SpinOn
)

// time is how long a helping thread spins before it sleeps, in microseconds, for
// those that do. MobileFaceNet, one caller, 4 threads on 4 cores (EPYC Zen 5, shared
// machine), median of a run and cores in use, by pause between runs:
//
//	              no pause           0.3 ms             10 ms
//	never         3.1 ms, 1.9        -                  3.1 ms, 0.4
//	200 us        1.0 ms, 3.9        1.1 ms, 2.4        3.3 ms, 0.7
//	1000 us       0.9 ms, 3.9        1.6 ms, 3.6        2.7 ms, 0.8
//	always        1.3-1.8 ms, 4.0    0.8 ms, 3.5        1.6 ms, 3.1
//	1 thread      2.8-3.0 ms, 1.0    2.5 ms, 0.8        2.8-4.2 ms, 0.2
//
// Without spinning four threads are no faster than one; 200 us keep what
// matters, and cost those who come after a run nothing worth having.
//
// From the end of a run to the next one of the same caller over gRPC it is 250 to
// 400 us: one caller's Verify from a crop took 1.44 ms with 200 us, 1.26 with 600
// and 1.23 with 2,000 (10th percentiles, 0.88 raw). At 50, 200, 450 and 750 crops a
// second, which come when they like, 200, 600 and 1,000 us could not be told apart.
// So the model that a call runs last has 600; threads of the one before would spin
// beside its run.
func (s Spin) time() (us string, limited bool) {
	switch s {
	case SpinBriefly:
		return "200", true
	case SpinLonger:
		return "600", true
	}
	return "", false
}

// TensorInfo describes one input or output. Shape has -1 where the model
// leaves a dimension open.
type TensorInfo struct {
	Name  string
	Shape []int64
}

// Session is one loaded model with one float32 input and one or more float32
// outputs, in one form: a fixed number of threads a run. Run may be called from
// any number of goroutines. It is the raw model, as a benchmark wants it; a
// service runs its models through a Runner.
type Session struct {
	sess    *ort.DynamicAdvancedSession
	input   TensorInfo
	outputs []TensorInfo
	patient bool          // its runs let others go first
	slots   chan struct{} // one token for each run under way
	pool    *tensorPool
	gate    gate
}

// NewSession loads a resolved model and checks its inputs and outputs against
// the manifest, so that a wrong model is refused here and not at the first
// face. Errors: ErrNotModel, ErrModelShape, ErrProvider, ErrClosed.
func (rt *Runtime) NewSession(res *Resolved, opt SessionOptions) (*Session, error) {
	if opt.Concurrency == 0 {
		opt.Concurrency = runtime.GOMAXPROCS(0)
	}
	if opt.Concurrency < 0 || opt.Concurrency > maxConcurrency {
		return nil, fmt.Errorf("models: session options: Concurrency %d (0..%d)", opt.Concurrency, maxConcurrency)
	}
	s, err := rt.newSession(res, opt, newTensorPool(opt.Concurrency))
	if err != nil {
		return nil, err
	}
	s.slots = make(chan struct{}, opt.Concurrency)
	return s, nil
}

const (
	maxIntraOp     = 256
	maxConcurrency = 1024
)

// newSession makes a session without slots, on pool.
func (rt *Runtime) newSession(res *Resolved, opt SessionOptions, pool *tensorPool) (*Session, error) {
	if rt.isClosed() {
		return nil, fmt.Errorf("%w: the runtime", ErrClosed)
	}
	if opt.IntraOp == 0 {
		opt.IntraOp = 1
	}
	if opt.IntraOp < 0 || opt.IntraOp > maxIntraOp {
		return nil, fmt.Errorf("models: session options: IntraOp %d (0..%d)", opt.IntraOp, maxIntraOp)
	}
	sig := res.signature
	if sig == nil {
		var err error
		if sig, err = readSignature(res.Data); err != nil {
			return nil, fmt.Errorf("model %s: %w", res.Manifest.Name, err)
		}
	}
	input, outputs, err := sig.fit(&res.Manifest)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", res.Manifest.Name, err)
	}
	so, err := rt.sessionOptions(opt)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", res.Manifest.Name, err)
	}
	defer so.Destroy()
	names := make([]string, len(outputs))
	for i, o := range outputs {
		names[i] = o.Name
	}
	sess, err := ort.NewDynamicAdvancedSessionWithONNXData(res.Data, []string{input.Name}, names, so)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w: %v", res.Manifest.Name, ErrNotModel, err)
	}
	return &Session{sess: sess, input: input, outputs: outputs, patient: opt.IntraOp == 1, pool: pool}, nil
}

func (rt *Runtime) sessionOptions(opt SessionOptions) (*ort.SessionOptions, error) {
	so, err := ort.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("%w: session options: %v", ErrNotModel, err)
	}
	err = errors.Join(
		so.SetIntraOpNumThreads(opt.IntraOp),
		so.SetInterOpNumThreads(1),
		so.SetExecutionMode(ort.ExecutionModeSequential),
		so.SetGraphOptimizationLevel(ort.GraphOptimizationLevelEnableAll),
		so.SetLogSeverityLevel(ort.LoggingLevelFatal),
		so.AddSessionConfigEntry("session.inter_op.allow_spinning", "0"),
	)
	spin := map[string]string{"session.intra_op.allow_spinning": "1"}
	limit, limited := opt.Spin.time()
	switch {
	case opt.Spin == SpinNever:
		spin["session.intra_op.allow_spinning"] = "0"
	case limited && knowsSpinDuration(rt.Version()):
		spin["session.intra_op.spin_duration_us"] = limit
	case limited:
		spin["session.force_spinning_stop"] = "1"
	}
	for key, value := range spin {
		err = errors.Join(err, so.AddSessionConfigEntry(key, value))
	}
	if err != nil {
		so.Destroy()
		return nil, fmt.Errorf("%w: session options: %v", ErrNotModel, err)
	}
	if err := opt.Provider.addTo(so, rt.Library()); err != nil {
		so.Destroy()
		return nil, err
	}
	return so, nil
}

// knowsSpinDuration reports whether an ONNX Runtime release takes
// session.intra_op.spin_duration_us: 1.30 does. Those before it ignore the
// setting and would spin on; they are told to stop at the end of each run.
func knowsSpinDuration(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 1 || minor >= 30
}

// Input describes the model's input.
func (s *Session) Input() TensorInfo { return s.input }

// Outputs describes the model's outputs: for YuNet in the order cls, obj, bbox,
// kps, each at strides 8, 16, 32; for an embedder its one output.
func (s *Session) Outputs() []TensorInfo { return s.outputs }

// Run does one inference. It waits for a free slot, calls fill with the input
// tensor's memory (shape inShape, all of it to be written: it holds what an
// earlier run left), runs the model, and calls read with the outputs' memory
// (shapes outShapes, in the order of Outputs). Both slices are valid only
// inside the callbacks. fill and read run in the caller's goroutine; an error
// of either is returned as it is.
//
// When ctx ends, Run stops waiting or stops the inference between two of its
// operations and returns ctx.Err(). Other errors: ErrClosed, ErrRun.
func (s *Session) Run(ctx context.Context, inShape []int64, outShapes [][]int64, fill func(input []float32) error, read func(outputs [][]float32) error) error {
	if !s.gate.enter() {
		return fmt.Errorf("%w: the session", ErrClosed)
	}
	defer s.gate.leave()
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.slots }()
	return s.run(ctx, inShape, outShapes, fill, read)
}

// run is Run without waiting.
func (s *Session) run(ctx context.Context, inShape []int64, outShapes [][]int64, fill func([]float32) error, read func([][]float32) error) error {
	t, err := s.pool.get(inShape, outShapes)
	if err != nil {
		return err
	}
	defer s.pool.put(t)
	if err := fill(t.in.GetData()); err != nil {
		return err
	}
	if err := s.infer(ctx, t); err != nil {
		return err
	}
	return read(t.outData)
}

// infer runs the model on t and ends the run when ctx ends.
func (s *Session) infer(ctx context.Context, t *tensors) error {
	stop := context.AfterFunc(ctx, t.terminate)
	if s.patient {
		t.patience.begin()
	}
	err := s.sess.RunWithOptions(t.ins, t.outs, t.opts)
	if s.patient {
		t.patience.end()
	}
	if !stop() {
		<-t.terminated
		// The only error is options that are not there.
		_ = t.opts.UnsetTerminate()
	}
	if err == nil {
		return nil
	}
	if ctxErr := ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	return fmt.Errorf("%w: %v", ErrRun, err)
}

// Close refuses new runs, waits for those under way, and frees the model and
// its tensors. Calling it again does nothing.
func (s *Session) Close() {
	if s.gate.shut() {
		s.pool.close()
		s.free()
	}
}

// free gives the model's memory back, but not the pool's.
func (s *Session) free() { s.sess.Destroy() }

// gate counts those who are inside and, once shut, lets nobody in.
type gate struct {
	mu     sync.Mutex
	closed bool
	inside sync.WaitGroup // Add only under mu while not closed
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside.Add(1)
	return true
}

func (g *gate) leave() { g.inside.Done() }

// shut closes the gate and waits until nobody is inside. It reports whether
// this call closed it.
func (g *gate) shut() bool {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	g.mu.Unlock()
	g.inside.Wait()
	return first
}

// signature is what ONNX Runtime says of a model file's inputs and outputs.
type signature struct {
	inputs, outputs []ort.InputOutputInfo
}

// readSignature loads the model once, to ask for its inputs and outputs.
func readSignature(data []byte) (*signature, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: the file is empty", ErrNotModel)
	}
	in, out, err := ort.GetInputOutputInfoWithONNXData(data)
	if err != nil {
		return nil, fmt.Errorf("%w: the file is damaged, cut short or not ONNX: %v", ErrNotModel, err)
	}
	return &signature{in, out}, nil
}

func (sig *signature) String() string {
	var b strings.Builder
	for _, part := range []struct {
		label string
		infos []ort.InputOutputInfo
	}{{"inputs", sig.inputs}, {"outputs", sig.outputs}} {
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s:", part.label)
		for i, io := range part.infos {
			if i == 16 {
				fmt.Fprintf(&b, " and %d more", len(part.infos)-i)
				break
			}
			fmt.Fprintf(&b, " %s%v", io.Name, []int64(io.Dimensions))
			if !isFloat(io) {
				fmt.Fprintf(&b, " (%v)", io.DataType)
			}
		}
	}
	return b.String()
}

func isFloat(io ort.InputOutputInfo) bool {
	return io.OrtValueType == ort.ONNXTypeTensor && io.DataType == ort.TensorElementDataTypeFloat
}
