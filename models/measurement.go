package models

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// measurementKey is what a measurement holds for. A file that says otherwise is
// not used.
type measurementKey struct {
	Format   int    `json:"format"`
	Model    string `json:"model_sha256"`
	Runtime  string `json:"onnxruntime"`
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`  // that Go may use
	Tokens   int    `json:"tokens"` // of the budget
	Provider string `json:"provider"`
}

// measurementFormat is the version of the files, and of the way of measuring.
const measurementFormat = 2

// measurement is the content of a file.
type measurement struct {
	measurementKey
	Callers     int     `json:"callers"`
	IntraOp     int     `json:"intra_op"`
	Batch       int     `json:"batch"`
	IdleIntraOp int     `json:"idle_intra_op"`
	Rate        float64 `json:"images_per_s"`
	Latency     float64 `json:"idle_latency_s"`
}

// errNoMeasurement: nothing has been kept.
var errNoMeasurement = errors.New("no measurement is kept")

// maxMeasurement bounds a file.
const maxMeasurement = 4 << 10

// MeasurementDir is the folder of measurements where none is named:
// menshen/measurements in the user's cache folder; empty where there is none.
func MeasurementDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "menshen", "measurements")
}

func (m *measuring) key() measurementKey {
	p := m.opt.Provider
	if p == "" {
		p = ProviderCPU
	}
	sum := m.res.Manifest.SHA256
	if sum == "" {
		h := sha256.Sum256(m.res.Data)
		sum = hex.EncodeToString(h[:])
	}
	return measurementKey{measurementFormat, sum, m.rt.Version(), cpuName(), runtime.GOMAXPROCS(0), m.opt.Budget.Size(), string(p)}
}

// path is the file of k in dir.
func (k measurementKey) path(dir string) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%+v", k))
	return filepath.Join(dir, hex.EncodeToString(h[:16])+".json")
}

// load reads what was kept. Errors: errNoMeasurement, or why the file cannot be
// used.
func (k measurementKey) load(dir string) (Choice, error) {
	if dir == "" {
		return Choice{}, errNoMeasurement
	}
	path := k.path(dir)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Choice{}, errNoMeasurement
	}
	if err != nil {
		return Choice{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxMeasurement+1))
	if err != nil {
		return Choice{}, err
	}
	var got measurement
	if err := json.Unmarshal(data, &got); err != nil || len(data) > maxMeasurement {
		return Choice{}, fmt.Errorf("%s is damaged", path)
	}
	if got.measurementKey != k {
		return Choice{}, fmt.Errorf("%s is of another model or machine", path)
	}
	c := Choice{got.Callers, got.IntraOp, got.Batch, got.IdleIntraOp, got.Rate, time.Duration(got.Latency * 1e9), "kept"}
	if !k.plausible(c) {
		return Choice{}, fmt.Errorf("%s holds a choice that cannot be run", path)
	}
	return c, nil
}

// plausible reports whether measure could have chosen c.
func (k measurementKey) plausible(c Choice) bool {
	inside := func(n, most int) bool { return n >= 1 && n <= most }
	threads := min(k.Tokens, k.Cores)
	return inside(c.IntraOp, threads) && inside(c.IdleIntraOp, threads) && inside(c.Batch, maxBatch) &&
		c.Callers >= 1 && c.Callers*c.IntraOp <= k.Tokens && c.Rate > 0 && c.Latency > 0
}

// save keeps a choice. The file is there whole or not at all.
func (k measurementKey) save(dir string, c Choice) error {
	if dir == "" {
		return nil
	}
	data, err := json.MarshalIndent(measurement{k, c.Callers, c.IntraOp, c.Batch, c.IdleIntraOp, c.Rate, c.Latency.Seconds()}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = publish(f, k.path(dir))
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// cpuName is the name of the processor, or its architecture where the system
// does not say.
func cpuName() string {
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}
