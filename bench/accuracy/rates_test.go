package accuracy

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// scoresOf makes sorted scores; each comparison is its own unit.
func scoresOf(mated, nonMated []float32) *Scores {
	s := &Scores{}
	unit := int32(0)
	for _, v := range mated {
		s.Mated = append(s.Mated, Comparison{v, unit, unit})
		unit++
	}
	for _, v := range nonMated {
		s.NonMated = append(s.NonMated, Comparison{v, unit, unit})
		unit++
	}
	s.Sort()
	return s
}

// candidate is an operating point found by counting, the slow way.
type candidate struct {
	t                    float32
	misses, falseMatches int
}

// brute lists every observed score, ascending, and the number above the largest.
func brute(s *Scores) []candidate {
	var all []float32
	for _, c := range slices.Concat(s.Mated, s.NonMated) {
		all = append(all, c.Score)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	all = append(all, math.Nextafter32(all[len(all)-1], 10))
	var out []candidate
	for _, t := range all {
		c := candidate{t: t}
		for _, m := range s.Mated {
			if m.Score < t {
				c.misses++
			}
		}
		for _, n := range s.NonMated {
			if n.Score >= t {
				c.falseMatches++
			}
		}
		out = append(out, c)
	}
	return out
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-12 }

func TestAtFMRByHand(t *testing.T) {
	// Ten non-mated scores; FMR of one in ten allows one false match.
	nonMated := []float32{0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.9}
	tests := []struct {
		name      string
		mated     []float32
		nonMated  []float32
		oneIn     int
		threshold float32
		fmr, fnmr float64
	}{
		{"the smallest score above the barred one is mated", []float32{0.3, 0.6, 0.7, 0.95}, nonMated, 10, 0.6, 0.1, 0.25},
		{"it is non-mated", []float32{0.3, 0.92, 0.95, 0.97}, nonMated, 10, 0.9, 0.1, 0.25},
		{"a tie with the barred score is a miss", []float32{0.5, 0.6, 0.7, 0.8}, nonMated, 10, 0.6, 0.1, 0.25},
		{"tied strangers are barred together", []float32{0.35, 0.45, 0.5, 0.95}, nonMated, 3, 0.45, 0.2, 0.25},
		{"no false match is allowed", []float32{0.3, 0.6, 0.92, 0.95}, nonMated, 11, 0.92, 0, 0.5},
		{"even the highest score is barred", []float32{0.3, 0.6, 0.7, 0.9}, nonMated, 11, math.Nextafter32(0.9, 1), 0, 1},
		{"everything may match", []float32{0.3, 0.6, 0.7, 0.05}, nonMated, 1, 0.05, 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := scoresOf(tt.mated, tt.nonMated).AtFMR(Target{"x", tt.oneIn})
			if got.Threshold != float64(tt.threshold) || !near(got.FMR, tt.fmr) || !near(got.FNMR, tt.fnmr) {
				t.Errorf("got threshold %v, FMR %v, FNMR %v; want %v, %v, %v", got.Threshold, got.FMR, got.FNMR, tt.threshold, tt.fmr, tt.fnmr)
			}
		})
	}
}

func TestEqualErrorRateByHand(t *testing.T) {
	tests := []struct {
		name            string
		mated, nonMated []float32
		rate, threshold float64
	}{
		// At 0.6 one of four misses and one of four matches falsely.
		{"a point", []float32{0.2, 0.6, 0.7, 0.9}, []float32{0.1, 0.3, 0.4, 0.65}, 0.25, float64(float32(0.6))},
		// 0.5: FMR 1/3, FNMR 0; 0.75: FMR 1/3, FNMR 1/2. Two thirds of the way.
		{"between points", []float32{0.5, 0.875}, []float32{0.125, 0.25, 0.75}, 1.0 / 3, 0.5 + 2.0/3*0.25},
		{"apart", []float32{0.7, 0.8}, []float32{0.1, 0.2}, 0, float64(float32(0.7))},
		{"the wrong way round", []float32{0.1, 0.2}, []float32{0.7, 0.8}, 1, float64(float32(0.7))},
		{"all alike", []float32{0.5, 0.5}, []float32{0.5}, 0.5, (0.5 + float64(math.Nextafter32(0.5, 1))) / 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rate, threshold := scoresOf(tt.mated, tt.nonMated).EqualErrorRate()
			if !near(rate, tt.rate) || !near(threshold, tt.threshold) {
				t.Errorf("got %v at %v, want %v at %v", rate, threshold, tt.rate, tt.threshold)
			}
		})
	}
}

func TestBestByHand(t *testing.T) {
	tests := []struct {
		name            string
		mated, nonMated []float32
		right           int
		threshold       float64
	}{
		{"middle of the gap", []float32{0.75, 0.875}, []float32{0.125, 0.25}, 4, 0.5},
		{"one mistake", []float32{0.25, 0.75, 0.875}, []float32{0.125, 0.5}, 4, 0.625},
		// Above 0.1875 and above 0.625, 3 of 4 are right; the second gap is the wider.
		{"widest of equal gaps", []float32{0.25, 0.875}, []float32{0.1875, 0.625}, 3, 0.75},
		{"better to reject all", []float32{0.125}, []float32{0.25, 0.5}, 2, float64(math.Nextafter32(0.5, 1))},
		{"better to accept all", []float32{0.125, 0.25}, []float32{0.5}, 2, 0.125},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			threshold, right := scoresOf(tt.mated, tt.nonMated).Best()
			if right != tt.right || !near(threshold, tt.threshold) {
				t.Errorf("got %d right at %v, want %d at %v", right, threshold, tt.right, tt.threshold)
			}
		})
	}
}

