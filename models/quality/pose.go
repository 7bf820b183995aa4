package quality

import (
	"math"

	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
)

// The proportions of an average head, in half the mean width of eyes and mouth
// corners: the tip of the nose stands noseDepth in front of the plane through
// pupils and mouth corners; eyes and mouth are eyeToMouth apart. They follow
// from the six-point head that is in general use for estimating head pose from
// landmarks: pupils 320 apart, mouth corners 300, eye line to mouth line 320,
// nose tip 130 in front of them.
const (
	noseDepth  = 130.0 / 155.0
	eyeToMouth = 320.0 / 155.0
	// noseHeight is where the nose of a level head lies between eyes (0) and
	// mouth (1), as YuNet sets the points: the median of the 400 ORL faces is
	// 0.59. (The ArcFace reference points, from another detector, say 0.49.)
	noseHeight = 0.59
)

// pose estimates how the head is held, in degrees, from five landmarks. It is
// coarse (people's noses differ by about 7 degrees' worth), which is enough to
// tell a head that looks at the camera from one that does not.
//
// Roll is the direction from the left to the right eye; the detector sets it
// too small, see tilt. Then, in coordinates
// turned by it and under parallel projection, a head turned by an angle shows
// its nose off the middle by noseDepth * tan(yaw) of the half width that is
// seen, and off its level height by noseDepth/eyeToMouth * tan(pitch) of the
// distance of eyes and mouth that is seen.
func pose(lm align.Landmarks) (yaw, pitch, roll float64) {
	x := func(i int) float64 { return float64(lm[i].X) }
	y := func(i int) float64 { return float64(lm[i].Y) }
	const degrees = 180 / math.Pi
	// Directions of the face: across from left to right, down from the eyes
	// to the mouth. A head both turned and tilted shows them not quite square.
	acrossX, acrossY := (x(1)-x(0)+x(4)-x(3))/2, (y(1)-y(0)+y(4)-y(3))/2
	downX, downY := (x(3)+x(4)-x(0)-x(1))/2, (y(3)+y(4)-y(0)-y(1))/2
	eyesX, eyesY := (x(0)+x(1))/2, (y(0)+y(1))/2
	roll = math.Atan2(y(1)-y(0), x(1)-x(0)) * degrees
	// The nose in those two directions: eyes + s*across + t*down.
	det := acrossX*downY - acrossY*downX
	nx, ny := x(2)-eyesX, y(2)-eyesY
	s := (nx*downY - ny*downX) / det
	t := (acrossX*ny - acrossY*nx) / det
	yaw = math.Atan(2*s/noseDepth) * degrees
	pitch = math.Atan((t-noseHeight)*eyeToMouth/noseDepth) * degrees
	if det <= 0 { // the mouth above the eyes, or left and right swapped: no frontal face
		yaw, pitch = math.NaN(), math.NaN()
	}
	return yaw, pitch, roll
}

// outside returns the share of the face that lies outside the image, 0..1: of
// a grid of points over the face ellipse of the aligned crop (the whole face,
// forehead to chin: centre 56, 68; half axes 36 and 48 pixels), taken back into
// the image. Landmarks without an alignment count as all outside.
func outside(img *decode.Image, lm align.Landmarks) float64 {
	s, err := align.Estimate(lm)
	if err != nil {
		return 1
	}
	inv, err := s.Invert()
	if err != nil {
		return 1
	}
	const step = 2
	total, out := 0, 0
	for v := -48.0; v <= 48; v += step {
		for u := -36.0; u <= 36; u += step {
			if u*u/(36*36)+v*v/(48*48) > 1 {
				continue
			}
			total++
			x, y := inv.Apply(56+u, 68+v)
			if !(x > -0.5 && y > -0.5 && x < float64(img.Width)-0.5 && y < float64(img.Height)-0.5) {
				out++
			}
		}
	}
	return float64(out) / float64(total)
}
