package report

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// ErrPlot: a plot cannot be drawn or written; the text says why.
var ErrPlot = errors.New("report: plot")

// Rates is one operating point.
type Rates struct{ FMR, FNMR float64 }

// Mark is an operating point that is shown with a label.
type Mark struct {
	Rates
	Label string
}

// Tradeoff is a plot of the false match rate against the false non-match rate:
// to the left as a DET curve (both logarithmic), to the right as an ROC curve.
type Tradeoff struct {
	Title    string
	Curve    []Rates // from high to low FMR
	Marks    []Mark  // in the order in which the labels are to stand
	EER      float64 // NaN: not marked
	Mated    int     // comparisons behind the curve: they bound what is shown
	NonMated int
}

// PlotFormat returns "svg" or "png" by the file's name, or ErrPlot.
func PlotFormat(path string) (string, error) {
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".svg", ".png":
		return ext[1:], nil
	default:
		return "", fmt.Errorf("%w: %s: the name should end in .svg or .png", ErrPlot, path)
	}
}

// WriteFile draws the plot into a file, in the format that its name says.
func (t *Tradeoff) WriteFile(path string) error {
	format, err := PlotFormat(path)
	if err != nil {
		return err
	}
	if err := replaceFile(path, func(w io.Writer) error { return t.Write(w, format) }); err != nil {
		return fmt.Errorf("%w: cannot write %s: %w", ErrPlot, path, err)
	}
	return nil
}

const (
	plotWidth  = 12 * vg.Inch
	plotHeight = 6 * vg.Inch
	pngDPI     = 110
)

var (
	curveColour = color.NRGBA{R: 0x1f, G: 0x4e, B: 0x8c, A: 0xff}
	markColour  = color.NRGBA{R: 0xb4, G: 0x1f, B: 0x1f, A: 0xff}
	mutedColour = color.NRGBA{R: 0x70, G: 0x70, B: 0x70, A: 0xff}
	gridColour  = color.NRGBA{R: 0xcc, G: 0xcc, B: 0xcc, A: 0xff}
)

// Write draws the plot as "svg" or "png".
func (t *Tradeoff) Write(w io.Writer, format string) error {
	if t.Mated < 1 || t.NonMated < 1 || len(t.Curve) < 2 {
		return fmt.Errorf("%w: there are %d mated and %d non-mated comparisons; a curve needs both", ErrPlot, t.Mated, t.NonMated)
	}
	det, err := t.det()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPlot, err)
	}
	roc, err := t.roc()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPlot, err)
	}
	var canvas vg.CanvasWriterTo
	switch format {
	case "svg":
		canvas = vgsvg.New(plotWidth, plotHeight)
	case "png":
		canvas = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(plotWidth, plotHeight), vgimg.UseDPI(pngDPI))}
	default:
		return fmt.Errorf("%w: unknown format %q; svg and png are known", ErrPlot, format)
	}
	page := draw.New(canvas)
	page.SetColor(color.White)
	page.Fill(page.Rectangle.Path())

	title := style(13, draw.XCenter, color.Black)
	title.YAlign = draw.YTop
	page.FillText(title, vg.Point{X: page.Center().X, Y: page.Max.Y - vg.Points(10)}, t.Title)
	body := draw.Crop(page, vg.Points(8), -vg.Points(16), vg.Points(8), -vg.Points(34))
	tiles := draw.Tiles{Rows: 1, Cols: 2, PadX: vg.Points(24)}
	drawPanel(det, tiles.At(body, 0, 0), "False non-match rate (FNMR)")
	drawPanel(roc, tiles.At(body, 1, 0), "True match rate (1 - FNMR)")
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return fmt.Errorf("%w: %w", ErrPlot, err)
	}
	drawn := b.Bytes()
	if format == "svg" {
		// Readers without the font should take a like one.
		drawn = bytes.ReplaceAll(drawn, []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif"))
	}
	_, err = w.Write(drawn)
	return err
}

// decadeBelow is the power of ten at or below a rate of one in n: where an axis
// that shows such rates begins.
func decadeBelow(n int) float64 {
	return math.Pow(10, math.Floor(math.Log10(1/float64(max(n, 10)))+1e-9))
}

