package config

import (
	"fmt"
	"strconv"
	"strings"
)

// ByteSize is a number of bytes that people write with a unit: 16MiB, 1GiB,
// 4096. It is a pflag.Value.
type ByteSize int64

var byteUnits = []struct {
	suffix string
	factor int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1},
}

// Set parses a whole number with an optional unit (B, KiB, MiB, GiB).
func (b *ByteSize) Set(text string) error {
	number, factor := strings.TrimSpace(text), int64(1)
	for _, u := range byteUnits {
		if head, ok := strings.CutSuffix(number, u.suffix); ok {
			number, factor = strings.TrimSpace(head), u.factor
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/factor {
		return fmt.Errorf("%q is not a size: write a whole number of bytes or one with KiB, MiB or GiB, such as 16MiB", text)
	}
	*b = ByteSize(n * factor)
	return nil
}

// String writes the size with the largest unit that divides it.
func (b ByteSize) String() string {
	for _, u := range byteUnits {
		if u.factor > 1 && b != 0 && int64(b)%u.factor == 0 {
			return strconv.FormatInt(int64(b)/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Type names the value in help texts.
func (b ByteSize) Type() string { return "size" }
