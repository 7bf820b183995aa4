package accuracy

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// imageSuffixes are the file names that count as images in folders.
var imageSuffixes = []string{".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".pnm"}

// ReadFolders reads a data set of one folder per person: every folder directly
// in dir is a person, and every image file below it, at any depth, is an image of
// that person. Images are told by their names (JPEG, PNG, PGM, PPM); other files,
// hidden ones and files directly in dir are left out, with a note. A folder that
// is a symbolic link counts as the folder that it leads to.
//
// Errors wrap ErrDataSet: fewer than two images, a folder that cannot be read,
// more comparisons than MaxComparisons.
func ReadFolders(dir string) (*DataSet, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, openError("folder", dir, err)
	}
	d := &DataSet{Kind: Folders, Source: dir}
	ignored, loose, empty := 0, 0, 0
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		info, err := os.Stat(path)
		if err != nil {
			return nil, openError("folder", path, err)
		}
		if !info.IsDir() {
			if isImageName(entry.Name()) {
				loose++
			}
			continue
		}
		names, other, err := imagesBelow(path)
		if err != nil {
			return nil, err
		}
		ignored += other
		if len(names) == 0 {
			empty++
			continue
		}
		for _, name := range names {
			d.Images = append(d.Images, Image{
				Name:   entry.Name() + "/" + filepath.ToSlash(name),
				Path:   filepath.Join(path, name),
				Person: len(d.People),
			})
		}
		d.People = append(d.People, entry.Name())
	}
	switch n := len(d.Images); {
	case n < 2:
		return nil, fmt.Errorf("%w: %s has %d images in folders; it should hold one folder per person, with that person's images (%s)", ErrDataSet, dir, n, strings.Join(imageSuffixes, " "))
	case n*(n-1)/2 > MaxComparisons:
		return nil, fmt.Errorf("%w: %s has %d images, which is more than %d comparisons; measure a part of it, or give --pairs", ErrDataSet, dir, n, MaxComparisons)
	}
	for _, note := range []struct {
		count int
		text  string
	}{
		{loose, "%d images directly in the folder belong to nobody and are left out"},
		{ignored, "%d files in people's folders are not images by their names and are left out"},
		{empty, "%d folders hold no image"},
	} {
		if note.count > 0 {
			d.Notes = append(d.Notes, fmt.Sprintf(note.text, note.count))
		}
	}
	return d, nil
}

// imagesBelow returns the image files below dir, sorted, relative to it, and how
// many other visible files there are.
func imagesBelow(dir string) (names []string, other int, err error) {
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return openError("folder", filepath.Join(dir, name), err)
		}
		if name != "." && strings.HasPrefix(entry.Name(), ".") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		switch {
		case entry.IsDir():
		case isImageName(entry.Name()):
			names = append(names, filepath.FromSlash(name))
		default:
			other++
		}
		return nil
	})
	slices.Sort(names)
	return names, other, err
}

func isImageName(name string) bool {
	return slices.Contains(imageSuffixes, strings.ToLower(filepath.Ext(name)))
}
