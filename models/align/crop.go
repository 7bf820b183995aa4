package align

import (
	"fmt"

	"github.com/menshen-io/menshen/models/decode"
)

// Crop is an aligned face: Size x Size pixels, rows from top to bottom, three
// bytes R, G, B each; len(Pix) == Size*Size*3. The holder owns it.
type Crop struct{ Pix []byte }

// CropFromRGB takes a ready-made crop of exactly 37,632 bytes (112 x 112 x 3,
// RGB). The crop shares them. Error: ErrCropSize.
func CropFromRGB(raw []byte) (*Crop, error) {
	if len(raw) != Size*Size*3 {
		return nil, fmt.Errorf("%w: raw RGB is %d bytes, this is %d", ErrCropSize, Size*Size*3, len(raw))
	}
	return &Crop{Pix: raw}, nil
}

// CropFromImage takes a ready-made crop that came as an image file of exactly
// 112 x 112 pixels. It may share the image's pixels: the image is not released
// before the crop's last use. Error: ErrCropSize.
func CropFromImage(img *decode.Image) (*Crop, error) {
	if img.Width != Size || img.Height != Size || !img.Whole() {
		return nil, fmt.Errorf("%w: this one is %d x %d", ErrCropSize, img.Width, img.Height)
	}
	return CropFromRGB(img.RGB().Pix)
}

// Image returns the crop as an image that shares its pixels.
func (c *Crop) Image() *decode.Image {
	return &decode.Image{Width: Size, Height: Size, Pix: c.Pix}
}