func (t *Tradeoff) det() (*plot.Plot, error) {
	p := newPlot("DET")
	p.X.Min, p.X.Max = decadeBelow(t.NonMated), 1
	p.Y.Min, p.Y.Max = decadeBelow(t.Mated), 1
	logarithmic(&p.X)
	logarithmic(&p.Y)
	// A rate of zero has no place on the axis: it is drawn on the edge.
	at := func(r Rates) plotter.XY { return plotter.XY{X: max(r.FMR, p.X.Min), Y: max(r.FNMR, p.Y.Min)} }

	lowest := max(p.X.Min, p.Y.Min)
	if err := addLine(p, plotter.XYs{{X: lowest, Y: lowest}, {X: 1, Y: 1}}, mutedColour, 0.7, 2, 3); err != nil {
		return nil, err
	}
	if err := t.addSupport(p); err != nil {
		return nil, err
	}
	if err := t.addCurve(p, at); err != nil {
		return nil, err
	}
	if !math.IsNaN(t.EER) {
		e := Mark{Rates{t.EER, t.EER}, "EER " + Percent(t.EER)}
		if err := addMarks(p, []Mark{e}, at, draw.SquareGlyph{}, curveColour, belowLeft); err != nil {
			return nil, err
		}
	}
	return p, addMarks(p, t.Marks, at, draw.CircleGlyph{}, markColour, aboveRight)
}

func (t *Tradeoff) roc() (*plot.Plot, error) {
	p := newPlot("ROC")
	p.X.Min, p.X.Max = decadeBelow(t.NonMated), 1
	logarithmic(&p.X)
	at := func(r Rates) plotter.XY { return plotter.XY{X: max(r.FMR, p.X.Min), Y: 1 - r.FNMR} }
	// The axis begins a little below the lowest rate of interest, at a tenth.
	worst := 0.0
	for _, r := range t.Curve {
		if r.FMR > 0 {
			worst = max(worst, r.FNMR)
		}
	}
	for _, m := range t.Marks {
		worst = max(worst, m.FNMR)
	}
	p.Y.Min, p.Y.Max = max(0, math.Floor((1-worst)*10-1e-9)/10), 1
	p.Y.Tick.Marker = plot.TickerFunc(rateTicks)
	if err := t.addSupport(p); err != nil {
		return nil, err
	}
	if err := t.addCurve(p, func(r Rates) plotter.XY {
		xy := at(r)
		xy.Y = max(xy.Y, p.Y.Min)
		return xy
	}); err != nil {
		return nil, err
	}
	return p, addMarks(p, t.Marks, at, draw.CircleGlyph{}, markColour, belowRight)
}

// addCurve draws the curve. Of the points without a false match only the first,
// the best of them, is drawn: the others lie on the edge above it.
func (t *Tradeoff) addCurve(p *plot.Plot, at func(Rates) plotter.XY) error {
	var points plotter.XYs
	for _, r := range t.Curve {
		points = append(points, at(r))
		if r.FMR == 0 {
			break
		}
	}
	return addLine(p, points, curveColour, 1.8)
}

// addSupport draws the line left of which the rule of 3 supports no FMR.
func (t *Tradeoff) addSupport(p *plot.Plot) error {
	x := 3 / float64(t.NonMated)
	if x >= 1 {
		return nil
	}
	if err := addLine(p, plotter.XYs{{X: x, Y: p.Y.Min}, {X: x, Y: p.Y.Max}}, mutedColour, 0.8, 5, 3); err != nil {
		return err
	}
	label := fmt.Sprintf("3/%d: not supported left of here", t.NonMated)
	sty := style(8, draw.XLeft, mutedColour)
	sty.Rotation = math.Pi / 2
	sty.YAlign = draw.YBottom
	y := p.Y.Min + (p.Y.Max-p.Y.Min)*0.03
	if _, ok := p.Y.Scale.(plot.LogScale); ok {
		y = p.Y.Min * math.Pow(p.Y.Max/p.Y.Min, 0.03)
	}
	p.Add(captions{plotter.XYs{{X: x, Y: y}}, []string{label}, sty, vg.Point{X: -vg.Points(3)}})
	return nil
}

// Where a label stands beside its point, on the side where the curve does not
// run: a DET curve falls to the right, an ROC curve rises.
var (
	aboveRight = vg.Point{X: 7, Y: 4}
	belowRight = vg.Point{X: 7, Y: -13}
	belowLeft  = vg.Point{X: -7, Y: -15}
)

// addMarks draws points with their labels.
func addMarks(p *plot.Plot, marks []Mark, at func(Rates) plotter.XY, shape draw.GlyphDrawer, c color.Color, offset vg.Point) error {
	if len(marks) == 0 {
		return nil
	}
	var points plotter.XYs
	var labels []string
	for _, m := range marks {
		points = append(points, at(m.Rates))
		labels = append(labels, m.Label)
	}
	glyphs, err := plotter.NewScatter(points)
	if err != nil {
		return err
	}
	glyphs.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(3.5), Shape: shape}
	p.Add(glyphs)
	p.Add(captions{points, labels, style(9, draw.XLeft, c), offset})
	return nil
}

