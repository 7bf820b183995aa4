package target

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/image/draw"

	"github.com/menshen-io/menshen/bench/faces"
	"github.com/menshen-io/menshen/models/decode"
)

// ErrPhotos: photographs that cannot be used.
var ErrPhotos = errors.New("no usable photographs")

// Camera images as gates send them.
const (
	SceneWidth   = 640
	SceneHeight  = 480
	sceneQuality = 85
	drawnScenes  = 16
	maxPhotos    = 64
)

// Photographs makes camera images of 640x480 of the JPEG and PNG files of a
// folder, in the order of their names: scaled to fill the picture, what sticks
// out above, below or beside is cut off, and more of it below, since heads are
// at the top. Error: ErrPhotos.
func Photographs(dir string) ([][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrPhotos, err)
	}
	var out [][]byte
	for _, e := range entries {
		if !slices.Contains([]string{".jpg", ".jpeg", ".png"}, strings.ToLower(filepath.Ext(e.Name()))) || len(out) == maxPhotos {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrPhotos, err)
		}
		img, err := decode.Decode(data, decode.DefaultLimits())
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %v", ErrPhotos, e.Name(), err)
		}
		img = img.RGB()
		from := image.Rect(0, 0, img.Width, img.Width*SceneHeight/SceneWidth)
		if from.Max.Y > img.Height {
			from = image.Rect(0, 0, img.Height*SceneWidth/SceneHeight, img.Height)
		}
		from = from.Add(image.Pt((img.Width-from.Dx())/2, (img.Height-from.Dy())/4))
		scene := image.NewRGBA(image.Rect(0, 0, SceneWidth, SceneHeight))
		draw.CatmullRom.Scale(scene, scene.Bounds(), rgba(img.Pix, img.Width, img.Height), from, draw.Src, nil)
		encoded, err := encode(scene, sceneQuality)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %v", ErrPhotos, e.Name(), err)
		}
		out = append(out, encoded)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: %s holds no .jpg, .jpeg or .png", ErrPhotos, dir)
	}
	return out, nil
}

// DrawnScenes makes camera images of 640x480 with a drawn face in each, before
// a grainy wall. A detector made for photographs may not take them for faces.
func DrawnScenes(seed uint64) ([][]byte, error) {
	people, random := faces.New(seed), rand.New(rand.NewPCG(seed, 1))
	var out [][]byte
	for i := range drawnScenes {
		scene := image.NewRGBA(image.Rect(0, 0, SceneWidth, SceneHeight))
		for y := range SceneHeight {
			for x := range SceneWidth {
				grey := uint8(150 + random.IntN(16) - y/16)
				scene.SetRGBA(x, y, color.RGBA{grey, grey, grey, 0xff})
			}
		}
		const size = 260
		at := image.Rect(0, 0, size, size).Add(image.Pt(120+random.IntN(120), 60+random.IntN(80)))
		draw.CatmullRom.Scale(scene, at, rgba(people.Crop(i, 1).Pix, 112, 112), image.Rect(0, 0, 112, 112), draw.Src, nil)
		encoded, err := encode(scene, sceneQuality)
		if err != nil {
			return nil, err
		}
		out = append(out, encoded)
	}
	return out, nil
}
