package matcher

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image/png"
	"testing"

	"github.com/menshen-io/menshen/matcher/admission"
	"github.com/menshen-io/menshen/models/decode"
)

// pngOf is a PNG whose header announces w x h pixels of which nearly none are
// there.
func pngOf(w, h uint32) []byte {
	chunk := func(b []byte, kind string, data []byte) []byte {
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		body := append([]byte(kind), data...)
		return binary.BigEndian.AppendUint32(append(b, body...), crc32.ChecksumIEEE(body))
	}
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	b := chunk([]byte("\x89PNG\r\n\x1a\n"), "IHDR", append(header, 8, 2, 0, 0, 0))
	return chunk(chunk(b, "IDAT", []byte{0x78, 0x9c}), "IEND", nil)
}

// Pictures are weighed by their headers, and what will not be decoded is refused
// before it asks for anything.
func TestPicturesAreWeighed(t *testing.T) {
	w := newWorld(t)
	sc := &scopeEntry{ref: hallA}
	progressive := []byte("\xff\xd8\xff\xc2\x00\x11\x08\x1b\x58\x1b\x58\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00\xff\xda\x00\x0c\x03\x01\x00\x02\x00\x03\x00\x00\x00\x00\xff\xd9")
	for name, test := range map[string]struct {
		data []byte
		want error
	}{
		"huge":                             {pngOf(1<<20, 1<<20), decode.ErrTooLarge},
		"more pixels than allowed":         {pngOf(10_000, 10_000), decode.ErrTooLarge},
		"a PNG with next to nothing in it": {pngOf(6000, 6000), decode.ErrTruncated},
		"a progressive JPEG with nothing":  {progressive, decode.ErrTruncated},
		"no picture":                       {[]byte("GIF89a"), decode.ErrFormat},
		"nothing":                          {[]byte{}, decode.ErrEmpty},
	} {
		for kind, probe := range map[string]Probe{"image": {Image: test.data}, "crop": {CropEncoded: test.data}} {
			if _, err := w.admit(t.Context(), sc, admission.Ask{Work: admission.Work{Op: admission.Verify}}, probe); !errors.Is(err, test.want) {
				t.Errorf("%s as %s: %v", name, kind, err)
			}
			_, err := w.admit(t.Context(), sc, admission.Ask{Work: admission.Work{Op: admission.Enroll}}, imageOf(t, 1, 0, 1), probe)
			var at *ProbeError
			if !errors.As(err, &at) || at.Index != 1 || !errors.Is(err, test.want) {
				t.Errorf("%s as %s to enrol: %v", name, kind, err)
			}
		}
	}
	if s := w.Admission().Stats(); s.Admitted+s.Refused != 0 {
		t.Errorf("%+v: pictures that are not decoded were weighed", s)
	}
	probe := imageOf(t, 1, 0, 1)
	header, err := png.DecodeConfig(bytes.NewReader(probe.Image))
	must(t, err)
	ticket, err := w.admit(t.Context(), sc, admission.Ask{Work: admission.Work{Op: admission.Verify}}, probe)
	must(t, err)
	if held := w.Admission().Stats().Bytes; held < int64(len(probe.Image)+3*header.Width*header.Height) {
		t.Errorf("%d bytes weighed for %d x %d pixels", held, header.Width, header.Height)
	}
	ticket.Done(nil)
	if held := w.Admission().Stats().Bytes; held != 0 {
		t.Errorf("%d bytes are still held", held)
	}
}
