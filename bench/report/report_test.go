package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bell makes the curve of two normal score distributions, separation apart.
func bell(separation float64, mated, nonMated int) *Tradeoff {
	t := &Tradeoff{Title: "two bells", EER: math.NaN(), Mated: mated, NonMated: nonMated}
	above := func(x float64) float64 { return math.Erfc(x/math.Sqrt2) / 2 }
	count := func(rate float64, n int) float64 { return math.Round(rate*float64(n)) / float64(n) }
	for x := -8.0; x <= separation+8; x += 0.02 {
		t.Curve = append(t.Curve, Rates{count(above(x), nonMated), count(1-above(x-separation), mated)})
	}
	for i := len(t.Curve) - 1; i >= 0; i-- {
		if r := t.Curve[i]; r.FMR >= r.FNMR {
			t.EER = r.FMR
			break
		}
	}
	for _, target := range []float64{1e-2, 1e-3, 1e-4} {
		for _, r := range t.Curve {
			if r.FMR <= target && 3/target <= float64(nonMated) {
				t.Marks = append(t.Marks, Mark{r, "FNMR " + Percent(r.FNMR)})
				break
			}
		}
	}
	return t
}

func TestTradeoffWriteFile(t *testing.T) {
	dir := t.TempDir()
	if keep := os.Getenv("MENSHEN_KEEP_PLOTS"); keep != "" {
		dir = keep // to look at them
	}
	tests := map[string]*Tradeoff{
		"usual":     bell(4, 1800, 78000),
		"few":       bell(3, 20, 30),
		"weak":      bell(0.5, 3000, 3000),
		"separated": bell(20, 100, 5000),
		"reversed":  bell(-3, 500, 500),
		"single":    {Title: "one of each", Curve: []Rates{{1, 0}, {0, 0}, {0, 1}}, EER: 0, Mated: 1, NonMated: 1},
		"no EER":    {Title: "no EER", Curve: []Rates{{1, 0}, {0, 1}}, EER: math.NaN(), Mated: 1, NonMated: 100_000_000},
	}
	for name, plot := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name+".png")
			if err := plot.WriteFile(path); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			img, err := png.Decode(bytes.NewReader(data))
			if err != nil || img.Bounds().Dx() < 1000 || img.Bounds().Dy() < 500 {
				t.Fatalf("PNG: %v", err)
			}
			path = filepath.Join(dir, name+".SVG")
			if err := plot.WriteFile(path); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			decoder := xml.NewDecoder(bytes.NewReader(text))
			for {
				if _, err := decoder.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("SVG: %v", err)
				}
			}
			for _, want := range []string{plot.Title, "DET", "ROC", "False match rate (FMR)", "font-family:Liberation Sans,Arial,"} {
				if !bytes.Contains(text, []byte(want)) {
					t.Errorf("the SVG does not say %q", want)
				}
			}
			for _, m := range plot.Marks {
				if !bytes.Contains(text, []byte(m.Label)) {
					t.Errorf("the SVG does not say %q", m.Label)
				}
			}
			if bytes.Contains(text, []byte("NaN")) || bytes.Contains(text, []byte("Inf")) {
				t.Error("the SVG has coordinates that are not numbers")
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o644 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestTradeoffFaults(t *testing.T) {
	good := bell(3, 100, 100)
	dir := t.TempDir()
	for name, err := range map[string]error{
		"format":    good.WriteFile(filepath.Join(dir, "x.jpg")),
		"directory": good.WriteFile(filepath.Join(dir, "absent", "x.svg")),
		"no curve":  (&Tradeoff{Mated: 1, NonMated: 1}).WriteFile(filepath.Join(dir, "x.svg")),
		"one kind":  (&Tradeoff{Curve: good.Curve, Mated: 5}).WriteFile(filepath.Join(dir, "x.png")),
		"unknown":   good.Write(io.Discard, "gif"),
	} {
		if !errors.Is(err, ErrPlot) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestTable(t *testing.T) {
	var table Table
	table.Add("name", "value")
	table.Add("Ärger", "1", "a note")
	table.Add("a line of its own that is long")
	table.Add("x", "", "")
	var b strings.Builder
	if _, err := table.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	want := "name   value\nÄrger  1  a note\na line of its own that is long\nx\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestPercent(t *testing.T) {
	for rate, want := range map[float64]string{0: "0.00%", 1: "100.00%", 0.0361: "3.61%", 0.0099: "0.990%", 0.00994: "0.994%", 0.009951: "1.00%", 0.001: "0.100%", 0.0001: "0.01%", 0.0000123: "0.0012%"} {
		if got := Percent(rate); got != want {
			t.Errorf("Percent(%v) = %s, want %s", rate, got, want)
		}
	}
}

func TestWriteJSON(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJSON(&b, map[string]any{"a": "<&>", "b": 1.5}); err != nil {
		t.Fatal(err)
	}
	if want := "{\n  \"a\": \"<&>\",\n  \"b\": 1.5\n}\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestEnvironment(t *testing.T) {
	started := time.Date(2026, 5, 4, 3, 2, 1, 999, time.FixedZone("x", 3600))
	e := NewEnvironment([]string{"/opt/bin/menshen-bench", "accuracy", "--json"}, started)
	if strings.Join(e.Command, " ") != "menshen-bench accuracy --json" || e.Go == "" || e.Cores < 1 || !strings.Contains(e.System, "/") || e.Commit == "" || e.CPU == "" {
		t.Errorf("%+v", e)
	}
	text, err := json.Marshal(e)
	if err != nil || !strings.Contains(string(text), `"started":"2026-05-04T02:02:01Z"`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestCPUName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cpuinfo")
	if err := os.WriteFile(path, []byte("processor\t: 0\nmodel\t\t: 85\nmodel name\t: A CPU @ 2.50GHz\nprocessor\t: 1\nmodel name\t: Another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := cpuName(path); got != "A CPU @ 2.50GHz" {
		t.Errorf("got %q", got)
	}
	if got := cpuName(path + "x"); got != "" {
		t.Errorf("got %q from nothing", got)
	}
}
