package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
	"github.com/menshen-io/menshen/models/pipeline"
)

// modelFlags are the flags of the commands that use models without a server.
type modelFlags struct {
	dir     string
	runtime string
}

func (m *modelFlags) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&m.dir, "models-dir", "", "folder of imported and fetched models (default menshen/models in your cache folder)")
	cmd.Flags().StringVar(&m.runtime, "runtime", "", "path of the ONNX Runtime library (default: $"+models.LibraryEnv+", beside the program, your cache folder, the system)")
}

func (c *cli) detectCommand() *cobra.Command {
	var (
		mf        modelFlags
		ref       string
		opt       detect.Options
		maxPixels int64
		jobs      int
	)
	cmd := &cobra.Command{
		Use:     "detect --detector FILE-OR-NAME IMAGE...",
		GroupID: "offline",
		Short:   "Find the faces in image files, without a server",
		Long: `Find the faces in JPEG, PNG, PGM and PPM files on this machine.

The detector is a registry name ("menshen models list"), a manifest, or a .onnx
file. Boxes and landmarks are in pixels of the upright image; the five landmarks
are the eye at the image's left, the eye at its right, the nose tip, the mouth
corner at the left and at the right.

With --json every image gives one line, in the order of the arguments:
  {"file":..., "width":..., "height":..., "faces":[{"score":..., "box":[x,y,w,h],
   "landmarks":[[x,y],[x,y],[x,y],[x,y],[x,y]]}]}
or {"file":..., "error":...}. An image that cannot be read does not stop the
others; the exit status is then 1.`,
		Example: `  menshen detect --detector yunet-2023mar photo.jpg
  menshen detect --detector ./yunet_n_640_640.onnx --json *.jpg | jq '.faces | length'`,
		Args: atLeastOne("IMAGE"),
	}
	f := cmd.Flags()
	f.StringVar(&ref, "detector", "", "registry name, manifest or .onnx file (required)")
	f.Float32Var(&opt.ScoreThreshold, "score-threshold", detect.DefaultScoreThreshold, "score from which a detection is a face, above 0 to 1")
	f.IntVar(&opt.InputSize, "input-size", detect.DefaultInputSize, "for models that take any size: the longest side that images are scaled to")
	f.Int64Var(&maxPixels, "max-pixels", decode.DefaultLimits().MaxPixels, "refuse larger images")
	f.IntVar(&jobs, "jobs", runtime.GOMAXPROCS(0), "images that are worked on at once")
	f.BoolVar(&c.json, "json", false, "one JSON object per image")
	mf.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if ref == "" {
			return usagef("--detector is missing; \"menshen models list\" shows the names, \"menshen models pull NAME\" fetches one")
		}
		if jobs < 1 || jobs > 1024 {
			return usagef("--jobs: %d is outside 1 to 1024", jobs)
		}
		lim := decode.DefaultLimits()
		lim.MaxPixels = maxPixels
		finder, err := c.openDetector(cmd.Context(), mf, ref, opt, jobs)
		if err != nil {
			return err
		}
		defer finder.close()
		return c.detectFiles(cmd.Context(), finder.yunet, lim, jobs, args)
	}
	return cmd
}

// openedDetector is a detector with what it stands on.
type openedDetector struct {
	rt    *models.Runtime
	sess  *models.Session
	yunet *detect.YuNet
}

func (d *openedDetector) close() {
	if d.sess != nil {
		d.sess.Close()
	}
	d.rt.Close()
}

