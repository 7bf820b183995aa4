package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/menshen-io/menshen/matcher/signing"
)

// openChain finds the end of a chain on disk. It reads the last segment in full
// and the headers of the others; Verify reads everything. An incomplete last
// record is cut off, and cut says how many bytes that were: it was not
// acknowledged, or it belongs to the decisions of the last moment. Everything else
// that is not as it was written is ErrDamaged, and nothing is changed.
func openChain(name, dir string, keys signing.PublicKeys) (c *chain, cut int64, err error) {
	c = &chain{name: name, dir: dir, write: (*os.File).Write, end: Head{Chain: name, Hash: genesis(name)}}
	damaged := func(format string, args ...any) (*chain, int64, error) {
		return nil, 0, fmt.Errorf("%w: %s: %w", ErrDamaged, name, fmt.Errorf(format, args...))
	}
	files, err := segmentFiles(dir)
	if err != nil {
		return damaged("%w", err)
	}
	begin, pruned, err := readStatement(dir, prunedFile, name, keys)
	if err != nil {
		return damaged("%s: %w", prunedFile, err)
	}
	if pruned {
		c.end = begin.Head
		// Finish what a crash interrupted: a segment that begins before the
		// chain does was dropped.
		for len(files) > 0 && files[0] <= begin.Position {
			if err := os.Remove(filepath.Join(dir, segmentName(files[0]))); err != nil {
				return nil, 0, err
			}
			files = files[1:]
		}
	}
	c.link = c.end.Hash
	newest, checked, err := readStatement(dir, checkpointFile, name, keys)
	if err != nil {
		return damaged("%s: %w", checkpointFile, err)
	}
	for i, first := range files {
		last := i == len(files)-1
		s, err := openSegment(filepath.Join(dir, segmentName(first)), -1)
		if err != nil {
			return damaged("%s: %w", segmentName(first), err)
		}
		switch {
		case s.head.chain != name:
			err = fmt.Errorf("it belongs to the chain %s", s.head.chain)
		case s.head.first != first:
			err = fmt.Errorf("it begins with record %d", s.head.first)
		case i == 0 && (first != c.end.Position+1 || s.head.prev != c.end.Hash):
			err = fmt.Errorf("the records before %d are missing, or are not those that this one follows", first)
		}
		c.heads = append(c.heads, s.head)
		if err == nil && last {
			cut, err = c.readEnd(s, newest)
		}
		s.close()
		if err != nil {
			return damaged("%s: %w", segmentName(first), err)
		}
	}
	if checked && newest.Position > c.end.Position {
		return damaged("it ends with record %d, but a checkpoint was signed at %d: records are missing", c.end.Position, newest.Position)
	}
	if cut > 0 {
		if err := cutTail(filepath.Join(dir, segmentName(files[len(files)-1])), c.size); err != nil {
			return nil, 0, fmt.Errorf("cut the incomplete last record of the audit log %s: %w", name, err)
		}
	}
	c.synced, c.signed = c.end.Position, newest.Position
	c.at.Store(c.end.Position)
	return c, cut, nil
}

// readEnd reads the last segment and sets the end of the chain.
func (c *chain) readEnd(s *segment, newest Checkpoint) (cut int64, err error) {
	c.end.Position, c.end.Hash = s.head.first-1, s.head.prev
	for {
		if newest.Position == c.end.Position && newest.Position > 0 && newest.Hash != c.end.Hash {
			return 0, fmt.Errorf("record %d is not the one that the checkpoint was signed for", newest.Position)
		}
		f, err := s.next()
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			c.size, c.link = f.offset, s.link
			return s.size - f.offset, nil
		}
		if err == nil && !f.holds {
			err = errors.New("its hash does not hold")
		}
		if err != nil {
			return 0, fmt.Errorf("record %d, at byte %d: %w", c.end.Position+1, f.offset, err)
		}
		c.end.Position, c.end.Hash = c.end.Position+1, f.hash
	}
}

func cutTail(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// segmentFiles lists the first positions of a folder's segments in order. Other
// files than the log's own are an error: somebody put them there.
func segmentFiles(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var firsts []uint64
	for _, e := range entries { // in the order of names, which is that of positions
		name := e.Name()
		digits, ok := strings.CutSuffix(name, segmentExt)
		first, err := strconv.ParseUint(digits, 10, 64)
		switch {
		case ok && err == nil && segmentName(first) == name:
			firsts = append(firsts, first)
		case name == checkpointFile, name == prunedFile, strings.HasSuffix(name, newExt):
		default:
			return nil, fmt.Errorf("%s is not a file of the log; move it elsewhere", name)
		}
	}
	return firsts, nil
}

func segmentName(first uint64) string { return header{first: first}.name() }

// removeUnfinished removes files that a crash left half written.
func removeUnfinished(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "*"+newExt))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// setAside is the part of a folder's name that says that a damaged chain was
// moved there.
const setAside = ".damaged-"

// chainFolders lists the chains that a log's folder holds, and the folders that
// were set aside.
func chainFolders(dir string) (chains, aside []string, err error) {
	visit := func(folder string) error {
		entries, err := os.ReadDir(filepath.Join(dir, folder))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, e := range entries {
			name := filepath.ToSlash(filepath.Join(folder, e.Name()))
			switch {
			case !e.IsDir():
			case validChain(name):
				chains = append(chains, name)
			case strings.Contains(e.Name(), setAside):
				aside = append(aside, name)
			}
		}
		return err
	}
	if err := visit(""); err != nil {
		return nil, nil, err
	}
	tenants, err := os.ReadDir(filepath.Join(dir, tenantsFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, t := range tenants {
		folder := filepath.Join(tenantsFolder, t.Name())
		if err := errors.Join(visit(folder), visit(filepath.Join(folder, decisionChain))); err != nil {
			return nil, nil, err
		}
	}
	return chains, aside, nil
}
