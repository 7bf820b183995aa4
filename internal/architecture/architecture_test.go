package architecture

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/menshen-io/menshen/internal/fixtures"
)

const module = "github.com/menshen-io/menshen/"

// pkg is what `go list` tells of a package of the module.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	CgoFiles   []string
	Imports    []string
}

func (p pkg) name() string { return strings.TrimPrefix(p.ImportPath, module) }

func packages(t *testing.T, flags ...string) []pkg {
	t.Helper()
	args := append([]string{"list", "-json=ImportPath,Dir,GoFiles,CgoFiles,Imports"}, flags...)
	cmd := exec.Command("go", append(args, "./...")...)
	cmd.Dir = fixtures.ModuleRoot(t)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Logf("%s", exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	return all
}

// under reports whether a path is one of the roots or below one.
func under(path string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return path == root || strings.HasPrefix(path, root+"/")
	})
}

// A ban keeps imports to the rooms that may have them.
type ban struct {
	imports []string // these and what is below them
	only    []string // may be imported by these rooms alone
	reason  string
}

var bans = []ban{
	{[]string{"github.com/dgraph-io/badger"}, []string{"index/store"},
		"where records are kept is the store's secret: a replicated log must be able to take its place"},
	{[]string{"google.golang.org/grpc", module + "proto"}, []string{"matcher/rpc", "cmd", "proto", "bench/target", "bench/load", "bench/inference", "bench/revoke", "bench/cost"},
		"the product must not know its transport: matcher works on its own types; benchmarks of the service are its clients"},
	{[]string{"google.golang.org/protobuf"}, []string{"matcher/rpc", "cmd", "proto", "bench/target", "bench/load", "bench/inference", "bench/cost", "models/reference", "models/internal"},
		"protobuf is the transport's and, as a wire format, ONNX's"},
	{[]string{"github.com/yalue/onnxruntime_go"}, []string{"models", "bench/inference"},
		"C is called in one place, where its memory and its threads are accounted for; a benchmark compares with the library itself"},
	{[]string{"github.com/spf13", "github.com/vbauerster/mpb", "github.com/knadh/koanf"}, []string{"cmd"},
		"flags, files and terminals belong to the commands; libraries take values"},
	{[]string{"github.com/tink-crypto/tink-go"}, []string{"index/keyring"},
		"who holds keys seals and opens; nobody else sees one"},
	{[]string{"filippo.io/age"}, []string{"matcher/backup"},
		"who can read a backup is decided in one room"},
	{[]string{"gocloud.dev"}, []string{"index/keyring/kms"},
		"what a key management service brings along stays in one room"},
}

func TestBans(t *testing.T) {
	for _, p := range packages(t) {
		for _, b := range bans {
			for _, imp := range p.Imports {
				if under(imp, b.imports...) && !under(p.name(), b.only...) {
					t.Errorf("%s imports %s; only %s may: %s", p.name(), imp, strings.Join(b.only, ", "), b.reason)
				}
			}
		}
	}
}

// A layer may import what it lists, of this module. Arrows point down only.
var layers = []struct {
	room    string
	imports []string
	reason  string
}{
	{"index/kernel", nil, "the kernel is arithmetic: the standard library and x/sys/cpu alone"},
	{"index/scope", nil, "what a scope is rests on nothing"},
	{"index/code", []string{"index/kernel"}, "a code knows neither galleries nor disks"},
	{"index/reserve", nil, "reserved room knows nothing of whom it is kept for"},
	{"index/keyring", []string{"index/scope", "index/reserve"}, "keys know scopes, not what is sealed under them"},
	{"index/store", []string{"index/scope", "index/keyring", "index/reserve"}, "the store knows keys of records, not their meaning"},
	{"index", []string{"index"}, "the index knows nothing of models and callers"},
	{"models", []string{"models"}, "the models know nothing of scopes, galleries and callers"},
	{"matcher/auth", []string{"index/scope", "index/store", "matcher/idempotency"}, "credentials become grants without knowing what grants are for"},
	{"matcher/idempotency", nil, "request ids know nothing of what they protect"},
	{"matcher/notice", nil, "a notice is written from facts alone"},
	{"matcher/scour", nil, "scouring the memory asks nobody whose it was"},
	{"matcher/signing", nil, "what is signed is the signer's matter"},
	{"matcher/canary", []string{"index"}, "the canary looks at galleries and rotations, not at subjects and their records"},
	{"matcher/receipt", []string{"index/scope", "matcher/signing"}, "a receipt is read offline, without the service"},
	{"matcher/backup", nil, "encryption knows nothing of what it encrypts"},
	{"matcher/audit", []string{"index/scope", "matcher/signing"}, "the log is verified offline, without the service"},
	{"matcher", []string{"matcher", "index", "models", "proto"}, "the product does not know commands and benchmarks"},
	{"bench", []string{"bench", "models", "index", "proto"}, "what benchmarks are made of does not serve"},
}

func TestArrowsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		for _, l := range layers {
			if !under(p.name(), l.room) {
				continue
			}
			for _, imp := range p.Imports {
				inner, ours := strings.CutPrefix(imp, module)
				if ours && !under(inner, append([]string{l.room}, l.imports...)...) {
					t.Errorf("%s imports %s: %s", p.name(), inner, l.reason)
				}
			}
		}
	}
}

// C of our own is called in one place: the picture decoder that is built in with
// the tag turbo. Its caller bounds the picture's size, its memory and how many
// are decoded at once, and the library catches its own jumps.
func TestOnlyTheDecoderCallsC(t *testing.T) {
	for _, p := range packages(t, "-tags=turbo") {
		if len(p.CgoFiles) > 0 && p.name() != "models/decode" {
			t.Errorf("%s calls C in %s; only models/decode does, and ONNX Runtime through its binding in models", p.name(), strings.Join(p.CgoFiles, ", "))
		}
	}
}

func TestKernelImportsAlmostNothing(t *testing.T) {
	for _, p := range packages(t) {
		if !under(p.name(), "index/kernel") {
			continue
		}
		for _, imp := range p.Imports {
			if strings.Contains(imp, ".") && imp != "golang.org/x/sys/cpu" {
				t.Errorf("%s imports %s; the kernel imports the standard library and x/sys/cpu alone", p.name(), imp)
			}
		}
	}
}

// Grants are minted where callers are authenticated and nowhere else: a Mint
// in a handler or in the matcher would be a way around authorisation.
func TestOnlyAuthMintsGrants(t *testing.T) {
	calls(t, func(p pkg, file, qualifier, name string) {
		if qualifier == "scope" && strings.HasPrefix(name, "Mint") && !under(p.name(), "matcher/auth", "bench", "cmd/menshen-bench") {
			t.Errorf("%s/%s calls scope.%s; only matcher/auth mints grants (and benchmarks, which serve nobody)", p.name(), file, name)
		}
	})
}

// Libraries return errors; only a main ends its process.
func TestLibrariesDoNotExit(t *testing.T) {
	calls(t, func(p pkg, file, qualifier, name string) {
		exits := qualifier == "os" && name == "Exit" || qualifier == "log" && (strings.HasPrefix(name, "Fatal") || strings.HasPrefix(name, "Panic"))
		if exits && !under(p.name(), "cmd") && !strings.Contains(p.name(), "/fit") {
			t.Errorf("%s/%s calls %s.%s; a library returns an error instead", p.name(), file, qualifier, name)
		}
	})
}

// calls visits every call of a package-qualified function outside tests.
func calls(t *testing.T, visit func(p pkg, file, qualifier, name string)) {
	t.Helper()
	for _, p := range packages(t) {
		for _, file := range append(p.GoFiles, p.CgoFiles...) {
			tree, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(tree, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					if id, ok := sel.X.(*ast.Ident); ok {
						visit(p, file, id.Name, sel.Sel.Name)
					}
				}
				return true
			})
		}
	}
}
