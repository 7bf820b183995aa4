package inference

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/menshen-io/menshen/models"
)

// Setting is how a model is run: callers at a time, threads of a run, images of
// a run, and whether idle threads spin.
type Setting struct {
	Callers  int  `json:"callers"`
	IntraOp  int  `json:"intra_op"`
	Batch    int  `json:"batch"`
	Spinning bool `json:"spinning"`
}

func (s Setting) String() string {
	text := fmt.Sprintf("%d x intra-op %d x batch %d", s.Callers, s.IntraOp, s.Batch)
	if s.Spinning {
		text += ", spinning"
	}
	return text
}

// settings are all that are tried for the most a second.
func settings(dynamic bool) []Setting {
	c := runtime.GOMAXPROCS(0)
	all := []Setting{{c, 1, 1, false}, {1, c, 1, true}, {2 * c, 1, 1, false}}
	if c > 2 {
		all = append(all, Setting{c / 2, 2, 1, false})
	}
	if dynamic {
		for _, batch := range []int{4, 16} {
			all = append(all, Setting{c, 1, batch, false}, Setting{1, c, batch, true})
		}
	}
	return all
}

// raw is an embedder in ONNX Runtime, with nothing of the product around it.
type raw struct {
	model    *models.Resolved
	in, outs []ort.InputOutputInfo
	w, h     int // of its input
	level    [3][256]float32
	channel  [3]int
}

// newRaw describes an embedder.
func newRaw(res *models.Resolved) (*raw, error) {
	in, outs, err := ort.GetInputOutputInfoWithONNXData(res.Data)
	if err != nil {
		return nil, err
	}
	if len(in) != 1 {
		return nil, fmt.Errorf("%w: %s has %d inputs", models.ErrModelShape, res.Manifest.Name, len(in))
	}
	r := &raw{model: res, in: in, outs: outs, w: res.Manifest.Input.Width, h: res.Manifest.Input.Height, channel: [3]int{0, 1, 2}}
	if res.Manifest.Input.Color == models.ColorBGR {
		r.channel = [3]int{2, 1, 0}
	}
	for c := range 3 {
		for v := range 256 {
			r.level[c][v] = (float32(v) - res.Manifest.Input.Mean[c]) * res.Manifest.Input.Scale[c]
		}
	}
	return r, nil
}

// open loads the model with a setting's threads.
func (r *raw) open(s Setting) (*ort.DynamicAdvancedSession, error) {
	opt, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer opt.Destroy()
	spin := "0"
	if s.Spinning {
		spin = "1"
	}
	if err := errors.Join(
		opt.SetIntraOpNumThreads(s.IntraOp), opt.SetInterOpNumThreads(1),
		opt.SetExecutionMode(ort.ExecutionModeSequential), opt.SetGraphOptimizationLevel(ort.GraphOptimizationLevelEnableAll),
		opt.AddSessionConfigEntry("session.intra_op.allow_spinning", spin),
	); err != nil {
		return nil, err
	}
	names := func(infos []ort.InputOutputInfo) (out []string) {
		for _, i := range infos {
			out = append(out, i.Name)
		}
		return out
	}
	return ort.NewDynamicAdvancedSessionWithONNXData(r.model.Data, names(r.in), names(r.outs), opt)
}

// tensors are one caller's memory, made once.
type tensors struct {
	in   *ort.Tensor[float32]
	outs []ort.Value
	out  []float32 // of the first output
	pin  runtime.Pinner
}

func (r *raw) tensors(batch int) (t *tensors, err error) {
	t = &tensors{}
	make32 := func(shape ort.Shape) (*ort.Tensor[float32], error) {
		data := make([]float32, shape.FlattenedSize())
		t.pin.Pin(&data[0])
		return ort.NewTensor(shape, data)
	}
	if t.in, err = make32(ort.NewShape(int64(batch), 3, int64(r.h), int64(r.w))); err != nil {
		return nil, err
	}
	for i, o := range r.outs {
		v, err := make32(append(ort.Shape{int64(batch)}, o.Dimensions[1:]...))
		if err != nil {
			t.free()
			return nil, err
		}
		if i == 0 {
			t.out = v.GetData()
		}
		t.outs = append(t.outs, v)
	}
	return t, nil
}

func (t *tensors) free() {
	if t.in != nil {
		t.in.Destroy()
	}
	for _, v := range t.outs {
		v.Destroy()
	}
	t.pin.Unpin()
}

