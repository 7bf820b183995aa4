package models

import (
	"fmt"

	ort "github.com/yalue/onnxruntime_go"
)

// yunetHeads are YuNet's output families and the numbers per grid cell.
var yunetHeads = []struct {
	name  string
	width int64
}{{"cls", 1}, {"obj", 1}, {"bbox", 4}, {"kps", 10}}

var yunetStrides = []int64{8, 16, 32}

// yunetOutputNames returns the twelve output names in the order in which
// Session.Outputs gives them.
func yunetOutputNames() []string {
	var names []string
	for _, h := range yunetHeads {
		for _, s := range yunetStrides {
			names = append(names, fmt.Sprintf("%s_%d", h.name, s))
		}
	}
	return names
}

// fit checks the signature against the manifest and returns the input and the
// outputs to use, or ErrModelShape with what was seen.
func (sig *signature) fit(m *Manifest) (TensorInfo, []TensorInfo, error) {
	fail := func(format string, args ...any) (TensorInfo, []TensorInfo, error) {
		return TensorInfo{}, nil, fmt.Errorf("%w: %s. The file has %s", ErrModelShape, fmt.Sprintf(format, args...), sig)
	}
	if len(sig.inputs) != 1 {
		return fail("one input is wanted, there are %d", len(sig.inputs))
	}
	in := sig.inputs[0]
	if m.Input.Name != "" && in.Name != m.Input.Name {
		return fail("the input should be named %q", m.Input.Name)
	}
	if !isFloat(in) {
		return fail("the input should be float32")
	}
	// A manifest size of 0 (a detector for any size) fits only open sides.
	w, h := int64(m.Input.Width), int64(m.Input.Height)
	if len(in.Dimensions) != 4 || !fits(in.Dimensions[1], 3) || !sideFits(in.Dimensions[2], h) || !sideFits(in.Dimensions[3], w) {
		return fail("the input should be N x 3 x %s", sizeText(w, h))
	}
	if !fits(in.Dimensions[0], 1) {
		return fail("the model takes exactly %d images a run; 1 or any number is wanted", in.Dimensions[0])
	}
	if m.Batch == BatchDynamic && in.Dimensions[0] > 0 {
		return fail("the manifest says batch: dynamic, the model takes %d image a run", in.Dimensions[0])
	}
	input := TensorInfo{Name: in.Name, Shape: in.Dimensions.Clone()}

	names := []string{m.Output.Name}
	if m.Architecture == ArchYuNet {
		names = yunetOutputNames()
	} else if m.Output.Name == "" {
		if len(sig.outputs) != 1 {
			return fail("there are %d outputs; name one in output.name", len(sig.outputs))
		}
		names[0] = sig.outputs[0].Name
	}
	var outputs []TensorInfo
	for i, name := range names {
		out, ok := findInfo(sig.outputs, name)
		if !ok {
			return fail("there should be an output named %q", name)
		}
		if !isFloat(out) {
			return fail("output %q should be float32", name)
		}
		if m.Architecture == ArchYuNet {
			width, stride := yunetHeads[i/len(yunetStrides)].width, yunetStrides[i%len(yunetStrides)]
			cells := (w / stride) * (h / stride)
			if len(out.Dimensions) != 3 || !fits(out.Dimensions[0], 1) || !sideFits(out.Dimensions[1], cells) && cells > 0 || !fits(out.Dimensions[2], width) {
				return fail("output %q should be 1 x %d x %d", name, cells, width)
			}
		} else if len(out.Dimensions) != 2 || !fits(out.Dimensions[1], int64(m.Output.Dimension)) {
			return fail("output %q should be N x %d", name, m.Output.Dimension)
		}
		outputs = append(outputs, TensorInfo{Name: out.Name, Shape: out.Dimensions.Clone()})
	}
	return input, outputs, nil
}

func findInfo(infos []ort.InputOutputInfo, name string) (ort.InputOutputInfo, bool) {
	for _, io := range infos {
		if io.Name == name {
			return io, true
		}
	}
	return ort.InputOutputInfo{}, false
}

// fits reports whether a model's dimension (-1 or 0: open) can be want.
func fits(dim, want int64) bool { return dim <= 0 || dim == want }

// sideFits is fits for a side where want 0 asks for an open dimension.
func sideFits(dim, want int64) bool {
	if want == 0 {
		return dim <= 0
	}
	return fits(dim, want)
}

func sizeText(w, h int64) string {
	if w == 0 {
		return "H x W of any size"
	}
	return fmt.Sprintf("%d x %d", h, w)
}
