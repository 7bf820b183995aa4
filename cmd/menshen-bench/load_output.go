package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/menshen-io/menshen/bench/load"
	"github.com/menshen-io/menshen/bench/report"
)

// loadOutput is the JSON document of the subcommand.
type loadOutput struct {
	*load.Result
	Mix         string             `json:"mix"`
	Images      string             `json:"images,omitempty"`
	Lanes       int                `json:"lanes"`
	Tenants     int                `json:"tenants"`
	Gallery     int                `json:"gallery"`
	Arrivals    string             `json:"arrivals"`
	DeadlineMS  float64            `json:"deadline_ms"`
	Outstanding int                `json:"outstanding"`
	Model       string             `json:"model"`
	Detector    string             `json:"detector,omitempty"`
	Server      string             `json:"server"` // its version
	Kernel      string             `json:"kernel"`
	Runtime     string             `json:"runtime"`
	Environment report.Environment `json:"environment"`
}

func newLoadOutput(f *loadFlags, s *session, r *load.Result, e report.Environment) *loadOutput {
	return &loadOutput{
		Result: r, Mix: f.parsedMix.String(), Images: s.describe, Lanes: f.lanes, Tenants: len(s.tenants), Gallery: s.tenants[0].Gallery,
		Arrivals: f.arrivals, DeadlineMS: f.deadline.Seconds() * 1e3, Outstanding: f.outstanding,
		Model: s.info.ModelID, Detector: s.info.DetectorID, Server: s.info.Version, Kernel: s.info.Kernel, Runtime: s.info.Runtime, Environment: e,
	}
}

// recordName is the name of the files of a result, without ending.
func (o *loadOutput) recordName() string {
	var kinds []string
	for part := range strings.SplitSeq(o.Mix, ",") {
		kind, _, _ := strings.Cut(part, "=")
		kinds = append(kinds, strings.ReplaceAll(kind, ":", "-"))
	}
	return "load-" + o.Profile + "-" + strings.Join(kinds, "+")
}

// keyFigure is a key of the JSON document that a profile measured.
type keyFigure struct {
	key   string
	value *float64
	say   string
}

func (o *loadOutput) keyFigures() []keyFigure {
	return []keyFigure{
		{"peak_rate", o.PeakRate, "answers a second"},
		{"peak_after", o.PeakAfter, "answers a second, at the end"},
		{"goodput_ratio", o.GoodputRatio, "of the peak, under overload"},
		{"p99_ratio", o.P99Ratio, "of that at 80% of the peak"},
		{"refusal_p99_ms", o.RefusalP99MS, "ms"},
		{"recovery_s", o.RecoveryS, "s after the overload"},
		{"fairness_p99_ratio", o.FairnessP99Ratio, "of the others' before"},
		{"others_answered", o.OthersAnswered, "of their calls"},
		{"stalled_p99_ratio", o.StalledP99Ratio, "of the healthy clients' before"},
		{"healthy_answered", o.HealthyAnswered, "of their calls"},
		{"memory_peak_mb", o.MemoryPeakMB, "MiB"},
		{"memory_steady_mb", o.MemorySteadyMB, "MiB"},
		{"server_cpu", o.ServerCPU, "cores, in the busiest phase"},
		{"client_cpu", o.ClientCPU, "cores"},
		{"client_cpu_share", o.ClientShare, "of both"},
		{"other_cpu", o.OtherCPU, "cores that others used, in the worst phase"},
	}
}