// drawScores draws scores with many ties.
func drawScores(t *rapid.T) *Scores {
	value := rapid.Custom(func(t *rapid.T) float32 { return float32(rapid.IntRange(-8, 8).Draw(t, "eighths")) / 8 })
	if rapid.Bool().Draw(t, "fine") {
		value = rapid.Float32Range(-1, 1)
	}
	return scoresOf(rapid.SliceOfN(value, 1, 12).Draw(t, "mated"), rapid.SliceOfN(value, 1, 30).Draw(t, "nonMated"))
}

func TestRatesAgainstCounting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScores(t)
		mated, nonMated := len(s.Mated), len(s.NonMated)
		all := brute(s)

		oneIn := rapid.IntRange(1, 40).Draw(t, "oneIn")
		i := slices.IndexFunc(all, func(c candidate) bool { return c.falseMatches*oneIn <= nonMated })
		want := all[i]
		got := s.AtFMR(Target{"x", oneIn})
		if got.Threshold != float64(want.t) || got.Misses != want.misses || !near(got.FMR, float64(want.falseMatches)/float64(nonMated)) || !near(got.FNMR, float64(want.misses)/float64(mated)) {
			t.Errorf("AtFMR(1/%d) = %+v, counting says %+v", oneIn, got, want)
		}

		rates := func(c candidate) (fmr, fnmr float64) {
			return float64(c.falseMatches) / float64(nonMated), float64(c.misses) / float64(mated)
		}
		i = slices.IndexFunc(all, func(c candidate) bool { return c.falseMatches*mated <= c.misses*nonMated })
		fmr1, fnmr1 := rates(all[i])
		fmr0, fnmr0 := rates(all[i-1])
		x := (fmr0 - fnmr0) / ((fmr0 - fnmr0) - (fmr1 - fnmr1))
		rate, threshold := s.EqualErrorRate()
		onFMR, onFNMR := fmr0+x*(fmr1-fmr0), fnmr0+x*(fnmr1-fnmr0)
		if !near(rate, onFMR) || !near(rate, onFNMR) {
			t.Errorf("EER %v, the lines cross at %v and %v", rate, onFMR, onFNMR)
		}
		if threshold < float64(all[i-1].t)-1e-9 || threshold > float64(all[i].t)+1e-9 {
			t.Errorf("EER threshold %v outside %v..%v", threshold, all[i-1].t, all[i].t)
		}

		best := 0
		for _, c := range all {
			best = max(best, mated-c.misses+nonMated-c.falseMatches)
		}
		at, right := s.Best()
		decided := 0
		for _, c := range s.Mated {
			if float64(c.Score) >= at {
				decided++
			}
		}
		for _, c := range s.NonMated {
			if float64(c.Score) < at {
				decided++
			}
		}
		if right != best || decided != best {
			t.Errorf("best %d at %v, which decides %d rightly; counting says %d", right, at, decided, best)
		}
	})
}

func TestCurve(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScores(t)
		known := make(map[[2]int]bool)
		all := brute(s)
		for _, c := range all {
			known[[2]int{c.misses, c.falseMatches}] = true
		}
		limit := rapid.IntRange(4, 60).Draw(t, "limit")
		curve := s.Curve(limit)
		if len(curve) > limit || len(curve) < 2 {
			t.Fatalf("%d points, limit %d", len(curve), limit)
		}
		if first, last := curve[0], curve[len(curve)-1]; first.FMR != 1 || first.FNMR != 0 || last.FMR != 0 || last.FNMR != 1 {
			t.Errorf("from %+v to %+v", first, last)
		}
		for i, p := range curve {
			if !known[[2]int{p.Misses, int(math.Round(p.FMR * float64(len(s.NonMated))))}] {
				t.Errorf("%+v is no operating point", p)
			}
			if i > 0 && (p.FMR > curve[i-1].FMR || p.FNMR < curve[i-1].FNMR) {
				t.Errorf("point %d goes back", i)
			}
		}
		// Without thinning, every corner is there: the area under the stairs is exact.
		var area, want float64
		full := s.Curve(1 << 20)
		for i := 1; i < len(full); i++ {
			area += (full[i-1].FMR - full[i].FMR) * (full[i-1].FNMR + full[i].FNMR) / 2
		}
		for i := 1; i < len(all); i++ {
			width := float64(all[i-1].falseMatches-all[i].falseMatches) / float64(len(s.NonMated))
			want += width * float64(all[i-1].misses+all[i].misses) / 2 / float64(len(s.Mated))
		}
		if math.Abs(area-want) > 1e-9 {
			t.Errorf("area %v, counting says %v", area, want)
		}
	})
}

func TestPercentile(t *testing.T) {
	s := scoresOf([]float32{4, 1, 3, 2}, nil)
	for p, want := range map[float64]float64{0.1: 1, 25: 1, 25.1: 2, 50: 2, 75: 3, 99: 4, 100: 4} {
		if got := Percentile(s.Mated, p); got != want {
			t.Errorf("Percentile(%v) = %v, want %v", p, got, want)
		}
	}
}

func TestWilson(t *testing.T) {
	tests := []struct {
		hits, n int
		lo, hi  float64
	}{
		{0, 10, 0, 0.2775},
		{5, 10, 0.2366, 0.7634},
		{10, 10, 0.7225, 1},
		{1, 20, 0.0089, 0.2361},
		{0, 0, 0, 1},
	}
	for _, tt := range tests {
		got := Wilson(tt.hits, tt.n)
		if math.Abs(got[0]-tt.lo) > 5e-5 || math.Abs(got[1]-tt.hi) > 5e-5 {
			t.Errorf("Wilson(%d, %d) = %v, want %v to %v", tt.hits, tt.n, got, tt.lo, tt.hi)
		}
	}
}
