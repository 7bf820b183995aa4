// Fitreference computes the last layer of the reference model from synthetic
// faces and writes it to models/reference/projection.bin. Run it from the
// module's root after a change to the generator or to the model's features:
//
//	go run ./bench/faces/fitreference
//
// It needs ONNX Runtime, about a minute of one core, and no photograph.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/menshen-io/menshen/bench/faces"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/align"
	"github.com/menshen-io/menshen/models/embed"
	"github.com/menshen-io/menshen/models/reference"
)

func main() {
	out := flag.String("out", "models/reference/projection.bin", "file to write")
	flag.Parse()
	if err := fit(*out); err != nil {
		fmt.Fprintln(os.Stderr, "fitreference:", err)
		os.Exit(1)
	}
}

func fit(out string) error {
	rows, err := features(faces.New(reference.FitSeed), reference.FitPeople, reference.FitShots)
	if err != nil {
		return err
	}
	g := faces.New(reference.FitSeed)
	sum := reference.CropSum(func(person, shot int) []byte { return g.Crop(person, shot).Pix })
	data, err := reference.Fit(rows, reference.FitShots, sum)
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, data, 0o644); err != nil {
		return err
	}
	fmt.Printf("wrote %s: %d bytes from %d crops\n", out, len(data), len(rows))
	return nil
}

// features runs the feature network over a population: shots successive rows for
// each person.
func features(g *faces.Generator, people, shots int) ([][]float32, error) {
	rt, err := models.OpenRuntime(models.RuntimeOptions{})
	if err != nil {
		return nil, err
	}
	defer rt.Close()
	res := &models.Resolved{Manifest: reference.FeatureManifest(), Data: reference.FeatureModel()}
	session, err := rt.NewSession(res, models.SessionOptions{})
	if err != nil {
		return nil, err
	}
	defer session.Close()
	e, err := embed.New(session, &res.Manifest)
	if err != nil {
		return nil, err
	}
	rows := make([][]float32, people*shots)
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for person := w; person < people; person += workers {
				crops := make([]*align.Crop, shots)
				for k := range crops {
					crops[k] = g.Crop(person, k)
				}
				got, err := e.Embed(context.Background(), crops)
				if err != nil {
					once.Do(func() { first = err })
					return
				}
				copy(rows[person*shots:], got)
			}
		})
	}
	wg.Wait()
	return rows, first
}