func (o *loadOutput) table() *report.Table {
	t := &report.Table{}
	t.Add("profile", o.Profile)
	t.Add("mix", o.Mix, fmt.Sprintf("%s arrivals, %d lanes, %d tenants, galleries of %d", o.Arrivals, o.Lanes*o.Tenants, o.Tenants, o.Gallery))
	t.Add("model", o.Model)
	t.Add("cpu", fmt.Sprintf("%s, %d cores shared with the generator", o.Environment.CPU, o.Environment.Cores))
	t.Add()
	t.Add("rates, and latencies in ms")
	t.Add(phaseHeader...)
	for i := range o.Phases {
		t.Add(phaseRow(&o.Phases[i])...)
	}
	t.Add()
	t.Add("calls, counted")
	t.Add(countHeader...)
	for i := range o.Phases {
		t.Add(countRow(&o.Phases[i])...)
	}
	t.Add()
	for _, k := range o.keyFigures() {
		if k.value != nil {
			t.Add(k.key, short(*k.value), k.say)
		}
	}
	if o.StalledOpened != nil {
		t.Add("stalled", fmt.Sprintf("%d connected, %d still open at the end", *o.StalledOpened, *o.StalledOpen))
		for _, k := range o.StalledKinds {
			t.Add("", k.Kind, fmt.Sprintf("%d connected, %d open, the last cut off after %.1f s (promised: %.0f s)", k.Opened, k.Open, k.LongestS, k.WithinS))
		}
	}
	t.Add("not_sent", fmt.Sprint(o.NotSent), "calls")
	return t
}

// What is measured of a phase, and what is counted: never in one row, for the
// numbers do not compare.
var (
	phaseHeader = []string{"phase", "offered/s", "answered/s", "p50 ms", "p99 ms", "p99.9 ms", "refusal p99 ms", "lag p99 ms"}
	countHeader = []string{"phase", "match", "no match", "use alternative", "refused", "errors", "not sent"}
)

func phaseRow(s *load.Summary) []string {
	return []string{phaseName(s), short(s.Rate), short(s.Goodput), short(s.P50MS), short(s.P99MS), short(s.P999MS), short(s.RefusalP99MS), short(s.LagP99MS)}
}

// countRow counts a phase's calls by what became of them; errors with their codes.
func countRow(s *load.Summary) []string {
	var failed int64
	var which []string
	for _, code := range slices.Sorted(maps.Keys(s.Errors)) {
		failed += s.Errors[code]
		which = append(which, fmt.Sprintf("%s %d", code, s.Errors[code]))
	}
	errors := fmt.Sprint(failed)
	if len(which) > 0 {
		errors += " (" + strings.Join(which, ", ") + ")"
	}
	return []string{phaseName(s), fmt.Sprint(s.Match), fmt.Sprint(s.NoMatch), fmt.Sprint(s.Alternative), fmt.Sprint(s.Refused), errors, fmt.Sprint(s.NotSent)}
}

func phaseName(s *load.Summary) string {
	if s.Tenant != "" {
		return s.Phase + " (" + s.Tenant + ")"
	}
	return s.Phase
}

