package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/bench/inference"
	"github.com/menshen-io/menshen/bench/inference/wire"
	"github.com/menshen-io/menshen/bench/report"
	"github.com/menshen-io/menshen/bench/target"
)

const inferenceHelp = `inference measures how much of the machine's inference the service leaves to its
callers. It starts the menshen beside it, on loopback with a temporary data
directory, and lets it take turns with ONNX Runtime called directly in this
process, so that what else the machine does hits both. Every figure is a median
over --rounds, every ratio the median of the rounds' ratios.

Parts (--only) and what is printed (keys of --json; null where left out):

  crop       crop_ratio: faces a second of Verify from 112x112 crops over gRPC, over
             those of the embedder run raw at the best setting that was found
             (callers x intra-op threads x batch), filling the tensor from pixels
             included. Crops as raw RGB and as JPEG are both measured, with a client
             that has one P; the ratio is the better one's, and says whose
  idle       idle_latency_ratio: one caller on an idle machine, Verify from an RGB
             crop, median latency, over the median of one raw run on all cores, back
             to back; the client has one P; idle.paused_ratio: over one after a pause as long as what a
             call does besides its run, so that threads sleep in both
  image      image_ratio: Identify a second from 640x480 JPEGs in --gallery, over the
             stages run back to back on every core without a service: decode, detect,
             align, embed, search. Needs --detector
  embedding  embedding_ratio: Verify a second from embeddings over gRPC, over a bare
             gRPC echo of as many bytes, a process of its own too, that hardly
             ever collects garbage
  stream     stream_ratio: the same over MatchStreams, over unary calls

The faces are drawn, and a detector made for photographs may find none in them, or
quality checks refuse them: what the server does not compare is left out, and
where nothing is left it is an error. Give --photos then.

--record DIR writes the JSON document also to a file there, for bench/results.

Exit status: 0 measured, 1 failed, 2 bad flags or models, 130 interrupted.`

const inferenceExamples = `  menshen-bench inference --embedder model.onnx
  menshen-bench inference --detector yunet.onnx --embedder model.onnx --photos photos/ --record bench/results
  menshen-bench inference --only embedding --only stream --rounds 9 --json`

// inferenceFlags are the flags of the subcommand.
type inferenceFlags struct {
	inference.Options
	child   childFlags
	seconds float64
	photos  string
	asJSON  bool
	record  string
}

// inferenceOutput is the JSON document of the subcommand.
type inferenceOutput struct {
	*inference.Result
	Environment report.Environment `json:"environment"`
}

