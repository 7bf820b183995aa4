package inference

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	ort "github.com/yalue/onnxruntime_go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/menshen-io/menshen/bench/inference/wire"
	"github.com/menshen-io/menshen/bench/search"
	"github.com/menshen-io/menshen/bench/target"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
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
	model, err := newRaw(res, align.Size, align.Size)
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
	rgbPairs, err := r.rounds(ctx, "crop: RGB", baseline, func() (float64, error) { return wire.Unary(r.call, rgb, out.Callers, r.Slice) })
	if err != nil {
		return err
	}
	jpegPairs, err := r.rounds(ctx, "crop: JPEG", baseline, func() (float64, error) { return wire.Unary(r.call, encoded, jpegCallers, r.Slice) })
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

// idle measures the latency of one caller on an idle machine.
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
	pairs, err := r.rounds(ctx, "idle", func() (float64, error) { return quickest.latency(r.Slice, crops) },
		func() (float64, error) {
			return alone(r.Slice, func(i int) error {
				one.Requests = rgb.Requests[i%len(rgb.Requests):][:1]
				return wire.Calls(r.call, one, 1)
			})
		})
	if err != nil {
		return err
	}
	out := &Idle{RawSetting: quickest.Setting}
	ratio := 0.0
	out.RawMS, out.VerifyMS, ratio = of(pairs)
	r.result.Idle, r.result.IdleLatencyRatio = out, &ratio
	return nil
}

// scene is a camera image with the face that is taken of it.
type scene struct {
	data      []byte
	landmarks align.Landmarks
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
	pairs, err := r.rounds(ctx, "image", func() (float64, error) { return together(len(c.embed.memory), r.Slice, c.identify(ctx)) },
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

// scenes finds the face in every image that the server is asked about.
func (r *run) scenes(ctx context.Context, asked wire.Target) (out []scene, err error) {
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
			out = append(out, scene{data, seen.Faces[0].Landmarks})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no face in any image", ErrOptions)
	}
	return out, nil
}

// chain is the stages of an identification, back to back: decode, detect, align,
// embed, search. Where the faces are was found before: reading the detector's
// output is left out.
type chain struct {
	scenes        []scene
	detect, embed *bench
	search        *search.Stage
	limits        decode.Limits

	done  atomic.Int64
	spent [5]atomic.Int64 // ns, by stage
}

func (r *run) newChain(ctx context.Context, scenes []scene) (_ *chain, err error) {
	c := &chain{scenes: scenes, limits: decode.DefaultLimits()}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	// One run of one thread on every core: the best setting for chains, whose
	// stages before and after fill the cores too.
	setting := Setting{Callers: runtime.GOMAXPROCS(0), IntraOp: 1, Batch: 1}
	detector, err := r.resolve(ctx, r.Server.Detector)
	if err != nil {
		return nil, err
	}
	// A detector of any size gets the camera image's, with its longest side as
	// the product has it, in whole cells.
	size := detect.DefaultInputSize
	find, err := newRaw(detector, size, (size*target.SceneHeight/target.SceneWidth+31)/32*32)
	if err != nil {
		return nil, err
	}
	if c.detect, err = find.bench(setting); err != nil {
		return nil, err
	}
	embedder, err := r.resolve(ctx, r.Server.Embedder)
	if err != nil {
		return nil, err
	}
	compare, err := newRaw(embedder, align.Size, align.Size)
	if err != nil {
		return nil, err
	}
	if c.embed, err = compare.bench(setting); err != nil {
		return nil, err
	}
	c.search, err = search.NewStage(ctx, r.Gallery, embedder.Manifest.Output.Dimension, r.Seed, 0.45)
	return c, err
}

func (c *chain) close() {
	for _, b := range []*bench{c.detect, c.embed} {
		if b != nil {
			b.close()
		}
	}
	if c.search != nil {
		c.search.Close()
	}
}

// identify does all stages once.
func (c *chain) identify(ctx context.Context) func(caller, i int) error {
	return func(caller, i int) error {
		s := &c.scenes[i%len(c.scenes)]
		began := time.Now()
		lap := func(stage int) {
			now := time.Now()
			c.spent[stage].Add(int64(now.Sub(began)))
			began = now
		}
		img, err := decode.Decode(s.data, c.limits)
		if err != nil {
			return err
		}
		lap(0)
		found := c.detect.memory[caller]
		c.detect.fillScaled(found, img.RGB())
		if err := c.detect.session.Run([]ort.Value{found.in}, found.outs); err != nil {
			return err
		}
		lap(1)
		crop, err := align.Align(img, s.landmarks)
		if err != nil {
			return err
		}
		img.Release()
		lap(2)
		if err := c.embed.embed(caller, 0, [][]byte{crop.Pix}); err != nil {
			return err
		}
		lap(3)
		if err := c.search.Identify(ctx, c.embed.memory[caller].out); err != nil {
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
