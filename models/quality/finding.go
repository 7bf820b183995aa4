package quality

// Finding is one reason why a face is not good enough. The values are part of
// the API and never change.
type Finding string

// The findings. Each says how it is measured and in which unit; the numbers are
// in Report, the limits in Limits.
const (
	// NoFace: nothing was detected, or no face was chosen.
	NoFace Finding = "NO_FACE"
	// ManyFaces: another face has at least the share RivalArea of the chosen
	// face's box area, so that it is not clear who is meant.
	ManyFaces Finding = "MANY_FACES"
	// FaceTooSmall: the box is narrower than MinFaceWidth pixels of the image.
	FaceTooSmall Finding = "FACE_TOO_SMALL"
	// PoseYaw: the head is turned left or right by more than MaxYaw degrees,
	// told from where the nose lies between the left and right eye and mouth
	// corner.
	PoseYaw Finding = "POSE_YAW"
	// PosePitch: the head is raised or lowered by more than MaxPitch degrees,
	// told from where the nose lies between the eyes and the mouth.
	PosePitch Finding = "POSE_PITCH"
	// PoseRoll: the head is tilted to a shoulder by more than MaxRoll degrees:
	// the tilt of the line through the eyes, and what the grain of the aligned
	// crop still shows of it.
	PoseRoll Finding = "POSE_ROLL"
	// Blurred: Sharpness of the aligned crop is below MinSharpness.
	Blurred Finding = "BLURRED"
	// TooDark: mean luma of the face, 0..255, is below MinBrightness.
	TooDark Finding = "TOO_DARK"
	// TooBright: mean luma of the face is above MaxBrightness, or more than
	// MaxClipped of its pixels are burnt out.
	TooBright Finding = "TOO_BRIGHT"
	// LowContrast: the standard deviation of the face's luma, 0..127, is below
	// MinContrast.
	LowContrast Finding = "LOW_CONTRAST"
	// FaceCutOff: more than MaxOutside of the face lies outside the image.
	FaceCutOff Finding = "FACE_CUT_OFF"
	// LowDetectionScore: the detector's score, 0..1, is below MinScore.
	LowDetectionScore Finding = "LOW_DETECTION_SCORE"
)

// Findings returns all of them, in the order in which Assess reports them.
func Findings() []Finding {
	return []Finding{
		NoFace, ManyFaces, FaceTooSmall, FaceCutOff, LowDetectionScore, PoseYaw, PosePitch, PoseRoll,
		TooDark, TooBright, LowContrast, Blurred,
	}
}

// Text tells the person in front of the camera, or whoever serves them, what
// to do. An unknown finding gives a general text.
func (f Finding) Text() string {
	switch f {
	case NoFace:
		return "no face was found: look at the camera, with nothing over the face"
	case ManyFaces:
		return "more than one face is in view: one person at a time"
	case FaceTooSmall:
		return "the face is too small: come closer to the camera"
	case PoseYaw:
		return "the face is turned aside: look straight at the camera"
	case PosePitch:
		return "the head is raised or lowered: hold it level and look at the camera"
	case PoseRoll:
		return "the head is tilted: hold it upright"
	case Blurred:
		return "the picture is blurred: hold still, and clean the lens"
	case TooDark:
		return "the face is too dark: turn towards the light, or add light in front"
	case TooBright:
		return "the face is too bright: step out of direct light, or lower the exposure"
	case LowContrast:
		return "the face can hardly be made out: even the light, and clean the lens"
	case FaceCutOff:
		return "part of the face is outside the picture: move into the middle"
	case LowDetectionScore:
		return "the face is hard to make out: uncover it and look at the camera"
	}
	return "the picture of the face is not good enough: try again"
}
