package models

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Kind tells what a model is for.
type Kind string

// The kinds of model.
const (
	KindDetector Kind = "detector"
	KindEmbedder Kind = "embedder"
)

// Architecture tells how a model's outputs are to be read.
type Architecture string

// The architectures that this build can run.
const (
	// ArchYuNet has twelve outputs: cls, obj, bbox and kps at strides 8, 16
	// and 32.
	ArchYuNet Architecture = "yunet"
	// ArchEmbedding has one output of shape N x Dimension.
	ArchEmbedding Architecture = "embedding"
)

// Colour orders of a model's input planes.
const (
	ColorRGB = "RGB"
	ColorBGR = "BGR"
)

// Batch modes.
const (
	BatchStatic  = "static"  // the model takes one image per run
	BatchDynamic = "dynamic" // the model takes any number of images per run
)

const (
	// MaxDimension bounds the length of an embedding. Public face embedders
	// have 128 to 1024 dimensions.
	MaxDimension = 4096
	// maxSide bounds the side of a model's input, in pixels.
	maxSide = 4096
	// maxManifestBytes bounds a manifest file.
	maxManifestBytes = 64 << 10
	// embedSide is the side of the aligned crop that an embedder takes.
	embedSide = 112
)

// Manifest describes one model file. The zero value is not valid.
type Manifest struct {
	Name         string       `yaml:"name"`
	Kind         Kind         `yaml:"kind"`
	Architecture Architecture `yaml:"architecture"`
	Title        string       `yaml:"title,omitempty"`
	// File is the model's file name, without a folder: it stands beside the
	// manifest, or in the registry's folder.
	File string `yaml:"file,omitempty"`
	// SHA256 is the file's hash in lower-case hex. Empty: not pinned; the
	// registry fills in what it found when it resolves the model.
	SHA256        string `yaml:"sha256,omitempty"`
	License       string `yaml:"license,omitempty"`
	LicenseURL    string `yaml:"license_url,omitempty"`
	NonCommercial bool   `yaml:"non_commercial,omitempty"`
	// Evaluation marks a model that is for trying the product out, never for
	// recognising people. Production mode refuses it.
	Evaluation bool   `yaml:"evaluation,omitempty"`
	Source     Source `yaml:"source,omitempty"`
	Input      Input  `yaml:"input"`
	Output     Output `yaml:"output,omitempty"`
	// Batch is "static" (one image per run) or "dynamic".
	Batch string `yaml:"batch"`
	// Detector names the registry's detector that goes with an embedder.
	Detector string `yaml:"detector,omitempty"`
	// Threshold is the cosine at or above which two faces are taken for one
	// person where the operator sets nothing else. 0: none is known.
	Threshold   float64            `yaml:"threshold,omitempty"`
	Calibration []CalibrationPoint `yaml:"calibration,omitempty"`
}

// Source is where a model's file can be fetched.
type Source struct {
	URL string `yaml:"url,omitempty"`
	// ArchiveMember is the file's path inside the zip archive that URL names.
	// Empty: URL names the model file itself.
	ArchiveMember string `yaml:"archive_member,omitempty"`
	// Size is the size in bytes of what URL gives. 0: not known.
	Size int64 `yaml:"size,omitempty"`
}

// Input says how pixels become the model's input tensor:
// x' = (x - Mean[c]) * Scale[c], x in 0..255, c counted in Color's order.
type Input struct {
	// Name of the input. Empty: the model's only input.
	Name string `yaml:"name,omitempty"`
	// Width and Height in pixels. Both 0 for a detector that takes any size.
	Width  int        `yaml:"width"`
	Height int        `yaml:"height"`
	Layout string     `yaml:"layout"`
	Color  string     `yaml:"color"`
	Mean   [3]float32 `yaml:"mean,flow"`
	Scale  [3]float32 `yaml:"scale,flow"`
}

