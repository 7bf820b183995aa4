// Package models describes, finds and runs the neural networks of Menshen.
//
// A Manifest (YAML) says what a model file is: its sha256, its licence, and how
// pixels become its input. A Registry finds models by name or by file, refuses
// a file whose hash differs from its manifest, imports local files and fetches
// known public ones on request. A Runtime is the ONNX Runtime shared library,
// loaded once per process. A Runner is one loaded model, which any number of
// goroutines may run at the same time; it is measured when it is opened and runs
// as that showed to be fastest. A Budget shares the cores among all runners. A
// Session is the raw model with a given number of threads, for benchmarks:
// NewSession with SessionOptions{IntraOp, Concurrency}, and Run with a first
// dimension of the batch.
//
// It promises: the bytes that were hashed are the bytes that are run; a file
// that is not what its manifest says gives an error before the first face; runs
// are bounded in number and end with their context; Close waits for runs that
// are under way. Nothing is downloaded except by Registry.Pull.
//
// It does not: know what a face is (see detect, align, embed), keep secrets, or
// load models with external weight files. Execution providers other than the
// CPU are asked for by name; with a library that has them they are untried.
// ONNX Runtime parses model files in C++: a model without a pinned hash should
// come from someone you trust.
package models
