package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func page() *Page {
	seconds := []float64{1, 2, 3, 4}
	return &Page{
		Title:   `Load & <more>`,
		Remarks: []string{"the generator was the limit"},
		Tables:  []Figures{{Title: "Phases", Header: true, Rows: [][]string{{"phase", "rate"}, {`<b>`, "10"}}}},
		Plots: []TimePlot{
			{Title: "Rate", Unit: "calls a second", Log: true, Marks: []Moment{{0, "80%"}, {2, "10x <&"}},
				Lines: []Line{{"offered", seconds, []float64{10, 100, 1000, 0}}, {"answered", seconds, []float64{10, math.NaN(), 90, 80}}}},
			{Title: "CPU", Unit: "cores", Lines: []Line{{"server", seconds, []float64{1, 2, 3, 4}}}},
			{Title: "nothing", Unit: "ms", Lines: []Line{{"none", nil, nil}}},
			{Title: "not a number", Unit: "ms", Log: true, Lines: []Line{{"none", seconds, []float64{math.NaN(), math.Inf(1), -1, 0}}}},
		},
		About: [][2]string{{"command", "menshen-bench load"}},
	}
}

// The page is well-formed, names nothing outside itself, and holds what it was
// given.
func TestPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "load.html")
	if err := page().WriteFile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decoder := xml.NewDecoder(bytes.NewReader(text))
	drawings := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		element, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch element.Name.Local {
		case "svg":
			drawings++
		case "script", "link", "img", "iframe", "object", "image", "use":
			t.Errorf("there is an element %s", element.Name.Local)
		}
		for _, a := range element.Attr {
			if a.Name.Local == "src" || a.Name.Local == "href" {
				t.Errorf("%s refers to %s", element.Name.Local, a.Value)
			}
		}
	}
	if drawings != 4 {
		t.Errorf("%d drawings, want 4", drawings)
	}
	// Names of namespaces are no references.
	rest := strings.NewReplacer(`"http://www.w3.org/2000/svg"`, "", `"http://www.w3.org/1999/xlink"`, "").Replace(string(text))
	if found := regexp.MustCompile(`[a-z]+://\S*|url\(|@import`).FindString(rest); found != "" {
		t.Errorf("the page refers to %s", found)
	}
	for _, want := range []string{"Load &amp; &lt;more&gt;", "the generator was the limit", "<td>&lt;b&gt;</td>", "<th>rate</th>", "offered", "10x &lt;&amp;", "menshen-bench load"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

func TestPageRefusesUnevenLines(t *testing.T) {
	p := page()
	p.Plots[0].Lines[0].Y = p.Plots[0].Lines[0].Y[:1]
	if err := p.Write(io.Discard); !errors.Is(err, ErrPlot) {
		t.Errorf("%v, want ErrPlot", err)
	}
}
