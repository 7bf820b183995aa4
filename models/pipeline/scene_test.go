package pipeline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"image/draw"
	"image/jpeg"
	"os"
	"path/filepath"
	"testing"

	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/quality"
)

// look runs a picture from its bytes to its largest face's embedding.
func look(t *testing.T, p *Pipeline, data []byte) (*Scene, int, []float32) {
	t.Helper()
	s, err := p.Observe(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	chosen, _ := quality.Dominant(s.Faces, 0.5)
	crop, err := p.Crop(t.Context(), s, chosen)
	if err != nil {
		t.Fatal(err)
	}
	v, err := p.Embed(t.Context(), crop)
	if err != nil {
		t.Fatal(err)
	}
	return s, chosen, v
}

// lookAtRGB is look on the whole picture's RGB pixels: another way through the
// pipeline.
func lookAtRGB(t *testing.T, p *Pipeline, data []byte) (*Scene, int, []float32) {
	t.Helper()
	img, err := decode.Decode(data, decode.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	s := &Scene{Image: img.RGB()}
	if s.Faces, err = p.Detector().Detect(t.Context(), s.Image); err != nil {
		t.Fatal(err)
	}
	chosen, _ := quality.Dominant(s.Faces, 0.5)
	crop, err := p.Crop(t.Context(), s, chosen)
	if err != nil {
		t.Fatal(err)
	}
	v, err := p.Embed(t.Context(), crop)
	if err != nil {
		t.Fatal(err)
	}
	return s, chosen, v
}

// The same faces are found, and their embeddings are the same, whether a photo
// comes as planes, perhaps of a reduced size, or as RGB pixels of the whole; for
// pictures of many sizes, and so of faces in many sizes.
func TestEveryWayFindsTheSameFaces(t *testing.T) {
	p := mustOpen(t, realModels(t))
	pictures := map[string][]byte{}
	files, err := filepath.Glob(filepath.Join(fixtures.Dir(t), "photos", "*.jpg"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if pictures[filepath.Base(f)], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	for name, size := range map[string][2]int{"vga": {640, 480}, "hd": {1280, 720}, "full hd": {1920, 1080}, "odd": {2001, 1501}, "4k": {3840, 2160}} {
		pictures[name] = cameraJPEG(t, size[0], size[1])
	}
	for name, data := range pictures {
		s, chosen, v := look(t, p, data)
		rgb, other, w := lookAtRGB(t, p, data)
		if len(s.Faces) != len(rgb.Faces) || s.Image.Width != rgb.Image.Width || s.Image.Height != rgb.Image.Height {
			t.Errorf("%s: %d faces in %d x %d, and %d in %d x %d as RGB", name, len(s.Faces), s.Image.Width, s.Image.Height, len(rgb.Faces), rgb.Image.Width, rgb.Image.Height)
			continue
		}
		iou, same := s.Faces[chosen].Box.IoU(rgb.Faces[other].Box), cosine(v, w)
		bound := 0.99
		if s.Image.Planes.Reduction > 1 {
			bound = 0.98
			if iou < 0.985 {
				bound = 0.9 // another cell of the detector's grid won: see sharpen
			}
		}
		if iou < 0.9 || same < bound {
			t.Errorf("%s: boxes overlap by %.3f (at least 0.9), cosine %.4f (at least %g)", name, iou, same, bound)
		}
		t.Logf("%s: %d x %d reduced by %d: IoU %.4f, cosine %.4f", name, s.Image.Width, s.Image.Height, s.Image.Planes.Reduction, iou, same)
	}
}

// A small face in a large picture is cut out of the whole, not enlarged out of
// a reduced one.
func TestSmallFacesAreSeenInFullDetail(t *testing.T) {
	p := mustOpen(t, realModels(t))
	data, err := os.ReadFile(filepath.Join(fixtures.Dir(t), "photos", "obama-240p.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	src, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	dst := image.NewYCbCr(image.Rect(0, 0, 1920, 1080), image.YCbCrSubsampleRatio420)
	for i := range dst.Cb {
		dst.Cb[i], dst.Cr[i] = 128, 128
	}
	rgba := image.NewRGBA(dst.Rect)
	draw.Draw(rgba, rgba.Rect, dst, image.Point{}, draw.Src)
	draw.Draw(rgba, image.Rect(700, 400, 700+427, 400+240), src, src.Bounds().Min, draw.Src)
	var out bytes.Buffer
	if err := jpeg.Encode(&out, rgba, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	s, chosen, v := look(t, p, out.Bytes())
	if lm, err := align.Estimate(s.Faces[chosen].Landmarks); err != nil || lm.Scale()*float64(s.Image.Planes.Reduction) > 1 && s.Image.Planes.Reduction > 1 {
		t.Errorf("the crop enlarges a picture that was reduced by %d (%v)", s.Image.Planes.Reduction, err)
	}
	_, _, w := lookAtRGB(t, p, out.Bytes())
	if c := cosine(v, w); c < 0.98 { // the landmarks were found in the reduced one
		t.Errorf("cosine %.4f to the crop of the whole picture", c)
	}
}

// However the camera was held, the face is the same.
func TestEveryOrientationIsTheSameFace(t *testing.T) {
	p := mustOpen(t, realModels(t))
	upright := cameraJPEG(t, 1280, 720)
	whole, err := decode.Decode(upright, decode.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	rgb := whole.RGB()
	_, _, want := look(t, p, upright)
	for turn := decode.Turn(1); turn <= 8; turn++ {
		w, h := turn.Stored(rgb.Width, rgb.Height)
		stored := image.NewRGBA(image.Rect(0, 0, w, h))
		origin, dx, dy := turn.Layout(w, h, rgb.Width)
		for y := range h {
			for x := range w {
				copy(stored.Pix[stored.PixOffset(x, y):], rgb.Pix[3*(origin+x*dx+y*dy):][:3])
				stored.Pix[stored.PixOffset(x, y)+3] = 255
			}
		}
		var out bytes.Buffer
		if err := jpeg.Encode(&out, stored, &jpeg.Options{Quality: 95}); err != nil {
			t.Fatal(err)
		}
		s, _, v := look(t, p, withOrientation(out.Bytes(), turn))
		if c := cosine(v, want); c < 0.99 || s.Image.Width != 1280 || s.Image.Height != 720 {
			t.Errorf("orientation %d: %d x %d, cosine %.4f", turn, s.Image.Width, s.Image.Height, c)
		}
	}
}

// withOrientation puts an EXIF segment behind a JPEG's first marker.
func withOrientation(data []byte, turn decode.Turn) []byte {
	tiff := []byte("Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00")
	binary.BigEndian.PutUint16(tiff[6+8+2+8:], uint16(turn))
	segment := binary.BigEndian.AppendUint16([]byte{0xff, 0xe1}, uint16(len(tiff)+2))
	return append(append(append([]byte{}, data[:2]...), append(segment, tiff...)...), data[2:]...)
}

func TestReleasedScenesHaveNoPixels(t *testing.T) {
	p := mustOpen(t, realModels(t))
	data := cameraJPEG(t, 640, 480)
	s, _, _ := look(t, p, data)
	lent := s.Image.Planes
	s.Release()
	s.Release()
	if decode.Decoder == "libjpeg-turbo" && (s.Image.Whole() || lent.Y != nil) {
		t.Error("a released scene still shows pixels")
	}
	var none *Scene
	none.Release()
	if _, err := p.Detector().Detect(t.Context(), &decode.Image{Width: 640, Height: 480}); err == nil || errors.Is(err, ErrNoFace) {
		t.Errorf("a picture without pixels: %v", err)
	}
}
