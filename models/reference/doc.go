// Package reference is the built-in face embedder: an ONNX model that this
// package's own code writes, so that a fresh machine runs the whole service with
// nothing downloaded. It is for demonstrations, tests and evaluation. It
// contains nobody's face, and it is not for recognising people: a trained
// network makes a tenth of its mistakes (figures below).
//
// The network, from crop to 512 numbers:
//
//	grey           a 1x1 convolution
//	even light     subtract the local mean, divide by the local standard
//	               deviation (Gaussian window, sigma 6 pixels)
//	filter bank    Gabor filters in quadrature pairs: 8 orientations at
//	               wavelengths of 6, 9, 13.5 and 20 pixels
//	magnitude      the root of the pair's energy, and once more the root
//	grid           means over 7x7 overlapping windows: 1,568 features
//	projection     (x - mean) * W, to 512 dimensions
//
// Everything up to the grid is a formula. The projection comes from synthetic
// faces alone (see Fit and bench/faces/fitreference): W makes what pose, light,
// noise and expression change count little, and what tells people apart count
// much. It is kept as projection.bin.
//
// The package promises the same bytes on every machine, and finite output for
// every crop. It promises no error rate on real faces.
package reference
