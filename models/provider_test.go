package models

import (
	"errors"
	"strings"
	"testing"

	"github.com/menshen-io/menshen/models/internal/onnxtest"
)

// TestProvidersThatTheLibraryLacks: the library that fetch-runtime.sh installs
// has the CPU alone. With another library the models open.
func TestProvidersThatTheLibraryLacks(t *testing.T) {
	rt := testRuntime(t)
	for _, p := range append(Providers(), "gpu") {
		r, err := rt.NewRunner(t.Context(), &Resolved{Manifest: embedderManifest(BatchStatic), Data: onnxtest.MeanEmbedder(1)}, RunnerOptions{Provider: p, IntraOp: 1})
		if err == nil {
			if err := meanOf(t.Context(), r, 3); err != nil {
				t.Errorf("%s: %v", p, err)
			}
			r.Close()
			continue
		}
		switch {
		case p == ProviderCPU, !errors.Is(err, ErrProvider):
			t.Errorf("%s: %v", p, err)
		case p == "gpu":
			if !strings.Contains(err.Error(), "openvino") {
				t.Errorf("%s: %v", p, err)
			}
		case !strings.Contains(err.Error(), rt.Library()) || !strings.Contains(err.Error(), "--runtime"):
			t.Errorf("%s: no next step: %v", p, err)
		}
	}
}
