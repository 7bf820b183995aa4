package inference

import (
	"math"
	"slices"
)

// Result is what was measured; parts that were left out are nil.
type Result struct {
	CropRatio        *float64 `json:"crop_ratio"`
	IdleLatencyRatio *float64 `json:"idle_latency_ratio"`
	ImageRatio       *float64 `json:"image_ratio"`
	EmbeddingRatio   *float64 `json:"embedding_ratio"`
	StreamRatio      *float64 `json:"stream_ratio"`

	Crop      *Crop      `json:"crop"`
	Idle      *Idle      `json:"idle"`
	Image     *Image     `json:"image"`
	Embedding *Embedding `json:"embedding"`
	Stream    *Stream    `json:"stream"`

	Model       string  `json:"model"`
	Detector    string  `json:"detector"`
	Kernel      string  `json:"kernel"`
	Runtime     string  `json:"runtime"`
	Gallery     int     `json:"gallery"`
	Rounds      int     `json:"rounds"`
	SecondsEach float64 `json:"seconds_each"`
}

// Tried is a setting and what it did, a second.
type Tried struct {
	Setting
	PerSecond float64 `json:"per_second"`
}

// Crop compares Verify from 112x112 crops with the embedder run raw. The ratio is
// that of the quicker form of the crop.
type Crop struct {
	RawPerSecond  float64 `json:"raw_per_second"`
	RawSetting    Setting `json:"raw_setting"`
	RawTried      []Tried `json:"raw_tried"`
	RGBPerSecond  float64 `json:"rgb_per_second"`
	RGBRatio      float64 `json:"rgb_ratio"`
	RGBBytes      int     `json:"rgb_bytes"`
	JPEGPerSecond float64 `json:"jpeg_per_second"`
	JPEGRatio     float64 `json:"jpeg_ratio"`
	JPEGBytes     int     `json:"jpeg_bytes"`
	Form          string  `json:"form"` // of crop_ratio
	Callers       int     `json:"callers"`
}

// Idle compares one caller's Verify from an RGB crop with one raw run, medians.
type Idle struct {
	RawMS      float64 `json:"raw_ms"` // back to back
	RawSetting Setting `json:"raw_setting"`
	VerifyMS   float64 `json:"verify_ms"`
	// The same raw run after a pause as long as what a call does besides its
	// run, and Verify over that.
	PauseMS     float64 `json:"pause_ms"`
	PausedRawMS float64 `json:"paused_raw_ms"`
	PausedRatio float64 `json:"paused_ratio"`
}

// Image compares Identify from a camera image with its stages run back to back.
type Image struct {
	RawPerSecond     float64 `json:"raw_per_second"`
	ServicePerSecond float64 `json:"service_per_second"`
	Callers          int     `json:"callers"`
	// What a stage takes on one core while all cores run the chain, in ms.
	DecodeMS float64 `json:"decode_ms"`
	DetectMS float64 `json:"detect_ms"`
	AlignMS  float64 `json:"align_ms"`
	EmbedMS  float64 `json:"embed_ms"`
	SearchMS float64 `json:"search_ms"`
	Scenes   string  `json:"scenes"`
}

// Embedding compares Verify from an embedding with a bare echo of as many bytes.
type Embedding struct {
	EchoPerSecond    float64 `json:"echo_per_second"`
	ServicePerSecond float64 `json:"service_per_second"`
	Bytes            int     `json:"bytes"`
	Callers          int     `json:"callers"`
	EchoCallers      int     `json:"echo_callers"`
}

// Stream compares a MatchStream with unary calls, on as many connections.
type Stream struct {
	UnaryPerSecond  float64 `json:"unary_per_second"`
	StreamPerSecond float64 `json:"stream_per_second"`
	UnaryCallers    int     `json:"unary_callers"`
	Streams         int     `json:"streams"`
	InFlight        int     `json:"in_flight"` // of a stream
}

// pair is one round's figures.
type pair struct{ base, service float64 }

// of returns the medians of both, and of the ratio service over base.
func of(pairs []pair) (base, service, ratio float64) {
	var b, s, r []float64
	for _, p := range pairs {
		b, s, r = append(b, p.base), append(s, p.service), append(r, p.service/p.base)
	}
	return round(median(b)), round(median(s)), round(median(r))
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// round keeps four digits that count.
func round(x float64) float64 {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return x
	}
	unit := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(x))))
	return math.Round(x*unit) / unit
}
