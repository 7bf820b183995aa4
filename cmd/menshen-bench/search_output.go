package main

import (
	"fmt"
	"strconv"

	"github.com/menshen-io/menshen/bench/report"
	"github.com/menshen-io/menshen/bench/search"
)

// searchOutput is the JSON document of the subcommand, one of three.
type searchOutput interface {
	finish(report.Environment)
	setting() *search.Setting
	table() *report.Table
}

type scanOutput struct {
	*search.ScanResult
	Environment report.Environment `json:"environment"`
}

type scopesOutput struct {
	*search.ScopesResult
	Environment report.Environment `json:"environment"`
}

type churnOutput struct {
	*search.ChurnResult
	Environment report.Environment `json:"environment"`
}

func (o *scanOutput) finish(e report.Environment)   { o.Environment, o.CPU = e, e.CPU }
func (o *scopesOutput) finish(e report.Environment) { o.Environment, o.CPU = e, e.CPU }
func (o *churnOutput) finish(e report.Environment)  { o.Environment, o.CPU = e, e.CPU }

func (o *scanOutput) setting() *search.Setting   { return &o.Setting }
func (o *scopesOutput) setting() *search.Setting { return &o.Setting }
func (o *churnOutput) setting() *search.Setting  { return &o.Setting }

// heading begins the table of a result: what was searched, and with what.
func heading(s *search.Setting, gallery string) *report.Table {
	t := &report.Table{}
	t.Add("gallery", gallery)
	t.Add("data", string(s.Data)+": "+s.Description)
	t.Add("search", fmt.Sprintf("best %d at %g or above", s.Top, s.Threshold))
	t.Add("kernel", s.Kernel)
	t.Add("cpu", fmt.Sprintf("%s, %d workers; load average %g before", s.CPU, s.Workers, s.LoadBefore))
	t.Add("rounds", fmt.Sprintf("%d of %gs a measurement", s.RoundCount, s.SecondsEach))
	t.Add()
	return t
}

// mismatches says how many answers were wrong, of how many.
func mismatches(t *report.Table, s *search.Setting) {
	t.Add("mismatches", fmt.Sprintf("%d of %d answers to %d probes", s.Mismatches, s.CheckedCount, s.CheckedProbes))
}

func (o *scanOutput) table() *report.Table {
	t := heading(&o.Setting, fmt.Sprintf("%d templates x %d", o.Gallery, o.Dim))
	scaled := ""
	if n := o.BaselineScaledFrom; n != nil {
		scaled = fmt.Sprintf("  scaled from %d rows", *n)
	}
	if o.BaselineSingleMS != nil {
		t.Add("baseline", fmt.Sprintf("%s, %s%s", o.BaselineKernel, o.BaselineBlock, scaled))
	}
	t.Add("baseline_single_ms", figure(o.BaselineSingleMS))
	t.Add("single_ms", plain(o.SingleMS), fmt.Sprintf("p50 %s, p99 %s of %d", plain(o.SingleP50MS), plain(o.SingleP99MS), o.SingleSearches))
	t.Add("single_speedup", figure(o.SingleSpeedup))
	t.Add("baseline_batch_qps", figure(o.BaselineBatchQPS))
	t.Add("batch_qps", plain(o.BatchQPS), fmt.Sprintf("%d probes at once, %d of them mated", o.Probes, o.MatedProbes))
	t.Add("batch_speedup", figure(o.BatchSpeedup))
	t.Add("concurrent_qps", plain(o.ConcurrentQPS), fmt.Sprintf("%d callers, %s of batch; p50 %s ms, p99 %s ms", o.Callers, report.Percent(o.ConcurrentOfBatch), plain(o.ConcurrentP50MS), plain(o.ConcurrentP99MS)))
	t.Add("bytes_per_template", figure(o.BytesPerTemplate))
	t.Add("bandwidth_fraction", plain(o.BandwidthFraction), fmt.Sprintf("of %s GB/s", plain(o.BandwidthGBs)))
	t.Add("mac_fraction", plain(o.MACFraction), fmt.Sprintf("of %s G/s: %s", plain(o.GMACs), o.MACMethod))
	t.Add("allocs_per_search", plain(o.AllocsSingle), fmt.Sprintf("%s for each probe of many", plain(o.AllocsBatch)))
	t.Add("single_work", work(o.SingleWork))
	t.Add("batch_work", work(o.BatchWork))
	t.Add("fmr", fmt.Sprintf("%.2g", o.FMR))
	t.Add("mated_found", report.Percent(o.MatedFound))
	mismatches(t, &o.Setting)
	return t
}

func (o *scopesOutput) table() *report.Table {
	t := heading(&o.Setting, fmt.Sprintf("%d scopes of %d templates x %d", o.Scopes, o.Gallery, o.Dim))
	t.Add("scope_search_us", plain(o.SearchUS), fmt.Sprintf("p99 %s of %d", plain(o.P99US), o.Searches))
	t.Add("scope_concurrent_qps", plain(o.PerSecond))
	t.Add("scope_overhead_bytes", figure(o.OverheadBytes), fmt.Sprintf("of %s a scope; a template takes %s in one gallery", figure(o.BytesPerScope), figure(o.OneGalleryBytes)))
	t.Add("scope_bytes_over_codes", figure(o.OverCodesBytes))
	t.Add("allocs_per_search", plain(o.Allocs))
	t.Add("mated_found", report.Percent(o.MatedFound))
	mismatches(t, &o.Setting)
	return t
}

func (o *churnOutput) table() *report.Table {
	t := heading(&o.Setting, fmt.Sprintf("%d templates x %d, %d changes a second asked for", o.Gallery, o.Dim, o.AskedPerS))
	t.Add("quiet_p99_ms", plain(o.QuietP99MS), fmt.Sprintf("p50 %s of %d", plain(o.QuietP50MS), o.QuietCount))
	t.Add("churn_p99_ms", plain(o.ChurnP99MS), fmt.Sprintf("p50 %s of %d", plain(o.ChurnP50MS), o.ChurnCount))
	t.Add("churn_ratio", plain(o.Ratio))
	t.Add("churn_achieved_per_s", plain(o.AchievedPerS), fmt.Sprintf("%d changes; a call: p50 %s ms, p99 %s ms", o.Changes, plain(o.ApplyP50MS), plain(o.ApplyP99MS)))
	t.Add("bytes_per_template", figure(o.BytesPerTemplate), "after: "+figure(o.BytesAfterChurn))
	t.Add("mated_found", report.Percent(o.MatedFound))
	mismatches(t, &o.Setting)
	return t
}

func work(w search.Work) string {
	return fmt.Sprintf("%s rows glanced at, %s passed, %s compared; %s shards, %s tasks", plain(w.Glanced), plain(w.Passed), plain(w.Compared), plain(w.Shards), plain(w.Tasks))
}

// plain prints a figure with the digits that it has.
func plain(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }

// figure is plain for what may not have been measured.
func figure(x *float64) string {
	if x == nil {
		return "-"
	}
	return plain(*x)
}
