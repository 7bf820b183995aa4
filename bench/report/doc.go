// Package report writes down what a benchmark found: JSON for programs, tables
// for people, plots of error rates, and the environment in which it was
// measured, without which no figure means anything.
//
// It promises to write a file whole or not at all, and to give the same bytes
// for the same content. It measures nothing and knows no model.
package report
