package models

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-io/menshen/internal/fixtures"
)

// BenchmarkRunner compares the Runner with the raw model at its best settings:
// under load with one single-threaded run per core, alone with one run on all
// cores. They run in turns, because a shared machine changes its
// speed while one looks; the ratio is that of the medians.
//
//	go test -run '^$' -bench Runner/mobile -benchtime 7x ./models
func BenchmarkRunner(b *testing.B) {
	rt := testRuntime(b)
	cores := runtime.GOMAXPROCS(0)
	for _, file := range []string{"mobilefacenet_128.onnx", "yunet_n_320_320.onnx", "yunet_n_640_640.onnx"} {
		reg, err := OpenRegistry(Options{Dir: b.TempDir(), Runtime: rt})
		if err != nil {
			b.Fatal(err)
		}
		res, err := reg.Resolve(b.Context(), filepath.Join(fixtures.Dir(b), "models", file))
		if err != nil {
			b.Fatal(err)
		}
		open := func(threads int, spin Spin) *Session {
			s, err := rt.NewSession(res, SessionOptions{IntraOp: threads, Spin: spin})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(s.Close)
			return s
		}
		r, err := rt.NewRunner(b.Context(), res, RunnerOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(r.Close)
		name := strings.TrimSuffix(file, ".onnx")
		fmt.Printf("%s: %v\n", name, r.Choice())
		narrow, wide, spinning := open(1, SpinBriefly), open(cores, SpinBriefly), open(cores, SpinOn)
		for _, callers := range []int{cores, 2 * cores, 4 * cores} {
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) {
				compareRuns(b, &res.Manifest, 0, contender{narrow.Run, cores}, contender{r.Run, callers})
			})
		}
		for _, pause := range []time.Duration{0, 300 * time.Microsecond, 10 * time.Millisecond} {
			b.Run(fmt.Sprintf("%s/idle/pause=%v", name, pause), func(b *testing.B) {
				compareRuns(b, &res.Manifest, pause, contender{wide.Run, 1}, contender{r.Run, 1}, contender{spinning.Run, 1})
			})
		}
	}
}

// turnTime is long beside a run, and short beside the machine's moods.
const turnTime = 300 * time.Millisecond

// contender runs a model, from so many callers.
type contender struct {
	run     func(context.Context, []int64, [][]int64, func([]float32) error, func([][]float32) error) error
	callers int
}

// compareRuns lets the contenders run in b.N turns and reports images a second
// and the median time of a run of each, and the ratios of the second's to the
// first's.
func compareRuns(b *testing.B, man *Manifest, pause time.Duration, contenders ...contender) {
	in, outs, err := sampleShapes(man, 1)
	if err != nil {
		b.Fatal(err)
	}
	rates, medians := make([][]float64, len(contenders)), make([][]float64, len(contenders))
	for range b.N {
		for k, c := range contenders {
			var mu sync.Mutex
			var took []time.Duration
			begin := time.Now()
			err := new(measuring).atOnce(c.callers, func() error {
				var mine []time.Duration
				for time.Since(begin) < turnTime {
					at := time.Now()
					if err := c.run(b.Context(), in, outs, nothing, nothingRead); err != nil {
						return err
					}
					mine = append(mine, time.Since(at))
					time.Sleep(pause)
				}
				mu.Lock()
				took = append(took, mine...)
				mu.Unlock()
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			rates[k] = append(rates[k], float64(len(took))/time.Since(begin).Seconds())
			slices.Sort(took)
			medians[k] = append(medians[k], took[len(took)/2].Seconds()*1e6)
		}
	}
	for k := range contenders {
		slices.Sort(rates[k])
		slices.Sort(medians[k])
		b.ReportMetric(rates[k][b.N/2], fmt.Sprintf("images/s_%d", k))
		b.ReportMetric(medians[k][b.N/2], fmt.Sprintf("p50us_%d", k))
	}
	b.ReportMetric(rates[1][b.N/2]/rates[0][b.N/2], "rate_ratio")
	b.ReportMetric(medians[1][b.N/2]/medians[0][b.N/2], "latency_ratio")
	b.ReportMetric(0, "ns/op")
}