func (c *cli) openDetector(ctx context.Context, mf modelFlags, ref string, opt detect.Options, jobs int) (_ *openedDetector, err error) {
	d := &openedDetector{}
	d.rt, err = models.OpenRuntime(models.RuntimeOptions{Library: mf.runtime})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	reg, err := pipeline.OpenRegistry(mf.dir, d.rt, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	res, err := reg.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	if res.Manifest.Kind != models.KindDetector {
		return nil, fmt.Errorf("%w: %s is a %s; a detector is wanted here", pipeline.ErrWrongKind, ref, res.Manifest.Kind)
	}
	for _, note := range res.Notes {
		fmt.Fprintf(c.stderr, "menshen: note: %s\n", note)
	}
	if d.sess, err = d.rt.NewSession(res, models.SessionOptions{Concurrency: jobs}); err != nil {
		return nil, err
	}
	d.yunet, err = detect.New(d.sess, &res.Manifest, opt)
	return d, err
}

// detection is what was found in one file, in the form of --json.
type detection struct {
	File   string      `json:"file"`
	Width  int         `json:"width"`
	Height int         `json:"height"`
	Faces  []foundFace `json:"faces"`
}

type foundFace struct {
	Score     float32       `json:"score"`
	Box       [4]float32    `json:"box"`
	Landmarks [5][2]float32 `json:"landmarks"`
}

// detectFiles works on up to jobs files at once and prints in order. Each file
// has a slot for its answer, and a file is begun only when the one that is jobs
// places before it has been printed, so that memory stays bounded.
func (c *cli) detectFiles(ctx context.Context, finder *detect.YuNet, lim decode.Limits, jobs int, paths []string) error {
	type answer struct {
		found *detection
		err   error
	}
	slots := make(chan chan answer, jobs)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(slots)
		for _, path := range paths {
			slot := make(chan answer, 1)
			select {
			case slots <- slot:
			case <-ctx.Done():
				return
			}
			go func() {
				found, err := detectFile(ctx, finder, lim, path)
				slot <- answer{found, err}
			}()
		}
	}()
	t := newTable("FILE", "SIZE", "FACE", "SCORE", "BOX (x,y w x h)")
	failed, next := 0, 0
	for slot := range slots {
		a := <-slot
		if ctx.Err() != nil {
			break // what was found so far is printed
		}
		path := paths[next]
		next++
		switch {
		case a.err != nil && c.json:
			failed++
			line := struct {
				File  string `json:"file"`
				Error string `json:"error"`
			}{path, a.err.Error()}
			if err := c.printLine(line); err != nil {
				return err
			}
		case a.err != nil:
			failed++
			fmt.Fprintf(c.stderr, "menshen: %v\n", a.err)
		case c.json:
			if err := c.printLine(a.found); err != nil {
				return err
			}
		default:
			detectionRows(t, a.found)
		}
	}
	if !c.json && len(t.rows) > 1 {
		if err := c.printTable(t, ""); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if failed > 0 {
		return exitStatus(exitError)
	}
	return nil
}

func detectFile(ctx context.Context, finder *detect.YuNet, lim decode.Limits, path string) (*detection, error) {
	img, err := decode.ReadFile(path, lim)
	if err != nil {
		return nil, err
	}
	faces, err := finder.Detect(ctx, img)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d := &detection{File: path, Width: img.Width, Height: img.Height, Faces: []foundFace{}}
	for _, f := range faces {
		out := foundFace{Score: f.Score, Box: [4]float32{f.Box.X, f.Box.Y, f.Box.W, f.Box.H}}
		for i, p := range f.Landmarks {
			out.Landmarks[i] = [2]float32{p.X, p.Y}
		}
		d.Faces = append(d.Faces, out)
	}
	return d, nil
}

func detectionRows(t *table, d *detection) {
	size := fmt.Sprintf("%dx%d", d.Width, d.Height)
	if len(d.Faces) == 0 {
		t.row(d.File, size, "none")
		return
	}
	for i, f := range d.Faces {
		t.row(d.File, size, fmt.Sprintf("%d/%d", i+1, len(d.Faces)), fmt.Sprintf("%.3f", f.Score),
			fmt.Sprintf("%.0f,%.0f %.0fx%.0f", f.Box[0], f.Box[1], f.Box[2], f.Box[3]))
	}
}

// printLine writes one JSON line.
func (c *cli) printLine(v any) error {
	enc := json.NewEncoder(c.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
