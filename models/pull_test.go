package models

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pullRegistry has one pinned model, "m", that stands at url.
func pullRegistry(t *testing.T, src Source, sum string) *Registry {
	t.Helper()
	r := testRegistry(t, nil)
	m := embedderManifest(BatchStatic)
	m.Name, m.File, m.SHA256, m.Source = "m", "m.onnx", sum, src
	r.pinned = []Manifest{m}
	return r
}

func zipOf(t *testing.T, members map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	zw := zip.NewWriter(&buf)
	for name, data := range members {
		w, err := zw.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestPull(t *testing.T) {
	body := bytes.Repeat([]byte("model "), 100_000)
	var served int
	mux := http.NewServeMux()
	mux.HandleFunc("/m.onnx", func(w http.ResponseWriter, _ *http.Request) { served++; _, _ = w.Write(body) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/m.onnx", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://models.example/m.onnx", http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("short"))
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(body); err != nil {
				return
			}
		}
	})
	serve := func(path string, data []byte) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })
	}
	serve("/pack.zip", zipOf(t, map[string]string{"pack/m.onnx": string(body), "pack/other.onnx": "x"}))
	serve("/twins.zip", zipOf(t, map[string]string{"a/m.onnx": string(body), "b/m.onnx": "x"}))
	serve("/empty.zip", zipOf(t, nil))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	sum := hashOf(body)
	size := int64(len(body))

	for name, tc := range map[string]struct {
		src  Source
		sum  string
		want error // nil: it arrives
		text string
	}{
		"file":             {Source{URL: srv.URL + "/m.onnx", Size: size}, sum, nil, ""},
		"size not known":   {Source{URL: srv.URL + "/m.onnx"}, sum, nil, ""},
		"redirect":         {Source{URL: srv.URL + "/moved"}, sum, nil, ""},
		"zip":              {Source{URL: srv.URL + "/pack.zip", ArchiveMember: "pack/m.onnx"}, sum, nil, ""},
		"zip, base name":   {Source{URL: srv.URL + "/pack.zip", ArchiveMember: "m.onnx"}, sum, nil, ""},
		"zip, two of them": {Source{URL: srv.URL + "/twins.zip", ArchiveMember: "m.onnx"}, sum, ErrPull, "2 files"},
		"zip without it":   {Source{URL: srv.URL + "/empty.zip", ArchiveMember: "m.onnx"}, sum, ErrPull, "0 files"},
		"not a zip":        {Source{URL: srv.URL + "/m.onnx", ArchiveMember: "m.onnx"}, sum, ErrPull, "not a zip"},
		"wrong hash":       {Source{URL: srv.URL + "/m.onnx"}, strings.Repeat("1", 64), ErrHashMismatch, "nothing was kept"},
		"not found":        {Source{URL: srv.URL + "/none"}, sum, ErrPull, "404"},
		"larger than said": {Source{URL: srv.URL + "/m.onnx", Size: 100}, sum, ErrPull, "more than 100"},
		"endless":          {Source{URL: srv.URL + "/endless", Size: 1000}, sum, ErrPull, "more than 1000"},
		"cut short":        {Source{URL: srv.URL + "/cut"}, sum, ErrPull, "EOF"},
		"plain HTTP":       {Source{URL: "http://models.example/m.onnx"}, sum, ErrPull, "not HTTPS"},
		"redirect to HTTP": {Source{URL: srv.URL + "/away"}, sum, ErrPull, "not HTTPS"},
		"redirect loop":    {Source{URL: srv.URL + "/loop"}, sum, ErrPull, "redirects"},
		"no source":        {Source{}, sum, ErrPull, "import"},
		"no hash":          {Source{URL: srv.URL + "/m.onnx"}, "", ErrPull, "pins no sha256"},
	} {
		t.Run(name, func(t *testing.T) {
			r := pullRegistry(t, tc.src, tc.sum)
			var last int64
			err := r.Pull(t.Context(), "m", func(done, total int64) {
				if done < last || total > 0 && done > total {
					t.Errorf("progress %d of %d after %d", done, total, last)
				}
				last = done
			})
			if tc.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Verify(t.Context(), "m"); err != nil {
					t.Error(err)
				}
				if last == 0 {
					t.Error("no progress was told")
				}
			} else if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v; want %v with %q", err, tc.want, tc.text)
			}
			files, _ := os.ReadDir(r.Dir())
			if want := map[bool]int{true: 1, false: 0}[tc.want == nil]; len(files) != want {
				t.Errorf("%d files left, want %d: %v", len(files), want, files)
			}
		})
	}

	t.Run("again", func(t *testing.T) {
		r := pullRegistry(t, Source{URL: srv.URL + "/m.onnx"}, sum)
		if err := r.Pull(t.Context(), "m", nil); err != nil {
			t.Fatal(err)
		}
		before := served
		if err := r.Pull(t.Context(), "m", nil); err != nil || served != before {
			t.Errorf("present, fetched again: %v, %d", err, served-before)
		}
		write(t, filepath.Join(r.Dir(), "m.onnx"), []byte("damage"))
		if err := r.Pull(t.Context(), "m", nil); err != nil || served != before+1 {
			t.Errorf("damaged, not fetched again: %v, %d", err, served-before)
		}
	})

	t.Run("cancelled", func(t *testing.T) {
		r := pullRegistry(t, Source{URL: srv.URL + "/endless"}, sum)
		ctx, cancel := context.WithCancel(t.Context())
		err := r.Pull(ctx, "m", func(int64, int64) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
		if files, _ := os.ReadDir(r.Dir()); len(files) != 0 {
			t.Errorf("left: %v", files)
		}
	})

	t.Run("folder that cannot be made", func(t *testing.T) {
		r := pullRegistry(t, Source{URL: srv.URL + "/m.onnx"}, sum)
		r.dir = filepath.Join(write(t, filepath.Join(t.TempDir(), "file"), nil), "models")
		if err := r.Pull(t.Context(), "m", nil); !errors.Is(err, ErrPull) || !strings.Contains(err.Error(), "folder") {
			t.Errorf("got %v", err)
		}
	})
	if err := testRegistry(t, nil).Pull(t.Context(), "nobody", nil); !errors.Is(err, ErrUnknownModel) {
		t.Errorf("unknown model: %v", err)
	}
}
