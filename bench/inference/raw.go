package inference

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"time"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/decode"
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

// raw is a model in ONNX Runtime, with nothing of the product around it.
type raw struct {
	model    *models.Resolved
	in, outs []ort.InputOutputInfo
	w, h     int // of its input
	level    [3][256]float32
	channel  [3]int
}

// newRaw describes a model; w and h are the input's where the model leaves them
// open.
func newRaw(res *models.Resolved, w, h int) (*raw, error) {
	in, outs, err := ort.GetInputOutputInfoWithONNXData(res.Data)
	if err != nil {
		return nil, err
	}
	if len(in) != 1 {
		return nil, fmt.Errorf("%w: %s has %d inputs", models.ErrModelShape, res.Manifest.Name, len(in))
	}
	r := &raw{model: res, in: in, outs: outs, w: w, h: h, channel: [3]int{0, 1, 2}}
	if res.Manifest.Input.Width > 0 {
		r.w, r.h = res.Manifest.Input.Width, res.Manifest.Input.Height
	}
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
		v, err := make32(r.outShape(o, batch))
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

// outShape fills in what a model leaves open: of an embedder the batch, of a
// YuNet the cells at the stride that the output's name ends in.
func (r *raw) outShape(o ort.InputOutputInfo, batch int) ort.Shape {
	shape := append(ort.Shape{}, o.Dimensions...)
	shape[0] = int64(batch)
	for _, stride := range []int{8, 16, 32} {
		if len(shape) == 3 && strings.HasSuffix(o.Name, fmt.Sprintf("_%d", stride)) {
			shape[1] = int64(r.w / stride * (r.h / stride))
		}
	}
	return shape
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

// fillScaled writes an image of any size, scaled to fit with bilinear
// interpolation; what is beside it stays black.
func (r *raw) fillScaled(t *tensors, img *decode.Image) {
	if img.Planes != nil {
		r.fillPlanes(t, img)
		return
	}
	scale := max(float64(img.Width)/float64(r.w), float64(img.Height)/float64(r.h))
	w, h := min(int(float64(img.Width)/scale), r.w), min(int(float64(img.Height)/scale), r.h)
	in, plane := t.in.GetData(), r.w*r.h
	for y := range h {
		sy := min((float64(y)+0.5)*scale-0.5, float64(img.Height-1))
		y0 := int(max(sy, 0))
		y1 := min(y0+1, img.Height-1)
		fy := float32(max(sy, 0) - float64(y0))
		top, bottom := img.Pix[3*img.Width*y0:], img.Pix[3*img.Width*y1:]
		for x := range w {
			sx := max(min((float64(x)+0.5)*scale-0.5, float64(img.Width-1)), 0)
			x0 := int(sx)
			x1 := min(x0+1, img.Width-1)
			fx := float32(sx - float64(x0))
			for c := range 3 {
				ch := r.channel[c]
				a := float32(top[3*x0+ch]) + fx*(float32(top[3*x1+ch])-float32(top[3*x0+ch]))
				b := float32(bottom[3*x0+ch]) + fx*(float32(bottom[3*x1+ch])-float32(bottom[3*x0+ch]))
				in[c*plane+y*r.w+x] = (a + fy*(b-a) - r.model.Manifest.Input.Mean[c]) * r.model.Manifest.Input.Scale[c]
			}
		}
	}
}

// fillPlanes is fillScaled for the samples of a JPEG that is not turned:
// brightness is interpolated, colour is the nearest.
func (r *raw) fillPlanes(t *tensors, img *decode.Image) {
	p := img.Planes
	scale := max(float64(img.Width)/float64(r.w), float64(img.Height)/float64(r.h))
	w, h := min(int(float64(img.Width)/scale), r.w), min(int(float64(img.Height)/scale), r.h)
	type column struct {
		x0, x1, chroma int
		f              float32
	}
	columns := make([]column, w)
	for x := range columns {
		sx := max(min((float64(x)+0.5)*scale-0.5, float64(img.Width-1)), 0)
		x0 := int(sx)
		columns[x] = column{x0, min(x0+1, img.Width-1), int(sx+0.5) / max(p.ShareX, 1), float32(sx - float64(x0))}
	}
	in, plane := t.in.GetData(), r.w*r.h
	mean, factor := r.model.Manifest.Input.Mean, r.model.Manifest.Input.Scale
	for y := range h {
		sy := max(min((float64(y)+0.5)*scale-0.5, float64(img.Height-1)), 0)
		y0 := int(sy)
		y1, fy := min(y0+1, img.Height-1), float32(sy-float64(y0))
		top, bottom := p.Y[p.YStride*y0:], p.Y[p.YStride*y1:]
		chroma := p.CStride * (int(sy+0.5) / max(p.ShareY, 1))
		for x := range columns {
			k := &columns[x]
			a := float32(top[k.x0]) + k.f*(float32(top[k.x1])-float32(top[k.x0]))
			b := float32(bottom[k.x0]) + k.f*(float32(bottom[k.x1])-float32(bottom[k.x0]))
			light := a + fy*(b-a)
			rgb := [3]float32{light, light, light}
			if len(p.Cb) > 0 {
				cb, cr := float32(p.Cb[chroma+k.chroma])-128, float32(p.Cr[chroma+k.chroma])-128
				// JFIF 1.02, section 7.
				rgb = [3]float32{light + 1.402*cr, light - 0.344136*cb - 0.714136*cr, light + 1.772*cb}
			}
			for c := range 3 {
				v := min(max(rgb[r.channel[c]], 0), 255)
				in[c*plane+y*r.w+x] = (v - mean[c]) * factor[c]
			}
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
		if _, err = b.latency(d/4, crops); err != nil {
			b.close()
			return nil, err
		}
		got, err := b.latency(d, crops)
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

// latency is the median time of a run with its filling, in milliseconds.
func (b *bench) latency(d time.Duration, crops [][]byte) (float64, error) {
	return alone(d, func(i int) error { return b.embed(0, i, crops) })
}

// alone works one at a time for as long as d, and returns the median time in
// milliseconds.
func alone(d time.Duration, work func(i int) error) (float64, error) {
	var took []float64
	for began := time.Now(); time.Since(began) < d; {
		start := time.Now()
		if err := work(len(took)); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start).Seconds()*1e3)
	}
	return median(took), nil
}
