package models

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-io/menshen/models/internal/onnxtest"
)

// testRuntime returns the ONNX Runtime, or skips the test where the library has
// not been fetched.
func testRuntime(t testing.TB) *Runtime {
	t.Helper()
	rt, err := OpenRuntime(RuntimeOptions{})
	if errors.Is(err, ErrRuntimeMissing) {
		t.Skipf("inference not tested: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.Close)
	return rt
}

// embedderManifest describes the embedders of onnxtest.
func embedderManifest(batch string) Manifest {
	return Manifest{
		Name: "test", Kind: KindEmbedder, Architecture: ArchEmbedding, Batch: batch,
		Input:  Input{Name: "input", Width: 112, Height: 112, Layout: "NCHW", Color: ColorRGB, Scale: [3]float32{1, 1, 1}},
		Output: Output{Name: "output", Dimension: 3},
	}
}

func testSession(t testing.TB, data []byte, opt SessionOptions) *Session {
	t.Helper()
	rt := testRuntime(t)
	s, err := rt.NewSession(&Resolved{Manifest: embedderManifest(BatchStatic), Data: data}, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if s.pool.live != 0 {
			t.Errorf("%d tensor sets alive after Close", s.pool.live)
		}
	})
	return s
}

var oneCrop, oneVector = []int64{1, 3, 112, 112}, [][]int64{{1, 3}}

// runMean feeds planes of the values v, v+1, v+2 and returns the answer.
func runMean(ctx context.Context, s *Session, v float32) (out [3]float32, err error) {
	err = s.Run(ctx, oneCrop, oneVector, func(in []float32) error {
		for i := range in {
			in[i] = v + float32(i/(112*112))
		}
		return nil
	}, func(outs [][]float32) error {
		copy(out[:], outs[0])
		return nil
	})
	return out, err
}

func TestRunGivesEachCallerItsOwnAnswer(t *testing.T) {
	s := testSession(t, onnxtest.MeanEmbedder(1), SessionOptions{Concurrency: 3})
	var wg sync.WaitGroup
	for g := range 12 {
		wg.Go(func() {
			for i := range 40 {
				v := float32(g*100 + i)
				got, err := runMean(t.Context(), s, v)
				if err != nil {
					t.Error(err)
					return
				}
				for c := range 3 {
					if math.Abs(float64(got[c]-v-float32(c))) > 0.01 {
						t.Errorf("caller %d: plane %d: mean %v, want %v", g, c, got[c], v+float32(c))
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if n := s.pool.live; n > 3 {
		t.Errorf("%d tensor sets alive after 480 runs with concurrency 3", n)
	}
}

// TestRunEndsWithItsContext runs a model that ends in no other way.
func TestRunEndsWithItsContext(t *testing.T) {
	s := testSession(t, onnxtest.EndlessEmbedder(), SessionOptions{Concurrency: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := runMean(ctx, s, 0.1); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the context's error", err)
	}
	// The session is as good as new, and its one slot is free again.
	ctx2, cancel2 := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel2)
	if _, err := runMean(ctx2, s, 0.1); !errors.Is(err, context.Canceled) {
		t.Fatalf("second run: got %v", err)
	}
	if _, err := runMean(ctx2, s, 0.1); !errors.Is(err, context.Canceled) {
		t.Fatalf("run with a context that has ended: got %v", err)
	}
	if got, err := runMean(t.Context(), s, -5); err != nil || got[0] != -5 {
		t.Fatalf("a run after those: %v, %v", got, err)
	}
}

func TestRunWaitingForASlotEndsWithItsContext(t *testing.T) {
	s := testSession(t, onnxtest.EndlessEmbedder(), SessionOptions{Concurrency: 1})
	busy, stop := context.WithCancel(t.Context())
	started, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.Run(busy, oneCrop, oneVector,
			func(in []float32) error { in[0] = 1; close(started); return nil },
			func([][]float32) error { return nil })
	}()
	<-started
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := runMean(ctx, s, 0.1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting run: got %v", err)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("busy run: got %v", err)
	}
}

// TestCloseWaitsForRunsUnderWay holds a run until Close has shut the door.
func TestCloseWaitsForRunsUnderWay(t *testing.T) {
	s := testSession(t, onnxtest.MeanEmbedder(1), SessionOptions{Concurrency: 2})
	started, goOn, finished := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		err := s.Run(context.Background(), oneCrop, oneVector,
			func(in []float32) error { clear(in); close(started); <-goOn; return nil },
			func([][]float32) error { return nil })
		if err != nil {
			t.Errorf("the run under way: %v", err)
		}
	}()
	<-started
	closed := make(chan struct{})
	go func() { s.Close(); close(closed) }()
	eventually(t, "nobody is let in any more", func() bool {
		s.gate.mu.Lock()
		defer s.gate.mu.Unlock()
		return s.gate.closed
	})
	select {
	case <-closed:
		t.Error("Close returned before the run had ended")
	default:
	}
	close(goOn)
	<-closed
	if s.pool.live != 0 {
		t.Errorf("%d tensor sets alive when Close returned", s.pool.live)
	}
	<-finished
	if _, err := runMean(t.Context(), s, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: got %v, want ErrClosed", err)
	}
	s.Close()
}

func TestRunPassesCallbackErrorsOnAndKeepsNothing(t *testing.T) {
	s := testSession(t, onnxtest.MeanEmbedder(1), SessionOptions{Concurrency: 1})
	mine := errors.New("mine")
	err := s.Run(t.Context(), oneCrop, oneVector, func([]float32) error { return mine }, nil)
	if err != mine {
		t.Errorf("fill: got %v", err)
	}
	err = s.Run(t.Context(), oneCrop, oneVector, func([]float32) error { return nil }, func([][]float32) error { return mine })
	if err != mine {
		t.Errorf("read: got %v", err)
	}
	// Shapes that the model does not have are an error of the runtime.
	err = s.Run(t.Context(), oneCrop, [][]int64{{1, 4}}, func([]float32) error { return nil }, func([][]float32) error { return nil })
	if !errors.Is(err, ErrRun) {
		t.Errorf("wrong output shape: got %v, want ErrRun", err)
	}
	err = s.Run(t.Context(), []int64{2, 3, 112, 112}, [][]int64{{2, 3}}, func([]float32) error { return nil }, func([][]float32) error { return nil })
	if !errors.Is(err, ErrRun) {
		t.Errorf("wrong input shape: got %v, want ErrRun", err)
	}
	for _, shape := range [][]int64{{0, 3, 112, 112}, {-1, 3, 112, 112}, {1 << 40, 1 << 40}} {
		if err := s.Run(t.Context(), shape, oneVector, nil, nil); !errors.Is(err, ErrRun) {
			t.Errorf("shape %v: got %v, want ErrRun", shape, err)
		}
	}
	if s.pool.live != 1 {
		t.Errorf("%d tensor sets alive, want the one that the pool keeps", s.pool.live)
	}
}

func TestPoolKeepsNoMoreThanItsShare(t *testing.T) {
	testRuntime(t)
	p := newTensorPool(2)
	for n := range int64(10) {
		a, err := p.get([]int64{1, n + 1}, [][]int64{{n + 1}})
		if err != nil {
			t.Fatal(err)
		}
		p.put(a)
	}
	if p.live != 2 || len(p.idle) != 2 {
		t.Errorf("%d alive, %d idle after 10 shapes; 2 should be kept", p.live, len(p.idle))
	}
	late, err := p.get([]int64{1, 10}, [][]int64{{10}})
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	p.put(late)
	if p.live != 0 {
		t.Errorf("%d alive after close", p.live)
	}
}

func TestNewSessionRefusesWhatIsNotTheModel(t *testing.T) {
	rt := testRuntime(t)
	good := onnxtest.MeanEmbedder(1)
	detector := Manifest{
		Name: "d", Kind: KindDetector, Architecture: ArchYuNet, Batch: BatchStatic,
		Input: Input{Width: 64, Height: 64, Layout: "NCHW", Color: ColorBGR, Scale: [3]float32{1, 1, 1}},
	}
	with := func(change func(*Manifest)) Manifest {
		m := embedderManifest(BatchStatic)
		change(&m)
		return m
	}
	graph := func(in, out onnxtest.Value) []byte {
		op := onnxtest.Node{Op: "ReduceMean", In: []string{in.Name}, Out: []string{out.Name},
			Ints: map[string][]int64{"axes": {2, 3}}, Int: map[string]int64{"keepdims": 0}}
		return onnxtest.Graph{Inputs: []onnxtest.Value{in}, Outputs: []onnxtest.Value{out}, Nodes: []onnxtest.Node{op}}.Bytes()
	}
	for _, tc := range []struct {
		name string
		man  Manifest
		data []byte
		want error
		text string
	}{
		{"empty", embedderManifest(BatchStatic), nil, ErrNotModel, "empty"},
		{"text", embedderManifest(BatchStatic), []byte("this is not a model"), ErrNotModel, "not ONNX"},
		{"cut short", embedderManifest(BatchStatic), good[:len(good)-20], ErrNotModel, "cut short"},
		{"zeros", embedderManifest(BatchStatic), make([]byte, 1000), ErrNotModel, "damaged"},
		{"input name", with(func(m *Manifest) { m.Input.Name = "data" }), good, ErrModelShape, `named "data"`},
		{"output name", with(func(m *Manifest) { m.Output.Name = "fc1" }), good, ErrModelShape, `named "fc1"`},
		{"dimension", with(func(m *Manifest) { m.Output.Dimension = 512 }), good, ErrModelShape, "N x 512"},
		{"batch", embedderManifest(BatchDynamic), good, ErrModelShape, "batch: dynamic"},
		{"detector", detector, good, ErrModelShape, "3 x 64 x 64"},
		{"batch of 4", embedderManifest(BatchStatic), onnxtest.MeanEmbedder(4), ErrModelShape, "exactly 4 images"},
		{"detector size", with(func(m *Manifest) { *m = detector; m.Input.Width, m.Input.Height = 32, 32 }), onnxtest.YuNet(64, nil), ErrModelShape, "3 x 32 x 32"},
		{"three-dimensional input", embedderManifest(BatchStatic),
			graph(onnxtest.Value{Name: "input", Elem: onnxtest.Float, Dims: []int64{1, 3, 64, 64}}, onnxtest.Value{Name: "output", Elem: onnxtest.Float, Dims: []int64{1, 3}}),
			ErrModelShape, "3 x 112 x 112"},
		{"integers", embedderManifest(BatchStatic),
			graph(onnxtest.Value{Name: "input", Elem: onnxtest.Int64, Dims: []int64{1, 3, 112, 112}}, onnxtest.Value{Name: "output", Elem: onnxtest.Int64, Dims: []int64{1, 3}}),
			nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := rt.NewSession(&Resolved{Manifest: tc.man, Data: tc.data}, SessionOptions{})
			if err == nil {
				s.Close()
				t.Fatal("a session was opened")
			}
			if tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v; want %v with %q", err, tc.want, tc.text)
			}
		})
	}
}

func TestNewSessionAfterRuntimeClose(t *testing.T) {
	testRuntime(t)
	rt, err := OpenRuntime(RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rt.Close()
	rt.Close()
	_, err = rt.NewSession(&Resolved{Manifest: embedderManifest(BatchStatic), Data: onnxtest.MeanEmbedder(1)}, SessionOptions{})
	if !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestRuntimesShareOneLibrary(t *testing.T) {
	a := testRuntime(t)
	b, err := OpenRuntime(RuntimeOptions{Library: a.Library()})
	if filepath.IsAbs(a.Library()) && err != nil {
		t.Fatal(err)
	}
	if err == nil {
		b.Close()
	}
	if a.Version() == "" {
		t.Error("no version")
	}
	other := filepath.Join(t.TempDir(), "libonnxruntime.so.1")
	if err := os.WriteFile(other, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRuntime(RuntimeOptions{Library: other}); !errors.Is(err, ErrRuntimeMissing) || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second library: got %v", err)
	}
	// The first is unharmed.
	s, err := a.NewSession(&Resolved{Manifest: embedderManifest(BatchStatic), Data: onnxtest.MeanEmbedder(1)}, SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := runMean(t.Context(), s, 1); err != nil {
		t.Error(err)
	}
}

// TestMissingLibraryMessage runs in a process of its own, because a library
// that has been loaded stays loaded.
func TestMissingLibraryMessage(t *testing.T) {
	if os.Getenv("MENSHEN_TEST_CHILD") != "" {
		_, err := OpenRuntime(RuntimeOptions{})
		if !errors.Is(err, ErrRuntimeMissing) {
			t.Fatalf("got %v, want ErrRuntimeMissing", err)
		}
		fmt.Println(err)
		return
	}
	dir := t.TempDir()
	text := write(t, filepath.Join(dir, "text.so"), []byte("not a library"))
	for lib, want := range map[string][]string{
		filepath.Join(dir, "none.so"): {"make runtime", LibraryEnv, "none.so", "no such file"},
		text:                          {"make runtime", "text.so", "cannot be loaded"},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMissingLibraryMessage$")
		cmd.Env = append(os.Environ(), "MENSHEN_TEST_CHILD=1", LibraryEnv+"="+lib)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				t.Errorf("%q is not in: %s", w, out)
			}
		}
	}
}

// TestMissingLibrary tries the places by hand, because a library that this
// process has loaded stays loaded.
func TestMissingLibrary(t *testing.T) {
	if err := loadLibrary(filepath.Join(t.TempDir(), "none.so")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
	if err := loadLibrary(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a folder: %v", err)
	}
	t.Setenv(LibraryEnv, "/elsewhere/lib.so")
	if got := libraryCandidates(""); len(got) != 1 || got[0] != "/elsewhere/lib.so" {
		t.Errorf("$%s: %v", LibraryEnv, got)
	}
	if got := libraryCandidates("/mine.so"); len(got) != 1 || got[0] != "/mine.so" {
		t.Errorf("explicit: %v", got)
	}
	t.Setenv(LibraryEnv, "")
	t.Setenv("XDG_CACHE_HOME", "/cache")
	t.Setenv("HOME", "/home/me")
	var found bool
	for _, c := range libraryCandidates("") {
		found = found || strings.Contains(c, filepath.Join("menshen", "onnxruntime", RuntimeVersion))
	}
	if !found {
		t.Errorf("the cache folder is not searched: %v", libraryCandidates(""))
	}
}
