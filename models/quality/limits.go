package quality

import (
	"errors"
	"fmt"
	"math"
)

// Limits says from where on a face is not good enough. A zero field turns its
// check off.
type Limits struct {
	RivalArea     float64 // a second face with this share of the chosen one's box area is a rival, 0..1
	MinFaceWidth  float64 // of the box, pixels of the upright image
	MinScore      float64 // of the detector, 0..1
	MaxYaw        float64 // degrees, either way
	MaxPitch      float64 // degrees, either way
	MaxRoll       float64 // degrees, either way
	MaxOutside    float64 // share of the face, 0..1
	MinBrightness float64 // mean luma, 0..255
	MaxBrightness float64 // mean luma, 0..255
	MaxClipped    float64 // share of pixels, 0..1
	MinContrast   float64 // standard deviation of the luma, 0..127
	MinSharpness  float64 // variance of the Laplacian over the luma's variance
}

// ErrLimits: a limit that is not a number, is negative, or contradicts another.
var ErrLimits = errors.New("quality: bad limits")

// DefaultLimits are those for probes: they turn away only what cannot be
// compared: every refusal at a gate sends a person to the other lane.
// A second face is no reason (RivalArea 0): whoever takes the probe decides with
// Dominant whose face counts.
//
// Measured with YuNet 640 (score from 0.5) on the 400 ORL faces and on the
// seven faces of six photographs ("photos"), and on the crops of
// bench/faces for light; minimum, 1st, 50th, 99th percentile, maximum:
//
//	face width  ORL 29 60 74 90 100 pixels; photos from 53
//	score       ORL 0.56 0.66 0.89 0.92 0.93; photos from 0.93
//	yaw         ORL -24 -21 2 26 34 degrees; photos -21 to 24
//	pitch       ORL -12 -10 0 9 9 degrees; photos -18 to 0
//	roll        ORL -26 -17 2 19 25 degrees; photos -4 to 15; see maxTilt
//	outside     ORL 0 0 0 0.08 0.13; photos 0, and 0.095 for one cut at the ear
//	brightness  ORL 91 97 138 178 181; photos 98 to 144; drawn 39 to 232, skin of every shade
//	clipped     ORL at most 0.03; photos 0; drawn enrolment shots at most 0.17
//	contrast    ORL 22 25 35 49 55; photos 27 to 56; drawn from 10 (dark skin, soft light)
//	sharpness   ORL 0.014 0.050 0.27 1.0 1.1; photos 0.33 to 1.4; drawn from 0.05
//
// With these limits 397 of the 400 ORL faces and all photos pass.
//
// Where the edge of the image cuts into three of the photos' faces, the
// MobileFaceNet cosine to the whole photo is 0.75 to 0.96 while at most 0.11 of
// the face lies outside, 0.63 to 0.82 up to 0.23, and 0.23 to 0.75 beyond.
//
// Photos blurred in the crop by a Gaussian of 1, 2 and 3 pixels have a sharpness
// of 0.05-0.10, 0.010-0.020 and 0.003-0.007. Dark skin is not darkness: the
// limits of brightness and contrast lie below what drawn faces of the darkest
// shades have in ordinary light.
func DefaultLimits() Limits {
	return Limits{
		MinFaceWidth:  40,
		MinScore:      0.6,
		MaxYaw:        45,
		MaxPitch:      35,
		MaxRoll:       35,
		MaxOutside:    0.15,
		MinBrightness: 30,
		MaxBrightness: 230,
		MaxClipped:    0.4,
		MinContrast:   6,
		MinSharpness:  0.03,
	}
}

// EnrollmentLimits are stricter: an enrolment is taken once, with a person at
// hand who can ask for another picture, and every later comparison rests on it.
// 358 of the 400 ORL faces pass, and all photos but the one with two people and
// the one cut at the ear. A second face of a quarter of the area is a rival.
func EnrollmentLimits() Limits {
	return Limits{
		RivalArea:     0.25,
		MinFaceWidth:  50,
		MinScore:      0.75,
		MaxYaw:        30,
		MaxPitch:      25,
		MaxRoll:       25,
		MaxOutside:    0.08,
		MinBrightness: 40,
		MaxBrightness: 215,
		MaxClipped:    0.25,
		MinContrast:   8,
		MinSharpness:  0.1,
	}
}

// Validate returns all problems at once, each wrapping ErrLimits.
func (l Limits) Validate() error {
	var errs []error
	for _, f := range []struct {
		name       string
		value, top float64
	}{
		{"rival area", l.RivalArea, 1},
		{"least face width", l.MinFaceWidth, math.MaxInt32},
		{"least score", l.MinScore, 1},
		{"largest yaw", l.MaxYaw, 90},
		{"largest pitch", l.MaxPitch, 90},
		{"largest roll", l.MaxRoll, 180},
		{"largest share outside", l.MaxOutside, 1},
		{"least brightness", l.MinBrightness, 255},
		{"largest brightness", l.MaxBrightness, 255},
		{"largest clipped share", l.MaxClipped, 1},
		{"least contrast", l.MinContrast, 127},
		{"least sharpness", l.MinSharpness, 72},
	} {
		if !(f.value >= 0 && f.value <= f.top) {
			errs = append(errs, fmt.Errorf("%w: %s is %v: 0 (off) to %v", ErrLimits, f.name, f.value, f.top))
		}
	}
	if l.MaxBrightness > 0 && l.MinBrightness >= l.MaxBrightness {
		errs = append(errs, fmt.Errorf("%w: least brightness %v is not below the largest, %v", ErrLimits, l.MinBrightness, l.MaxBrightness))
	}
	return errors.Join(errs...)
}
