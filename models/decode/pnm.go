package decode

import (
	"encoding/binary"
	"fmt"
)

// decodePNM reads binary PGM (P5) and PPM (P6): magic, width, height and the
// largest sample value as decimal text, one white-space byte, then the samples,
// one byte each up to 255, otherwise two, high byte first. Samples are scaled to
// 0..255 with rounding; one above the largest value counts as the largest.
func decodePNM(data []byte, lim Limits) (*Image, error) {
	h := pnmHeader{data: data, pos: 2}
	width, height, maximum := h.number(), h.number(), h.number()
	if h.bad || h.pos >= len(data) || !isSpace(data[h.pos]) {
		return nil, fmt.Errorf("%w: pnm: its header is not width, height and largest value", ErrCorrupt)
	}
	if maximum < 1 || maximum > 65535 {
		return nil, fmt.Errorf("%w: pnm: its largest value is %d, not 1 to 65535", ErrCorrupt, maximum)
	}
	if err := lim.checkSize(width, height); err != nil {
		return nil, err
	}
	channels, bytesPerSample := 1, 1
	if data[1] == '6' {
		channels = 3
	}
	if maximum > 255 {
		bytesPerSample = 2
	}
	body := data[h.pos+1:]
	samples := int64(width) * int64(height) * int64(channels)
	if need := samples * int64(bytesPerSample); int64(len(body)) < need {
		return nil, fmt.Errorf("%w: pnm: %d bytes of pixels, %d x %d pixels need %d", ErrTruncated, len(body), width, height, need)
	}
	img := &Image{Width: width, Height: height, Pix: make([]byte, 3*width*height)}
	sample := func(i int) byte { return body[i] }
	switch {
	case bytesPerSample == 2:
		sample = func(i int) byte {
			v := min(int(binary.BigEndian.Uint16(body[2*i:])), maximum)
			return byte((v*255 + maximum/2) / maximum)
		}
	case maximum != 255:
		sample = func(i int) byte {
			return byte((min(int(body[i]), maximum)*255 + maximum/2) / maximum)
		}
	}
	if channels == 3 {
		for i := range img.Pix {
			img.Pix[i] = sample(i)
		}
		return img, nil
	}
	for i := range width * height {
		v := sample(i)
		img.Pix[3*i], img.Pix[3*i+1], img.Pix[3*i+2] = v, v, v
	}
	return img, nil
}

// pnmHeader reads the decimal numbers of a PNM header.
type pnmHeader struct {
	data []byte
	pos  int
	bad  bool
}

// number skips white space and comments (from # to the end of the line), then
// reads one decimal number. Numbers beyond nine digits are bad: no limit allows
// them, and they must not overflow.
func (h *pnmHeader) number() int {
	for h.pos < len(h.data) {
		c := h.data[h.pos]
		if c == '#' {
			for h.pos < len(h.data) && h.data[h.pos] != '\n' && h.data[h.pos] != '\r' {
				h.pos++
			}
			continue
		}
		if !isSpace(c) {
			break
		}
		h.pos++
	}
	n, start := 0, h.pos
	for h.pos < len(h.data) && h.data[h.pos] >= '0' && h.data[h.pos] <= '9' {
		if h.pos-start == 9 {
			h.bad = true
			return 0
		}
		n = n*10 + int(h.data[h.pos]-'0')
		h.pos++
	}
	if h.pos == start {
		h.bad = true
	}
	return n
}
