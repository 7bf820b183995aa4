//go:build turbo

package decode

/*
#cgo pkg-config: libturbojpeg
#include <turbojpeg.h>

// menshen_planes decodes a JPEG of width x height pixels, chroma shared as
// subsamp says, at 1/reduction of its size into planes of the given widths and
// heights, without padding. It writes nothing unless all of that is what the
// library makes of the file's header too, and returns 0 only if the whole file
// was decoded without a single warning. Errors inside the library end in its
// own functions (it catches its longjmp there).
static int menshen_planes(const unsigned char *data, unsigned long size,
		int width, int height, int subsamp, int reduction,
		unsigned char *y, unsigned char *cb, unsigned char *cr,
		const int *widths, const int *heights) {
	int w, h, sub, space, result = -1;
	int scaled_w = (width + reduction - 1) / reduction, scaled_h = (height + reduction - 1) / reduction;
	unsigned char *planes[3] = { y, cb, cr };
	tjhandle handle = tjInitDecompress();
	if (handle == NULL)
		return -1;
	if (tjDecompressHeader3(handle, data, size, &w, &h, &sub, &space) != 0)
		goto out;
	if (w != width || h != height || sub != subsamp || space != (sub == TJSAMP_GRAY ? TJCS_GRAY : TJCS_YCbCr))
		goto out;
	for (int i = 0; i < (sub == TJSAMP_GRAY ? 1 : 3); i++)
		if (tjPlaneWidth(i, scaled_w, sub) != widths[i] || tjPlaneHeight(i, scaled_h, sub) != heights[i])
			goto out;
	result = tjDecompressToYUVPlanes(handle, data, size, planes, scaled_w, NULL, scaled_h,
		TJFLAG_ACCURATEDCT | TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS);
out:
	tjDestroy(handle);
	return result;
}
*/
import "C"

import "unsafe"

// Decoder names what decodes JPEG in this build.
const Decoder = "libjpeg-turbo"

// turboPlanes decodes at 1/reduction of the size, or returns nil for a file
// that the standard library should judge: RGB, CMYK and YCCK, uncommon ways of
// sharing chroma, and everything that gives an error or a warning.
func turboPlanes(data []byte, f *frame, reduction int, buffers *Buffers) *Planes {
	p := &Planes{
		Width:     (f.width + reduction - 1) / reduction,
		Height:    (f.height + reduction - 1) / reduction,
		ShareX:    1,
		ShareY:    1,
		Reduction: reduction,
	}
	subsamp := f.turboSampling()
	if subsamp < 0 {
		return nil
	}
	if subsamp != C.TJSAMP_GRAY {
		p.ShareX, p.ShareY = f.components[0].across, f.components[0].down
	}
	// The library pads Y to whole groups of samples.
	cw, ch := (p.Width+p.ShareX-1)/p.ShareX, (p.Height+p.ShareY-1)/p.ShareY
	yw, yh := cw*p.ShareX, ch*p.ShareY
	size := yw * yh
	if subsamp != C.TJSAMP_GRAY {
		size += 2 * cw * ch
	}
	p.buffer, p.lender = buffers.get(size), buffers
	p.Y, p.YStride = p.buffer[:yw*yh], yw
	// No pointer for an empty plane: the library does not ask for it.
	var cb, cr *C.uchar
	if subsamp != C.TJSAMP_GRAY {
		p.Cb, p.Cr, p.CStride = p.buffer[yw*yh:yw*yh+cw*ch], p.buffer[yw*yh+cw*ch:], cw
		cb, cr = (*C.uchar)(unsafe.SliceData(p.Cb)), (*C.uchar)(unsafe.SliceData(p.Cr))
	}
	widths, heights := [3]C.int{C.int(yw), C.int(cw), C.int(cw)}, [3]C.int{C.int(yh), C.int(ch), C.int(ch)}
	if C.menshen_planes((*C.uchar)(unsafe.SliceData(data)), C.ulong(len(data)),
		C.int(f.width), C.int(f.height), subsamp, C.int(reduction),
		(*C.uchar)(unsafe.SliceData(p.Y)), cb, cr, &widths[0], &heights[0]) != 0 {
		buffers.put(p.buffer)
		return nil
	}
	return p
}

// turboSampling returns the library's name for the way the components share
// samples, or -1 where the file is not for it.
func (f *frame) turboSampling() C.int {
	c := f.components
	if len(c) == 1 {
		return C.TJSAMP_GRAY
	}
	if len(c) != 3 || f.rgb() || c[1].across != 1 || c[1].down != 1 || c[2].across != 1 || c[2].down != 1 {
		return -1
	}
	switch [2]int{c[0].across, c[0].down} {
	case [2]int{1, 1}:
		return C.TJSAMP_444
	case [2]int{2, 1}:
		return C.TJSAMP_422
	case [2]int{2, 2}:
		return C.TJSAMP_420
	case [2]int{1, 2}:
		return C.TJSAMP_440
	case [2]int{4, 1}:
		return C.TJSAMP_411
	}
	return -1
}

// get returns n bytes of any content.
func (b *Buffers) get(n int) []byte {
	if b != nil {
		if kept, ok := b.idle.Get().(*[]byte); ok && cap(*kept) >= n {
			return (*kept)[:n]
		}
	}
	return make([]byte, n)
}