// captions writes texts beside points. Unlike plotter.Labels it takes no room of
// its own in the layout, so that the axes of both plots stay alike; a text that
// would leave the plot stands on the other side of its point.
type captions struct {
	points plotter.XYs
	texts  []string
	style  text.Style
	offset vg.Point
}

// Plot implements plot.Plotter.
func (l captions) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for i, point := range l.points {
		at, sty, offset := vg.Point{X: x(point.X), Y: y(point.Y)}, l.style, l.offset
		if sty.Rotation == 0 {
			width, height := sty.Width(l.texts[i]), sty.Height(l.texts[i])
			if offset.X > 0 && at.X+offset.X+width > c.Max.X || offset.X < 0 && at.X+offset.X-width < c.Min.X {
				offset.X = -offset.X
			}
			if bottom := at.Y + offset.Y; bottom < c.Min.Y || bottom+height > c.Max.Y {
				offset.Y = -offset.Y - height
			}
			if offset.X < 0 {
				sty.XAlign = draw.XRight
			}
		}
		c.FillText(sty, at.Add(offset), l.texts[i])
	}
}

func addLine(p *plot.Plot, points plotter.XYs, c color.Color, width vg.Length, dashes ...vg.Length) error {
	line, err := plotter.NewLine(points)
	if err != nil {
		return err
	}
	line.LineStyle = draw.LineStyle{Color: c, Width: width, Dashes: dashes}
	p.Add(line)
	return nil
}

// drawPanel draws a plot with its FMR axis and the other one named. The names
// are not left to gonum/plot: on a logarithmic axis it takes the middle of the
// values for the middle of the axis and shrinks the plot to make room there.
func drawPanel(p *plot.Plot, c draw.Canvas, yName string) {
	const room = vg.Length(20)
	inner := draw.Crop(c, room, 0, room, 0)
	p.Draw(inner)
	data := p.DataCanvas(inner)
	name := style(11, draw.XCenter, color.Black)
	c.FillText(name, vg.Point{X: data.Center().X, Y: c.Min.Y + 4}, "False match rate (FMR)")
	name.Rotation = math.Pi / 2
	c.FillText(name, vg.Point{X: c.Min.X + 12, Y: data.Center().Y}, yName)
}

func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.TextStyle = style(12, draw.XCenter, color.Black)
	p.Title.TextStyle.YAlign = draw.YTop
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Tick.Label.Font = sans(9)
		axis.Padding = 0
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = gridColour, gridColour
	p.Add(grid)
	return p
}

func logarithmic(axis *plot.Axis) {
	axis.Scale = plot.LogScale{}
	axis.Tick.Marker = plot.TickerFunc(decadeTicks)
}

// decadeTicks labels the powers of ten and marks the steps between them.
func decadeTicks(lo, hi float64) []plot.Tick {
	var ticks []plot.Tick
	for e := math.Round(math.Log10(lo)); e <= math.Round(math.Log10(hi)); e++ {
		decade := math.Pow(10, e)
		label := fmt.Sprintf("1e%d", int(e))
		switch {
		case e == 0:
			label = "1"
		case e >= -2:
			label = fmt.Sprintf("%g", decade)
		}
		ticks = append(ticks, plot.Tick{Value: decade, Label: label})
		for i := 2.0; i < 10 && decade*i < hi; i++ {
			ticks = append(ticks, plot.Tick{Value: decade * i})
		}
	}
	return ticks
}

// rateTicks divides a part of 0..1 whose ends are tenths.
func rateTicks(lo, hi float64) []plot.Tick {
	step := 2 // hundredths
	switch {
	case hi-lo > 0.55:
		step = 10
	case hi-lo > 0.25:
		step = 5
	}
	var ticks []plot.Tick
	for v := int(math.Round(lo * 100)); v <= int(math.Round(hi*100)); v += step {
		ticks = append(ticks, plot.Tick{Value: float64(v) / 100, Label: fmt.Sprintf("%.2f", float64(v)/100)})
	}
	return ticks
}

func sans(size vg.Length) font.Font {
	return font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, size)
}

func style(size vg.Length, align text.XAlignment, c color.Color) text.Style {
	return text.Style{Color: c, Font: sans(size), XAlign: align, Handler: plot.DefaultTextHandler}
}
