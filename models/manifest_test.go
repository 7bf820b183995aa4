package models

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

const goodManifest = `
name: my-model
kind: embedder
architecture: embedding
file: my.onnx
input: {width: 112, height: 112, layout: NCHW, color: RGB, mean: [127.5, 127.5, 127.5], scale: [0.5, 0.5, 0.5]}
output: {dimension: 512}
batch: dynamic
calibration:
  - {fmr: 0.001, score: 0.4, source: "measured on something"}
`

func TestManifestRoundTrip(t *testing.T) {
	m, err := ParseManifest([]byte(goodManifest))
	if err != nil {
		t.Fatal(err)
	}
	text, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseManifest(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if !reflect.DeepEqual(m, again) {
		t.Errorf("changed by a round trip:\n%+v\n%+v", m, again)
	}
	if m.ID() != "my-model@unpinned" {
		t.Errorf("id %q", m.ID())
	}
	m.SHA256 = strings.Repeat("ab", 32)
	if m.ID() != "my-model@abababababab" {
		t.Errorf("id %q", m.ID())
	}
}

func TestManifestRefuses(t *testing.T) {
	replace := func(old, new string) string {
		if !strings.Contains(goodManifest, old) {
			t.Fatalf("no %q in the good manifest", old)
		}
		return strings.Replace(goodManifest, old, new, 1)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"empty":          {"", "empty"},
		"not YAML":       {"\t{", ""},
		"a list":         {"- 1", ""},
		"unknown key":    {goodManifest + "colour: RGB\n", "colour"},
		"two documents":  {goodManifest + "---\n" + goodManifest, "more than one"},
		"no name":        {replace("name: my-model", ""), "name"},
		"upper case":     {replace("name: my-model", "name: My"), "name"},
		"path in name":   {replace("name: my-model", "name: ../x"), "name"},
		"kind":           {replace("kind: embedder", "kind: oracle"), "kind"},
		"architecture":   {replace("architecture: embedding", "architecture: yunet"), "architecture"},
		"path in file":   {replace("my.onnx", "../my.onnx"), "file"},
		"backslash":      {replace("file: my.onnx", `file: 'a\b.onnx'`), "file"},
		"dot dot":        {replace("my.onnx", ".."), "file"},
		"hash":           {goodManifest + "sha256: abc\n", "sha256"},
		"size":           {replace("width: 112", "width: 96"), "96x112"},
		"layout":         {replace("NCHW", "NHWC"), "layout"},
		"color":          {replace("RGB", "rgb"), "color"},
		"scale 0":        {replace("scale: [0.5, 0.5, 0.5]", "scale: [0.5, 0, 0.5]"), "scale[1]"},
		"mean NaN":       {replace("mean: [127.5,", "mean: [.nan,"), "mean[0]"},
		"four means":     {replace("mean: [127.5,", "mean: [127.5, 127.5,"), ""},
		"batch":          {replace("batch: dynamic", "batch: 4"), "batch"},
		"dimension":      {replace("dimension: 512", "dimension: 5000"), "dimension"},
		"threshold":      {goodManifest + "threshold: 80\n", "threshold"},
		"threshold NaN":  {goodManifest + "threshold: .nan\n", "threshold"},
		"calibration":    {replace("fmr: 0.001", "fmr: 0"), "fmr"},
		"no source":      {replace(`"measured on something"`, `" "`), "source"},
		"url":            {goodManifest + "source: {url: 'ftp://x/y'}\n", "source.url"},
		"member, no url": {goodManifest + "source: {archive_member: x}\n", "archive_member"},
		"negative side":  {replace("height: 112", "height: -112"), "sides"},
		"too long":       {goodManifest + "#" + strings.Repeat("x", maxManifestBytes), "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseManifest([]byte(tc.text))
			if !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v; want ErrManifest with %q", err, tc.want)
			}
		})
	}
}

func TestManifestNamesAllProblemsAtOnce(t *testing.T) {
	err := (&Manifest{}).Validate()
	if err == nil {
		t.Fatal("the zero manifest is valid")
	}
	for _, want := range []string{"name", "kind", "batch", "layout", "color", "scale[2]"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in: %v", want, err)
		}
	}
}

func TestPinnedManifests(t *testing.T) {
	ms, err := PinnedManifests()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]Manifest{}
	for _, m := range ms {
		byName[m.Name] = m
		if len(m.SHA256) != 64 || m.License == "" || m.LicenseURL == "" || m.Title == "" {
			t.Errorf("%s: hash, licence or title is missing", m.Name)
		}
		if !strings.HasPrefix(m.Source.URL, "https://") {
			t.Errorf("%s: source %q is not HTTPS", m.Name, m.Source.URL)
		}
		if m.Kind == KindEmbedder {
			if d, ok := byName[m.Detector]; !ok && m.Detector != "yunet-2023mar" || ok && d.Kind != KindDetector {
				t.Errorf("%s: recommended detector %q", m.Name, m.Detector)
			}
		}
		if strings.HasPrefix(m.Name, "insightface-") != m.NonCommercial {
			t.Errorf("%s: non_commercial %v", m.Name, m.NonCommercial)
		}
		if m.NonCommercial {
			// (127.5 +- 127.5 - 127.5) must reach -1 and 1.
			if hi := (255 - m.Input.Mean[0]) * m.Input.Scale[0]; math.Abs(float64(hi)-1) > 1e-6 {
				t.Errorf("%s: white becomes %v", m.Name, hi)
			}
		}
	}
	if y := byName["yunet-2023mar"]; y.Input.Color != ColorBGR || y.Input.Width != 640 || !strings.HasPrefix(y.SHA256, "8f2383e4dd3c") {
		t.Errorf("yunet: %+v", y)
	}
	if s := byName["sface-2021dec"]; s.Input.Color != ColorRGB || s.Output.Dimension != 128 || s.Input.Scale[0] != 1 || s.Threshold != 0.363 {
		t.Errorf("sface: %+v", s)
	}
}

func TestNameFromFile(t *testing.T) {
	for in, want := range map[string]string{
		"/a/b/Mobile Face.onnx":  "mobile-face",
		"w600k_r50.onnx":         "w600k_r50",
		"..hidden.onnx":          "hidden",
		"twice.onnx.onnx":        "model",
		"___.onnx":               "model",
		"脸.onnx":                 "model",
		strings.Repeat("x", 100): strings.Repeat("x", 63),
	} {
		got := nameFromFile(in)
		if got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
		if err := CheckName(got); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(goodManifest))
	f.Add([]byte("name: [\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			if !errors.Is(err, ErrManifest) {
				t.Errorf("not ErrManifest: %v", err)
			}
			return
		}
		text, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(text); err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
	})
}
