package decode

import "fmt"

// Cost is what decoding a picture will take, told from its header alone, for
// whoever decides whether there is room for it now.
type Cost struct {
	Width, Height int   // as stored
	Pixels        int64 // Width x Height
	// Bytes bounds the memory that decoding allocates, beside the file's bytes
	// and some 300 KB of tables that do not grow with the picture.
	Bytes int64
	// Passes is how often decoding walks the whole picture: 1, or the scans of a
	// progressive JPEG; at most 100.
	Passes int
}

// Measure returns the cost of decoding a JPEG or PNG. It reads the header
// and walks a JPEG's markers, takes microseconds and allocates little. What Decode would refuse because of
// its header is refused with the same error; what it would refuse later is not
// found here.
func Measure(data []byte, lim Limits) (Cost, error) {
	lim = lim.orDefaults()
	if err := recognised(data, lim, false); err != nil {
		return Cost{}, err
	}
	if Sniff(data) == PNG {
		h, err := readPNGHeader(data, lim)
		if err != nil {
			return Cost{}, err
		}
		return newCost(h.width, h.height, h.memory(), 1), nil
	}
	f, err := jpegFrame(data, lim)
	if err != nil {
		return Cost{}, err
	}
	passes := 1
	if f.progressive {
		passes = max(1, f.scans)
	}
	return newCost(f.width, f.height, f.memory(), passes), nil
}

func newCost(w, h int, bytes int64, passes int) Cost {
	return Cost{Width: w, Height: h, Pixels: int64(w) * int64(h), Bytes: bytes, Passes: passes}
}

// checkMemory refuses a picture whose decoding takes too much.
func (l Limits) checkMemory(bytes int64) error {
	if bytes > l.MaxMemory {
		return fmt.Errorf("%w: decoding it takes %d MiB of memory, at most %d are accepted: save it as an ordinary (baseline, 8-bit) file or send a smaller version",
			ErrTooLarge, bytes>>20, l.MaxMemory>>20)
	}
	return nil
}
