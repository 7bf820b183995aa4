package faces

import "math/rand/v2"

// rgb is a linear-ish albedo or light colour, 0..1 per channel.
type rgb [3]float32

// Hair styles. They change the outline of the hair, which stays with an
// identity from shot to shot.
const (
	hairBald = iota
	hairShort
	hairFringe
	hairParted
	hairLong
	hairAfro
)

// Beard styles.
const (
	beardNone = iota
	beardStubble
	beardMoustache
	beardGoatee
	beardFull
)

// mole is a dark spot on the skin, in face coordinates.
type mole struct{ x, y, r, depth float64 }

// Identity is one synthetic person: everything about the face that does not
// change between shots. Lengths are pixels of the aligned crop; x runs from the
// midline of the face to the image's right, y down from the crop's upper edge.
// An Identity is a value and may be used from several goroutines.
type Identity struct {
	seed uint64

	// head
	width, height, centreY float64 // half width at the cheekbones, half height, centre
	jaw, chin, temple      float64 // narrowing towards chin, squareness, narrowing above
	depth                  float64 // how far the face stands out of its outline
	cheek                  float64 // cheekbone relief
	ears, earY             float64
	asymmetry              float64 // sideways drift of the midline with y

	skin    rgb
	flush   float64 // redness of the cheeks
	mottle  [2]float64
	moles   []mole
	furrow  float64 // nasolabial folds
	eyeBags float64

	// eyes and brows
	eyeX, eyeY, eyeW, eyeH float64
	eyeTilt, eyeSkew       float64 // slant; height difference between left and right
	iris                   rgb
	irisR, lid             float64
	browY, browW, browH    float64
	browTilt, browArch     float64
	brow                   float64 // how dark

	// nose and mouth
	noseX, noseY, noseW, noseL, bridge float64
	mouthY, mouthW                     float64
	upperLip, lowerLip, bow            float64
	mouthTilt                          float64
	lip                                rgb

	hair               rgb
	style              int
	hairline, hairSide float64
	hairWave, hairPart float64
	beard              int
	beardDark          float64
	beardLine          float64

	glasses          bool
	glassW, glassH   float64
	glassRound       float64
	glassT, glassGap float64
	glassColour      rgb
}

// dice draws bounded, bell-shaped values without calling the math library, so
// that the same seed gives the same faces on every machine.
type dice struct{ r *rand.Rand }

func newDice(a, b uint64) dice { return dice{rand.New(rand.NewPCG(mix(a), mix(b^0x9e3779b97f4a7c15)))} }

// mix is the SplitMix64 finaliser (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// flat is uniform in [lo, hi).
func (d dice) flat(lo, hi float64) float64 { return lo + (hi-lo)*d.r.Float64() }

// bell has the given mean and standard deviation and stays within 3.5 of them:
// the sum of four uniforms.
func (d dice) bell(mean, sd float64) float64 {
	s := d.r.Float64() + d.r.Float64() + d.r.Float64() + d.r.Float64() - 2
	return mean + sd*s*1.7320508
}

func (d dice) chance(p float64) bool { return d.r.Float64() < p }

// pick returns an index with probability proportional to its weight.
func (d dice) pick(weights ...float64) int {
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	v := d.r.Float64() * sum
	for i, w := range weights {
		if v < w {
			return i
		}
		v -= w
	}
	return len(weights) - 1
}

func (c rgb) scale(f float64) rgb {
	return rgb{c[0] * float32(f), c[1] * float32(f), c[2] * float32(f)}
}

func (c rgb) lerp(o rgb, t float64) rgb {
	f := float32(t)
	return rgb{c[0] + (o[0]-c[0])*f, c[1] + (o[1]-c[1])*f, c[2] + (o[2]-c[2])*f}
}

var (
	skinLight = rgb{0.96, 0.80, 0.70}
	skinTan   = rgb{0.78, 0.56, 0.42}
	skinDark  = rgb{0.34, 0.22, 0.16}
)

