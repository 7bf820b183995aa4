package inference

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/menshen-io/menshen/bench/inference/wire"
	"github.com/menshen-io/menshen/bench/search"
	"github.com/menshen-io/menshen/bench/target"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
	"github.com/menshen-io/menshen/models/embed"
	"github.com/menshen-io/menshen/models/pipeline"
	"github.com/menshen-io/menshen/models/reference"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// resolve finds a model's bytes, as the server does.
func (r *run) resolve(ctx context.Context, ref string) (*models.Resolved, error) {
	rt, err := models.OpenRuntime(models.RuntimeOptions{Library: r.Server.Runtime})
	if err != nil {
		return nil, err
	}
	defer rt.Close()
	registry, err := pipeline.OpenRegistry("", rt, nil, nil)
	if err != nil {
		return nil, err
	}
	if ref == "" {
		ref = reference.Manifest().Name
	}
	return registry.Resolve(ctx, ref)
}

// embedder is the embedder run raw, and the pixels of requests with crops.
func (r *run) embedder(ctx context.Context, from wire.Target) (*raw, [][]byte, error) {
	res, err := r.resolve(ctx, r.Server.Embedder)
	if err != nil {
		return nil, nil, err
	}
	model, err := newRaw(res)
	if err != nil {
		return nil, nil, err
	}
	var crops [][]byte
	for _, body := range from.Requests {
		var req pb.VerifyRequest
		if err := proto.Unmarshal(body, &req); err != nil {
			return nil, nil, err
		}
		crops = append(crops, req.GetProbe().GetCrop().GetRgb())
	}
	return model, crops, nil
}

// crop measures Verify from crops.
func (r *run) crop(ctx context.Context) error {
	rgb, err := r.usable(target.Kind{Verb: target.Verify, Probe: target.Crop}, nil)
	if err != nil {
		return err
	}
	encoded, err := r.usable(target.Kind{Verb: target.Verify, Probe: target.JPEGCrop}, nil)
	if err != nil {
		return err
	}
	model, crops, err := r.embedder(ctx, rgb)
	if err != nil {
		return err
	}
	step := r.Progress("crop: looking for the best settings", 3)
	out := &Crop{RGBBytes: len(rgb.Requests[0]), JPEGBytes: len(encoded.Requests[0])}
	best, tried, err := model.best(r.Slice, crops)
	if err != nil {
		return err
	}
	defer best.close()
	step()
	out.RawSetting, out.RawTried = best.Setting, tried
	if out.Callers, err = r.callers(rgb); err != nil {
		return err
	}
	step()
	jpegCallers, err := r.callers(encoded)
	if err != nil {
		return err
	}
	step()
	baseline := func() (float64, error) { return best.rate(r.Slice, crops) }
	service := func(t wire.Target, callers int) func() (float64, error) {
		return func() (float64, error) {
			// The client's work is a fraction of one core's. With one P it is done
			// without waking threads, on a machine whose cores are all wanted.
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			return wire.Unary(r.call, t, callers, r.Slice)
		}
	}
	rgbPairs, err := r.rounds(ctx, "crop: RGB", baseline, service(rgb, out.Callers))
	if err != nil {
		return err
	}
	jpegPairs, err := r.rounds(ctx, "crop: JPEG", baseline, service(encoded, jpegCallers))
	if err != nil {
		return err
	}
	_, out.JPEGPerSecond, out.JPEGRatio = of(jpegPairs)
	_, out.RGBPerSecond, out.RGBRatio = of(rgbPairs)
	out.RawPerSecond, _, _ = of(append(rgbPairs, jpegPairs...))
	out.Form = "rgb"
	r.result.CropRatio = &out.RGBRatio
	if out.JPEGRatio > out.RGBRatio {
		out.Form, out.Callers, r.result.CropRatio = "jpeg", jpegCallers, &out.JPEGRatio
	}
	r.result.Crop = out
	return nil
}

