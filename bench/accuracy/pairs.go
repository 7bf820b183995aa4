package accuracy

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// pairsHeader is the first line of a list of pairs.
var pairsHeader = [3]string{"file_a", "file_b", "mated"}

// ReadPairs reads a list of pairs: CSV with the header file_a,file_b,mated, file
// names relative to imageDir, mated 1 for the same person and 0 for different
// ones. Names may be quoted; a byte order mark, CRLF and empty lines are taken.
// A name that leads out of imageDir is refused, by its text: a symbolic link
// inside imageDir is its owner's business and is followed.
//
// Errors wrap ErrDataSet and give the line numbers of the first faults. Whether
// the images exist is not looked at: see DataSet.CheckFiles.
func ReadPairs(csvPath, imageDir string) (*DataSet, error) {
	info, err := os.Stat(imageDir)
	if err != nil {
		return nil, openError("image folder", imageDir, err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%w: the image folder %s is a file; give the folder that the names in the list are relative to", ErrDataSet, imageDir)
	}
	f, err := os.Open(csvPath)
	if err != nil {
		return nil, openError("list", csvPath, err)
	}
	defer f.Close()
	d, err := parsePairs(f, csvPath, imageDir)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// pairRow remembers what an earlier line said of a pair.
type pairRow struct {
	mated bool
	line  int
}

func parsePairs(r io.Reader, source, imageDir string) (*DataSet, error) {
	buffered := bufio.NewReaderSize(r, 1<<16)
	if mark, _ := buffered.Peek(3); string(mark) == "\xef\xbb\xbf" {
		_, _ = buffered.Discard(3)
	}
	rows := csv.NewReader(buffered)
	rows.FieldsPerRecord = -1 // counted here, to report more than the first fault
	rows.ReuseRecord = true

	header, err := rows.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w %s: the file is empty; its first line should be %s", ErrDataSet, source, strings.Join(pairsHeader[:], ","))
	}
	if err != nil {
		return nil, csvError(source, err)
	}
	if !isHeader(header) {
		return nil, fmt.Errorf("%w %s: line 1: the header is %q, it should be %s", ErrDataSet, source, clip(strings.Join(header, ",")), strings.Join(pairsHeader[:], ","))
	}

	d := &DataSet{Kind: Pairs, Source: source}
	known := make(map[string]int32)
	seen := make(map[[2]int32]pairRow)
	var faults problems
	repeated, selfPairs := 0, 0
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, csvError(source, err)
		}
		line, _ := rows.FieldPos(0)
		if len(row) != len(pairsHeader) {
			faults.add("line %d: %d columns, there should be %d (quote names that contain a comma)", line, len(row), len(pairsHeader))
			continue
		}
		verdict := strings.TrimSpace(row[2])
		if verdict != "0" && verdict != "1" {
			faults.add("line %d: mated is %q, it should be 1 (same person) or 0", line, clip(row[2]))
			continue
		}
		pair := Pair{Mated: verdict == "1"}
		var ok [2]bool
		for k, side := range []*int32{&pair.A, &pair.B} {
			*side, ok[k] = d.addImage(known, row[k], imageDir)
			if !ok[k] {
				faults.add("line %d: %s %q is not a name inside the image folder", line, pairsHeader[k], clip(row[k]))
			}
		}
		if !ok[0] || !ok[1] {
			continue
		}
		key := [2]int32{min(pair.A, pair.B), max(pair.A, pair.B)}
		if before, twice := seen[key]; twice {
			if before.mated != pair.Mated {
				faults.add("line %d: says the opposite of line %d about the same two files", line, before.line)
				continue
			}
			repeated++
		} else {
			seen[key] = pairRow{pair.Mated, line}
		}
		if pair.A == pair.B {
			selfPairs++
		}
		if len(d.Pairs) == MaxPairs {
			return nil, fmt.Errorf("%w %s: more than %d pairs; split the list", ErrDataSet, source, MaxPairs)
		}
		d.Pairs = append(d.Pairs, pair)
	}
	if err := faults.err(source); err != nil {
		return nil, err
	}
	if len(d.Pairs) == 0 {
		return nil, fmt.Errorf("%w %s: there is no pair below the header", ErrDataSet, source)
	}
	if repeated > 0 {
		d.Notes = append(d.Notes, fmt.Sprintf("%d pairs are listed more than once and count each time", repeated))
	}
	if selfPairs > 0 {
		d.Notes = append(d.Notes, fmt.Sprintf("%d pairs compare a file with itself, which says nothing about people", selfPairs))
	}
	return d, nil
}

// addImage returns the index of the image with that name, or false for a name
// that is empty or leads out of the folder.
func (d *DataSet) addImage(known map[string]int32, name, dir string) (int32, bool) {
	if i, ok := known[name]; ok {
		return i, true
	}
	local := filepath.FromSlash(name)
	if strings.ContainsRune(name, 0) || !filepath.IsLocal(local) {
		return 0, false
	}
	i := int32(len(d.Images))
	path := filepath.Join(dir, local)
	// Two spellings of one file ("a.jpg", "./a.jpg") are one image.
	if same, ok := known["\x00"+path]; ok {
		known[strings.Clone(name)] = same
		return same, true
	}
	owned := strings.Clone(name)
	known[owned], known["\x00"+path] = i, i
	d.Images = append(d.Images, Image{Name: owned, Path: path})
	return i, true
}

func isHeader(row []string) bool {
	if len(row) != len(pairsHeader) {
		return false
	}
	for i, want := range pairsHeader {
		if strings.TrimSpace(row[i]) != want {
			return false
		}
	}
	return true
}

// csvError reports a fault that makes the rest of the list unreadable.
func csvError(source string, err error) error {
	var fault *csv.ParseError
	if errors.As(err, &fault) {
		return fmt.Errorf("%w %s: line %d: %w", ErrDataSet, source, fault.Line, fault.Err)
	}
	return openError("list", source, err)
}

// clip shortens what is quoted from a file, which may be anything.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
