package scour

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkMemory is beside a million templates of 512 values and their names, with
// half as much garbage. late-ms is the longest that a goroutine which wants to run
// each millisecond was late.
func BenchmarkMemory(b *testing.B) {
	type person struct {
		name string
		code []byte
	}
	people := make(map[int]*person, 1<<20)
	for i := range 1 << 20 {
		people[i] = &person{name: string(make([]byte, 16)), code: make([]byte, 576)}
	}
	var during atomic.Bool
	stop, late := make(chan struct{}), make(chan time.Duration)
	go func() {
		var worst time.Duration
		for {
			began := time.Now()
			select {
			case <-stop:
				late <- worst
				return
			case <-time.After(time.Millisecond):
				if during.Load() {
					worst = max(worst, time.Since(began)-time.Millisecond)
				}
			}
		}
	}()
	for b.Loop() {
		b.StopTimer()
		for i := range 1 << 19 {
			people[i] = &person{name: string(make([]byte, 16)), code: make([]byte, 576)}
		}
		people[rand.IntN(1<<20)].code[0] = 1
		time.Sleep(50 * time.Millisecond)
		b.StartTimer()
		during.Store(true)
		Memory()
		during.Store(false)
	}
	close(stop)
	b.ReportMetric(float64(<-late)/1e6, "late-ms")
}
