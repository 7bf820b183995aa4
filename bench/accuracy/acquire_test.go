package accuracy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// extractorFunc lets a function stand for the models.
type extractorFunc func(ctx context.Context, path string) (Face, error)

func (f extractorFunc) Extract(ctx context.Context, path string) (Face, error) { return f(ctx, path) }

func TestAcquire(t *testing.T) {
	dir := tree(t, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
	d := &DataSet{Kind: Pairs}
	for _, name := range []string{"a.jpg", "b.jpg", "c.jpg", "d.jpg", "gone.jpg"} {
		d.Images = append(d.Images, Image{Name: name, Path: filepath.Join(dir, name)})
	}
	extract := extractorFunc(func(_ context.Context, path string) (Face, error) {
		switch filepath.Base(path) {
		case "a.jpg":
			return Face{Embedding: []float32{3, 4}, Faces: 1}, nil
		case "b.jpg":
			return Face{Embedding: []float32{0, -2}, Faces: 3}, nil
		case "c.jpg":
			return Face{Embedding: []float32{0, 0}, Faces: 1}, nil
		case "d.jpg":
			return Face{}, fmt.Errorf("%w: no face found", ErrNotAcquired)
		}
		return Face{}, errors.New("asked for a missing file")
	})
	for _, workers := range []int{1, 4} {
		var steps atomic.Int64
		a, err := Acquire(t.Context(), d, extract, workers, func() { steps.Add(1) })
		if err != nil {
			t.Fatal(err)
		}
		if e := a.Embeddings; math.Abs(float64(e[0][0])-0.6) > 1e-6 || math.Abs(float64(e[0][1])-0.8) > 1e-6 || e[1][1] != -1 || e[2] != nil || e[3] != nil || e[4] != nil {
			t.Errorf("embeddings %v", e)
		}
		want := []Failure{{"c.jpg", "the embedding is zero"}, {"d.jpg", "no face found"}, {"gone.jpg", "the file is missing"}}
		if fmt.Sprint(a.Failures) != fmt.Sprint(want) {
			t.Errorf("failures %v, want %v", a.Failures, want)
		}
		if a.MultipleFaces != 1 || steps.Load() != 5 {
			t.Errorf("%d with several faces, %d steps", a.MultipleFaces, steps.Load())
		}
	}
}

func TestAcquireFaults(t *testing.T) {
	dir := tree(t, "a.jpg", "b.jpg")
	d := &DataSet{Images: []Image{{Name: "a.jpg", Path: filepath.Join(dir, "a.jpg")}, {Name: "b.jpg", Path: filepath.Join(dir, "b.jpg")}}}
	broken := errors.New("the session is closed")
	tests := []struct {
		name    string
		extract extractorFunc
		is      error
		want    string
	}{
		{"model", func(context.Context, string) (Face, error) { return Face{}, broken }, broken, ".jpg: the session is closed"},
		{"empty", func(context.Context, string) (Face, error) { return Face{}, nil }, ErrEmbedding, "empty"},
		{"NaN", func(context.Context, string) (Face, error) {
			return Face{Embedding: []float32{1, float32(math.NaN())}}, nil
		}, ErrEmbedding, "not finite"},
	}
	for _, tt := range tests {
		if _, err := Acquire(t.Context(), d, tt.extract, 2, nil); !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	uneven := extractorFunc(func(_ context.Context, path string) (Face, error) {
		if filepath.Base(path) == "a.jpg" {
			return Face{Embedding: []float32{1}}, nil
		}
		return Face{Embedding: []float32{1, 2}}, nil
	})
	if _, err := Acquire(t.Context(), d, uneven, 2, nil); !errors.Is(err, ErrEmbedding) || !strings.Contains(err.Error(), "must give one length") {
		t.Errorf("lengths: got %v", err)
	}
}

func TestAcquireStops(t *testing.T) {
	dir := tree(t, "a.jpg")
	d := &DataSet{}
	for range 1000 {
		d.Images = append(d.Images, Image{Name: "a.jpg", Path: filepath.Join(dir, "a.jpg")})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running, calls atomic.Int64
	_, err := Acquire(ctx, d, extractorFunc(func(ctx context.Context, _ string) (Face, error) {
		running.Add(1)
		defer running.Add(-1)
		if calls.Add(1) == 3 {
			cancel()
		}
		select {
		case <-ctx.Done():
			return Face{}, ctx.Err()
		case <-time.After(time.Millisecond):
			return Face{Embedding: []float32{1}}, nil
		}
	}), 4, nil)
	if !errors.Is(err, context.Canceled) || calls.Load() > 50 || running.Load() != 0 {
		t.Errorf("%v after %d calls, %d still running", err, calls.Load(), running.Load())
	}
}
