package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// chunkLen is how much of a secret must be found together: enough not to be
// found by chance, and little enough that a half overwritten one is noticed.
const chunkLen = 16

// chunks are the pieces of secrets, by their first 8 bytes, with the names of
// those that they are of.
type chunks map[uint64][]chunk

type chunk struct {
	name  string
	bytes [chunkLen]byte
}

func (c chunks) add(name string, secret []byte) {
	for ; len(secret) >= chunkLen; secret = secret[chunkLen:] {
		w := binary.BigEndian.Uint64(secret)
		c[w] = append(c[w], chunk{name, [chunkLen]byte(secret)})
	}
}

// addPads adds a key as HMAC pads it.
func (c chunks) addPads(name string, key []byte) {
	for _, x := range []byte{0x36, 0x5c} {
		padded := bytes.Clone(key)
		for i := range padded {
			padded[i] ^= x
		}
		c.add(name+", padded", padded)
	}
}

// scan calls found for every piece that stands at any position of b.
func (c chunks) scan(filter []uint64, b []byte, found func(at int, ch chunk)) {
	var w uint64
	for i, x := range b {
		w = w<<8 | uint64(x)
		if h := w & (1<<20 - 1); filter[h>>6]&(1<<(h&63)) == 0 || i < 7 {
			continue
		}
		for _, ch := range c[w] {
			if at := i - 7; bytes.HasPrefix(b[at:], ch.bytes[:]) {
				found(at, ch)
			}
		}
	}
}

func (c chunks) filter() []uint64 {
	f := make([]uint64, 1<<14)
	for w := range c {
		h := w & (1<<20 - 1)
		f[h>>6] |= 1 << (h & 63)
	}
	return f
}

// in counts pieces in b.
func (c chunks) in(b []byte) (n int) {
	c.scan(c.filter(), b, func(int, chunk) { n++ })
	return n
}

// inFiles counts pieces in all files below dir.
func (c chunks) inFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	filter := c.filter()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		c.scan(filter, b, func(int, chunk) { n++ })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// inMemory counts pieces in the readable memory of a process, by what they are
// of. It returns nil, and says so, where the memory cannot be read.
func (c chunks) inMemory(t *testing.T, pid int) map[string]int {
	t.Helper()
	regions, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Logf("the server's memory is not searched: %v", err)
		return nil
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Logf("the server's memory is not searched: %v", err)
		return nil
	}
	defer mem.Close()
	filter, found, size := c.filter(), map[string]int{}, 0
	buf := make([]byte, 4<<20)
	for line := range strings.Lines(string(regions)) {
		var from, to uint64
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); n != 3 || !strings.HasPrefix(mode, "r") {
			continue
		}
		for from < to {
			n, err := mem.ReadAt(buf[:min(uint64(len(buf)), to-from)], int64(from))
			c.scan(filter, buf[:n], func(at int, ch chunk) {
				found[ch.name]++
				if os.Getenv("MENSHEN_AUTOPSY_PLACES") != "" {
					t.Logf("%s: %x in %s", ch.name, from+uint64(at), strings.Join(strings.Fields(line)[1:], " "))
				}
			})
			size += n
			if n == 0 || err != nil {
				break // unmapped meanwhile, or not readable
			}
			if from+uint64(n) >= to {
				break
			}
			from += uint64(n - chunkLen + 1)
		}
	}
	if size < 1<<20 {
		t.Logf("the server's memory is not searched: %d bytes of it can be read", size)
		return nil
	}
	return found
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The search finds a piece at any position, once for each place, and nothing in
// noise.
func TestChunks(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<16)
	for i := range noise {
		noise[i] = byte(dice.Uint32())
	}
	secret := []byte("sixteen letters and sixteen more")
	c := chunks{}
	c.add("s", secret)
	if n := c.in(noise); n != 0 {
		t.Errorf("%d in noise", n)
	}
	for _, at := range []int{0, 1, 4097, len(noise) - len(secret)} {
		b := bytes.Clone(noise)
		copy(b[at:], secret)
		if n := c.in(b); n != 2 {
			t.Errorf("%d of 2 pieces at %d", n, at)
		}
		b[at] ^= 1
		if n := c.in(b); n != 1 {
			t.Errorf("%d pieces of a half overwritten one at %d", n, at)
		}
	}
}
