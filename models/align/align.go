// Package align brings a face into the pose that embedding models were trained
// on: a 112 x 112 RGB crop in which eyes, nose and mouth corners lie as close
// as a turn, a scale and a shift can bring them to the ArcFace reference
// points.
//
// It promises the least-squares transform in closed form (never a reflection),
// and a bilinear warp with black outside the photograph: what OpenCV's
// warpAffine(INTER_LINEAR, BORDER_CONSTANT) computes, except that OpenCV rounds
// places in the photograph to 1/32 pixel and this package to 1/2048, and that
// the colours of a JPEG are interpolated in their own, coarser plane. Any
// landmark values, however wild, give a crop or an error, never a panic. All
// functions are safe for concurrent use.
//
// It does not find landmarks (package detect does), judge the result (package
// quality does), or smooth a large face before reducing it: the models were
// trained on plain bilinear crops.
package align

import (
	"errors"
	"fmt"
	"math"

	"github.com/menshen-io/menshen/models/decode"
)

// Size is the side of a crop in pixels, as embedding models of the ArcFace
// family expect it.
const Size = 112

// Errors of this stage.
var (
	// ErrDegenerate: no transform can be computed from the landmarks: not
	// finite, all in one place, or in no relation to a face.
	ErrDegenerate = errors.New("align: the landmarks are not those of a face: send another photo")
	// ErrCropSize: a ready-made crop does not have the one accepted size.
	ErrCropSize = errors.New("align: a face crop must be 112 x 112 pixels")
)

// Point is a place in an image in pixels: X to the right, Y down, (0, 0) the
// centre of the top left pixel.
type Point struct{ X, Y float32 }

// Landmarks are the five points of a face in image order: the eye at the
// image's left, the eye at its right, the tip of the nose, the corner of the
// mouth at the image's left, the corner at its right.
type Landmarks [5]Point

// Reference returns where the five landmarks lie in an aligned crop. The
// numbers are InsightFace's arcface_dst for 112 x 112
// (python-package/insightface/utils/face_align.py).
func Reference() Landmarks {
	return Landmarks{
		{38.2946, 51.6963},
		{73.5318, 51.5014},
		{56.0252, 71.7366},
		{41.5493, 92.3655},
		{70.7299, 92.2041},
	}
}

// Similarity is a turn, a scale and a shift from image to crop:
//
//	x' = A x - B y + TX
//	y' = B x + A y + TY
//
// The scale is hypot(A, B), the turn atan2(B, A).
type Similarity struct{ A, B, TX, TY float64 }

// Apply maps a point of the image into the crop.
func (s Similarity) Apply(x, y float64) (float64, float64) {
	return s.A*x - s.B*y + s.TX, s.B*x + s.A*y + s.TY
}

// Scale returns how many pixels of the crop one pixel of the image becomes.
func (s Similarity) Scale() float64 { return math.Hypot(s.A, s.B) }

// Invert returns the transform from crop to image. It fails with ErrDegenerate
// when the scale is zero or not finite.
func (s Similarity) Invert() (Similarity, error) {
	d := s.A*s.A + s.B*s.B
	inv := Similarity{A: s.A / d, B: -s.B / d}
	inv.TX = -(inv.A*s.TX - inv.B*s.TY)
	inv.TY = -(inv.B*s.TX + inv.A*s.TY)
	if !finite(d, inv.A, inv.B, inv.TX, inv.TY) || d == 0 {
		return Similarity{}, ErrDegenerate
	}
	return inv, nil
}

// minFit is the least share of the reference points' spread that the transform
// must explain (the squared complex correlation, 0..1). Faces, profiles
// included, lie above 0.7; landmarks with eyes and mouth swapped about the
// vertical axis give 0.05, points without relation near 0.
const minFit = 1e-3

// Estimate returns the similarity that maps the landmarks onto Reference with
// the least sum of squared distances: Umeyama's solution (IEEE PAMI 13(4), 1991)
// for two dimensions without reflection, which has a closed form. With p and q
// the centred landmarks and reference points,
//
//	A = sum(p.q) / sum(p.p)   B = sum(p x q) / sum(p.p)
//
// It fails with ErrDegenerate for landmarks that are not finite, lie in one
// place (less than a thousandth of a pixel apart, or less than float32 can
// tell at their distance from the origin), or have no relation to a face.
func Estimate(lm Landmarks) (Similarity, error) {
	ref := Reference()
	var mx, my, rx, ry float64
	for i := range lm {
		mx += float64(lm[i].X) / 5
		my += float64(lm[i].Y) / 5
		rx += float64(ref[i].X) / 5
		ry += float64(ref[i].Y) / 5
	}
	var pp, qq, dot, cross float64
	for i := range lm {
		px, py := float64(lm[i].X)-mx, float64(lm[i].Y)-my
		qx, qy := float64(ref[i].X)-rx, float64(ref[i].Y)-ry
		pp += px*px + py*py
		qq += qx*qx + qy*qy
		dot += px*qx + py*qy
		cross += px*qy - py*qx
	}
	// float32 carries 24 bits: below this spread the points are rounding.
	floor := 1e-3 + 1e-6*(math.Abs(mx)+math.Abs(my))
	if !finite(mx, my, pp, dot, cross) || pp < floor*floor {
		return Similarity{}, fmt.Errorf("%w (they are not finite or all in one place)", ErrDegenerate)
	}
	if dot*dot+cross*cross < minFit*pp*qq {
		return Similarity{}, fmt.Errorf("%w (they do not look like two eyes, a nose and a mouth)", ErrDegenerate)
	}
	s := Similarity{A: dot / pp, B: cross / pp}
	s.TX = rx - s.A*mx + s.B*my
	s.TY = ry - s.B*mx - s.A*my
	if !finite(s.A, s.B, s.TX, s.TY) {
		return Similarity{}, fmt.Errorf("%w (they are out of all range)", ErrDegenerate)
	}
	return s, nil
}

// Align cuts the face with these landmarks out of img. Landmarks outside the
// image are allowed: what lies outside is black. Error: ErrDegenerate.
func Align(img *decode.Image, lm Landmarks) (*Crop, error) {
	s, err := Estimate(lm)
	if err != nil {
		return nil, err
	}
	return Warp(img, s), nil
}

func finite(vs ...float64) bool {
	for _, v := range vs {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}