// fill writes pixels (RGB) that have the model's size as image i of a batch.
func (r *raw) fill(t *tensors, i int, pix []byte) {
	plane := r.w * r.h
	in := t.in.GetData()[3*plane*i:]
	for c := range 3 {
		level, ch, dst := &r.level[c], r.channel[c], in[c*plane:(c+1)*plane]
		for p := range dst {
			dst[p] = level[pix[3*p+ch]]
		}
	}
}

// bench is an open model with the memory of its callers.
type bench struct {
	*raw
	Setting
	session *ort.DynamicAdvancedSession
	memory  []*tensors
}

func (r *raw) bench(s Setting) (b *bench, err error) {
	b = &bench{raw: r, Setting: s}
	if b.session, err = r.open(s); err != nil {
		return nil, err
	}
	for range s.Callers {
		t, err := r.tensors(s.Batch)
		if err != nil {
			b.close()
			return nil, err
		}
		b.memory = append(b.memory, t)
	}
	return b, nil
}

func (b *bench) close() {
	for _, t := range b.memory {
		t.free()
	}
	b.session.Destroy()
}

// embed fills and runs a batch for one caller.
func (b *bench) embed(caller, from int, crops [][]byte) error {
	t := b.memory[caller]
	for i := range b.Batch {
		b.fill(t, i, crops[(from+i)%len(crops)])
	}
	return b.session.Run([]ort.Value{t.in}, t.outs)
}

// rate lets the callers run for as long as d and returns images a second.
func (b *bench) rate(d time.Duration, crops [][]byte) (float64, error) {
	perSecond, err := together(b.Callers, d, func(caller, i int) error { return b.embed(caller, i*b.Batch, crops) })
	return perSecond * float64(b.Batch), err
}

// together lets callers work for as long as d and returns how often they did, a
// second.
func together(callers int, d time.Duration, work func(caller, i int) error) (float64, error) {
	var (
		group  sync.WaitGroup
		counts = make([]int, callers)
		errs   = make([]error, callers)
		began  = time.Now()
	)
	for c := range callers {
		group.Go(func() {
			for errs[c] == nil && time.Since(began) < d {
				errs[c] = work(c, c+counts[c]*callers)
				counts[c]++
			}
		})
	}
	group.Wait()
	took := time.Since(began)
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / took.Seconds(), errors.Join(errs...)
}

// best tries the settings, each for d, and returns the fastest, open, and what
// each did.
func (r *raw) best(d time.Duration, crops [][]byte) (*bench, []Tried, error) {
	var (
		winner *bench
		most   float64
		tried  []Tried
	)
	for _, s := range settings(r.model.Manifest.Batch == models.BatchDynamic) {
		b, err := r.bench(s)
		if err == nil {
			// The first runs plan memory.
			if _, err = b.rate(d/4, crops); err == nil {
				var got float64
				got, err = b.rate(d, crops)
				tried = append(tried, Tried{s, round(got)})
				if err == nil && got > most {
					if winner != nil {
						winner.close()
					}
					winner, most = b, got
					continue
				}
			}
			b.close()
		}
		if err != nil {
			if winner != nil {
				winner.close()
			}
			return nil, nil, fmt.Errorf("raw, %s: %w", s, err)
		}
	}
	return winner, tried, nil
}

// quickest opens the model for the lowest latency of one run.
func (r *raw) quickest(d time.Duration, crops [][]byte) (*bench, error) {
	var winner *bench
	least := math.Inf(1)
	c := runtime.GOMAXPROCS(0)
	for _, s := range []Setting{{1, c, 1, false}, {1, c, 1, true}, {1, 1, 1, false}} {
		b, err := r.bench(s)
		if err != nil {
			return nil, err
		}
		if _, err = b.latency(d/4, 0, crops); err != nil {
			b.close()
			return nil, err
		}
		got, err := b.latency(d, 0, crops)
		if err != nil || got >= least {
			b.close()
			if err != nil {
				return nil, err
			}
			continue
		}
		if winner != nil {
			winner.close()
		}
		winner, least = b, got
	}
	return winner, nil
}

// latency is the median time of a run with its filling, in milliseconds, each run
// after a pause.
func (b *bench) latency(d, pause time.Duration, crops [][]byte) (float64, error) {
	return alone(d, pause, func(i int) error { return b.embed(0, i, crops) })
}

// alone works one at a time for as long as d, each time after a pause, and returns
// the median time without it in milliseconds.
func alone(d, pause time.Duration, work func(i int) error) (float64, error) {
	var took []float64
	for began := time.Now(); time.Since(began) < d; {
		if pause > 0 {
			time.Sleep(pause)
		}
		start := time.Now()
		if err := work(len(took)); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start).Seconds()*1e3)
	}
	return median(took), nil
}
