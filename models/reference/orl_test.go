package reference_test

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/menshen-io/menshen/internal/fixtures"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/decode"
	"github.com/menshen-io/menshen/models/detect"
)

// Real faces: the 400 photographs of the ORL set, found and aligned by YuNet.
// The nearest other photograph is one of the same person in at least 97% of
// cases. No weight of the model comes from photographs.
func TestORLRankOne(t *testing.T) {
	dir := fixtures.Dir(t)
	rt := openRuntime(t)
	reg, err := models.OpenRegistry(models.Options{Dir: t.TempDir(), Runtime: rt})
	if err != nil {
		t.Fatal(err)
	}
	res, err := reg.Resolve(context.Background(), filepath.Join(dir, "models", "yunet_n_640_640.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.NewSession(res, models.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	det, err := detect.New(s, &res.Manifest, detect.Options{ScoreThreshold: 0.5})
	if err != nil {
		t.Fatal(err)
	}

	const people, shots = 40, 10
	crops := make([]*align.Crop, people*shots)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < len(crops); i += 4 {
				path := filepath.Join(dir, "orl", "s"+strconv.Itoa(i/shots+1), strconv.Itoa(i%shots+1)+".pgm")
				img, err := decode.ReadFile(path, decode.DefaultLimits())
				if err != nil {
					t.Error(err)
					return
				}
				found, err := det.Detect(context.Background(), img)
				if err != nil || len(found) == 0 {
					t.Errorf("%s: %d faces, error %v", path, len(found), err)
					return
				}
				if crops[i], err = align.Align(img, found[0].Landmarks); err != nil {
					t.Errorf("%s: %v", path, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}

	v := embedAll(t, openEmbedder(t), len(crops), func(i int) *align.Crop { return crops[i] })
	right := 0
	var mated, nonMated []float64
	for i := range v {
		best, who := -2.0, -1
		for j := range v {
			if i == j {
				continue
			}
			s := cosine(v[i], v[j])
			if s > best {
				best, who = s, j
			}
			if j > i && i/shots == j/shots {
				mated = append(mated, s)
			} else if j > i {
				nonMated = append(nonMated, s)
			}
		}
		if who/shots == i/shots {
			right++
		}
	}
	slices.Sort(mated)
	slices.Sort(nonMated)
	fnmr := func(fmr float64) float64 {
		at := nonMated[len(nonMated)-1-int(fmr*float64(len(nonMated)))]
		k, _ := slices.BinarySearch(mated, at)
		return float64(k) / float64(len(mated))
	}
	rank1 := float64(right) / float64(len(v))
	t.Logf("ORL: rank-1 leave-one-out %.4f, FNMR %.3f at FMR 1e-2, %.3f at 1e-3; non-mated median %.3f", rank1, fnmr(1e-2), fnmr(1e-3), nonMated[len(nonMated)/2])
	if rank1 < 0.97 {
		t.Errorf("rank-1 %.4f, want at least 0.97", rank1)
	}
	if f := fnmr(1e-2); f > 0.25 {
		t.Errorf("FNMR %.3f at FMR 1e-2, measured 0.206 when the model was made", f)
	}
}
