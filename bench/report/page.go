package report

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"image/color"
	"io"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Page is a report that opens from a file, in any browser and without a network:
// the plots are drawn into it, and it asks for nothing.
type Page struct {
	Title   string
	Remarks []string    // what a reader must know before the figures
	Tables  []Figures   // in the order in which they are to stand
	Plots   []TimePlot  // below the tables
	About   [][2]string // how it was measured
}

// Figures is a table with a heading. The first row names the columns if Header
// is set; cells after the first are set to the right.
type Figures struct {
	Title  string
	Header bool
	Rows   [][]string
}

// TimePlot shows lines over seconds.
type TimePlot struct {
	Title string
	Unit  string // of the values
	Log   bool   // the values on a logarithmic axis; what is not above 0 is left out
	Lines []Line
	Marks []Moment
}

// Line is a named line. NaN interrupts it.
type Line struct {
	Name string
	X, Y []float64
}

// Moment is a time with a name, drawn as an upright line.
type Moment struct {
	At   float64
	Name string
}

// lineColours can be told apart in grey too, and by most of the colour-blind
// (Okabe and Ito's palette).
var lineColours = []color.NRGBA{
	{0x00, 0x72, 0xb2, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff},
	{0xcc, 0x79, 0xa7, 0xff}, {0x56, 0x56, 0x56, 0xff}, {0xe6, 0x9f, 0x00, 0xff},
}

const (
	timePlotWidth  = 9.5 * vg.Inch
	timePlotHeight = 2.9 * vg.Inch
)

var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{{.Title}}</title>
<style>
body { font: 15px/1.45 "Liberation Sans", Arial, Helvetica, sans-serif; color: #222; max-width: 62em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin: 1.6em 0 .4em; }
table { border-collapse: collapse; } td, th { padding: .15em .8em; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
td:first-child, th:first-child { text-align: left; } .about td { text-align: left; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } .remark { border-left: .3em solid #d55e00; padding-left: .8em; } svg { max-width: 100%; height: auto; }
</style>
</head>
<body>
<h1>{{.Title}}</h1>
{{range .Remarks}}<p class="remark">{{.}}</p>
{{end}}{{range .Tables}}<h2>{{.Title}}</h2>
<div class="scroll"><table>
{{$header := .Header}}{{range $i, $row := .Rows}}<tr>{{range $row}}{{if and $header (eq $i 0)}}<th>{{.}}</th>{{else}}<td>{{.}}</td>{{end}}{{end}}</tr>
{{end}}</table></div>
{{end}}{{range .Drawn}}{{.}}
{{end}}<h2>How it was measured</h2>
<table class="about">
{{range .About}}<tr><td>{{index . 0}}</td><td>{{index . 1}}</td></tr>
{{end}}</table>
</body>
</html>
`))

// Write writes the page. Error: ErrPlot, or that of w.
func (p *Page) Write(w io.Writer) error {
	var drawn []template.HTML
	for i := range p.Plots {
		svg, err := p.Plots[i].svg()
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrPlot, p.Plots[i].Title, err)
		}
		// The texts in it were escaped by who drew it.
		drawn = append(drawn, template.HTML(svg))
	}
	return pageTemplate.Execute(w, struct {
		*Page
		Drawn []template.HTML
	}{p, drawn})
}

// WriteFile writes the page into a file, whole or not at all.
func (p *Page) WriteFile(path string) error { return replaceFile(path, p.Write) }

// WriteJSONFile writes v as WriteJSON does into a file, whole or not at all.
func WriteJSONFile(path string, v any) error {
	return replaceFile(path, func(w io.Writer) error { return WriteJSON(w, v) })
}

// svg draws the plot as an element that can stand in a page.
func (t *TimePlot) svg() (string, error) {
	p := newPlot(t.Title + ", " + t.Unit)
	p.X.Label.Text, p.X.Label.TextStyle.Font = "seconds", sans(9)
	p.Legend.Top, p.Legend.TextStyle.Font = true, sans(9)
	p.Legend.YOffs = -vg.Points(2)
	if t.Log {
		p.Y.Scale = plot.LogScale{}
		p.Y.Tick.Marker = plot.TickerFunc(decadeTicksPlain)
	}
	low, high, last := math.Inf(1), math.Inf(-1), 0.0
	for i, l := range t.Lines {
		if len(l.X) != len(l.Y) {
			return "", errors.New("a line has not as many values as times")
		}
		for _, part := range l.parts(t.Log) {
			for _, at := range part {
				low, high, last = min(low, at.Y), max(high, at.Y), max(last, at.X)
			}
			if err := addLine(p, part, lineColours[i%len(lineColours)], 1.4); err != nil {
				return "", err
			}
		}
		key, err := plotter.NewLine(plotter.XYs{{}, {}})
		if err != nil {
			return "", err
		}
		key.LineStyle = draw.LineStyle{Color: lineColours[i%len(lineColours)], Width: 2}
		p.Legend.Add(l.Name, key)
	}
	if math.IsInf(low, 0) {
		low, high = 1, 1
	}
	p.X.Min, p.X.Max = 0, max(last, 1)
	if t.Log {
		p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high*1.001)))
	} else {
		p.Y.Min, p.Y.Max = 0, max(high*1.05, 1e-9)
	}
	for _, m := range t.Marks {
		if err := addLine(p, plotter.XYs{{X: m.At, Y: p.Y.Min}, {X: m.At, Y: p.Y.Max}}, mutedColour, 0.7, 3, 3); err != nil {
			return "", err
		}
		sty := style(8, draw.XLeft, mutedColour)
		p.Add(captions{plotter.XYs{{X: m.At, Y: p.Y.Max}}, []string{m.Name}, sty, vg.Point{X: 3, Y: -10}})
	}
	canvas := vgsvg.New(timePlotWidth, timePlotHeight)
	p.Draw(draw.Crop(draw.New(canvas), vg.Points(6), -vg.Points(8), vg.Points(6), -vg.Points(6)))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return "", err
	}
	text := b.String()
	begin := strings.Index(text, "<svg")
	if begin < 0 {
		return "", errors.New("what was drawn is no SVG")
	}
	// Readers without the font should take a like one.
	text = strings.ReplaceAll(text[begin:], "font-family:Liberation Sans", "font-family:Liberation Sans,Arial,Helvetica,sans-serif")
	return "<figure>" + strings.TrimSpace(text) + "</figure>", nil
}

// parts are the pieces of a line between what cannot be drawn.
func (l Line) parts(log bool) (out []plotter.XYs) {
	var part plotter.XYs
	for i, x := range l.X {
		y := l.Y[i]
		if math.IsNaN(y) || math.IsInf(y, 0) || log && y <= 0 {
			if len(part) > 0 {
				out = append(out, part)
			}
			part = nil
			continue
		}
		part = append(part, plotter.XY{X: x, Y: y})
	}
	if len(part) > 0 {
		out = append(out, part)
	}
	return out
}

// decadeTicksPlain is decadeTicks with plain numbers.
func decadeTicksPlain(lo, hi float64) []plot.Tick {
	ticks := decadeTicks(lo, hi)
	for i, t := range ticks {
		if t.Label != "" {
			ticks[i].Label = strconv.FormatFloat(t.Value, 'g', -1, 64)
		}
	}
	return ticks
}
