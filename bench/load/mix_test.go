package load

import (
	"errors"
	"math"
	"testing"

	"github.com/menshen-io/menshen/bench/target"
)

func TestParseMix(t *testing.T) {
	good := map[string]string{
		"verify:crop":                           "verify:crop=1",
		"verify:crop=0.8,identify:image=0.2":    "verify:crop=0.8,identify:image=0.2",
		" verify:jpegcrop=3 , verify:embedding": "verify:jpegcrop=3,verify:embedding=1",
	}
	for text, want := range good {
		m, err := ParseMix(text)
		if err != nil || m.String() != want {
			t.Errorf("ParseMix(%q) = %q, %v; want %q", text, m, err, want)
		}
	}
	for _, text := range []string{"", "verify", "crop", "enrol:crop", "verify:face", "verify:crop=0", "verify:crop=-1", "verify:crop=NaN",
		"verify:crop=Inf", "verify:crop=x", "verify:crop=1,", "verify:crop=1,verify:crop=2"} {
		if _, err := ParseMix(text); !errors.Is(err, ErrOptions) {
			t.Errorf("ParseMix(%q): %v, want ErrOptions", text, err)
		}
	}
}

func TestDeckDrawsByWeight(t *testing.T) {
	m, err := ParseMix("verify:crop=3,identify:crop=1")
	if err != nil {
		t.Fatal(err)
	}
	piles := [][]target.Request{{{Method: "a", Body: []byte{0}}, {Method: "a", Body: []byte{1}}}, {{Method: "b"}}}
	d := newDeck(m, piles, 1)
	counts, bodies := map[string]int{}, map[byte]int{}
	const n = 40_000
	for range n {
		r := d.draw()
		counts[r.Method]++
		if r.Method == "a" {
			bodies[r.Body[0]]++
		}
	}
	if share := float64(counts["a"]) / n; math.Abs(share-0.75) > 0.02 {
		t.Errorf("a share of 3/4 was drawn %.3f of the time", share)
	}
	if d := bodies[0] - bodies[1]; d < 0 || d > 1 {
		t.Errorf("requests do not take turns: %v", bodies)
	}
	if allocs := testing.AllocsPerRun(100, func() { d.draw() }); allocs != 0 {
		t.Errorf("%g allocations a request", allocs)
	}
}
