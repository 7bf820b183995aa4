package models

import (
	"fmt"
	"runtime"
	"slices"
	"sync"

	ort "github.com/yalue/onnxruntime_go"
)

// maxTensorElements bounds one tensor, in float32s: 256 MiB.
const maxTensorElements = 64 << 20

// tensors is the memory of one run, and its options. The ONNX tensors point
// into the Go slices, which are pinned from make to free, so that C may keep
// the pointers between calls. All that a run needs is made here once, so that
// the run itself allocates nothing.
type tensors struct {
	in      *ort.Tensor[float32]
	ins     []ort.Value // in
	outs    []ort.Value
	outData [][]float32
	pin     runtime.Pinner

	opts       *ort.RunOptions
	terminate  func()        // ends the run that uses opts
	terminated chan struct{} // terminate has been called; room for one
	patience   patience

	inShape   []int64
	outShapes [][]int64
}

// value is a tensor whose internals are made once: the binding asks for them
// at each run, and a Tensor makes them anew.
type value struct {
	*ort.Tensor[float32]
	internals *ort.ValueInternalData
}

func (v value) GetInternals() *ort.ValueInternalData { return v.internals }

// tensorPool keeps the memory of finished runs for the next runs of the same
// shapes. It keeps at most as many as runs may go on at once: a dynamic
// detector sees about forty shapes and must not keep memory for each.
type tensorPool struct {
	mu     sync.Mutex
	idle   []*tensors // oldest first
	keep   int
	live   int // made and not yet freed
	closed bool
}

func newTensorPool(keep int) *tensorPool { return &tensorPool{keep: keep} }

// get returns idle tensors of these shapes, or new ones.
func (p *tensorPool) get(inShape []int64, outShapes [][]int64) (*tensors, error) {
	p.mu.Lock()
	for i := len(p.idle) - 1; i >= 0; i-- {
		if t := p.idle[i]; t.has(inShape, outShapes) {
			p.idle = slices.Delete(p.idle, i, i+1)
			p.mu.Unlock()
			return t, nil
		}
	}
	p.mu.Unlock()
	t, err := newTensors(inShape, outShapes)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.live++
	p.mu.Unlock()
	return t, nil
}

// put gives tensors back. The oldest idle ones are freed where there are too
// many.
func (p *tensorPool) put(t *tensors) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, t)
	for p.closed && len(p.idle) > 0 || len(p.idle) > p.keep {
		p.idle[0].free()
		p.idle = slices.Delete(p.idle, 0, 1)
		p.live--
	}
}

// close frees all idle tensors, and any that are put back later.
func (p *tensorPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, t := range p.idle {
		t.free()
		p.live--
	}
	p.idle = nil
}

func newTensors(inShape []int64, outShapes [][]int64) (t *tensors, err error) {
	t = &tensors{inShape: slices.Clone(inShape), terminated: make(chan struct{}, 1), patience: newPatience()}
	defer func() {
		if err != nil {
			t.free()
			t = nil
		}
	}()
	if t.opts, err = ort.NewRunOptions(); err != nil {
		return t, fmt.Errorf("%w: run options: %v", ErrRun, err)
	}
	t.terminate = func() {
		// The only error is options that are not there; whoever waits for
		// terminated keeps them.
		_ = t.opts.Terminate()
		t.terminated <- struct{}{}
	}
	if t.in, err = t.tensor(t.inShape); err != nil {
		return t, err
	}
	t.ins = []ort.Value{value{t.in, t.in.GetInternals()}}
	for _, s := range outShapes {
		s = slices.Clone(s)
		v, err := t.tensor(s)
		if err != nil {
			return t, err
		}
		t.outs = append(t.outs, value{v, v.GetInternals()})
		t.outData = append(t.outData, v.GetData())
		t.outShapes = append(t.outShapes, s)
	}
	return t, nil
}

// tensor makes one pinned tensor of the given shape.
func (t *tensors) tensor(shape []int64) (*ort.Tensor[float32], error) {
	n := int64(1)
	for _, d := range shape {
		if d <= 0 || d > maxTensorElements || n*d > maxTensorElements {
			return nil, fmt.Errorf("%w: a tensor of shape %v: sides must be positive and the whole at most %d numbers", ErrRun, shape, maxTensorElements)
		}
		n *= d
	}
	data := make([]float32, n)
	t.pin.Pin(&data[0])
	v, err := ort.NewTensor(ort.Shape(shape), data)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot make a tensor: %v", ErrRun, err)
	}
	return v, nil
}

func (t *tensors) has(inShape []int64, outShapes [][]int64) bool {
	return slices.Equal(t.inShape, inShape) && slices.EqualFunc(t.outShapes, outShapes, slices.Equal[[]int64])
}

func (t *tensors) free() {
	if t.in != nil {
		t.in.Destroy()
		t.in = nil
	}
	for _, v := range t.outs {
		v.Destroy()
	}
	t.ins, t.outs, t.outData = nil, nil, nil
	if t.opts != nil {
		t.opts.Destroy()
		t.opts = nil
	}
	t.pin.Unpin()
}
