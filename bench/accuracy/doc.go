// Package accuracy measures how well a detector and an embedder tell people
// apart on a set of photographs, in the terms of ISO/IEC 19795-1.
//
// The way of a measurement: a DataSet says which images there are and which
// comparisons are mated (same person) or non-mated; Acquire runs every image
// once through an Extractor; Compare scores the comparisons; Evaluate turns the
// scores into error rates, with what the size of the data can support.
//
// It promises that the figures follow from the scores exactly: a comparison is a
// match if and only if its score is at or above the threshold, tied scores fall
// on the same side, and nothing is binned or smoothed. The same data, models and
// seed give the same figures for any number of workers.
//
// It does not promise that the figures hold for other people, cameras or light
// than those of the data set, and it does not hide what was left out: images in
// which no face was acquired, and the comparisons lost with them, are counted.
package accuracy
