package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/menshen-io/menshen/bench/faces"
	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/reference"
)

// The committed projection is what this program writes. About a minute of CPU,
// so it runs where MENSHEN_REFIT is set. The features pass through ONNX
// Runtime, whose last bits differ between processors: on another kind of
// processor than the one that wrote the file, a few of the 800,000 weights may
// fall on the other side of a rounding.
func TestRefitGivesTheCommittedFile(t *testing.T) {
	if os.Getenv("MENSHEN_REFIT") == "" {
		t.Skip("the fit is not repeated: set MENSHEN_REFIT=1 (about a minute of CPU)")
	}
	want, err := os.ReadFile(filepath.Join(fixtures.ModuleRoot(t), "models", "reference", "projection.bin"))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "projection.bin")
	if err := fit(out); errors.Is(err, models.ErrRuntimeMissing) {
		t.Skipf("the fit is not repeated: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d bytes, committed %d", len(got), len(want))
	}
	if bytes.Equal(got, want) {
		return
	}
	differ := 0
	for i := range got {
		if got[i] != want[i] {
			differ++
		}
	}
	t.Logf("%d of %d bytes differ from the committed file", differ, len(got))
	if differ > len(got)/50 {
		t.Errorf("%d of %d bytes differ from the committed file: it was not made by this program; run it and commit the result", differ, len(got))
	}
}

// Two runs over a few people give equal features in the order Fit wants:
// person by person, shot by shot.
func TestFeaturesAreInOrder(t *testing.T) {
	g := faces.New(2)
	rows, err := features(g, 3, 2)
	if errors.Is(err, models.ErrRuntimeMissing) {
		t.Skipf("the features are not computed: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 6 || len(rows[0]) != reference.FeatureLength {
		t.Fatalf("%d rows of %d values", len(rows), len(rows[0]))
	}
	first, err := features(g, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	for k := range first {
		for i := range first[k] {
			if first[k][i] != rows[k][i] {
				t.Fatalf("shot %d of person 0: value %d differs between two runs", k, i)
			}
		}
	}
}
