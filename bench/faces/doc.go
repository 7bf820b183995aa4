// Package faces draws synthetic faces: plausible, shaded, cartoon-like people
// as aligned 112x112 RGB crops, so that demonstrations, tests and load runs
// need nobody's photograph.
//
// A population is a seed. Person i of a population has a skull, skin, eyes,
// brows, nose, mouth, hair, beard and perhaps glasses of their own (Identity);
// a shot adds pose, expression, light, blur, noise, occlusion, background and
// the error of a landmark detector (Variation). The face has relief: it is
// turned in space, its five landmarks are projected and put on the ArcFace
// points by the same least-squares alignment that camera images go through, and
// the light falls on the relief.
//
// Equal seed, person and shot give equal bytes: the randomness is PCG and
// SplitMix64, and the drawing uses additions, products, square roots and the
// sine and cosine of two angles. Where the compiler fuses multiply and add (arm64, or
// GOAMD64=v3) the last bit differs: one value in half a million came out one
// grey level off, none by more.
//
// A crop takes about 3 ms of one 2.6 GHz core.
//
// How hard the faces are was chosen against models/reference, so that a gallery
// of 2,000 people works and is not trivial: about 1% of the gate shots of
// enrolled people are missed at a threshold that 0.4% of strangers pass. Most of the
// misses are caps, swapped glasses and faces turned by more than 10 degrees.
//
// What it does not promise: that error rates measured on these faces say
// anything about real ones. They show that a pipeline is wired correctly.
package faces