// short writes a figure with three digits that count.
func short(x float64) string {
	switch {
	case x == 0:
		return "0"
	case math.Abs(x) >= 100:
		return fmt.Sprintf("%.0f", x)
	case math.Abs(x) >= 10:
		return fmt.Sprintf("%.1f", x)
	case math.Abs(x) >= 1:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.3g", x)
}

// page is the HTML report.
func (o *loadOutput) page() *report.Page {
	p := &report.Page{Title: "Menshen under load: " + o.Profile + ", " + o.Mix, Remarks: o.Remarks}
	figures := report.Figures{Title: "Figures"}
	for _, k := range o.keyFigures() {
		if k.value != nil {
			figures.Rows = append(figures.Rows, []string{k.key, short(*k.value), k.say})
		}
	}
	figures.Rows = append(figures.Rows, []string{"not_sent", fmt.Sprint(o.NotSent), "calls"})
	phases := report.Figures{Title: "Rates and latencies", Header: true, Rows: [][]string{phaseHeader}}
	counts := report.Figures{Title: "Calls, counted", Header: true, Rows: [][]string{countHeader}}
	for i := range o.Phases {
		phases.Rows = append(phases.Rows, phaseRow(&o.Phases[i]))
		counts.Rows = append(counts.Rows, countRow(&o.Phases[i]))
	}
	p.Tables = []report.Figures{figures, phases, counts}
	p.Plots = o.plots()
	p.About = [][2]string{
		{"command", strings.Join(o.Environment.Command, " ")},
		{"commit", fmt.Sprintf("%s (changed: %t)", o.Environment.Commit, o.Environment.Changed)},
		{"started", o.Environment.Started.Format("2006-01-02 15:04:05 UTC")},
		{"machine", fmt.Sprintf("%s, %d cores shared by server and generator, %s, %s", o.Environment.CPU, o.Environment.Cores, o.Environment.System, o.Environment.Go)},
		{"server", fmt.Sprintf("%s, model %s, detector %s, kernel %s, ONNX Runtime %s", o.Server, o.Model, o.Detector, o.Kernel, o.Runtime)},
		{"load", fmt.Sprintf("open loop, %s arrivals; latency counts from when a call was due; %d lanes, %d tenants, galleries of %d, deadline %g ms, at most %d calls under way", o.Arrivals, o.Lanes*o.Tenants, o.Tenants, o.Gallery, o.DeadlineMS, o.Outstanding)},
	}
	if o.Images != "" {
		p.About = append(p.About, [2]string{"images", "640x480 JPEG, " + o.Images})
	}
	return p
}

// plots draws the series.
func (o *loadOutput) plots() []report.TimePlot {
	var marks []report.Moment
	phase := ""
	for _, s := range o.Series {
		if s.Phase != phase {
			phase = s.Phase
			marks = append(marks, report.Moment{At: max(s.At-1, 0), Name: phase})
		}
	}
	line := func(name string, value func(*load.Second) float64) report.Line {
		l := report.Line{Name: name}
		for i := range o.Series {
			l.X = append(l.X, o.Series[i].At)
			l.Y = append(l.Y, value(&o.Series[i]))
		}
		return l
	}
	maybe := func(x *float64) float64 {
		if x == nil {
			return math.NaN()
		}
		return *x
	}
	failed := func(s *load.Second) float64 {
		var sum int64
		for _, n := range s.Errors {
			sum += n
		}
		return float64(sum)
	}
	return []report.TimePlot{
		{Title: "Rate", Unit: "calls a second", Log: true, Marks: marks, Lines: []report.Line{
			line("offered", func(s *load.Second) float64 { return float64(s.Offered) }),
			line("answered", func(s *load.Second) float64 { return float64(s.Match + s.NoMatch + s.Alternative) }),
		}},
		{Title: "Latency of answers, from when they were due", Unit: "ms", Log: true, Marks: marks, Lines: []report.Line{
			line("p50", func(s *load.Second) float64 { return s.P50MS }),
			line("p99", func(s *load.Second) float64 { return s.P99MS }),
		}},
		{Title: "Refusals and errors", Unit: "calls a second", Marks: marks, Lines: []report.Line{
			line("refused", func(s *load.Second) float64 { return float64(s.Refused) }),
			line("errors", failed),
			line("not sent", func(s *load.Second) float64 { return float64(s.NotSent) }),
		}},
		{Title: "CPU", Unit: "cores", Marks: marks, Lines: []report.Line{
			line("server", func(s *load.Second) float64 { return maybe(s.ServerCPU) }),
			line("generator", func(s *load.Second) float64 { return maybe(s.ClientCPU) }),
			line("others", func(s *load.Second) float64 { return maybe(s.OtherCPU) }),
		}},
		{Title: "Memory of the server", Unit: "MiB", Marks: marks, Lines: []report.Line{
			line("resident", func(s *load.Second) float64 { return maybe(s.ServerRSSMB) }),
		}},
	}
}

// live is a line on a terminal that says what goes on, and nothing elsewhere.
type live struct {
	bars *mpb.Progress
	bar  *mpb.Bar
	now  atomic.Pointer[load.Second]
}

func newLive(ctx context.Context, w io.Writer, profile string) *live {
	l := &live{}
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return l
	}
	l.bars = mpb.NewWithContext(ctx, mpb.WithOutput(w), mpb.WithWidth(8))
	l.bar = l.bars.AddSpinner(0, mpb.PrependDecorators(decor.Name(profile+" ")), mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
		s := l.now.Load()
		if s == nil {
			return "starting"
		}
		return fmt.Sprintf("%.0f s, %s: %d/s offered, %d/s answered, %d/s refused, p50 %s ms, p99 %s ms",
			s.At, s.Phase, s.Offered, s.Match+s.NoMatch+s.Alternative, s.Refused, short(s.P50MS), short(s.P99MS))
	})))
	return l
}

func (l *live) show(s load.Second) { l.now.Store(&s) }

func (l *live) stop() {
	if l.bar != nil {
		l.bar.Abort(false)
		l.bars.Wait()
		l.bar = nil
	}
}
