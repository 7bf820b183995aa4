package cost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// ErrSource: the sources cannot be built, or are not what is known of them; the
// text says what to do.
var ErrSource = errors.New("cannot build the servers that are compared")

// Without names what a server leaves out.
type Without string

// The servers that are compared.
const (
	Nothing  Without = "nothing"
	Sealing  Without = "sealing"
	Auditing Without = "auditing"
	Both     Without = "both"
)

// All servers, in the order in which they are started.
var All = []Without{Nothing, Sealing, Auditing, Both}

// change gives a function another body.
type change struct{ file, function, body string }

// What is left out. Sealed records keep their length, so that the disk has as much
// to do. Counts and digests of records stay: they are no seal.
var (
	unsealed = []change{
		{"index/keyring/xchacha.go", "sealRecord", "return append(make([]byte, SealOverhead, len(plain)+SealOverhead), plain...), nil"},
		{"index/keyring/xchacha.go", "openRecord", "if len(sealed) < SealOverhead {\n\treturn nil, ErrSealed\n}\nreturn append([]byte(nil), sealed[SealOverhead:]...), nil"},
	}
	unaudited = []change{{"matcher/rpc/act.go", "account", "return do(ctx)"}}
)

func (w Without) changes() []change {
	switch w {
	case Sealing:
		return unsealed
	case Auditing:
		return unaudited
	case Both:
		return slices.Concat(unsealed, unaudited)
	}
	return nil
}

// Build builds the menshen of the source tree that holds source, leaving out what
// is said, as file. It needs Go and takes about ten seconds. Error: ErrSource.
func Build(ctx context.Context, source string, without Without, file string) error {
	dir, err := os.MkdirTemp("", "menshen-bench-build-")
	if err != nil {
		return fmt.Errorf("%w: %v", ErrSource, err)
	}
	defer os.RemoveAll(dir)
	mod, err := output(ctx, source, "go", "env", "GOMOD")
	root := filepath.Dir(strings.TrimSpace(mod))
	if err == nil {
		_, err = os.Stat(filepath.Join(root, "cmd", "menshen"))
	}
	if err != nil {
		return fmt.Errorf("%w: %s is not inside Menshen's source tree, or there is no Go: %v; name the tree with --source", ErrSource, source, err)
	}
	files := map[string][]byte{} // by place in the tree
	for _, c := range without.changes() {
		text := files[c.file]
		if text == nil {
			if text, err = os.ReadFile(filepath.Join(root, c.file)); err != nil {
				return fmt.Errorf("%w: %v", ErrSource, err)
			}
		}
		if files[c.file], err = replaceBody(text, c); err != nil {
			return err
		}
	}
	replace := map[string]string{}
	for place, text := range files {
		at := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(at, text, 0o600); err != nil {
			return fmt.Errorf("%w: %v", ErrSource, err)
		}
		replace[filepath.Join(root, place)] = at
	}
	overlay, _ := json.Marshal(map[string]any{"Replace": replace}) // strings alone
	listed := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(listed, overlay, 0o600); err != nil {
		return fmt.Errorf("%w: %v", ErrSource, err)
	}
	args := []string{"build", "-buildvcs=false", "-trimpath", "-overlay", listed, "-tags", tags(), "-ldflags", "-X main.version=without-" + string(without), "-o", file, "./cmd/menshen"}
	if _, err := output(ctx, root, "go", args...); err != nil {
		return fmt.Errorf("%w: without %s: %v", ErrSource, without, err)
	}
	return nil
}

// replaceBody gives a function another body. The old one stays under another
// name, so that the file goes on to use what it imports.
func replaceBody(text []byte, c change) ([]byte, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, c.file, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrSource, err)
	}
	for _, d := range tree.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || fn.Name.Name != c.function {
			continue
		}
		at := func(p token.Pos) int { return set.Position(p).Offset }
		var out bytes.Buffer
		out.Write(text[:at(fn.Name.End())])
		out.WriteString("AsItIs")
		out.Write(text[at(fn.Name.End()):])
		fmt.Fprintf(&out, "\n%s{\n%s\n}\n", text[at(fn.Pos()):at(fn.Body.Lbrace)], c.body)
		return out.Bytes(), nil
	}
	return nil, fmt.Errorf("%w: %s has no function %s any more; say in bench/cost what is to be left out instead", ErrSource, c.file, c.function)
}

// tags are the build tags of this program, which the servers get too.
func tags() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-tags" {
				return s.Value
			}
		}
	}
	return ""
}

// output runs a program and returns what it prints; what it complains of is in
// the error.
func output(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, bytes.TrimSpace(complaints.Bytes()))
	}
	return string(out), nil
}