// idle measures the latency of one caller on an idle machine. Raw runs back to back
// find the threads that share a run still spinning; between two runs for one
// caller lies all the rest of a call, and those threads have gone to sleep. So the
// same raw run is also measured with a pause of that length before it. The client
// has one P, as for crops: threads that it wakes would take cores from the run.
func (r *run) idle(ctx context.Context) error {
	rgb, err := r.usable(target.Kind{Verb: target.Verify, Probe: target.Crop}, nil)
	if err != nil {
		return err
	}
	model, crops, err := r.embedder(ctx, rgb)
	if err != nil {
		return err
	}
	quickest, err := model.quickest(r.Slice, crops)
	if err != nil {
		return err
	}
	defer quickest.close()
	one := rgb
	verify := func() (float64, error) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // as for crops
		return alone(r.Slice, 0, func(i int) error {
			one.Requests = rgb.Requests[i%len(rgb.Requests):][:1]
			return wire.Calls(r.call, one, 1)
		})
	}
	pairs, err := r.rounds(ctx, "idle", func() (float64, error) { return quickest.latency(r.Slice, 0, crops) }, verify)
	if err != nil {
		return err
	}
	out := &Idle{RawSetting: quickest.Setting}
	ratio := 0.0
	out.RawMS, out.VerifyMS, ratio = of(pairs)
	out.PauseMS = round(max(0, out.VerifyMS-out.RawMS))
	pause := time.Duration(out.PauseMS * float64(time.Millisecond))
	paused, err := r.rounds(ctx, "idle: with pauses", func() (float64, error) { return quickest.latency(r.Slice, pause, crops) }, verify)
	if err != nil {
		return err
	}
	out.PausedRawMS, _, out.PausedRatio = of(paused)
	r.result.Idle, r.result.IdleLatencyRatio = out, &ratio
	return nil
}

// image measures Identify from camera images.
func (r *run) image(ctx context.Context) error {
	asked, err := r.usable(target.Kind{Verb: target.Identify, Probe: target.Image}, r.Scenes)
	if err != nil {
		return err
	}
	scenes, err := r.scenes(ctx, asked)
	if err != nil {
		return err
	}
	c, err := r.newChain(ctx, scenes)
	if err != nil {
		return err
	}
	defer c.close()
	out := &Image{}
	if out.Callers, err = r.callers(asked); err != nil {
		return err
	}
	pairs, err := r.rounds(ctx, "image", func() (float64, error) { return together(c.callers, r.Slice, c.identify(ctx)) },
		func() (float64, error) { return wire.Unary(r.call, asked, out.Callers, r.Slice) })
	if err != nil {
		return err
	}
	ratio := 0.0
	out.RawPerSecond, out.ServicePerSecond, ratio = of(pairs)
	for i, to := range []*float64{&out.DecodeMS, &out.DetectMS, &out.AlignMS, &out.EmbedMS, &out.SearchMS} {
		*to = round(float64(c.spent[i].Load()) / 1e6 / float64(max(c.done.Load(), 1)))
	}
	r.result.Image, r.result.ImageRatio = out, &ratio
	return nil
}

