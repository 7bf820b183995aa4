package main

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"

	"github.com/menshen-io/menshen/bench/accuracy"
	"github.com/menshen-io/menshen/bench/report"
	"github.com/menshen-io/menshen/models/pipeline"
)

const (
	scoreCosine    = "cosine of embeddings"
	scoreTemplates = "int8 templates under a rotation"
)

// accuracyOutput is the JSON document of the subcommand.
type accuracyOutput struct {
	*accuracy.Result
	Detector          string              `json:"detector"` // model id; "" for ready-made crops
	Embedder          string              `json:"embedder"` // model id
	RuntimeVersion    string              `json:"onnx_runtime"`
	Score             string              `json:"score"`
	TemplateDeviation *accuracy.Deviation `json:"template_deviation,omitempty"` // from the cosine of the embeddings
	Plot              string              `json:"plot,omitempty"`
	Environment       report.Environment  `json:"environment"`
}

// name fills in the models: a detector, unless there is none, and an embedder.
func (o *accuracyOutput) name(info []pipeline.ModelInfo, aligned bool) {
	o.Embedder = info[len(info)-1].ID
	if !aligned {
		o.Detector = info[0].ID
	}
}

// curvePoints is how many points of the curve are drawn: more than the plot has
// pixels across.
const curvePoints = 2000

func (o *accuracyOutput) tradeoff(scores *accuracy.Scores) *report.Tradeoff {
	models := o.Embedder
	if o.Detector != "" {
		models += ", faces by " + o.Detector
	}
	t := &report.Tradeoff{
		Title:    fmt.Sprintf("%s: %s (%d mated, %d non-mated)", filepath.Base(o.DataSet), models, o.Mated, o.NonMated),
		EER:      math.NaN(),
		Mated:    o.Mated,
		NonMated: o.NonMated,
	}
	if o.EER != nil {
		t.EER = *o.EER
	}
	for _, p := range scores.Curve(curvePoints) {
		t.Curve = append(t.Curve, report.Rates{FMR: p.FMR, FNMR: p.FNMR})
	}
	for _, target := range accuracy.Targets() {
		if fnmr := o.FNMR[target.Label]; fnmr != nil {
			t.Marks = append(t.Marks, report.Mark{
				Rates: report.Rates{FMR: *o.FNMRMeasured[target.Label], FNMR: *fnmr},
				Label: fmt.Sprintf("%s: FNMR %s", target.Label, report.Percent(*fnmr)),
			})
		}
	}
	return t
}

// shownFailures is how many failures to acquire the table spells out.
const shownFailures = 10

// table is the result for people to read.
func (o *accuracyOutput) table() *report.Table {
	t := &report.Table{}
	detector := o.Detector
	if detector == "" {
		detector = "none: aligned crops"
	}
	t.Add("data_set", o.DataSet)
	t.Add("detector", detector)
	t.Add("embedder", o.Embedder)
	t.Add("score", o.Score)
	images := strconv.Itoa(o.Images)
	if o.Kind == accuracy.Folders {
		images += fmt.Sprintf(" of %d people", o.People)
	}
	t.Add("images", images)
	t.Add("failure_to_acquire", fmt.Sprintf("%d (%s)", o.FailureToAcquire, report.Percent(o.FailureToAcquireRate)))
	t.Add("multiple_faces", strconv.Itoa(o.MultipleFaces))
	t.Add("pairs", strconv.Itoa(o.Pairs))
	t.Add("mated", strconv.Itoa(o.Mated))
	t.Add("non_mated", strconv.Itoa(o.NonMated))
	t.Add("pairs_not_compared", fmt.Sprintf("%d (%d mated)", o.PairsNotCompared, o.MatedNotCompared))
	t.Add()
	t.Add("best_threshold", number(o.BestThreshold))
	t.Add("accuracy", rate(o.Accuracy, o.AccuracyCI95))
	t.Add("eer", rate(o.EER, o.EERCI95)+at(o.EERThreshold))
	for _, target := range accuracy.Targets() {
		key := target.Label
		if why, unsupported := o.FNMRNote[key]; unsupported {
			t.Add("fnmr "+key, why)
			continue
		}
		line := rate(o.FNMR[key], o.FNMRCI95[key]) + at(o.FNMRThreshold[key])
		if o.MatedNotCompared > 0 {
			line += ", with failures " + report.Percent(*o.FNMRWithFailures[key])
		}
		t.Add("fnmr "+key, line)
	}
	if o.Kind == accuracy.Folders {
		t.Add("rank1", rate(o.Rank1, o.Rank1CI95))
	}
	t.Add("intervals", o.CIMethod)
	if d := o.TemplateDeviation; d != nil {
		t.Add("template_deviation", fmt.Sprintf("largest %.4f, rms %.5f from the cosine of the embeddings", d.Largest, d.RMS))
	}
	for _, line := range o.Notes {
		t.Add("note", line)
	}
	for _, failure := range o.Failures[:min(len(o.Failures), shownFailures)] {
		t.Add("not acquired", failure.File+": "+failure.Reason)
	}
	if more := len(o.Failures) - shownFailures; more > 0 {
		t.Add("not acquired", fmt.Sprintf("and %d more: --json lists them", more))
	}
	return t
}

func number(x *float64) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf("%.4f", *x)
}

func rate(x *float64, ci *[2]float64) string {
	if x == nil {
		return "-"
	}
	if ci == nil {
		return report.Percent(*x)
	}
	return fmt.Sprintf("%s [%s, %s]", report.Percent(*x), report.Percent(ci[0]), report.Percent(ci[1]))
}

func at(threshold *float64) string {
	if threshold == nil {
		return ""
	}
	return fmt.Sprintf(" at score %.4f", *threshold)
}
