package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// needles are the beginnings of sealed values: the first 8 bytes of each nonce,
// random and so found by chance in no other place. A bitmap over their last 24
// bits, 2 MiB, settles most positions of a file without the list.
type needles struct {
	list   []uint64 // sorted
	bitmap []uint64
	text   []byte // searched for too, unless empty
}

// needleOf is how a stored value is found again; false for one that is too short
// to be sealed, which has nothing to hide.
func needleOf(value []byte) (uint64, bool) {
	if len(value) < 1+24 {
		return 0, false
	}
	return binary.BigEndian.Uint64(value[1:]), true
}

// newNeedles makes a list ready for searching. The list is sorted in place.
func newNeedles(list []uint64, text []byte) needles {
	n := needles{list: list, bitmap: make([]uint64, 1<<18), text: text}
	sortPaced(n.list)
	var p pace
	for _, w := range n.list {
		n.bitmap[w>>6&(1<<18-1)] |= 1 << (w & 63)
		p.step()
	}
	return n
}

// sortPaced sorts in place without keeping a processor for long: first into
// buckets by the highest bits, which are random, then each bucket.
func sortPaced(list []uint64) {
	const shift = 64 - 12
	var ends [1 << (64 - shift)]int
	var p pace
	for _, w := range list {
		ends[w>>shift]++
		p.step()
	}
	sum := 0
	for i, n := range ends {
		ends[i], sum = sum, sum+n
	}
	out := make([]uint64, len(list))
	for _, w := range list {
		out[ends[w>>shift]] = w
		ends[w>>shift]++
		p.step()
	}
	begin := 0
	for _, end := range ends {
		slices.Sort(out[begin:end])
		begin = end
		p.rest()
	}
	for at := 0; at < len(out); at += 4096 {
		copy(list[at:], out[at:min(at+4096, len(out))])
		p.rest()
	}
}

// absentPatience is how long a file that should be gone may still be there: a
// reader that began before the erasure keeps the tables that it reads.
const absentPatience = 10 * time.Second

// Scan says what a search of the database's files for removed records read. It
// found none, or there would be an error.
type Scan struct {
	Files uint64
	Bytes uint64
	Took  time.Duration // to read them
}

// absent makes sure that no file of the database holds a needle or the text.
func (s *Store) absent(ctx context.Context, list []uint64, text []byte) (Scan, error) {
	n := newNeedles(list, text)
	deadline := time.Now().Add(absentPatience)
	for {
		var scan Scan
		began := time.Now()
		found, err := n.inFiles(ctx, s.dir, &scan)
		if err != nil {
			return scan, fmt.Errorf("%w: read the files: %w", ErrNotErased, err)
		}
		if scan.Took = time.Since(began); found == "" {
			return scan, nil
		}
		if time.Now().After(deadline) {
			return scan, fmt.Errorf("%w: %s still holds a removed record; erase it again", ErrNotErased, found)
		}
		select {
		case <-ctx.Done():
			return scan, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// inFiles names the first file of a folder that holds a needle, and counts what
// it read.
func (n needles) inFiles(ctx context.Context, dir string, scan *Scan) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	buf := make([]byte, fileBlock)
	for _, entry := range entries {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		f, err := os.Open(filepath.Join(dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // compacted away meanwhile
		} else if err != nil {
			return "", err
		}
		found, size, err := n.inReader(f, buf)
		f.Close()
		if err != nil {
			return "", err
		}
		scan.Files++
		scan.Bytes += size
		if found {
			return entry.Name(), nil
		}
	}
	return "", nil
}

// fileBlock is how much of a file is read at a time: what is searched in about
// 0.1 ms, after which others have their turn.
const fileBlock = 64 << 10

// noBytes is a page of a file that Badger made in advance and has not written
// yet: most of its logs.
var noBytes [4096]byte

// inReader reports whether a needle stands at any position, and how much was
// read to know.
func (n needles) inReader(r io.Reader, buf []byte) (found bool, size uint64, err error) {
	var w uint64
	kept := 0 // bytes of the last round, in front of the new ones
	var p pace
	for {
		p.rest()
		got, err := r.Read(buf[kept:])
		if len(n.text) > 0 {
			if bytes.Contains(buf[:kept+got], n.text) {
				return true, size, nil
			}
		}
		for page := range slices.Chunk(buf[kept:kept+got], len(noBytes)) {
			if bytes.Equal(page, noBytes[:len(page)]) {
				page = page[:min(8, len(page))] // behind which every position is alike
			}
			for _, b := range page {
				w = w<<8 | uint64(b)
				if n.bitmap[w>>6&(1<<18-1)]&(1<<(w&63)) == 0 {
					continue
				}
				if _, ok := slices.BinarySearch(n.list, w); ok {
					return true, size, nil
				}
			}
		}
		size += uint64(got)
		all := buf[:kept+got]
		kept = copy(buf, all[max(0, len(all)-max(0, len(n.text)-1)):])
		if err == io.EOF {
			return false, size, nil
		} else if err != nil {
			return false, size, err
		}
	}
}