// scenes are the images that the server is asked about, with a face in each.
func (r *run) scenes(ctx context.Context, asked wire.Target) (out [][]byte, err error) {
	for _, body := range asked.Requests {
		var req pb.IdentifyRequest
		if err := proto.Unmarshal(body, &req); err != nil {
			return nil, err
		}
		data := req.GetProbe().GetImage().GetData()
		seen, err := r.pipe.Observe(ctx, data)
		if err != nil {
			return nil, err
		}
		if len(seen.Faces) > 0 {
			out = append(out, data)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no face in any image", ErrOptions)
	}
	return out, nil
}

// chain is the stages of an identification, back to back: decode, detect, align,
// embed, search. They are the product's own, each called directly on a goroutine
// for every core: its decoder at the size that its detector asks for, its
// letterbox, reading of the detector's output, warp and search, around ONNX
// Runtime sessions of one thread (models.Session, without the runner). What is
// left out is the service: gRPC, admission, the sharing of cores, grants, quality,
// decisions and the fence.
type chain struct {
	scenes   [][]byte
	rt       *models.Runtime
	sessions []*models.Session
	detect   *detect.YuNet
	embed    *embed.Embedder
	search   *search.Stage
	decode   decode.Options
	buffers  decode.Buffers
	callers  int

	done  atomic.Int64
	spent [5]atomic.Int64 // ns, by stage
}

func (r *run) newChain(ctx context.Context, scenes [][]byte) (_ *chain, err error) {
	c := &chain{scenes: scenes, callers: runtime.GOMAXPROCS(0)}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.rt, err = models.OpenRuntime(models.RuntimeOptions{Library: r.Server.Runtime}); err != nil {
		return nil, err
	}
	detector, session, err := r.session(ctx, c, r.Server.Detector)
	if err != nil {
		return nil, err
	}
	if c.detect, err = detect.New(session, &detector.Manifest, detect.Options{}); err != nil {
		return nil, err
	}
	embedder, session, err := r.session(ctx, c, r.Server.Embedder)
	if err != nil {
		return nil, err
	}
	if c.embed, err = embed.New(session, &embedder.Manifest); err != nil {
		return nil, err
	}
	c.decode = decode.Options{Limits: decode.DefaultLimits(), Enough: c.detect.Enough, Buffers: &c.buffers}
	c.search, err = search.NewStage(ctx, r.Gallery, c.embed.Dim(), r.Seed, 0.45)
	return c, err
}

// session opens a model for runs of one thread, one on every core: the best
// setting for chains, whose other stages fill the cores too.
func (r *run) session(ctx context.Context, c *chain, ref string) (*models.Resolved, *models.Session, error) {
	res, err := r.resolve(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	s, err := c.rt.NewSession(res, models.SessionOptions{IntraOp: 1, Concurrency: c.callers})
	if err == nil {
		c.sessions = append(c.sessions, s)
	}
	return res, s, err
}

func (c *chain) close() {
	for _, s := range c.sessions {
		s.Close()
	}
	if c.rt != nil {
		c.rt.Close()
	}
	if c.search != nil {
		c.search.Close()
	}
}

// identify does all stages once.
func (c *chain) identify(ctx context.Context) func(caller, i int) error {
	return func(_, i int) error {
		data := c.scenes[i%len(c.scenes)]
		began := time.Now()
		lap := func(stage int) {
			now := time.Now()
			c.spent[stage].Add(int64(now.Sub(began)))
			began = now
		}
		img, err := decode.DecodeWith(data, c.decode)
		if err != nil {
			return err
		}
		defer img.Release()
		lap(0)
		faces, err := c.detect.Detect(ctx, img)
		if err != nil {
			return err
		}
		if len(faces) == 0 {
			return fmt.Errorf("%w: the chain finds no face where the service does", ErrOptions)
		}
		lap(1)
		crop, err := align.Align(img, faces[0].Landmarks)
		if err != nil {
			return err
		}
		lap(2)
		embedding, err := c.embed.EmbedOne(ctx, crop)
		if err != nil {
			return err
		}
		lap(3)
		if err := c.search.Identify(ctx, embedding); err != nil {
			return err
		}
		lap(4)
		c.done.Add(1)
		return nil
	}
}

// embedding measures Verify from embeddings against an echo.
func (r *run) embedding(ctx context.Context) error {
	verify, err := r.usable(target.Kind{Verb: target.Verify, Probe: target.Embedding}, nil)
	if err != nil {
		return err
	}
	out := &Embedding{Bytes: len(verify.Requests[0])}
	process, err := r.Echo(ctx, out.Bytes)
	if err != nil {
		return err
	}
	// A server that is ended twice does not mind.
	defer process.Close()
	dialer, err := target.NewDialer(process.Address, "", false)
	if err != nil {
		return err
	}
	echo := wire.Target{Method: wire.EchoMethod, Requests: [][]byte{wire.EchoRequest(out.Bytes)}, Check: func([]byte) error { return nil }}
	for range connections {
		var conn *grpc.ClientConn
		if conn, err = dialer.Dial(); err != nil {
			return err
		}
		defer conn.Close()
		echo.Conns = append(echo.Conns, conn)
	}
	if out.Callers, err = r.callers(verify); err != nil {
		return err
	}
	if out.EchoCallers, err = r.callers(echo); err != nil {
		return err
	}
	pairs, err := r.rounds(ctx, "embedding", func() (float64, error) { return wire.Unary(r.call, echo, out.EchoCallers, r.Slice) },
		func() (float64, error) { return wire.Unary(r.call, verify, out.Callers, r.Slice) })
	if err != nil {
		return err
	}
	ratio := 0.0
	out.EchoPerSecond, out.ServicePerSecond, ratio = of(pairs)
	r.result.Embedding, r.result.EmbeddingRatio = out, &ratio
	return nil
}

// inFlight is how many requests a stream has under way.
const inFlight = 64

// stream measures MatchStream against unary calls.
func (r *run) stream(ctx context.Context) error {
	kind := target.Kind{Verb: target.Verify, Probe: target.Embedding}
	unary, err := r.usable(kind, nil)
	if err != nil {
		return err
	}
	stream := wire.Target{Method: pb.MatchService_MatchStream_FullMethodName, Conns: r.conns, Check: streamed}
	if stream.Requests, err = r.tenant.StreamRequests(kind, inFlight); err != nil {
		return err
	}
	out := &Stream{InFlight: inFlight}
	if out.UnaryCallers, err = r.callers(unary); err != nil {
		return err
	}
	most := 0.0
	for _, n := range []int{connections, 2 * connections, 4 * connections} {
		got, err := wire.Stream(r.call, stream, n, r.Slice)
		if err != nil {
			return err
		}
		if got > most {
			most, out.Streams = got, n
		}
	}
	pairs, err := r.rounds(ctx, "stream", func() (float64, error) { return wire.Unary(r.call, unary, out.UnaryCallers, r.Slice) },
		func() (float64, error) { return wire.Stream(r.call, stream, out.Streams, r.Slice) })
	if err != nil {
		return err
	}
	ratio := 0.0
	out.UnaryPerSecond, out.StreamPerSecond, ratio = of(pairs)
	r.result.Stream, r.result.StreamRatio = out, &ratio
	return nil
}
