package faces

// Occlusion is what hides part of a face in one shot.
type Occlusion int

// The occlusions that a Variation can carry.
const (
	NoOcclusion   Occlusion = iota
	GlassesSwap             // glasses taken off, or put on
	Cap                     // a peaked cap down to the hairline
	Hand                    // a hand at the side of the jaw
	SurgicalMask            // a mask over nose and mouth
	occlusionKind           // how many there are
)

// String returns the name of the occlusion for reports.
func (o Occlusion) String() string {
	switch o {
	case NoOcclusion:
		return "none"
	case GlassesSwap:
		return "glasses swapped"
	case Cap:
		return "cap"
	case Hand:
		return "hand"
	case SurgicalMask:
		return "mask"
	}
	return "unknown"
}

// Variation is everything about one shot that is not the person. The zero
// value is a frontal, evenly lit, noiseless, perfectly aligned shot.
type Variation struct {
	Yaw, Pitch float64 // radians; positive yaw turns the face to the image's right, positive pitch looks down
	Jitter     float64 // standard deviation of the landmark error before alignment, pixels

	LightX, LightY float64 // direction of the key light, -1..1 to the image's right and down
	Contrast       float64 // 0 flat light .. 1 key light only
	Exposure       float64 // stops, 0 is neutral
	Warmth         float64 // -1 blue .. 1 orange

	Blur  float64 // standard deviation of the blur, pixels
	Noise float64 // standard deviation of the sensor noise, grey levels of 255

	Smile, Open, Blink, Gaze float64 // expression: -1..1, 0..1, 0..1, -1..1
	Occlusion                Occlusion

	Seed uint64 // background, clothes, noise and landmark errors
}

// enrolment draws the kind of shot that a registration desk takes: frontal,
// even light, sharp.
func enrolment(d dice) Variation {
	return Variation{
		Yaw: d.bell(0, 0.03), Pitch: d.bell(0, 0.025), Jitter: 0.35,
		LightX: d.bell(0, 0.2), LightY: d.bell(-0.35, 0.1), Contrast: d.flat(0.3, 0.5),
		Exposure: d.bell(0, 0.12), Warmth: d.bell(0, 0.2),
		Blur: d.flat(0.3, 0.6), Noise: d.flat(1, 3),
		Smile: d.bell(0, 0.15), Open: 0, Blink: d.flat(0, 0.15), Gaze: d.bell(0, 0.15),
		Seed: d.r.Uint64(),
	}
}

// gate draws what a camera at a gate sees: people who walk, look aside a
// little, under lights from any side, in 6% of the shots with a cap, with glasses
// taken off or put on, or with a hand at the jaw. Nobody wears a mask: at a gate
// one is asked to take it off; ask for SurgicalMask to draw it.
func gate(d dice) Variation {
	v := Variation{
		Yaw: d.bell(0, 0.09), Pitch: d.bell(0.02, 0.06), Jitter: d.flat(0.3, 0.7),
		LightX: d.bell(0, 0.4), LightY: d.bell(-0.3, 0.2), Contrast: d.flat(0.25, 0.65),
		Exposure: d.bell(-0.1, 0.28), Warmth: d.bell(0, 0.5),
		Blur: d.flat(0.4, 1.1), Noise: d.flat(2, 7),
		Smile: d.bell(0.1, 0.3), Blink: d.flat(0, 0.35), Gaze: d.bell(0, 0.35),
		Seed: d.r.Uint64(),
	}
	if d.chance(0.12) {
		v.Open = d.flat(0.1, 0.6)
	}
	switch p := d.r.Float64(); {
	case p < 0.015:
		v.Occlusion = GlassesSwap
	case p < 0.03:
		v.Occlusion = Cap
	case p < 0.06:
		v.Occlusion = Hand
	}
	return v
}
