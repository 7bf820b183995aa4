package search

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func tiny() Options {
	return Options{
		Gallery: 1200, Dim: 64, Probes: 40, Data: Spectrum, Threshold: 0.45, Seed: 1,
		Rounds: 3, Time: 10 * time.Millisecond, Callers: 8, Check: 36, Buffer: 1 << 20,
	}
}

// keys marshals a result and returns its keys.
func keys(t *testing.T, result any) map[string]any {
	t.Helper()
	text, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func positive(t *testing.T, values map[string]any, names ...string) {
	t.Helper()
	for _, name := range names {
		if x, ok := values[name].(float64); !ok || !(x > 0) || math.IsInf(x, 0) {
			t.Errorf("%s: %v", name, values[name])
		}
	}
}

func TestScan(t *testing.T) {
	o := tiny()
	var steps, announced atomic.Int64
	o.Progress = func(_ string, n int) func() {
		announced.Add(int64(n))
		return func() { steps.Add(1) }
	}
	r, err := Scan(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	out := keys(t, r)
	positive(t, out, "baseline_single_ms", "single_ms", "single_speedup", "baseline_batch_qps", "batch_qps", "batch_speedup",
		"concurrent_qps", "bandwidth_fraction", "mac_fraction", "single_p50_ms", "single_p99_ms", "concurrent_p50_ms", "concurrent_p99_ms",
		"memory_bandwidth_gb_s", "int8_peak_gmac_s", "fmr", "concurrent_of_batch", "build_templates_per_s")
	if r.Mismatches != 0 || r.CheckedProbes != o.Check || r.CheckedCount < int64(2*o.Check) || r.MatedFound != 1 || r.MatedProbes != 20 {
		t.Errorf("%d mismatches of %d, mated found %v", r.Mismatches, r.CheckedCount, r.MatedFound)
	}
	if (r.BytesPerTemplate == nil) != (runtime.GOOS != "linux") || r.BaselineScaledFrom != nil || len(r.RoundFigures) != o.Rounds || r.Kernel == "" {
		t.Errorf("%+v", r)
	}
	if steps.Load() != announced.Load() {
		t.Errorf("%d steps of %d", steps.Load(), announced.Load())
	}
	for name := range out {
		if strings.ToLower(name) != name {
			t.Errorf("the key %q", name)
		}
	}
}

func TestScanWithoutBaseline(t *testing.T) {
	o := tiny()
	o.Data, o.Probes, o.Check, o.Rounds, o.SkipBaseline = Isotropic, 1, 1, 1, true
	r, err := Scan(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	out := keys(t, r)
	for _, name := range []string{"baseline_single_ms", "single_speedup", "baseline_batch_qps", "batch_speedup", "baseline_scaled_from"} {
		if x, ok := out[name]; !ok || x != nil {
			t.Errorf("%s is %v", name, x)
		}
	}
	if r.Mismatches != 0 || r.CheckedCount == 0 {
		t.Errorf("%d mismatches of %d", r.Mismatches, r.CheckedCount)
	}
}

// A baseline that does not fit is measured on a part, and the result says so.
func TestScaledBaseline(t *testing.T) {
	o := tiny()
	o.Rounds, o.BaselineRows = 1, 300
	r, err := Scan(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.BaselineScaledFrom == nil || *r.BaselineScaledFrom != 300 {
		t.Errorf("scaled from %v", r.BaselineScaledFrom)
	}
	positive(t, keys(t, r), "baseline_single_ms", "baseline_batch_qps")
}

func TestScopes(t *testing.T) {
	o := tiny()
	o.Gallery, o.Rounds = 50, 1
	r, err := Scopes(context.Background(), o, 80)
	if err != nil {
		t.Fatal(err)
	}
	out := keys(t, r)
	positive(t, out, "scope_search_us", "scope_search_p99_us", "scope_concurrent_qps")
	if r.Mismatches != 0 || r.CheckedProbes != o.Check || r.MatedFound != 1 || r.Scopes != 80 || (r.OverheadBytes == nil) != (runtime.GOOS != "linux") {
		t.Errorf("%+v", r)
	}
	if _, err := Scopes(context.Background(), o, 0); !errors.Is(err, ErrOptions) {
		t.Errorf("no scopes: %v", err)
	}
}

func TestChurn(t *testing.T) {
	o := tiny()
	o.Rounds, o.Time = 4, 20*time.Millisecond
	r, err := Churn(context.Background(), o, 20_000)
	if err != nil {
		t.Fatal(err)
	}
	positive(t, keys(t, r), "quiet_p99_ms", "churn_p99_ms", "churn_ratio", "churn_achieved_per_s", "apply_p99_ms", "changes")
	if r.Mismatches != 0 || r.CheckedCount != int64(4*o.Check) || len(r.RoundFigures) != 4 {
		t.Errorf("%+v", r)
	}
	if _, err := Churn(context.Background(), o, 0); !errors.Is(err, ErrOptions) {
		t.Errorf("no changes: %v", err)
	}
}

// The churner knows what is in the gallery.
func TestChurner(t *testing.T) {
	e, _ := small(t, Isotropic, 500, 2, 0.45)
	c := newChurner(e, 1000)
	for range 5 {
		if err := c.prepare(context.Background(), 601); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 100, 500} {
			if err := c.apply(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := e.gallery.Check(); err != nil {
		t.Fatal(err)
	}
	if e.gallery.Templates() != len(c.alive) || c.changes != 3005 || len(c.applied) != 15 || len(c.alive) != 505 {
		t.Errorf("%d templates, %d known, %d changes", e.gallery.Templates(), len(c.alive), c.changes)
	}
	for _, number := range c.alive {
		subject, template := e.name(int(number))
		if !e.gallery.Contains(subject, template, searchTime) {
			t.Fatalf("template %d is missing", number)
		}
	}
}

// An interrupt ends every measurement with its error.
func TestInterrupted(t *testing.T) {
	measures := map[string]func(context.Context, Options) error{
		"scan":   func(ctx context.Context, o Options) error { _, err := Scan(ctx, o); return err },
		"scopes": func(ctx context.Context, o Options) error { _, err := Scopes(ctx, o, 40); return err },
		"churn":  func(ctx context.Context, o Options) error { _, err := Churn(ctx, o, 1000); return err },
	}
	for name, measure := range measures {
		// In the phase number stop, at its first step.
		for stop := 1; ; stop++ {
			ctx, cancel := context.WithCancel(context.Background())
			o := tiny()
			o.Gallery = 200
			phases := 0
			o.Progress = func(string, int) func() {
				phases++
				if phases == stop {
					cancel()
				}
				return func() {}
			}
			err := measure(ctx, o)
			cancel()
			if phases < stop {
				if err != nil {
					t.Errorf("%s, not interrupted: %v", name, err)
				}
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s, interrupted in phase %d: %v", name, stop, err)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	good := tiny()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Options){
		"no gallery":     func(o *Options) { o.Gallery = 0 },
		"large gallery":  func(o *Options) { o.Gallery = maxGallery + 1 },
		"dim":            func(o *Options) { o.Dim = 10 },
		"no probes":      func(o *Options) { o.Probes = 0 },
		"data":           func(o *Options) { o.Data = "faces" },
		"threshold":      func(o *Options) { o.Threshold = math.NaN() },
		"high threshold": func(o *Options) { o.Threshold = 1.5 },
		"rounds":         func(o *Options) { o.Rounds = 0 },
		"time":           func(o *Options) { o.Time = 0 },
		"callers":        func(o *Options) { o.Callers = 0 },
		"check few":      func(o *Options) { o.Check = 31 },
		"check many":     func(o *Options) { o.Check = 41 },
		"buffer":         func(o *Options) { o.Buffer = 10 },
		"baseline":       func(o *Options) { o.BaselineRows = -1 },
		"memory":         func(o *Options) { o.Gallery, o.Dim = maxGallery, 4096 },
	} {
		o := tiny()
		spoil(&o)
		if _, err := Scan(context.Background(), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var l latencies
	for i := 100; i > 0; i-- {
		l = append(l, time.Duration(i)*time.Millisecond)
	}
	for q, want := range map[float64]float64{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := l.quantile(q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if latencies(nil).quantile(0.5) != 0 || median(nil) != 0 || median([]float64{3, 1, 2}) != 2 || median([]float64{4, 1, 2, 3}) != 2.5 {
		t.Error("medians are wrong")
	}
	for x, want := range map[float64]float64{0: 0, 1234.56789: 1234.568, 0.00012345678: 0.0001235, -2.00049: -2} {
		if got := round3(x); math.Abs(got-want) > 1e-12 {
			t.Errorf("%v is rounded to %v, want %v", x, got, want)
		}
	}
}

// What is written to is resident; what was let go is not.
func TestResident(t *testing.T) {
	before, ok := resident()
	if !ok || raced {
		t.Skip("the system, or the race detector, hides how much of the process is in memory")
	}
	const size = 64 << 20
	block := make([]byte, size)
	for i := range block {
		block[i] = 1
	}
	with, _ := resident()
	runtime.KeepAlive(block)
	block = nil
	after, _ := resident()
	if with-before < size*9/10 || after-before > size/2 {
		t.Errorf("%d bytes more with a block of %d, %d without", with-before, size, after-before)
	}
}
