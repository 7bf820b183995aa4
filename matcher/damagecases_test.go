package matcher

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// files is a data directory in memory. Content ends where its zeros begin, which
// are most of Badger's logs; size is that on disk.
type files map[string]file

type file struct {
	used []byte
	size int64
}

func takeFiles(t *testing.T, dir string) files {
	t.Helper()
	all := files{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		all[name] = file{bytes.Clone(bytes.TrimRight(b, "\x00")), int64(len(b))}
		return err
	}))
	return all
}

// gone is the size of a file that is not there.
const gone = -1

func (f file) write(path string) error {
	if f.size == gone {
		return os.Remove(path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path, f.used, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, f.size)
}

func (all files) write(t *testing.T, dir string) {
	t.Helper()
	must(t, os.RemoveAll(dir))
	for name, f := range all {
		must(t, f.write(filepath.Join(dir, name)))
	}
}

// injury is one damage of one file.
type injury struct {
	name string // of the file
	what string
	hurt func(file) file
}

func flip(name string, at int, bit int) injury {
	return injury{name, fmt.Sprintf("bit %d of byte %d flipped", bit, at), func(f file) file {
		f.used = bytes.Clone(f.used)
		f.used[at] ^= 1 << bit
		return f
	}}
}

// cutAt shortens a file; blank leaves it as long as it was, with zeros instead.
func cutAt(name string, at int) []injury {
	return []injury{
		{name, fmt.Sprintf("cut at %d", at), func(f file) file { return file{f.used[:at], int64(at)} }},
		{name, fmt.Sprintf("blank from %d on", at), func(f file) file { return file{f.used[:at], f.size} }},
	}
}

// large says which files are damaged by chance rather than everywhere.
func large(name string) bool {
	return slices.Contains([]string{".sst", ".mem", ".vlog"}, filepath.Ext(name))
}

// injuries lists what is done to a directory: every byte of small files, so
// many bits of large ones, and all cuts at the boundaries of records. A sample
// of at most most each where most is not 0.
func injuries(all files, dice *rand.Rand, bits, most int) []injury {
	var small, chance, cuts []injury
	var big []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		used := len(all[name].used)
		switch {
		case used == 0:
			continue // a lock
		case large(name):
			big = append(big, name)
		default:
			places := dice.Perm(used)
			if most > 0 {
				places = places[:min(most/2, used)]
			}
			for _, at := range places {
				small = append(small, flip(name, at, dice.IntN(8)))
			}
		}
		for _, at := range boundaries(name, all[name].used) {
			cuts = append(cuts, cutAt(name, at)...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		cuts = append(cuts, injury{name, "missing", func(file) file { return file{size: gone} }})
	}
	for range bits {
		name := big[dice.IntN(len(big))]
		chance = append(chance, flip(name, dice.IntN(len(all[name].used)), dice.IntN(8)))
	}
	dice.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
	if most > 0 {
		cuts = cuts[:min(most, len(cuts))]
	}
	return slices.Concat(small, chance, cuts)
}

// boundaries are the places where a record of the file ends.
func boundaries(name string, b []byte) (ends []int) {
	switch {
	case strings.HasSuffix(name, ".mem") || strings.HasSuffix(name, ".vlog"):
		return logBoundaries(b)
	case strings.HasSuffix(name, ".sst"):
		for at := 4096; at < len(b); at += 4096 { // Badger's blocks
			ends = append(ends, at)
		}
	case strings.HasSuffix(name, "MANIFEST"):
		for at := 8; at+8 <= len(b); { // magic; then length, checksum, change
			ends = append(ends, at)
			at += 8 + int(binary.BigEndian.Uint32(b[at:]))
		}
	case strings.Contains(name, "receipts"):
		for at, c := range b {
			if c == '\n' {
				ends = append(ends, at+1)
			}
		}
	}
	return append(ends, 0)
}

// logBoundaries reads a log of Badger: 20 bytes, then entries of two bytes of
// flags, three varints (length of key and of value, expiry), key, value and a
// checksum of four bytes.
func logBoundaries(b []byte) (ends []int) {
	for at := 20; at < len(b); {
		ends = append(ends, at)
		rest := b[min(at+2, len(b)):]
		length := 2
		var size [3]uint64
		for i := range size {
			v, n := binary.Uvarint(rest)
			if n <= 0 {
				return ends
			}
			size[i], rest, length = v, rest[n:], length+n
		}
		if size[0] == 0 {
			return ends
		}
		at += length + int(size[0]+size[1]) + 4
	}
	return ends
}
