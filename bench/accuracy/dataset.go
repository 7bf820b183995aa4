package accuracy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// MaxComparisons bounds the comparisons of one measurement. A comparison takes 12
// bytes: the bound is 1.2 GB. All pairs of 13,000 images are below it.
const MaxComparisons = 100_000_000

// MaxPairs bounds the rows of a list of pairs.
const MaxPairs = 20_000_000

// Kind says how the comparisons of a data set are given.
type Kind string

const (
	// Pairs: a list of pairs, each said to be mated or not.
	Pairs Kind = "pairs"
	// Folders: one folder per person; every image against every other.
	Folders Kind = "folders"
)

// Image is one image of a data set.
type Image struct {
	Name   string // as the list names it, or person/file: for people to read
	Path   string // where it is
	Person int    // index in DataSet.People; 0 for lists of pairs
}

// Pair is one row of a list: two indices in DataSet.Images.
type Pair struct {
	A, B  int32
	Mated bool
}

// DataSet is what is to be compared. Images stand in a fixed order (of first
// mention, or of name), each once. It is not changed after reading.
type DataSet struct {
	Kind   Kind
	Source string // the list or the folder, as given
	Images []Image
	Pairs  []Pair   // of a list
	People []string // of folders
	Notes  []string // what a reader of the figures should know
}

// Missing returns the indices of the images that are not there, or are no
// regular files.
func (d *DataSet) Missing() []int {
	var missing []int
	for i, img := range d.Images {
		if info, err := os.Stat(img.Path); err != nil || !info.Mode().IsRegular() {
			missing = append(missing, i)
		}
	}
	return missing
}

// CheckFiles returns ErrMissing, with the first few names and the count, when
// images of the data set are not there.
func (d *DataSet) CheckFiles() error {
	missing := d.Missing()
	if len(missing) == 0 {
		return nil
	}
	names := make([]string, 0, shownProblems)
	for _, i := range missing[:min(len(missing), shownProblems)] {
		names = append(names, d.Images[i].Path)
	}
	more := ""
	if extra := len(missing) - len(names); extra > 0 {
		more = fmt.Sprintf(" and %d more", extra)
	}
	return fmt.Errorf("%w: %d of %d: %s%s", ErrMissing, len(missing), len(d.Images), strings.Join(names, ", "), more)
}

// shownProblems is how many of a list of problems an error spells out.
const shownProblems = 5

// problems collects the faults of a list, so that a reader sees several at once.
type problems struct {
	first []string
	count int
}

func (p *problems) add(format string, args ...any) {
	if p.count++; len(p.first) < shownProblems {
		p.first = append(p.first, fmt.Sprintf(format, args...))
	}
}

func (p *problems) err(source string) error {
	if p.count == 0 {
		return nil
	}
	more := ""
	if extra := p.count - len(p.first); extra > 0 {
		more = fmt.Sprintf("; and %d more", extra)
	}
	return fmt.Errorf("%w %s: %s%s", ErrDataSet, source, strings.Join(p.first, "; "), more)
}

// openError turns a failed open into an error with the next step.
func openError(what, path string, err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return fmt.Errorf("%w: cannot read the %s %s: %w", ErrDataSet, what, path, err)
}