// Output names an embedder's output. A detector's outputs are fixed by its
// architecture.
type Output struct {
	// Name of the output. Empty: the model's only output.
	Name      string `yaml:"name,omitempty"`
	Dimension int    `yaml:"dimension,omitempty"`
}

// CalibrationPoint is one measured operating point: at Score and above, a
// share FMR of comparisons between different people match.
type CalibrationPoint struct {
	FMR   float64 `yaml:"fmr"`
	Score float64 `yaml:"score"`
	// Source says on what data, and by whom, this was measured.
	Source string `yaml:"source"`
}

var (
	namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	hashPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// nameRule is what validName asks, in words.
const nameRule = "use 1 to 63 of a-z, 0-9, '.', '-', '_', beginning with a letter or digit, not ending in .onnx, .yaml or .yml"

// validName reports whether a registry may know a model by this name. The
// endings are those by which Resolve tells files from names.
func validName(name string) bool {
	switch filepath.Ext(name) {
	case ".onnx", ".yaml", ".yml":
		return false
	}
	return namePattern.MatchString(name)
}

// CheckName returns ErrModelName unless name is 1 to 63 characters of a-z, 0-9,
// dot, dash and underscore, begins with a letter or digit, and does not end
// like a file name (.onnx, .yaml, .yml).
func CheckName(name string) error {
	if !validName(name) {
		return fmt.Errorf("%w: %q: %s", ErrModelName, name, nameRule)
	}
	return nil
}

// ID returns the model's identity in the API and in templates:
// "<name>@<first 12 hex digits of the sha256>". Templates of models with
// different ids are never compared. A manifest without a hash has the id
// "<name>@unpinned"; the registry never returns one.
func (m *Manifest) ID() string {
	if len(m.SHA256) < 12 {
		return m.Name + "@unpinned"
	}
	return m.Name + "@" + m.SHA256[:12]
}

// ParseManifest reads one YAML manifest and validates it. A key that it does
// not know, or a second document, is an error: a misspelt key would otherwise
// silently change what the model sees.
func ParseManifest(data []byte) (*Manifest, error) {
	if len(data) > maxManifestBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrManifest, len(data), maxManifestBytes)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var m Manifest
	if err := dec.Decode(&m); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: the file is empty", ErrManifest)
		}
		return nil, fmt.Errorf("%w: %v", ErrManifest, err)
	}
	var rest yaml.Node
	if err := dec.Decode(&rest); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: more than one YAML document; keep one model per file", ErrManifest)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return &m, nil
}

// Marshal returns the manifest as YAML that ParseManifest reads back.
func (m *Manifest) Marshal() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return yaml.Marshal(m)
}

// Validate returns nil, or an error that wraps ErrManifest and lists every
// problem at once.
func (m *Manifest) Validate() error {
	var probs []string
	bad := func(format string, args ...any) { probs = append(probs, fmt.Sprintf(format, args...)) }

	if !validName(m.Name) {
		bad("name %q: %s", m.Name, nameRule)
	}
	if m.File != "" && !plainFileName(m.File) {
		bad("file %q: give a file name without a folder", m.File)
	}
	if m.SHA256 != "" && !hashPattern.MatchString(m.SHA256) {
		bad("sha256 %q: give 64 lower-case hex digits", m.SHA256)
	}
	m.Source.validate(bad)
	m.Input.validate(bad)
	if m.Batch != BatchStatic && m.Batch != BatchDynamic {
		bad("batch %q: say static or dynamic", m.Batch)
	}
	switch m.Kind {
	case KindDetector:
		m.validateDetector(bad)
	case KindEmbedder:
		m.validateEmbedder(bad)
	default:
		bad("kind %q: say detector or embedder", m.Kind)
	}
	if m.Detector != "" && !validName(m.Detector) {
		bad("detector %q: give a registry name", m.Detector)
	}
	if !(m.Threshold >= -1 && m.Threshold <= 1) {
		bad("threshold %v: a cosine lies in -1..1", m.Threshold)
	}
	for i, c := range m.Calibration {
		if !(c.FMR > 0 && c.FMR <= 1) {
			bad("calibration[%d].fmr %v: a rate lies in 0..1, above 0", i, c.FMR)
		}
		if !(c.Score >= -1 && c.Score <= 1) {
			bad("calibration[%d].score %v: a cosine lies in -1..1", i, c.Score)
		}
		if strings.TrimSpace(c.Source) == "" {
			bad("calibration[%d].source is missing: say on what data it was measured", i)
		}
	}
	if len(probs) == 0 {
		return nil
	}
	return fmt.Errorf("%w %q: %s", ErrManifest, m.Name, strings.Join(probs, "; "))
}

