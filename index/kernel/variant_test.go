package kernel

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// use selects a variant for one test.
func use(t *testing.T, v variant) {
	t.Helper()
	before := current()
	t.Cleanup(func() { active.Store(uint32(before)) })
	if err := Select(v.String()); err != nil {
		t.Fatal(err)
	}
}

func TestSelect(t *testing.T) {
	names := Available()
	t.Logf("in use: %s, available: %s", Implementation(), strings.Join(names, ", "))
	if names[len(names)-1] != "reference" || names[0] != best().String() {
		t.Errorf("available: %v; want the best first and the reference last", names)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			before := current()
			t.Cleanup(func() { active.Store(uint32(before)) })
			if err := Select(name); err != nil {
				t.Fatal(err)
			}
			if got := Implementation(); got != name {
				t.Errorf("selected %s, got %s", name, got)
			}
		})
	}
	before := Implementation()
	for v := reference; v < variants; v++ {
		if lack := lacking(v); len(lack) > 0 {
			err := Select(v.String())
			if err == nil || !strings.Contains(err.Error(), lack[0]) {
				t.Errorf("%s, which lacks %v: %v", v, lack, err)
			}
		}
	}
	for _, name := range []string{"", "undecided", "avx1024", "AVX2"} {
		if err := Select(name); err == nil || !strings.Contains(err.Error(), "reference") {
			t.Errorf("name %q: %v; want an error that lists the choices", name, err)
		}
	}
	if got := Implementation(); got != before {
		t.Errorf("a refused selection changed %s to %s", before, got)
	}
}

// TestFlagship fails in CI when the best variant that the machine's own CPU
// claims to run, by the kernel's list of flags, is not among those tested.
func TestFlagship(t *testing.T) {
	if strings.Contains(strings.Join(lacking(variants-1), " "), "purego") {
		t.Skip("NOT RUN: this build has the reference alone")
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Skip("NOT RUN: no /proc/cpuinfo to hold the dispatch against")
	}
	var flags []string
	for line := range strings.Lines(string(info)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "flags" || strings.TrimSpace(key) == "Features" {
			flags = strings.Fields(value)
			break
		}
	}
	has := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(flags, n) })
	}
	want := reference
	switch {
	case runtime.GOARCH == "amd64" && has("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"):
		want = avx512vnni
	case runtime.GOARCH == "amd64" && has("avx2"):
		want = avx2
	case runtime.GOARCH == "arm64" && has("asimddp"):
		want = neon
	}
	t.Logf("flagship of this CPU: %s", want)
	if lack := lacking(want); len(lack) > 0 {
		report := t.Logf
		if os.Getenv("CI") == "true" {
			report = t.Errorf
		}
		report("the CPU's flags promise %s, which was NOT RUN for want of %s", want, strings.Join(lack, ", "))
	}
}
