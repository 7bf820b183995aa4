package kernel

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

// onEach runs body once for every variant that runs here.
func onEach(b *testing.B, name string, body func(b *testing.B, v variant)) {
	for v := variants - 1; v >= reference; v-- {
		if len(lacking(v)) == 0 {
			b.Run(fmt.Sprintf("kernel=%s/%s", v, name), func(b *testing.B) { body(b, v) })
		}
	}
}

// BenchmarkDotRows reads 256 rows that stay in the caches.
func BenchmarkDotRows(b *testing.B) {
	const rows = 256
	r := rand.New(rand.NewPCG(7, 8))
	for _, dim := range []int{128, 200, 512} {
		probe, codes, dst := randomInt8(r, dim), randomInt8(r, rows*dim), make([]int32, rows)
		onEach(b, fmt.Sprintf("dim=%d/rows=%d", dim, rows), func(b *testing.B, v variant) {
			b.SetBytes(rows * int64(dim))
			for b.Loop() {
				dotRows(v, dst, probe, codes)
			}
		})
	}
}

// BenchmarkDotTile reports the share of the peak, which it measures beside it.
func BenchmarkDotTile(b *testing.B) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, c := range []struct{ dim, probes, rows int }{{512, 4, 256}, {512, 16, 240}, {512, 32, 240}, {512, 48, 240}, {512, 64, 240}, {128, 64, 1008}} {
		probes, codes := randomInt8(r, c.probes*c.dim), randomInt8(r, c.rows*c.dim)
		dst := make([]int32, c.probes*c.rows)
		onEach(b, fmt.Sprintf("op=tile/dim=%d/probes=%d/rows=%d", c.dim, c.probes, c.rows), func(b *testing.B, v variant) {
			b.SetBytes(int64(len(dst)) * int64(c.dim))
			for b.Loop() {
				dotTile(v, dst, probes, codes, c.dim)
			}
			reportRate(b, v, len(dst)*c.dim)
		})
		if c.probes < 16 || c.probes > MaxReach {
			continue
		}
		var set ProbeSet
		set.Prepare(probes, c.dim)
		norms, bars := make([]int32, c.rows), make([]float32, c.probes)
		for i := range norms {
			norms[i] = 1 << 20
		}
		for i := range bars {
			bars[i] = 1 << 20
		}
		onEach(b, fmt.Sprintf("op=reach/dim=%d/probes=%d/rows=%d", c.dim, c.probes, c.rows), func(b *testing.B, v variant) {
			b.SetBytes(int64(len(dst)) * int64(c.dim))
			for b.Loop() {
				reach(v, dst, &set, codes, norms, bars)
			}
			reportRate(b, v, len(dst)*c.dim)
		})
	}
}

// reportRate adds what one operation of so many multiply-adds comes to.
func reportRate(b *testing.B, v variant, macs int) {
	rate := float64(macs) * float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate/1e9, "Gmac/s")
	b.ReportMetric(rate/peakRate(v), "of-peak")
}

func BenchmarkPrepare(b *testing.B) {
	probes := randomInt8(rand.New(rand.NewPCG(21, 22)), 256*512)
	b.Run("op=set/dim=512/probes=256", func(b *testing.B) {
		var set ProbeSet
		b.SetBytes(int64(len(probes)))
		for b.Loop() {
			set.Prepare(probes, 512)
		}
	})
	for _, bits := range []Bits{OneBit, TwoBits} {
		b.Run(fmt.Sprintf("op=packed/bits=%d/dim=512", bits), func(b *testing.B) {
			var p PreparedProbe
			b.SetBytes(512)
			for b.Loop() {
				if err := p.Prepare(probes[:512], bits); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// peakRate is the multiply-adds per second of one core, the best of five runs of
// about a millisecond.
func peakRate(v variant) float64 {
	best := 0.0
	for range 5 {
		n := 20_000
		if v == reference {
			n = 1_000
		}
		start := time.Now()
		macs := peak(v, n)
		best = max(best, float64(macs)/time.Since(start).Seconds())
	}
	return best
}

func BenchmarkPackedRows(b *testing.B) {
	const rows = 256
	r := rand.New(rand.NewPCG(11, 12))
	for _, bits := range []Bits{OneBit, TwoBits} {
		for _, dim := range []int{128, 512} {
			var p PreparedProbe
			if err := p.Prepare(randomInt8(r, dim), bits); err != nil {
				b.Fatal(err)
			}
			packed, dst := randomBytes(r, rows*p.stride), make([]int32, rows)
			onEach(b, fmt.Sprintf("bits=%d/dim=%d/rows=%d", bits, dim, rows), func(b *testing.B, v variant) {
				b.SetBytes(int64(len(packed)))
				for b.Loop() {
					packedRows(v, dst, &p, packed)
				}
			})
		}
	}
}

func BenchmarkPeak(b *testing.B) {
	onEach(b, "op=multiply-add", func(b *testing.B, v variant) {
		total := 0
		for b.Loop() {
			total += peak(v, 1000)
		}
		b.ReportMetric(float64(total)/b.Elapsed().Seconds()/1e9, "Gmac/s")
	})
}

// BenchmarkStream scans a gallery of 1 M rows out of memory, on one core and on
// all, in calls of 256 rows as a search does. op=read is the limit: the same
// bytes summed with the widest loads that Go code alone has.
func BenchmarkStream(b *testing.B) {
	const rows, block = 1 << 20, 256
	r := rand.New(rand.NewPCG(13, 14))
	memory := randomBytes(r, rows*512)
	codes := make([]int8, len(memory))
	for i, v := range memory {
		codes[i] = int8(v)
	}
	probe := randomInt8(r, 512)
	run := func(b *testing.B, cores, stride int, scan func(dst []int32, from int)) {
		b.SetBytes(int64(rows * stride))
		for b.Loop() {
			var wg sync.WaitGroup
			for c := range cores {
				wg.Go(func() {
					var dst [block]int32
					for at := c * block; at < rows; at += cores * block {
						scan(dst[:], at)
					}
				})
			}
			wg.Wait()
		}
	}
	for _, cores := range []int{1, runtime.NumCPU()} {
		onEach(b, fmt.Sprintf("op=dot/dim=512/cores=%d", cores), func(b *testing.B, v variant) {
			run(b, cores, 512, func(dst []int32, from int) { dotRows(v, dst, probe, codes[from*512:][:len(dst)*512]) })
		})
		for _, bits := range []Bits{OneBit, TwoBits} {
			var p PreparedProbe
			if err := p.Prepare(probe, bits); err != nil {
				b.Fatal(err)
			}
			onEach(b, fmt.Sprintf("op=packed/bits=%d/dim=512/cores=%d", bits, cores), func(b *testing.B, v variant) {
				run(b, cores, p.stride, func(dst []int32, from int) {
					packedRows(v, dst, &p, memory[from*p.stride:][:len(dst)*p.stride])
				})
			})
		}
	}
}