func (m *Manifest) validateDetector(bad func(string, ...any)) {
	if m.Architecture != ArchYuNet {
		bad("architecture %q: the detector that can be run is yunet", m.Architecture)
	}
	if m.Input.Width%32 != 0 || m.Input.Height%32 != 0 {
		bad("input %dx%d: yunet's sides are multiples of 32", m.Input.Width, m.Input.Height)
	}
	if (m.Input.Width == 0) != (m.Input.Height == 0) {
		bad("input %dx%d: give both sides, or 0x0 for a model that takes any size", m.Input.Width, m.Input.Height)
	}
	if m.Output != (Output{}) {
		bad("output: a detector's outputs are fixed by its architecture; leave it out")
	}
}

func (m *Manifest) validateEmbedder(bad func(string, ...any)) {
	if m.Architecture != ArchEmbedding {
		bad("architecture %q: the embedder that can be run is embedding", m.Architecture)
	}
	if m.Input.Width != embedSide || m.Input.Height != embedSide {
		bad("input %dx%d: an embedder takes the aligned %dx%d crop", m.Input.Width, m.Input.Height, embedSide, embedSide)
	}
	if m.Output.Dimension < 2 || m.Output.Dimension > MaxDimension {
		bad("output.dimension %d: give 2 to %d", m.Output.Dimension, MaxDimension)
	}
}

func (s Source) validate(bad func(string, ...any)) {
	if s.URL == "" {
		if s.ArchiveMember != "" || s.Size != 0 {
			bad("source: archive_member and size mean nothing without url")
		}
		return
	}
	if u, err := url.Parse(s.URL); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		bad("source.url: give an https URL")
	}
	if s.Size < 0 || s.Size > maxModelBytes {
		bad("source.size %d: 0 to %d", s.Size, int64(maxModelBytes))
	}
	if len(s.ArchiveMember) > 255 {
		bad("source.archive_member is longer than 255 characters")
	}
}

func (in Input) validate(bad func(string, ...any)) {
	if in.Layout != "NCHW" {
		bad("input.layout %q: NCHW is the layout that can be run", in.Layout)
	}
	if in.Color != ColorRGB && in.Color != ColorBGR {
		bad("input.color %q: say RGB or BGR", in.Color)
	}
	if in.Width < 0 || in.Height < 0 || in.Width > maxSide || in.Height > maxSide {
		bad("input %dx%d: sides lie in 0..%d", in.Width, in.Height, maxSide)
	}
	for c := range 3 {
		if f := float64(in.Mean[c]); math.IsNaN(f) || math.IsInf(f, 0) {
			bad("input.mean[%d] is not a finite number", c)
		}
		if f := float64(in.Scale[c]); math.IsNaN(f) || math.IsInf(f, 0) || f == 0 {
			bad("input.scale[%d] must be a finite number other than 0", c)
		}
	}
}

// plainFileName reports whether s names a file in the same folder on every
// system.
func plainFileName(s string) bool {
	return len(s) <= 255 && s != "." && s != ".." && !strings.ContainsAny(s, "/\\\x00:") && filepath.Base(s) == s
}