func newInference(commandLine []string) *cobra.Command {
	var f inferenceFlags
	cmd := &cobra.Command{
		Use:     "inference [--detector D] [--embedder E]",
		Short:   "Measure the service against ONNX Runtime run raw, in one run",
		Long:    inferenceHelp,
		Example: inferenceExamples,
		Args:    flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return usageError{cmd.CommandPath(), err}
			}
			return f.run(cmd.Context(), commandLine, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringArrayVar(&f.Only, "only", nil, "a part: crop, idle, image, embedding or stream; may be repeated (default: all that the models allow)")
	flags.IntVar(&f.Gallery, "gallery", 100_000, "templates that images are identified among")
	flags.IntVar(&f.Rounds, "rounds", 5, "rounds that the medians are taken of")
	flags.Float64Var(&f.seconds, "seconds", 1, "time of each measurement in a round")
	flags.StringVar(&f.photos, "photos", "", "folder of photographs with a face for the images (default: drawn ones)")
	flags.Uint64Var(&f.Seed, "seed", 1, "seed of the data")
	f.child.add(cmd)
	flags.BoolVar(&f.asJSON, "json", false, "print the result as JSON")
	flags.StringVar(&f.record, "record", "", "write the JSON document also to a file in this folder")
	return cmd
}

func (f *inferenceFlags) check() error {
	if !(f.seconds > 0 && f.seconds <= 60) {
		return fmt.Errorf("--seconds %v: above 0, at most 60", f.seconds)
	}
	f.Slice = time.Duration(f.seconds * float64(time.Second))
	f.Server = f.child.ServerOptions
	if err := checkRecord(f.record); err != nil {
		return err
	}
	return f.Validate()
}

func (f *inferenceFlags) run(ctx context.Context, commandLine []string, stdout, stderr io.Writer) (err error) {
	started := time.Now()
	bars := phases{ctx: ctx, w: stderr}
	defer bars.stop()
	f.Progress, f.Echo = bars.begin, startEcho
	scenes := "drawn faces before a wall"
	if f.photos != "" {
		scenes = "photographs"
		f.Scenes, err = target.Photographs(f.photos)
	} else {
		f.Scenes, err = target.DrawnScenes(f.Seed)
	}
	if err != nil {
		return err
	}
	result, err := inference.Run(ctx, f.Options)
	if err != nil {
		return err
	}
	bars.stop()
	if result.Image != nil {
		result.Image.Scenes = scenes
	}
	out := &inferenceOutput{result, report.NewEnvironment(commandLine, started)}
	out.Environment.Seconds = time.Since(started).Round(time.Millisecond).Seconds()
	if f.record != "" {
		path := filepath.Join(f.record, "inference.json")
		if err := report.WriteJSONFile(path, out); err != nil {
			return err
		}
		note(stderr, "written to %s", path)
	}
	return writeResult(stdout, f.asJSON, out, out.table())
}

func (o *inferenceOutput) table() *report.Table {
	t := &report.Table{}
	t.Add("model", o.Model)
	if o.Detector != "" {
		t.Add("detector", o.Detector)
	}
	t.Add("cpu", fmt.Sprintf("%s, %d cores shared with the client", o.Environment.CPU, o.Environment.Cores))
	t.Add("rounds", fmt.Sprintf("%d of %gs a measurement", o.Rounds, o.SecondsEach))
	t.Add()
	if c := o.Crop; c != nil {
		t.Add("crop_ratio", figure(o.CropRatio), fmt.Sprintf("as %s; raw %s faces/s at %s", c.Form, short(c.RawPerSecond), c.RawSetting))
		t.Add("  rgb", plain(c.RGBRatio), fmt.Sprintf("%s faces/s, %d bytes", short(c.RGBPerSecond), c.RGBBytes))
		t.Add("  jpeg", plain(c.JPEGRatio), fmt.Sprintf("%s faces/s, %d bytes", short(c.JPEGPerSecond), c.JPEGBytes))
	}
	if i := o.Idle; i != nil {
		t.Add("idle_latency_ratio", figure(o.IdleLatencyRatio), fmt.Sprintf("%s ms, raw %s ms at %s", short(i.VerifyMS), short(i.RawMS), i.RawSetting))
		t.Add("  with pauses", plain(i.PausedRatio), fmt.Sprintf("raw %s ms after %s ms without a run", short(i.PausedRawMS), short(i.PauseMS)))
	}
	if i := o.Image; i != nil {
		t.Add("image_ratio", figure(o.ImageRatio), fmt.Sprintf("%s images/s in %d, raw %s: decode %s, detect %s, align %s, embed %s, search %s ms; %s",
			short(i.ServicePerSecond), o.Gallery, short(i.RawPerSecond), short(i.DecodeMS), short(i.DetectMS), short(i.AlignMS), short(i.EmbedMS), short(i.SearchMS), i.Scenes))
	}
	if e := o.Embedding; e != nil {
		t.Add("embedding_ratio", figure(o.EmbeddingRatio), fmt.Sprintf("%s calls/s with %d callers, echo %s with %d, %d bytes", short(e.ServicePerSecond), e.Callers, short(e.EchoPerSecond), e.EchoCallers, e.Bytes))
	}
	if s := o.Stream; s != nil {
		t.Add("stream_ratio", figure(o.StreamRatio), fmt.Sprintf("%s items/s over %d streams with %d under way, unary %s calls/s with %d callers", short(s.StreamPerSecond), s.Streams, s.InFlight, short(s.UnaryPerSecond), s.UnaryCallers))
	}
	return t
}

// echoMemory is what an echo fills before it collects garbage.
const echoMemory = 512 << 20

// newEcho is the process that the embeddings are compared with.
func newEcho() *cobra.Command {
	var size int
	var addressFile string
	cmd := &cobra.Command{
		Use: "echo", Hidden: true, Args: flagsOnly,
		Short: "Answer calls with as many bytes, for the comparison of inference",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if size < 2 || size > 1<<20 || addressFile == "" {
				return usageError{cmd.CommandPath(), errors.New("--size 2 to 1048576 and --address-file are required")}
			}
			// With as little memory as an echo has, Go would collect garbage all the
			// time, which a server with galleries does not.
			debug.SetGCPercent(-1)
			debug.SetMemoryLimit(echoMemory)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			echo := wire.ServeEcho(l, size)
			defer echo.Stop()
			if err := os.WriteFile(addressFile, []byte(l.Addr().String()+"\n"), 0o600); err != nil {
				return err
			}
			<-cmd.Context().Done()
			return nil
		},
	}
	cmd.Flags().IntVar(&size, "size", 0, "bytes of an answer")
	cmd.Flags().StringVar(&addressFile, "address-file", "", "file that the address is written to")
	return cmd
}

// startEcho starts this program as an echo.
func startEcho(ctx context.Context, size int) (*target.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "menshen-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // the address is read by then
	address := filepath.Join(dir, "address")
	return target.Run(ctx, address, self, "echo", "--size", strconv.Itoa(size), "--address-file", address)
}
