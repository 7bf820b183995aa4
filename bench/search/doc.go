// Package search measures how fast galleries are searched, how much memory they
// take, and whether their answers are right.
//
// One run puts side by side, on the same data and in alternation, so that what
// else the machine does hits all of them: a fair fp32 brute force (Baseline), a
// gallery asked by one caller, by one caller with many probes, and by many
// callers; and the machine's own limits, memory bandwidth and int8
// multiply-adds (Limits). Figures that mean something are ratios of one run.
//
// It promises that no figure comes without its correctness: a sample of the
// probes is compared with a reference scan that shares no code with the gallery
// but the definition of a score, and every answer of every timed search to these
// probes is checked against it.
//
// The data are synthetic (Source): no face is in them. They say nothing about
// the error rates of a model; bench/accuracy does.
package search
