package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptOperates runs the commands of a chapter of a page and compares what each
// prints with what the page says: operates FILE CHAPTER. A command is an indented
// line that begins with "$ "; what follows is its output, in which "..." stands
// for any lines, and times, numbers and digests for others of their kind. An
// assignment holds for the rest of the chapter.
func scriptOperates(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: operates file chapter")
	}
	page, err := os.ReadFile(args[0])
	ts.Check(err)
	_, text, ok := strings.Cut(string(page), "\n## "+args[1]+"\n")
	if !ok {
		ts.Fatalf("%s has no chapter %q", args[0], args[1])
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var assigned, command string
	var want []string
	receipts := map[string]string{} // as the page calls them, and as they are called in this run
	ran, wrong := 0, 0
	check := func() {
		if command == "" {
			return
		}
		for here, now := range receipts {
			command = strings.ReplaceAll(command, here, now)
		}
		err := ts.Exec("bash", "-c", "exec 2>&1\n"+assigned+command)
		got := strings.Split(strings.TrimRight(ts.ReadFile("stdout"), "\n"), "\n")
		if err != nil {
			ts.Fatalf("%s\n%v", command, err)
		}
		if regexp.MustCompile(`^[A-Z]+=`).MatchString(command) {
			assigned += command + "\n"
		} else if !printsAs(got, want) {
			ts.Logf("WRONG: %s\nprints\n%s\nand the page says\n%s", command, strings.Join(got, "\n"), strings.Join(want, "\n"))
			wrong++
		}
		if here, now := nameOfReceipt.FindString(strings.Join(want, " ")), nameOfReceipt.FindString(strings.Join(got, " ")); here != "" {
			receipts[here] = now
		}
		command, want = "", nil
		ran++
	}
	for line := range strings.Lines(text) {
		line, indented := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		next, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case !indented || isCommand:
			check()
			if isCommand && indented {
				command = next
			}
		case command != "":
			want = append(want, line)
		}
	}
	check()
	if ran == 0 || wrong > 0 {
		ts.Fatalf("%q: %d of %d commands print something else than the page says", args[1], wrong, ran)
	}
}

// printsAs compares lines; "..." in what is wanted stands for any number of them.
func printsAs(got, want []string) bool {
	switch {
	case len(want) == 0:
		return len(got) == 0 || len(got) == 1 && got[0] == ""
	case want[0] == "...":
		for i := range len(got) + 1 {
			if rest := got[i:]; printsAs(rest, want[1:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && kindOf(got[0]) == kindOf(want[0]) && printsAs(got[1:], want[1:])
}

// volatile is what another run prints otherwise: names of receipts and credentials,
// times, digests, fractions, sizes of files.
var volatile = regexp.MustCompile(`receipts/[a-z]+-\d+|\b[a-z2-7]{16}\b|\d{4}-\d\d-\d\dT[\d:.]+Z|\b[0-9a-f]{8,}\b|\d+\.\d+|\b\d+ (bytes|files|records)`)

// nameOfReceipt finds the name of a receipt.
var nameOfReceipt = regexp.MustCompile(`tenants/[a-z]+/receipts/[a-z]+-\d+`)

// kindOf is a line without what is volatile, and with single spaces.
func kindOf(line string) string {
	return strings.Join(strings.Fields(volatile.ReplaceAllString(line, "#$1")), " ")
}

// TestThreatModelNamesTests: the threat model points to tests that exist.
func TestThreatModelNamesTests(t *testing.T) {
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "THREAT-MODEL.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, "_test.go") {
			code, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, found := range regexp.MustCompile(`(?m)^func ((Test|Fuzz)\w+)\(`).FindAllSubmatch(code, -1) {
				there[string(found[1])] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((Test|Fuzz)\\w+)`").FindAllStringSubmatch(string(page), -1)
	if len(named) < 40 {
		t.Errorf("only %d tests are named", len(named))
	}
	for _, name := range named {
		if !there[name[1]] {
			t.Errorf("there is no %s", name[1])
		}
	}
}