// drawIdentity draws person i of a population. The means put the landmarks on
// the ArcFace reference points; the spreads are chosen so that two people drawn
// at random are told apart at a glance on a contact sheet.
func drawIdentity(seed uint64, i int) Identity {
	d := newDice(seed, uint64(i)*2+1)
	id := Identity{seed: mix(seed ^ mix(uint64(i)))}

	id.width = d.bell(40, 3.8)
	id.height = d.bell(58, 4)
	id.centreY = d.bell(61, 2.0)
	id.jaw = d.flat(0.02, 0.30)
	id.chin = d.flat(1.6, 3.4)
	id.temple = d.flat(0, 0.16)
	id.depth = d.bell(34, 4)
	id.cheek = d.bell(2, 1.4)
	id.ears = d.bell(7, 2)
	id.earY = d.bell(62, 3)
	id.asymmetry = d.bell(0, 0.02)

	t := d.flat(0, 1)
	if t < 0.6 {
		id.skin = skinLight.lerp(skinTan, t/0.6)
	} else {
		id.skin = skinTan.lerp(skinDark, (t-0.6)/0.4)
	}
	id.skin = id.skin.scale(d.flat(0.9, 1.04))
	id.flush = d.flat(0, 0.12)
	id.mottle = [2]float64{d.flat(0.08, 0.20), d.flat(0.05, 0.12)}
	for range d.r.IntN(9) {
		id.moles = append(id.moles, mole{d.flat(-30, 30), d.flat(30, 104), d.flat(1.0, 2.6), d.flat(0.25, 0.75)})
	}
	id.furrow = d.flat(0, 0.35)
	id.eyeBags = d.flat(0, 0.3)

	id.eyeX = d.bell(17.6, 1.5)
	id.eyeY = d.bell(51.6, 1.0)
	id.eyeW = d.bell(7.6, 1.25)
	id.eyeH = d.bell(3.4, 0.8)
	id.eyeTilt = d.bell(0, 0.13)
	id.eyeSkew = d.bell(0, 0.45)
	switch d.pick(6, 2, 2) {
	case 0:
		id.iris = rgb{0.22, 0.13, 0.07}.scale(d.flat(0.6, 1.4))
	case 1:
		id.iris = rgb{0.30, 0.45, 0.62}.scale(d.flat(0.8, 1.2))
	default:
		id.iris = rgb{0.32, 0.40, 0.22}.scale(d.flat(0.8, 1.2))
	}
	id.irisR = d.bell(3.2, 0.25)
	id.lid = d.flat(0.3, 0.95)
	id.browY = d.bell(-9.7, 1.9)
	id.browW = d.bell(10.5, 1.7)
	id.browH = d.flat(0.9, 3.0)
	id.browTilt = d.bell(0.02, 0.14)
	id.browArch = d.bell(2.0, 1.3)
	id.brow = d.flat(0.35, 0.95)

	id.noseX = d.bell(0, 1.0)
	id.noseY = d.bell(72, 2.6)
	id.noseW = d.bell(8.6, 1.6)
	id.noseL = d.bell(11, 2.4)
	id.bridge = d.flat(0.15, 0.6)
	id.mouthY = d.bell(92.3, 2.2)
	id.mouthW = d.bell(14.6, 2.0)
	id.upperLip = d.flat(1.4, 4.2)
	id.lowerLip = d.flat(2.0, 5.4)
	id.bow = d.flat(0, 0.5)
	id.mouthTilt = d.bell(0, 0.045)
	id.lip = id.skin.lerp(rgb{0.70, 0.22, 0.22}, d.flat(0.25, 0.65)).scale(0.9)

	switch d.pick(5, 3, 2, 1, 1) {
	case 0:
		id.hair = rgb{0.07, 0.06, 0.06}
	case 1:
		id.hair = rgb{0.26, 0.16, 0.09}
	case 2:
		id.hair = rgb{0.62, 0.48, 0.27}
	case 3:
		id.hair = rgb{0.66, 0.65, 0.63}
	default:
		id.hair = rgb{0.47, 0.20, 0.09}
	}
	id.hair = id.hair.scale(d.flat(0.75, 1.25))
	id.style = d.pick(0.7, 3, 2, 2, 3, 1)
	id.hairline = d.bell(24, 5)
	id.hairSide = d.flat(0.2, 1)
	id.hairWave = d.flat(1, 5)
	id.hairPart = d.flat(-24, 24)
	bearded := 0.5
	if id.style == hairLong {
		bearded = 0.1
	}
	if d.chance(bearded) {
		id.beard = 1 + d.pick(2, 1, 1, 1.4)
	}
	id.beardDark = d.flat(0.35, 0.9)
	id.beardLine = d.bell(86, 3)

	id.glasses = d.chance(0.22)
	id.glassW = d.bell(13.5, 1.3)
	id.glassH = d.bell(9.5, 1.6)
	id.glassRound = d.flat(1, 4)
	id.glassT = d.flat(0.9, 2.3)
	id.glassGap = d.bell(1, 0.7)
	id.glassColour = rgb{0.1, 0.09, 0.09}.lerp(rgb{0.5, 0.32, 0.16}, d.flat(0, 1))
	return id
}
