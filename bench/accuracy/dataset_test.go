package accuracy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParsePairs(t *testing.T) {
	text := "\xef\xbb\xbffile_a, file_b ,mated\r\n" +
		"a/1.jpg,\"b, the second.jpg\",1\r\n" +
		"\r\n" +
		"\"with space.png\",./a/1.jpg, 0 \r\n" +
		"Ärger.jpg,a/../a/1.jpg,0"
	d, err := parsePairs(strings.NewReader(text), "list.csv", "dir")
	if err != nil {
		t.Fatal(err)
	}
	wantNames := []string{"a/1.jpg", "b, the second.jpg", "with space.png", "Ärger.jpg"}
	for i, name := range wantNames {
		if i >= len(d.Images) || d.Images[i].Name != name || d.Images[i].Path != filepath.Join("dir", name) {
			t.Fatalf("images %+v, want %q", d.Images, wantNames)
		}
	}
	want := []Pair{{0, 1, true}, {2, 0, false}, {3, 0, false}}
	if len(d.Images) != 4 || !reflect.DeepEqual(d.Pairs, want) || len(d.Notes) != 0 {
		t.Errorf("pairs %+v, notes %q, want %+v", d.Pairs, d.Notes, want)
	}
}

func TestParsePairsNotes(t *testing.T) {
	d, err := parsePairs(strings.NewReader("file_a,file_b,mated\na,b,1\nb,a,1\na,a,1\n"), "l", ".")
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Pairs) != 3 || len(d.Notes) != 2 || !strings.HasPrefix(d.Notes[0], "1 pairs are listed more than once") || !strings.HasPrefix(d.Notes[1], "1 pairs compare a file with itself") {
		t.Errorf("pairs %v, notes %q", d.Pairs, d.Notes)
	}
}

func TestParsePairsFaults(t *testing.T) {
	const head = "file_a,file_b,mated\n"
	tests := []struct{ name, text, want string }{
		{"empty", "", "the file is empty"},
		{"no pairs", head, "no pair below the header"},
		{"header", "a,b,same\nx,y,1\n", `line 1: the header is "a,b,same", it should be file_a,file_b,mated`},
		{"no header", "x.jpg,y.jpg,1\n", "line 1: the header is"},
		{"verdict", head + "a,b,1\na,c,yes\n", `line 3: mated is "yes", it should be 1`},
		{"verdict 2", head + "a,b,2\n", `line 2: mated is "2"`},
		{"columns", head + "a,b\n", "line 2: 2 columns, there should be 3"},
		{"more columns", head + "a,b,1,x\n", "line 2: 4 columns, there should be 3"},
		{"parent", head + "a,../b,1\n", `line 2: file_b "../b" is not a name inside the image folder`},
		{"hidden parent", head + "x/../../b,a,1\n", `line 2: file_a "x/../../b" is not`},
		{"absolute", head + "/etc/passwd,a,1\n", `line 2: file_a "/etc/passwd" is not`},
		{"no name", head + ",a,1\n", `line 2: file_a "" is not`},
		{"NUL", head + "a\x00b,a,1\n", "line 2: file_a"},
		{"contradiction", head + "a,b,1\nc,d,1\nb,a,0\n", "line 4: says the opposite of line 2"},
		{"quote", head + "a,b,1\n\"a,b,1\n", "line 3"},
		{"several", head + strings.Repeat("a,b,?\n", 9), "line 6: mated is \"?\", it should be 1 (same person) or 0; and 4 more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parsePairs(strings.NewReader(tt.text), "list.csv", "dir")
			if !errors.Is(err, ErrDataSet) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "list.csv") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzParsePairs(f *testing.F) {
	f.Add("file_a,file_b,mated\na,b,1\n")
	f.Add("\xef\xbb\xbffile_a,file_b,mated\r\n\"a\"\"\",../b,0\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parsePairs(strings.NewReader(text), "l", "dir")
		if err != nil {
			if !errors.Is(err, ErrDataSet) {
				t.Errorf("%v does not wrap ErrDataSet", err)
			}
			return
		}
		for _, img := range d.Images {
			if rel, err := filepath.Rel("dir", img.Path); err != nil || !filepath.IsLocal(rel) {
				t.Errorf("%q leads to %q", img.Name, img.Path)
			}
		}
		for _, p := range d.Pairs {
			if int(p.A) >= len(d.Images) || int(p.B) >= len(d.Images) {
				t.Errorf("pair %+v of %d images", p, len(d.Images))
			}
		}
	})
}

// tree writes empty files.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadFolders(t *testing.T) {
	dir := tree(t, "p1/a.JPG", "p1/later/b.png", "p1/notes.txt", "p1/.hidden.png", "p2/c d.pgm", "p3/readme", ".git/x.png", "loose.jpg", "list.csv")
	if err := os.Symlink(filepath.Join(dir, "p2"), filepath.Join(dir, "p4")); err != nil {
		t.Fatal(err)
	}
	d, err := ReadFolders(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, img := range d.Images {
		got = append(got, fmt.Sprintf("%s of %s", img.Name, d.People[img.Person]))
	}
	want := []string{"p1/a.JPG of p1", "p1/later/b.png of p1", "p2/c d.pgm of p2", "p4/c d.pgm of p4"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("images %q, want %q", got, want)
	}
	wantNotes := []string{
		"1 images directly in the folder belong to nobody and are left out",
		"2 files in people's folders are not images by their names and are left out",
		"1 folders hold no image",
	}
	if !reflect.DeepEqual(d.Notes, wantNotes) {
		t.Errorf("notes %q", d.Notes)
	}
	if err := d.CheckFiles(); err != nil {
		t.Error(err)
	}
}

func TestReadFoldersFaults(t *testing.T) {
	for name, dir := range map[string]string{
		"it should hold one folder per person": tree(t, "a.jpg", "b.jpg"),
		"has 1 images in folders":              tree(t, "p/a.jpg"),
		"cannot read the folder":               filepath.Join(t.TempDir(), "absent"),
	} {
		if _, err := ReadFolders(dir); !errors.Is(err, ErrDataSet) || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

func TestReadPairsFiles(t *testing.T) {
	dir := tree(t, "a.jpg", "b.jpg")
	list := filepath.Join(dir, "list.csv")
	text := "file_a,file_b,mated\na.jpg,b.jpg,1\n"
	for i := range 7 {
		text += fmt.Sprintf("a.jpg,gone%d.jpg,0\n", i)
	}
	if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := ReadPairs(list, dir)
	if err != nil {
		t.Fatal(err)
	}
	err = d.CheckFiles()
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "7 of 9: ") || !strings.Contains(err.Error(), "gone4.jpg and 2 more") {
		t.Errorf("got %v", err)
	}
	for want, args := range map[string][2]string{
		"cannot read the list":         {list + "x", dir},
		"cannot read the image folder": {list, dir + "x"},
		"is a file":                    {list, list},
	} {
		if _, err := ReadPairs(args[0], args[1]); !errors.Is(err, ErrDataSet) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	// A folder in the place of the list.
	if _, err := ReadPairs(dir, dir); !errors.Is(err, ErrDataSet) {
		t.Errorf("got %v", err)
	}
}
