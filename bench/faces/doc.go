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
// SplitMix64, and no function of the math library with a platform-dependent
// last bit is used. (On processors where the compiler fuses multiply and add, a
// pixel may differ by one grey level.)
//
// What it does not promise: that error rates measured on these faces say
// anything about real ones. They show that a pipeline is wired correctly.
package faces
