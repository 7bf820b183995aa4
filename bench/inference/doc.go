// Package inference measures what the service leaves of the machine's inference:
// raw ONNX Runtime at its best setting and a server, in one run and by turns, so
// that what else the machine does hits both.
//
// The raw side (raw.go) calls ONNX Runtime itself and shares no code with the
// product's sessions: a fault there cannot hide in both. The stages around it
// (decoding, alignment, search) are the product's, called back to back without
// a service. Every figure is a median over rounds, every ratio the median of the
// rounds' ratios.
//
// It promises that answers are looked at (bench/inference/wire) and that a
// refused call fails the measurement: no rate is made of refusals.
package inference
