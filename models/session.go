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
	// IntraOp is the number of threads of one run. 0: 1, which on CPUs gives
	// the most faces per second when several runs go on at once: MobileFaceNet
	// on 4 cores did 636 faces/s with 4 callers at 1 thread, 353 with 1
	// caller at 4 threads.
	IntraOp int
	// Concurrency is the number of runs that may be under way at once; more
	// wait their turn. Each holds an OS thread. 0: GOMAXPROCS.
	Concurrency int
}

// TensorInfo describes one input or output. Shape has -1 where the model
// leaves a dimension open.
type TensorInfo struct {
	Name  string
	Shape []int64
}

// Session is one loaded model with one float32 input and one or more float32
// outputs. Run may be called from any number of goroutines.
type Session struct {
	sess    *ort.DynamicAdvancedSession
	input   TensorInfo
	outputs []TensorInfo
	slots   chan struct{} // one token for each run under way
	pool    *tensorPool

	mu     sync.Mutex
	closed bool
	active sync.WaitGroup // runs under way; Add only under mu while not closed
}

// NewSession loads a resolved model and checks its inputs and outputs against
// the manifest, so that a wrong model is refused here and not at the first
// face. Errors: ErrNotModel, ErrModelShape, ErrClosed.
func (rt *Runtime) NewSession(res *Resolved, opt SessionOptions) (*Session, error) {
	if rt.isClosed() {
		return nil, fmt.Errorf("%w: the runtime", ErrClosed)
	}
	if opt.IntraOp == 0 {
		opt.IntraOp = 1
	}
	if opt.Concurrency == 0 {
		opt.Concurrency = runtime.GOMAXPROCS(0)
	}
	if opt.IntraOp < 0 || opt.IntraOp > 256 || opt.Concurrency < 0 || opt.Concurrency > 1024 {
		return nil, fmt.Errorf("models: session options: IntraOp %d (0..256), Concurrency %d (0..1024)", opt.IntraOp, opt.Concurrency)
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
	so, err := sessionOptions(opt)
	if err != nil {
		return nil, fmt.Errorf("%w: session options: %v", ErrNotModel, err)
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
	return &Session{
		sess:    sess,
		input:   input,
		outputs: outputs,
		slots:   make(chan struct{}, opt.Concurrency),
		pool:    newTensorPool(opt.Concurrency),
	}, nil
}

func sessionOptions(opt SessionOptions) (*ort.SessionOptions, error) {
	so, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		so.SetIntraOpNumThreads(opt.IntraOp),
		so.SetInterOpNumThreads(1),
		so.SetExecutionMode(ort.ExecutionModeSequential),
		so.SetGraphOptimizationLevel(ort.GraphOptimizationLevelEnableAll),
		so.SetLogSeverityLevel(ort.LoggingLevelFatal),
		// Idle threads sleep: these cores also search.
		so.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
		so.AddSessionConfigEntry("session.inter_op.allow_spinning", "0"),
	)
	if err != nil {
		so.Destroy()
		return nil, err
	}
	return so, nil
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
	if err := s.begin(); err != nil {
		return err
	}
	defer s.active.Done()
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.slots }()

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

func (s *Session) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("%w: the session", ErrClosed)
	}
	s.active.Add(1)
	return nil
}

// infer runs the model on t and ends the run when ctx ends.
func (s *Session) infer(ctx context.Context, t *tensors) error {
	opts, err := ort.NewRunOptions()
	if err != nil {
		return fmt.Errorf("%w: run options: %v", ErrRun, err)
	}
	terminated := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(terminated)
		// The only error is a destroyed opts, which the wait below rules out.
		_ = opts.Terminate()
	})
	err = s.sess.RunWithOptions([]ort.Value{t.in}, t.outs, opts)
	if !stop() {
		<-terminated
	}
	opts.Destroy()
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
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.active.Wait()
		return
	}
	s.closed = true
	s.mu.Unlock()
	s.active.Wait()
	s.pool.close()
	s.sess.Destroy()
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
