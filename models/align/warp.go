package align

import (
	"math"

	"github.com/menshen-io/menshen/models/decode"
)

// Warp cuts the crop that s maps img onto: for each pixel of the crop the place
// in the image is computed and sampled bilinearly, pixels outside the image
// counting as black. A transform that cannot be inverted, and a picture without
// pixels, give a black crop. It allocates the crop and nothing else.
//
// A picture that was decoded at a reduced size gives a crop too; it is as sharp
// as one from the whole picture where Similarity.Scale times the reduction is
// at most 1.
func Warp(img *decode.Image, s Similarity) *Crop {
	c := &Crop{Pix: make([]byte, Size*Size*3)}
	inv, err := s.Invert()
	if err != nil || !img.Whole() {
		return c
	}
	if img.Planes != nil {
		warpPlanes(c, img, inv)
		return c
	}
	for y := range Size {
		row := c.Pix[y*Size*3 : (y+1)*Size*3]
		x0, y0 := inv.Apply(0, float64(y))
		x1, y1 := inv.Apply(Size-1, float64(y))
		if inside(img, x0, y0) && inside(img, x1, y1) {
			// The row is a straight line: with both ends inside, all of it is.
			warpInside(img, row, x0, y0, inv.A, inv.B)
		} else {
			warpEdge(img, row, x0, y0, inv.A, inv.B)
		}
	}
	return c
}

// inside tells whether all four neighbours of (x, y) are pixels of the image,
// with a margin for the rounding of fixed point.
func inside(img *decode.Image, x, y float64) bool {
	const margin = 1e-3
	return x >= margin && y >= margin && x < float64(img.Width-1)-margin && y < float64(img.Height-1)-margin
}

// Coordinates inside the image are 64-bit fixed point with this many bits of
// fraction: over a row the rounding adds up to less than 112 / 2^33 pixels.
// Weights keep weightBits of it.
const (
	fractionBits = 32
	weightBits   = 11
)

// warpInside fills one row that lies inside the image, from (x, y) in steps of
// (dx, dy).
func warpInside(img *decode.Image, row []byte, x, y, dx, dy float64) {
	const one = 1 << fractionBits
	fx, fy := int64(math.Round(x*one)), int64(math.Round(y*one))
	stepX, stepY := int64(math.Round(dx*one)), int64(math.Round(dy*one))
	stride := 3 * img.Width
	for len(row) >= 3 {
		at := int(fy>>fractionBits)*stride + 3*int(fx>>fractionBits)
		wx := uint32(fx>>(fractionBits-weightBits)) & (1<<weightBits - 1)
		wy := uint32(fy>>(fractionBits-weightBits)) & (1<<weightBits - 1)
		top := img.Pix[at : at+6 : at+6]
		bottom := img.Pix[at+stride : at+stride+6 : at+stride+6]
		w11 := wx * wy
		w10 := wy<<weightBits - w11
		w01 := wx<<weightBits - w11
		w00 := 1<<(2*weightBits) - w11 - w10 - w01
		const half = 1 << (2*weightBits - 1)
		row[0] = byte((uint32(top[0])*w00 + uint32(top[3])*w01 + uint32(bottom[0])*w10 + uint32(bottom[3])*w11 + half) >> (2 * weightBits))
		row[1] = byte((uint32(top[1])*w00 + uint32(top[4])*w01 + uint32(bottom[1])*w10 + uint32(bottom[4])*w11 + half) >> (2 * weightBits))
		row[2] = byte((uint32(top[2])*w00 + uint32(top[5])*w01 + uint32(bottom[2])*w10 + uint32(bottom[5])*w11 + half) >> (2 * weightBits))
		row = row[3:]
		fx += stepX
		fy += stepY
	}
}

// warpEdge fills one row that leaves the image somewhere. Neighbours outside
// count as black with their weight, as OpenCV's constant border does.
func warpEdge(img *decode.Image, row []byte, x0, y0, dx, dy float64) {
	w, h := img.Width, img.Height
	for i := range Size {
		x, y := x0+float64(i)*dx, y0+float64(i)*dy
		if !(x > -1 && y > -1 && x < float64(w) && y < float64(h)) {
			continue // all black; not-a-number and the far outside end here too
		}
		left, top := math.Floor(x), math.Floor(y)
		wx, wy := x-left, y-top
		ix, iy := int(left), int(top)
		var sum [3]float64
		for _, n := range [4]struct {
			x, y   int
			weight float64
		}{
			{ix, iy, (1 - wx) * (1 - wy)},
			{ix + 1, iy, wx * (1 - wy)},
			{ix, iy + 1, (1 - wx) * wy},
			{ix + 1, iy + 1, wx * wy},
		} {
			if n.x < 0 || n.y < 0 || n.x >= w || n.y >= h {
				continue
			}
			p := img.Pix[3*(n.y*w+n.x):]
			sum[0] += n.weight * float64(p[0])
			sum[1] += n.weight * float64(p[1])
			sum[2] += n.weight * float64(p[2])
		}
		for k, v := range sum {
			row[3*i+k] = byte(v + 0.5)
		}
	}
}
