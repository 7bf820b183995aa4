package reference

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"testing"
)

// The hash is the model's identity: templates name it. If this fails after an
// intended change of the network, pin the new hash in model.go and say in the
// changelog that templates of the old reference model no longer match.
func TestModelBytesArePinned(t *testing.T) {
	model, err := Model()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(model)
	if got := hex.EncodeToString(sum[:]); got != modelSHA256 {
		t.Errorf("sha256 of the model = %s, pinned %s", got, modelSHA256)
	}
	again, err := Model()
	if err != nil || !bytes.Equal(model, again) {
		t.Errorf("two calls differ (err %v)", err)
	}
	if len(model) > 2<<20 {
		t.Errorf("the model has %d bytes, at most 2 MiB are wanted in a binary", len(model))
	}
}

func TestManifestIsValid(t *testing.T) {
	m := Manifest()
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	if !m.Evaluation || m.NonCommercial || m.Output.Dimension != Dimension || m.ID() != Name+"@"+modelSHA256[:12] {
		t.Errorf("manifest %+v", m)
	}
	if m.Threshold <= 0 || m.Threshold >= 1 || len(m.Calibration) < 3 {
		t.Fatalf("threshold %v with %d calibration points", m.Threshold, len(m.Calibration))
	}
	for i := 1; i < len(m.Calibration); i++ {
		a, b := m.Calibration[i-1], m.Calibration[i]
		if b.FMR >= a.FMR || b.Score <= a.Score || b.Source == "" {
			t.Errorf("calibration points %d and %d are not in order: %+v, %+v", i-1, i, a, b)
		}
	}
	f := FeatureManifest()
	if err := f.Validate(); err != nil {
		t.Error(err)
	}
}

func TestWeightsStandOnTheGrid(t *testing.T) {
	check := func(name string, w []float32) {
		for i, v := range w {
			if x := float64(v) * 65536; x != math.Trunc(x) || math.IsNaN(x) {
				t.Errorf("%s[%d] = %v is no multiple of 2^-16", name, i, v)
				return
			}
		}
	}
	check("gaussian", gaussian(contrastSigma))
	check("luma", luma())
	for _, s := range scales() {
		w, edge := gaborBank(s.wavelength, orientations)
		if len(w) != 2*orientations*edge*edge {
			t.Fatalf("%s: %d weights for edge %d", s.name, len(w), edge)
		}
		check(s.name, w)
		for k := range 2 * orientations {
			sum := 0.0
			for _, v := range w[k*edge*edge : (k+1)*edge*edge] {
				sum += float64(v)
			}
			if math.Abs(sum) > 2e-3 {
				t.Errorf("%s filter %d answers constant light with %v", s.name, k, sum)
			}
		}
	}
}

func TestProjectionFileIsChecked(t *testing.T) {
	p, err := decodeProjection(projectionFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.encode(), projectionFile) {
		t.Error("decoding and encoding again changes the file")
	}
	flip := func(i int) []byte {
		b := bytes.Clone(projectionFile)
		b[i] ^= 4
		return b
	}
	q := *p
	q.mean = q.mean[1:]
	for name, b := range map[string][]byte{
		"empty":           nil,
		"truncated":       projectionFile[:len(projectionFile)-1],
		"one weight off":  flip(len(projectionFile) / 2),
		"magic":           flip(0),
		"checksum":        flip(len(projectionFile) - 1),
		"other dimension": q.encode(),
	} {
		if _, err := decodeProjection(b); !errors.Is(err, ErrProjection) {
			t.Errorf("%s: error %v, want ErrProjection", name, err)
		}
	}
	if p.fittedTo != sha256.Sum256(FeatureModel()) {
		t.Error("the projection was fitted to other features: go run ./bench/faces/fitreference")
	}
}
