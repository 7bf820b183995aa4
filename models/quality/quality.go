// Package quality judges whether a face is good enough to be enrolled or
// compared, and tells the person what to do when it is not.
//
// It promises numbers with a plain meaning (pixels, degrees, luma), measured on
// the detection and on the aligned crop only, and findings that follow from
// them by Limits. A number that cannot be measured (landmarks that are not
// finite) counts as bad, never as good. All functions are pure and safe for
// concurrent use.
//
// It does not notice a face upside down, detect a mask, a
// photograph held up to the camera, or any other attack, and it is no measure of
// how well a face will match: limits that are stricter than what the recognition
// model needs would only turn people away.
package quality

import (
	"math"

	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
)

// Report is what was measured on one face, and the findings that follow.
// Numbers that were not measured, because the input for them was missing, are
// zero.
type Report struct {
	Findings   []Finding // none: good enough; in the order of Findings()
	FaceWidth  float64   // of the box, pixels of the upright image
	Score      float64   // the detector's, 0..1
	Yaw        float64   // degrees; positive: the nose points to the image's right
	Pitch      float64   // degrees; positive: the nose points down
	Roll       float64   // degrees; positive: turned clockwise as seen in the image; of the eyes and of the crop's grain
	Outside    float64   // share of the face that lies outside the image, 0..1
	Sharpness  float64   // see Finding Blurred
	Brightness float64   // mean luma, 0..255
	Contrast   float64   // standard deviation of the luma, 0..127
	Clipped    float64   // share of pixels with a luma of 250 or more, 0..1
}

// Good tells that there is no finding.
func (r Report) Good() bool { return len(r.Findings) == 0 }

// Dominant returns the index of the face with the largest box, and whether the
// second largest has at least ratio of its area (0..1), so that it is not clear
// who is meant. Without faces the index is -1.
func Dominant(faces []detect.Face, ratio float64) (index int, ambiguous bool) {
	index = -1
	var first, second float64
	for i, f := range faces {
		switch a := area(f.Box); {
		case index < 0 || a > first:
			index, first, second = i, a, first
		case a > second:
			second = a
		}
	}
	return index, len(faces) > 1 && !(second < ratio*first)
}

func area(b detect.Box) float64 { return float64(b.W) * float64(b.H) }

// Assess judges faces[chosen], found in img, with its aligned crop. Without a
// chosen face (an index outside faces) the only finding is NoFace. Without an
// image or a crop (nil) what needs it is not measured and not judged.
func Assess(img *decode.Image, faces []detect.Face, chosen int, crop *align.Crop, lim Limits) Report {
	var r Report
	if chosen < 0 || chosen >= len(faces) {
		r.Findings = []Finding{NoFace}
		return r
	}
	face := faces[chosen]
	for i, f := range faces {
		if i != chosen && lim.RivalArea > 0 && !(area(f.Box) < lim.RivalArea*area(face.Box)) {
			r.add(ManyFaces, true)
			break
		}
	}
	r.FaceWidth, r.Score = float64(face.Box.W), float64(face.Score)
	r.add(FaceTooSmall, !(r.FaceWidth >= lim.MinFaceWidth))
	if img != nil {
		r.Outside = outside(img, face.Landmarks)
		r.add(FaceCutOff, lim.MaxOutside > 0 && !(r.Outside <= lim.MaxOutside))
	}
	r.add(LowDetectionScore, !(r.Score >= lim.MinScore))
	r.Yaw, r.Pitch, r.Roll = pose(face.Landmarks)
	if whole(crop) {
		r.Roll = math.Remainder(r.Roll+tilt(crop), 360)
	}
	r.add(PoseYaw, lim.MaxYaw > 0 && !(math.Abs(r.Yaw) <= lim.MaxYaw))
	r.add(PosePitch, lim.MaxPitch > 0 && !(math.Abs(r.Pitch) <= lim.MaxPitch))
	r.add(PoseRoll, lim.MaxRoll > 0 && !(math.Abs(r.Roll) <= lim.MaxRoll))
	r.light(crop, lim)
	return r
}

// AssessCrop judges a ready-made crop, of which no detection is known: light,
// contrast and sharpness only. No crop, or one of a wrong size, is NoFace.
func AssessCrop(crop *align.Crop, lim Limits) Report {
	var r Report
	if !whole(crop) {
		r.Findings = []Finding{NoFace}
		return r
	}
	r.light(crop, lim)
	return r
}

// light fills in and judges what is measured on the crop.
func (r *Report) light(crop *align.Crop, lim Limits) {
	if !whole(crop) {
		return
	}
	m := measure(crop)
	r.Brightness, r.Contrast, r.Clipped, r.Sharpness = m.mean, m.deviation, m.clipped, m.sharpness
	r.add(TooDark, m.mean < lim.MinBrightness)
	r.add(TooBright, (lim.MaxBrightness > 0 && m.mean > lim.MaxBrightness) || (lim.MaxClipped > 0 && m.clipped > lim.MaxClipped))
	r.add(LowContrast, m.deviation < lim.MinContrast)
	r.add(Blurred, m.sharpness < lim.MinSharpness)
}

func whole(crop *align.Crop) bool {
	return crop != nil && len(crop.Pix) == align.Size*align.Size*3
}

func (r *Report) add(f Finding, found bool) {
	if found {
		r.Findings = append(r.Findings, f)
	}
}
