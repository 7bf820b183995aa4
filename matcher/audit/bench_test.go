package audit

import (
	"os"
	"testing"

	"github.com/menshen-io/menshen/index/scope"
)

// BenchmarkDecisions is what a decision costs from Record to the disk, all
// stages on the one writer: pseudonym, JSON, hash, write and sync.
func BenchmarkDecisions(b *testing.B) {
	for _, tenants := range []int{1, 20} {
		b.Run(map[int]string{1: "tenants=1", 20: "tenants=20"}[tenants], func(b *testing.B) {
			h := newHouse(b)
			var ds []Decision
			for i := range 1024 {
				ds = append(ds, decision(scope.Ref{Tenant: scope.TenantID("t" + string(rune('a'+i%tenants))), Scope: "hall-a"}, i))
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				for h.Record(ds[i%len(ds)]) != nil {
					h.ok(h.flush())
				}
			}
			h.ok(h.flush())
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
		})
	}
}

// BenchmarkRecord is what Record costs the match path; the queue is emptied
// outside of the clock.
func BenchmarkRecord(b *testing.B) {
	h := newHouse(b)
	h.flushing.Lock() // the writer stands still
	defer h.flushing.Unlock()
	d := decision(hallA, 0)
	b.ReportAllocs()
	for i := range b.N {
		if i%(queuedDecisions/2) == 0 {
			b.StopTimer()
			h.queue.Lock()
			h.pending[hallA], h.count = h.pending[hallA][:0], 0
			h.queue.Unlock()
			b.StartTimer()
		}
		if err := h.Record(d); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAppend is what an act costs, with several callers waiting for the disk.
func BenchmarkAppend(b *testing.B) {
	h := newHouse(b)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h.ok(h.Append(b.Context(), act("fair", 1)))
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	h := newHouse(b)
	const records = 50_000
	for i := range records {
		for h.Record(decision(hallA, i)) != nil {
			h.ok(h.flush())
		}
	}
	h.ok(h.Close())
	info, err := os.Stat(onlySegment(b, h.opt.Dir, DecisionsOf(hallA)))
	h.ok(err)
	b.SetBytes(info.Size())
	b.ResetTimer()
	for range b.N {
		if _, err := Verify(h.opt.Dir, h.keys); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(records*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
