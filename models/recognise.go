package models

import (
	"fmt"
	"path/filepath"
	"strings"
)

// UncalibratedThreshold is the threshold that a bare .onnx embedder gets, for
// want of a calibration. It is a cautious guess: MobileFaceNet's FMR of 1e-4 on
// the ORL faces lies at 0.494, and OpenCV gives 0.363 for SFace. Whoever uses
// such a model should measure it and write a manifest.
const UncalibratedThreshold = 0.5

// recognise makes a manifest for a bare .onnx file from its inputs and outputs,
// and says in words what it took for granted.
func recognise(sig *signature, fileName, sum string) (Manifest, string, error) {
	m := Manifest{Name: nameFromFile(fileName), File: filepath.Base(fileName), SHA256: sum, Batch: BatchStatic}
	m.Input.Layout = "NCHW"
	if !plainFileName(m.File) {
		m.File = ""
	}

	if len(sig.inputs) == 1 && len(sig.inputs[0].Dimensions) == 4 {
		m.Input.Name = sig.inputs[0].Name
		m.Kind, m.Architecture = KindDetector, ArchYuNet
		m.Input.Color, m.Input.Scale = ColorBGR, [3]float32{1, 1, 1}
		m.Input.Height = max(0, int(sig.inputs[0].Dimensions[2]))
		m.Input.Width = max(0, int(sig.inputs[0].Dimensions[3]))
		if m.Validate() == nil {
			if _, _, err := sig.fit(&m); err == nil {
				return m, fmt.Sprintf("%s: no manifest; its twelve outputs are YuNet's: taken as a YuNet face detector, %s, BGR 0..255", m.File, detectorSizeText(&m)), nil
			}
		}

		m.Kind, m.Architecture = KindEmbedder, ArchEmbedding
		m.Input.Color = ColorRGB
		m.Input.Mean = [3]float32{127.5, 127.5, 127.5}
		m.Input.Scale = [3]float32{1.0 / 127.5, 1.0 / 127.5, 1.0 / 127.5}
		m.Input.Width, m.Input.Height = embedSide, embedSide
		m.Threshold = UncalibratedThreshold
		if len(sig.outputs) == 1 && len(sig.outputs[0].Dimensions) == 2 {
			m.Output = Output{Name: sig.outputs[0].Name, Dimension: max(0, int(sig.outputs[0].Dimensions[1]))}
			// Many exports leave the batch open at the input and fix it at
			// the output; those are run one image at a time.
			if sig.inputs[0].Dimensions[0] <= 0 && sig.outputs[0].Dimensions[0] <= 0 {
				m.Batch = BatchDynamic
			}
			if m.Validate() == nil {
				if _, _, err := sig.fit(&m); err == nil {
					return m, fmt.Sprintf("%s: no manifest; taken as a face embedder for 112x112 RGB, (x-127.5)/127.5, %d dimensions, uncalibrated (threshold %.2f is a guess: measure it and write a manifest)",
						m.File, m.Output.Dimension, m.Threshold), nil
				}
			}
		}
	}
	return Manifest{}, "", fmt.Errorf("%w: %s is neither YuNet (outputs cls, obj, bbox, kps at strides 8, 16, 32) nor an embedder (one float32 input N x 3 x 112 x 112, one float32 output N x dimension); write a manifest beside it if it is one of the two. The file has %s",
		ErrUnrecognised, filepath.Base(fileName), sig)
}

func detectorSizeText(m *Manifest) string {
	if m.Input.Width == 0 {
		return "any input size"
	}
	return fmt.Sprintf("%dx%d input", m.Input.Width, m.Input.Height)
}

// nameFromFile turns a file name into a name that CheckName accepts.
func nameFromFile(path string) string {
	base := filepath.Base(path)
	base = strings.ToLower(strings.TrimSuffix(base, filepath.Ext(base)))
	var b strings.Builder
	for _, r := range base {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_':
			b.WriteRune(r)
		default:
			b.WriteByte('-')
		}
	}
	name := strings.TrimLeft(b.String(), ".-_")
	if len(name) > 63 {
		name = name[:63]
	}
	if !validName(name) {
		return "model"
	}
	return name
}
